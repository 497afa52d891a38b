"""The reference is what the code says: every page current, every setting, command, error code and metric in it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import cast

import pytest

from fabstir.api.routes import host_routes
from fabstir.cli.app import COMMANDS
from fabstir.domain.errors import CATALOGUE
from fabstir.host.node import HostNode
from fabstir.ops.metrics import Metrics
from fabstir.ops.settings import Setting, settings
from fabstir.protocol.matrix import MATRIX, Call
from fabstir.protocol.messages import HOST_TYPES, RENTER_TYPES

REFERENCE = Path("docs/reference")


def page(name: str) -> str:
    return (REFERENCE / name).read_text(encoding="utf-8")


def test_no_generated_page_is_stale() -> None:
    """Whoever changes the code runs `make docs`."""
    ran = subprocess.run(
        [sys.executable, "tools/generate_reference.py", "--check"], capture_output=True, text=True, check=False
    )
    assert (ran.returncode, ran.stderr) == (0, "")


def test_a_page_does_not_depend_on_who_makes_it(tmp_path: Path) -> None:
    """Another home and other places give the same pages."""
    ran = subprocess.run(
        [sys.executable, "tools/generate_reference.py", "--check"],
        capture_output=True,
        text=True,
        check=False,
        env={"HOME": str(tmp_path), "XDG_DATA_HOME": "/elsewhere", "XDG_CONFIG_HOME": "/elsewhere", "COLUMNS": "40"},
    )
    assert (ran.returncode, ran.stderr) == (0, "")


@pytest.mark.parametrize("setting", settings(), ids=lambda setting: setting.path)
def test_every_setting_is_documented(setting: Setting) -> None:
    """Name, variable and meaning."""
    line = next(line for line in page("configuration.md").splitlines() if f"`{setting.variable}`" in line)
    assert f"`{setting.name}`" in line
    assert setting.description.replace("|", "\\|") in line


def test_every_error_code_is_documented() -> None:
    """With what to do about it."""
    lines = page("errors.md").splitlines()
    for code, spec in CATALOGUE.items():
        line = next(line for line in lines if line.startswith(f"| `{code}` |"))
        assert spec.next_step.replace("|", "\\|") in line


def test_every_command_is_documented() -> None:
    """By its full name."""
    text = page("cli.md")
    assert all(f"## fabstir {command.name}\n" in text for command in COMMANDS)


def test_every_metric_is_documented() -> None:
    """By the name that Prometheus sees."""
    text = page("metrics.md")
    assert all(f"`{family.name}" in text for family in Metrics().registry.collect())


def test_every_message_is_documented() -> None:
    """Of both directions."""
    text = page("protocol.md")
    assert all(f"### `{kind}`\n" in text for kind in RENTER_TYPES | HOST_TYPES)


def test_every_route_of_a_host_is_documented() -> None:
    """With what it returns."""
    text = page("http.md")
    for route in host_routes(cast("HostNode", None)):
        assert all(f"### GET {path}\n" in text for path in route.paths)


def test_every_ending_and_call_is_documented() -> None:
    """The matrix and the rights."""
    text = page("settlement.md")
    assert all(f"| `{ending}` |" in text for _, ending, _ in MATRIX)
    assert all(f"| `{call}` |" in text for call in Call)
