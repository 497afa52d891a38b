"""Commands that the documentation names exist."""

from __future__ import annotations

import re
from pathlib import Path

from fabstir.cli.app import COMMANDS

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")]
NAMED = re.compile(r"(?:`|^ {4}|\n|\| )fabstir ([a-z][a-z-]+)", re.MULTILINE)


def test_every_command_in_the_documentation_exists() -> None:
    """A reader never types a command that is not there."""
    known = {command.name for command in COMMANDS}
    named = {(page.name, name) for page in PAGES for name in NAMED.findall(page.read_text(encoding="utf-8"))}
    assert {name for _, name in named} >= {"demo", "devnet", "host", "chat", "gateway", "wallet", "explain"}
    assert {(page, name) for page, name in named if name not in known} == set()


def test_every_command_is_in_the_documentation() -> None:
    """A command that nobody can find does not exist."""
    reference = (ROOT / "docs/reference/cli.md").read_text(encoding="utf-8")
    assert [command.name for command in COMMANDS if f"fabstir {command.name}" not in reference] == []
