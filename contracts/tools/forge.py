"""Runs the pinned forge in contracts/, offline, with the pinned compiler: `forge.py test`, `forge.py fmt --check`, any forge command.

Looks in $FORGE, then in node_modules, then on PATH (where another version may give other results, so it says which one it took).
Fetches nothing; `npm ci` in contracts/ brings forge.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
from pathlib import Path
from typing import Final

CONTRACTS: Final = Path(__file__).resolve().parent.parent
PLATFORMS: Final = {"x86_64": "amd64", "AMD64": "amd64", "aarch64": "arm64", "arm64": "arm64"}


def find_forge() -> str:
    """The path of forge. Exits with the next step where there is none."""
    named = os.environ.get("FORGE")
    if named:
        return named
    package = f"forge-{sys.platform}-{PLATFORMS.get(platform.machine(), platform.machine())}"
    pinned = CONTRACTS / "node_modules/@foundry-rs" / package / "bin/forge"
    if pinned.exists():
        return str(pinned)
    other = shutil.which("forge")
    if other is None:
        sys.exit("There is no forge here. Run `npm ci` in contracts/, or name one in $FORGE.")
    print(f"Using {other}, not the pinned forge", file=sys.stderr)
    return other


def main() -> None:
    """Become forge."""
    os.chdir(CONTRACTS)
    forge = find_forge()
    os.execv(forge, [forge, *(sys.argv[1:] or ["test"])])


if __name__ == "__main__":
    main()
