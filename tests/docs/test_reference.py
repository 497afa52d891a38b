"""The reference is what the code says: every page current, every setting, command, error code and metric in it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import cast

import pytest

from fabstir.api.prompts import prompt_routes
from fabstir.api.routes import host_routes
from fabstir.cli.app import COMMANDS
from fabstir.cli.settlement import BOND_WORDS, KIND_TITLES, PAY_SHORT
from fabstir.domain.errors import CATALOGUE
from fabstir.host.node import HostNode
from fabstir.ops.metrics import Metrics
from fabstir.ops.settings import Setting, settings
from fabstir.protocol.matrix import MATRIX, RIGHTS, Kind
from fabstir.protocol.messages import HOST_TYPES, RENTER_TYPES
from fabstir.protocol.prompt_log import Stage
from fabstir.protocol.prompt_order_log import OrderStage

REFERENCE = Path("docs/reference")


def page(name: str) -> str:
    return (REFERENCE / name).read_text(encoding="utf-8")


@pytest.mark.real
def test_no_generated_page_is_stale() -> None:
    """Whoever changes the code runs `make docs`."""
    ran = subprocess.run(
        [sys.executable, "tools/generate_reference.py", "--check"], capture_output=True, text=True, check=False
    )
    assert (ran.returncode, ran.stderr) == (0, "")


@pytest.mark.real
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
    """Name, variable and meaning; in a table that may be there several times there is no variable."""
    heading = f"## [[{setting.section}]]" if setting.listed else f"## [{setting.section}]"
    _, table = page("configuration.md").split(heading + "\n")
    line = next(line for line in table.splitlines() if line.startswith(f"| `{setting.name}` |"))
    assert setting.listed or f"`{setting.variable}`" in line
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


def test_every_route_of_prompt_jobs_is_documented() -> None:
    """With its method."""
    text = page("http.md")
    for route in prompt_routes(None):
        (method,) = route.http_methods - {"HEAD"}
        assert all(f"### {method} {path.replace(':str', '')}\n" in text for path in route.paths)


def test_every_stage_of_a_prompt_job_is_documented() -> None:
    """At the host, at the renter, and on the board."""
    text = page("prompts.md")
    assert all(f"| `{stage.value}` |" in text for stages in (Stage, OrderStage) for stage in stages)


@pytest.mark.parametrize("kind", Kind)
def test_every_ending_is_documented(kind: Kind) -> None:
    """In the table of its kind, one row each: what it is, what the host gets under both policies, bond and stake, how the job closes."""
    section = page("settlement.md").split(f"## {KIND_TITLES[kind]}\n")[1].split("\n## ")[0]
    rows = {line.split("`")[1]: line for line in section.splitlines() if line.startswith("| `")}
    assert set(rows) == {ending.value for of, ending, _ in MATRIX if of is kind}
    for (of, ending, policy), cell in MATRIX.items():
        if of is kind:
            _, name, when, *gets, disputed, closed_by, _ = _cells(rows[ending])
            assert (name, when) == (f"`{ending}`", cell.when)
            assert gets[policy] == PAY_SHORT[cell.host_gets]
            assert disputed == f"{BOND_WORDS[cell.bond]}{' The host is slashed.' * cell.slashed}".strip()
            assert closed_by == " or ".join(cell.closed_by)


def _cells(row: str) -> list[str]:
    return [cell.strip() for cell in row.split("|")]


def test_every_right_is_documented() -> None:
    """Who, from when, until when, at what gas."""
    lines = page("settlement.md").split("## Who may call what\n")[1].splitlines()
    for right in RIGHTS:
        assert f"| `{right.call}` | {right.who} | {right.start} | {right.end} | {right.gas:,} |" in lines
