"""The tests of the contracts have teeth: mistakes that were put in on purpose are found. All of them: `contracts/tools/mutants.py`."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

CONTRACTS = Path(__file__).resolve().parent.parent.parent / "contracts"
MUTANTS = tomllib.loads((CONTRACTS / "tools/mutants.toml").read_text())["mutant"]


@pytest.mark.parametrize("mutant", MUTANTS, ids=[row["name"] for row in MUTANTS])
def test_each_mistake_still_fits(mutant: dict[str, str]) -> None:
    """Its text stands exactly once in the source, so that it changes what it says it changes."""
    assert (CONTRACTS / mutant["file"]).read_text().count(mutant["old"]) == 1
    assert mutant["old"] != mutant["new"]


@pytest.mark.real
def test_the_worst_are_killed() -> None:
    """A voucher above the deposit, a job that can be closed twice and an unbounded claim are found by the model within seconds."""
    command = [sys.executable, str(CONTRACTS / "tools/mutants.py"), "--quick"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 of 3 mutants killed" in done.stdout
