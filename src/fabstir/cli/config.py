"""`fabstir config`: the settings in force, and where they come from. Never writes the file and never shows a secret."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Any

import msgspec
from cyclopts import App

from fabstir.cli.frame import CONFIGURED, Configured

if TYPE_CHECKING:
    from fabstir.ops.settings import Setting

app = App(name="config", help="The settings in force.", group_commands="Commands")


@app.command
def show(*, common: Configured = CONFIGURED) -> None:
    """Print every setting as it is after file and environment.

    For people it is a configuration file: what differs from the default stands as it is, the rest is commented out. Secrets are covered.
    """
    from fabstir.ops import settings

    config = common.settings()
    common.show(settings.plain(config), lambda: _as_toml(settings.plain(config)))


def _as_toml(values: dict[str, dict[str, Any]]) -> str:
    from fabstir.ops import settings
    from fabstir.ops.config import Config, FurtherEngine

    defaults = settings.plain(Config())
    lines: list[str] = []
    for section, members in groupby(settings.settings(), key=lambda setting: setting.section):
        named = tuple(members)
        of = msgspec.to_builtins(FurtherEngine(), enc_hook=str) if named[0].listed else defaults[section]
        for values_of in settings.tables(values, section):
            lines += ["", f"[[{section}]]" if named[0].listed else f"[{section}]"]
            lines += [_line(setting, values_of[setting.name], of[setting.name]) for setting in named]
    return "\n".join(lines).strip()


def _line(setting: Setting, value: Any, default: Any) -> str:
    text = f"{setting.name} = {msgspec.json.encode(value).decode()}" if value is not None else f"{setting.name} ="
    return f"{'# ' if value == default or setting.secret else ''}{text}"
