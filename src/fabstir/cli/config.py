"""`fabstir config`: the settings in force, and where they come from. Never writes the file and never shows a secret."""

from __future__ import annotations

from typing import Any

import msgspec
from cyclopts import App

from fabstir.cli.frame import CONFIGURED, Configured

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
    from fabstir.ops.config import Config

    defaults = settings.plain(Config())
    lines: list[str] = []
    section = ""
    for setting in settings.settings():
        if setting.section != section:
            section = setting.section
            lines += ["", f"[{section}]"]
        value = values[setting.section][setting.name]
        is_default = value == defaults[setting.section][setting.name]
        text = f"{setting.name} = {msgspec.json.encode(value).decode()}" if value is not None else f"{setting.name} ="
        lines.append(f"{'# ' if is_default or setting.secret else ''}{text}")
    return "\n".join(lines).strip()
