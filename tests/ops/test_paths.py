"""Places: the XDG rules, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from fabstir.ops import paths


def test_absolute_xdg_variables_win(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each kind of file follows its own variable."""
    for variable in ("XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(variable, f"/{variable}")
    assert paths.config_dir() == Path("/XDG_CONFIG_HOME/fabstir")
    assert paths.data_dir() == Path("/XDG_DATA_HOME/fabstir")
    assert paths.cache_dir() == Path("/XDG_CACHE_HOME/fabstir")


@pytest.mark.parametrize("value", ["", "relative/place"])
def test_unset_or_relative_variables_fall_back_to_the_home(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    """The specification says that a relative path is to be ignored."""
    monkeypatch.setenv("HOME", "/somebody")
    monkeypatch.setenv("XDG_CONFIG_HOME", value)
    assert paths.config_dir() == Path("/somebody/.config/fabstir")
