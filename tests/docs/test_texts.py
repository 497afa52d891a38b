"""What is written by hand: links lead somewhere, and settings, variables and codes that a text names exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fabstir.domain.errors import CATALOGUE
from fabstir.ops.settings import CONFIG_VARIABLE, settings

TEXTS = sorted([*Path().glob("*.md"), *Path("docs").rglob("*.md")])
SECTIONS = "|".join(sorted({setting.section for setting in settings() if not setting.listed}))


@pytest.mark.parametrize("text", TEXTS, ids=str)
def test_every_link_inside_the_repository_leads_to_a_file(text: Path) -> None:
    """A moved page takes its links along."""
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", text.read_text("utf-8"))
    assert [target for target in targets if "://" not in target and not (text.parent / target).exists()] == []


@pytest.mark.parametrize("text", TEXTS, ids=str)
def test_every_setting_that_a_text_names_exists(text: Path) -> None:
    """In its dotted form or as a variable."""
    content = text.read_text("utf-8")
    paths = set(re.findall(rf"`((?:{SECTIONS})\.[a-z][a-z_]*)`", content))
    assert paths <= {setting.path for setting in settings()}
    variables = set(re.findall(rf"\bFABSTIR_(?:{SECTIONS.upper()})_[A-Z_]+\b", content))
    assert variables <= {setting.variable for setting in settings()} | {CONFIG_VARIABLE}


def test_every_page_of_the_how_to_and_each_decision_is_in_an_index() -> None:
    """A page that nothing links to is read by nobody."""
    readme = Path("README.md").read_text("utf-8")
    decisions = Path("docs/decisions/README.md").read_text("utf-8")
    assert all(f"docs/how-to/{page.name}" in readme for page in Path("docs/how-to").glob("*.md"))
    assert all(page.name in decisions for page in Path("docs/decisions").glob("[0-9]*.md"))


def test_the_troubleshooting_page_names_codes_that_exist() -> None:
    """In the column of what a person sees."""
    page = Path("docs/how-to/troubleshoot.md").read_text("utf-8")
    codes = set(re.findall(r"^\| `([a-z_]+)` \|", page, re.MULTILINE))
    assert codes
    assert codes <= CATALOGUE.keys()
