"""Is requirements.lock what pyproject.toml asks for? Needs no network, so `make check` works offline; `make lock` pins again.

Checks that the direct requirements are the same set, that each pin satisfies its specifier, that every pin has a hash, and that
no address of a package index is in the file. Does not check that the pins of indirect requirements are the best ones: that is uv's work.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT: Final = Path(__file__).resolve().parent.parent
LOCKED: Final = ("vectors", "p2p", "tracing", "nvidia")
"""Extras; as in the Makefile."""
PIN: Final = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)(?:\[.*\])?==(?P<version>[^ ;\\]+)")


def required(pyproject: str) -> dict[str, Requirement]:
    """Direct requirements by canonical name: the package's own, those of LOCKED extras, and those of the group `dev`."""
    tree = tomllib.loads(pyproject)
    extras = tree["project"].get("optional-dependencies", {})
    optional = [line for extra in LOCKED for line in extras.get(extra, ())]
    lines = [*tree["project"]["dependencies"], *optional, *tree["dependency-groups"]["dev"]]
    return {canonicalize_name(requirement.name): requirement for requirement in map(Requirement, lines)}


def blocks(lock: str) -> dict[str, str]:
    """The text of each pin, its hashes and its `via` comments, by canonical name."""
    found: dict[str, str] = {}
    name = ""
    for line in lock.splitlines():
        if pin := PIN.match(line):
            name = canonicalize_name(pin["name"])
            found[name] = found.get(name, "")
        if name:
            found[name] += line + "\n"
    return found


def problems(pyproject: str, lock: str) -> list[str]:
    """What is wrong, in words; empty where the two agree."""
    wanted, pinned = required(pyproject), blocks(lock)
    direct = {name for name, block in pinned.items() if "pyproject.toml" in block}
    told = [f"{name} is in pyproject.toml and not in the lock" for name in sorted(wanted.keys() - direct)]
    told += [f"{name} is in the lock and no longer in pyproject.toml" for name in sorted(direct - wanted.keys())]
    for name, requirement in sorted(wanted.items()):
        for version in re.findall(rf"^{PIN.pattern[1:]}", pinned.get(name, ""), re.MULTILINE):
            if not requirement.specifier.contains(version[1], prereleases=True):
                told.append(f"{name} is pinned to {version[1]}, pyproject.toml wants {requirement.specifier}")
    told += [f"{name} has no hash" for name, block in sorted(pinned.items()) if "--hash=sha256:" not in block]
    if re.search(r"https?://|--(extra-)?index-url|--find-links", lock):
        told.append("the lock names the address of a package index")
    return told


def main() -> int:
    """Print what is wrong; 1 where something is."""
    told = problems((ROOT / "pyproject.toml").read_text(), (ROOT / "requirements.lock").read_text())
    for line in told:
        print(f"requirements.lock: {line}. Run `make lock`.", file=sys.stderr)
    return 1 if told else 0


if __name__ == "__main__":
    sys.exit(main())
