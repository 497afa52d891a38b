"""`fabstir config show`: what is in force, in a form that can be saved as a file."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from tests.cli.conftest import Fabstir

from fabstir.ops import settings
from fabstir.ops.config import Config


def test_what_is_set_stands_out_and_defaults_are_comments(fabstir: Fabstir, tmp_path: Path) -> None:
    """The text is a configuration file again, with the same meaning."""
    file = tmp_path / "c.toml"
    file.write_text("[host]\nprice_per_mtok = 5\n[proofs]\naccepted = ['required']\n")
    shown = fabstir("config", "show", "--config", str(file)).out
    assert "\nprice_per_mtok = 5\n" in shown
    assert "\n# min_deposit = 10000\n" in shown
    assert settings.from_tree(tomllib.loads(shown)) == settings.load(file, environ={})


def test_uncommented_every_line_is_a_valid_default(fabstir: Fabstir) -> None:
    """A person can remove the `#` of any line that has a value."""
    lines = fabstir("config", "show").out.splitlines()
    text = "\n".join(line.removeprefix("# ") for line in lines if not line.endswith("="))
    assert settings.from_tree(tomllib.loads(text)) == Config()


def test_as_json_every_setting_is_there(fabstir: Fabstir) -> None:
    """Sections and names as in the file."""
    shown = fabstir("config", "show", "--json").json()
    for setting in settings.settings():
        assert all(setting.name in table for table in settings.tables(shown, setting.section))


def test_further_engines_are_shown_as_they_are_written(fabstir: Fabstir, tmp_path: Path) -> None:
    """One table each, that can be read back; their keys are covered."""
    file = tmp_path / "engines.toml"
    file.write_text(
        '[[engines]]\nkind = "openai"\nbase_url = "http://one/v1"\napi_key = "open-sesame"\nprice_per_mtok = 7\n'
        '[[engines]]\nkind = "openai"\nbase_url = "http://two/v1"\n'
    )
    shown = fabstir("config", "show", "--config", str(file)).out
    assert "open-sesame" not in shown
    engines = settings.from_tree(tomllib.loads(shown)).engines
    assert [(each.base_url, each.price_per_mtok) for each in engines] == [("http://one/v1", 7), ("http://two/v1", None)]


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_no_secret_is_printed(fabstir: Fabstir, monkeypatch: pytest.MonkeyPatch, form: tuple[str, ...]) -> None:
    """In neither form."""
    monkeypatch.setenv("FABSTIR_ENGINE_API_KEY", "open-sesame")
    shown = fabstir("config", "show", *form).out
    assert "open-sesame" not in shown
    assert "(set)" in shown
