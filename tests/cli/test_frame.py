"""The frame of every command: exit codes, JSON, errors, help, and a quick start."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from tests.cli.conftest import Fabstir

import fabstir as package
from fabstir.cli.app import COMMANDS, Command


def test_version(fabstir: Fabstir) -> None:
    """For people and as JSON; the number is the package's, and pyproject.toml's."""
    assert fabstir("version").out.startswith(f"fabstir {package.__version__} (Python 3.")
    assert fabstir("version", "--json").json()["version"] == package.__version__
    assert fabstir("--version").out.strip() == package.__version__
    assert tomllib.loads(Path("pyproject.toml").read_text())["project"]["version"] == package.__version__


def test_no_command_prints_the_help(fabstir: Fabstir) -> None:
    """A newcomer types the bare name first."""
    ran = fabstir()
    assert ran.code == 0
    assert all(f" {command.name} " in ran.out and command.help in ran.out for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_every_command_has_help_worth_reading(fabstir: Fabstir, command: Command) -> None:
    """It says what the command does, takes --json or has subcommands, and never runs anything."""
    ran = fabstir(command.name, "--help")
    assert ran.code == 0
    assert "--json" in ran.out
    assert len(ran.out) > 200


@pytest.mark.parametrize(
    "arguments", [("nope",), ("version", "--nope"), ("config", "nope"), ("explain", "error", "a", "b")]
)
def test_wrong_usage_is_exit_code_2_on_stderr(fabstir: Fabstir, arguments: tuple[str, ...]) -> None:
    """Scripts can tell a typing mistake from a refusal."""
    ran = fabstir(*arguments)
    assert ran.code == 2
    assert ran.out == ""
    assert ran.err.strip()


def test_an_error_says_code_detail_and_next_step(fabstir: Fabstir) -> None:
    """On stderr, exit code 1, no traceback."""
    ran = fabstir("config", "show", "--config", "absent.toml")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.splitlines() == [
        "Error config_missing: There is no configuration here.",
        "  absent.toml does not exist",
        "  Next: Run `fabstir host init`, or name one with --config.",
    ]


def test_an_error_as_json_is_one_object_on_stdout(fabstir: Fabstir) -> None:
    """A program reads one stream and finds the code."""
    ran = fabstir("config", "show", "--config", "absent.toml", "--json")
    assert (ran.code, ran.err) == (1, "")
    assert ran.json()["error"]["code"] == "config_missing"
    assert ran.json()["error"]["retryable"] is False


@pytest.mark.real
def test_a_quick_command_imports_nothing_heavy() -> None:
    """`fabstir version` starts in a fraction of a second because of what it does not import; no time is measured."""
    script = (
        "import sys\nfrom fabstir.cli.app import run\nrun(['version'])\n"
        "heavy = {'web3', 'aiohttp', 'litestar', 'uvicorn', 'ezkl', 'xllamacpp', 'numpy', 'prometheus_client', 'eth_account'}\n"
        "sys.exit(','.join(sorted(heavy & set(sys.modules))) or None)"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")


@pytest.mark.real
def test_the_installed_command_is_this_one() -> None:
    """The entry point of pyproject.toml works, and leaves with the command's exit code."""
    installed = Path(sys.executable).parent / "fabstir"
    assert subprocess.run([installed, "version"], capture_output=True, check=False).returncode == 0
    assert subprocess.run([installed, "nope"], capture_output=True, check=False).returncode == 2
