"""What of other settings a host that runs may take on: those that say so (`live`), all at once, and nothing of the rest.

Pure: two trees of settings in, one out, with the names of what changed. Reads nothing and applies nothing (`bootstrap.reloading` does).
"""

from __future__ import annotations

from typing import Any

import msgspec

from fabstir.ops.config import Config
from fabstir.ops.settings import check, settings


class Merged(msgspec.Struct, frozen=True):
    """Settings in force, and those that are not yet."""

    config: Config
    changed: tuple[str, ...]
    """Live ones that differ from before."""
    waiting: tuple[str, ...]
    """Those that differ and take effect at the next start."""


def merge(now: Config, wanted: Config) -> Merged:
    """`now` with all that is live in `wanted`. Raises LocalFault (`config_invalid`) where that does not hold together."""
    sections: dict[str, Any] = {}
    changed: list[str] = []
    waiting: list[str] = []
    for setting in settings():
        before, after = getattr(now, setting.section), getattr(wanted, setting.section)
        if setting.listed:
            if before != after and setting.section not in sections:
                sections[setting.section] = after
                changed.append(setting.section)
        elif getattr(before, setting.name) != getattr(after, setting.name):
            if setting.live:
                of = sections.get(setting.section, before)
                sections[setting.section] = msgspec.structs.replace(of, **{setting.name: getattr(after, setting.name)})
            (changed if setting.live else waiting).append(setting.path)
    merged = msgspec.structs.replace(now, **sections)
    check(merged)
    return Merged(merged, tuple(changed), tuple(waiting))
