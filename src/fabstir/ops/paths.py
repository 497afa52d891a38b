"""Where configuration, data and caches of this user live.

Follows the XDG base directory specification: an absolute `XDG_*_HOME` wins, a relative one is ignored as the
specification asks. Only names places: nothing is created here, and no other module asks the environment for a home.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

APPLICATION: Final = "fabstir"


def config_dir() -> Path:
    """What a person edits: config.toml and key files. `~/.config/fabstir`."""
    return _home("XDG_CONFIG_HOME", ".config")


def data_dir() -> Path:
    """What must survive: the journal, the address book. `~/.local/share/fabstir`."""
    return _home("XDG_DATA_HOME", ".local/share")


def cache_dir() -> Path:
    """What can be made or fetched again: programs, proving keys. `~/.cache/fabstir`."""
    return _home("XDG_CACHE_HOME", ".cache")


def _home(variable: str, fallback: str) -> Path:
    named = os.environ.get(variable, "")
    base = Path(named) if Path(named).is_absolute() else Path.home() / fallback
    return base / APPLICATION
