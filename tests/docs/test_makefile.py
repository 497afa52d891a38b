"""The Makefile and the scripts that it stands on: what a newcomer types works, and what is missing is said."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

MAKEFILE = Path("Makefile").read_text("utf-8")
TARGETS = re.findall(r"^\.PHONY: ([a-z-]+)$", MAKEFILE, re.MULTILINE)


def stand_in(folder: Path, name: str, script: str) -> Path:
    """A program `name` in `folder` that is the shell script `script`."""
    program = folder / name
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return program


def shell(script: str, folder: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a script of tools/ that finds only the programs in `folder` (and the shell's own)."""
    bash = subprocess.run(["which", "bash"], capture_output=True, text=True, check=True).stdout.strip()
    return subprocess.run(
        [bash, f"tools/{script}"], env={"PATH": str(folder), **environ}, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("target", TARGETS)
def test_every_target_is_explained_in_the_help(target: str) -> None:
    """`make` alone prints them."""
    listed = subprocess.run(["make", "help"], capture_output=True, text=True, check=True).stdout
    assert re.search(rf"^{target} +\S", listed, re.MULTILINE)


def test_the_targets_of_the_documents_exist() -> None:
    """`make demo` in the README is a target of the Makefile."""
    texts = [Path("README.md"), Path("CONTRIBUTING.md"), *Path("docs").rglob("*.md")]
    named = {
        target
        for text in texts
        for line in re.findall(r"(?:^    |`)make ([a-z -]+)", text.read_text("utf-8"), re.MULTILINE)
        for target in line.split()
    }
    assert {"demo", "test", "install"} <= named
    assert named <= set(TARGETS)


def test_the_newest_python_with_wheels_is_taken_and_a_dead_shim_is_passed_over(tmp_path: Path) -> None:
    """A version manager leaves programs on PATH that start nothing."""
    stand_in(tmp_path, "python3.12", "exit 127")
    stand_in(tmp_path, "python3.11", "exit 0")
    stand_in(tmp_path, "python3", "exit 1")  # older than 3.11
    assert shell("find-python", tmp_path).stdout.strip() == str(tmp_path / "python3.11")


def test_a_python_can_be_named(tmp_path: Path) -> None:
    """`make PYTHON=...` wins over the search."""
    named = stand_in(tmp_path, "mine", "exit 0")
    stand_in(tmp_path, "python3.12", "exit 0")
    assert shell("find-python", tmp_path, PYTHON=str(named)).stdout.strip() == str(named)


def test_without_a_python_the_person_is_told_what_to_do(tmp_path: Path) -> None:
    """Not a traceback of make."""
    ran = shell("find-python", tmp_path)
    assert ran.returncode == 1
    assert "apt-get install python3" in ran.stderr


@pytest.mark.parametrize(
    ("node", "says"), [(None, "Node.js 20 or newer with npm was not found"), ("exit 1", "is too old")]
)
def test_without_a_new_enough_node_the_person_is_told(tmp_path: Path, node: str | None, says: str) -> None:
    """The contract tools would fail later and less clearly."""
    if node is not None:
        stand_in(tmp_path, "node", node)
        stand_in(tmp_path, "npm", "exit 0")
    ran = shell("check-node", tmp_path)
    assert ran.returncode == 1
    assert says in ran.stderr


def test_ci_runs_the_commands_of_the_readme() -> None:
    """What is checked is what a person is told to type."""
    assert Path(".ci/run").read_text("utf-8").rstrip().endswith("make check\nmake test")
    assert os.access(".ci/run", os.X_OK)
