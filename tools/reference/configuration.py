"""docs/reference/configuration.md, from the tree of settings in `fabstir.ops.config`."""

from __future__ import annotations

import os
from inspect import cleandoc
from itertools import groupby
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints
from unittest import mock

from fabstir.ops import settings
from fabstir.ops.config import Config
from reference.table import table

INTRODUCTION = """\
# Settings

Read from `~/.config/fabstir/config.toml` (`$XDG_CONFIG_HOME` is respected; `--config FILE` or `$FABSTIR_CONFIG` names another file), then
overridden by environment variables `FABSTIR_<SECTION>_<NAME>`; a list is written there with commas. Unknown keys and variables are
refused with their place. `fabstir config show` prints what is in force, secrets covered. Amounts of money are base units (1e-6 USDC).

A host that runs follows its file: settings that are *live* take effect when it is written (or on SIGHUP, or `fabstir host reload`), all at
once; the others at the next start. A file that is not valid changes nothing, and `/health` says so (`settings`)."""


def render() -> str:
    """The page: one table per section."""
    # The defaults of paths depend on the home: show them as for a person who set nothing.
    with mock.patch.dict(os.environ, {name: "" for name in os.environ if name.startswith("XDG_")}):
        defaults = Config()
    parts = [INTRODUCTION]
    for section, members in groupby(settings.settings(), key=lambda setting: setting.section):
        hint = get_type_hints(Config)[section]
        table_type = get_args(hint)[0] if get_origin(hint) is tuple else hint
        of = table_type() if table_type is not hint else getattr(defaults, section)
        parts.append(f"## {_heading(section, listed=table_type is not hint)}\n\n{cleandoc(table_type.__doc__)}")
        rows = [
            (
                f"`{member.name}`",
                member.kind,
                _shown(getattr(of, member.name)),
                "" if member.listed else f"`{member.variable}`",
                "yes" if member.live else "",
                member.description,
            )
            for member in members
        ]
        parts.append(table(("Setting", "Type", "Default", "Variable", "Live", "Meaning"), rows))
    return "\n\n".join(parts)


def _heading(section: str, *, listed: bool) -> str:
    return f"[[{section}]]" if listed else f"[{section}]"


def _shown(value: Any) -> str:
    if value is None:
        return "unset"
    if isinstance(value, Path):
        return f"`~/{value.relative_to(Path.home())}`"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple):
        return ", ".join(_shown(part) for part in value)
    return f"`{value}`"
