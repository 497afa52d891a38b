"""Writes docs/reference/*.md from the code, or with --check says which page is stale. `make docs` and `make check` call it.

A page is one row of PAGES and one module in tools/reference with `render() -> str`, deterministic: no date, no path, no version of
anything that is not pinned. A page that is written by hand is not in PAGES and is left alone.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from reference import (
    channel,
    cli,
    configuration,
    errors,
    gateway,
    http,
    metrics,
    prompts,
    protocol,
    session,
    settlement,
)

TARGET: Final = Path(__file__).resolve().parent.parent / "docs" / "reference"
HEADER: Final = (
    "<!-- Generated from the code by tools/generate_reference.py. Change the code, then run `make docs`. -->\n\n"
)

PAGES: Final[dict[str, Callable[[], str]]] = {
    "channel.md": channel.render,
    "cli.md": cli.render,
    "configuration.md": configuration.render,
    "errors.md": errors.render,
    "gateway.md": gateway.render,
    "http.md": http.render,
    "metrics.md": metrics.render,
    "prompts.md": prompts.render,
    "protocol.md": protocol.render,
    "session.md": session.render,
    "settlement.md": settlement.render,
}


def render(name: str) -> str:
    """The page as it should be, with one line break at its end."""
    return HEADER + PAGES[name]().strip() + "\n"


def stale() -> list[str]:
    """Names of the pages that differ from what the code says, or are missing."""
    return [
        name for name in PAGES if not (TARGET / name).exists() or (TARGET / name).read_text("utf-8") != render(name)
    ]


def main(arguments: list[str]) -> int:
    """Write the stale pages; with --check only name them and return 1."""
    names = stale()
    if "--check" in arguments:
        for name in names:
            print(f"docs/reference/{name} is not what the code says. Run `make docs`.", file=sys.stderr)
        return 1 if names else 0
    TARGET.mkdir(parents=True, exist_ok=True)
    for name in names:
        (TARGET / name).write_text(render(name), "utf-8")
        print(f"wrote docs/reference/{name}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
