"""`fabstir host models|load|unload|switch|reload`: what is told to a host that runs on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from cyclopts import App, Parameter

from fabstir.cli.frame import CONFIGURED, Configured
from fabstir.domain.errors import error

if TYPE_CHECKING:
    from fabstir.api.control import Command, Said
    from fabstir.host.shelf import ModelPart

NAME_HELP = "Its name or its id, as `fabstir host models` shows them."


def add_to(app: App) -> None:
    """The commands, under their names."""
    for command in (models, load, unload, switch, reload, revoke):
        app.command(command)


def models(*, common: Configured = CONFIGURED) -> None:
    """List the models of the host on this machine, and how each stands."""
    from fabstir.api.control import ListModels

    _show(common, _tell(common, ListModels()))


def load(model: Annotated[str, Parameter(help=NAME_HELP)], /, *, common: Configured = CONFIGURED) -> None:
    """Load a model that is not loaded. Returns when it serves."""
    from fabstir.api.control import LoadModel

    _show(common, _tell(common, LoadModel(model)))


def unload(model: Annotated[str, Parameter(help=NAME_HELP)], /, *, common: Configured = CONFIGURED) -> None:
    """Free what a model holds: running answers end first, what comes is refused with `model_unloaded`. It stays registered."""
    from fabstir.api.control import UnloadModel

    _show(common, _tell(common, UnloadModel(model)))


def switch(
    model: Annotated[str, Parameter(help=f"What is unloaded. {NAME_HELP}")],
    into: Annotated[str, Parameter(help=f"What is loaded in its place. {NAME_HELP}")],
    /,
    *,
    common: Configured = CONFIGURED,
) -> None:
    """Unload one model and load another. Requests of the other wait in line meanwhile; where it cannot be loaded, the first comes back."""
    from fabstir.api.control import SwitchModel

    _show(common, _tell(common, SwitchModel(model, into)))


def revoke(
    *,
    job: Annotated[str | None, Parameter(help="Those of one job: 0x and 64 digits.")] = None,
    session: Annotated[str | None, Parameter(help="Those of one session id.")] = None,
    token_id: Annotated[str | None, Parameter(help="One token, by its `jti`.")] = None,
    common: Configured = CONFIGURED,
) -> None:
    """Make tokens for reconnects worthless, all of them where nothing is named. Running sessions go on; who reconnects signs again."""
    from fabstir.api.control import RevokeTokens

    _tell(common, RevokeTokens(job=job, session=session, token_id=token_id))
    what = {name: value for name, value in (("job", job), ("session", session), ("token_id", token_id)) if value}
    common.show({"revoked": what or "all"}, lambda: f"Revoked: {what or 'all tokens'}.")


def reload(*, common: Configured = CONFIGURED) -> None:
    """Read the settings again, as SIGHUP does. What is not valid changes nothing; what takes effect at the next start only is listed."""
    from fabstir.api.control import ReloadSettings

    said = _tell(common, ReloadSettings())
    done: dict[str, Any] = dict(said.reloaded or {})
    common.show(done, lambda: _reloaded(done))


def _tell(common: Configured, command: Command) -> Said:
    from fabstir.api.control import tell
    from fabstir.cli.host import running_host
    from fabstir.cli.running import run

    running = running_host(common.settings(quietly=True))
    if not running.control:
        raise error("host_not_running", "it was started by a version that takes no commands")
    return run(tell(Path(running.control), command))


def _show(common: Configured, said: Said) -> None:
    common.show(msgspec.to_builtins(said.models), lambda: _table(said.models))


def _table(parts: Sequence[ModelPart]) -> str:
    lines = []
    for part in parts:
        wait = f", {part.waiting} wait about {part.wait_s:.0f} s" if part.waiting else ""
        reason = f": {part.reason}" if part.reason else ""
        lines.append(f"  {part.status:9} {part.name or '(never loaded)'}  {part.running} running{wait}{reason}")
        lines.append(f"            {part.model_id}")
        lines += [
            f"            {engine.name}: {engine.status}, {engine.active} of {engine.places}"
            for engine in part.engines
            if len(part.engines) > 1
        ]
    return "\n".join(lines)


def _reloaded(done: dict[str, Any]) -> str:
    lines = [f"Took effect: {', '.join(done.get('changed', ())) or 'nothing'}."]
    if waiting := done.get("waiting"):
        lines.append(f"At the next start: {', '.join(waiting)}.")
    lines += [f"Not loaded: {name}: {reason}" for name, reason in done.get("failed", {}).items()]
    return "\n".join(lines)
