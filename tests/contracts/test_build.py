"""What is checked in is what the sources give, and whoever changes a source without building is told so."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent


def check(root: Path) -> subprocess.CompletedProcess[str]:
    """`build.py --check` in a copy of the repository."""
    command = [sys.executable, str(root / "contracts/tools/build.py"), "--check"]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=root, env={**os.environ})


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The parts that the check looks at, without a compiler."""
    for name in ("src", "tools"):
        shutil.copytree(ROOT / "contracts" / name, tmp_path / "contracts" / name)
    shutil.copytree(ROOT / "contracts/test", tmp_path / "contracts/test")
    shutil.copy(ROOT / "contracts/package.json", tmp_path / "contracts")
    shutil.copytree(ROOT / "src/fabstir/chain/artifacts", tmp_path / "src/fabstir/chain/artifacts")
    shutil.copytree(ROOT / "tests/contracts/artifacts", tmp_path / "tests/contracts/artifacts")
    shutil.copy(ROOT / "src/fabstir/chain/bindings.py", tmp_path / "src/fabstir/chain")
    (tmp_path / "docs/reference").mkdir(parents=True)
    shutil.copy(ROOT / "docs/reference/contracts.md", tmp_path / "docs/reference")
    return tmp_path


@pytest.mark.real
def test_checked_in_files_are_current(copy: Path) -> None:
    """Sources, artifacts, bindings and reference page belong together, also where there is no Node."""
    done = check(copy)
    assert done.returncode == 0, done.stderr
    assert "by source hash" in done.stdout


@pytest.mark.real
@pytest.mark.parametrize(
    ("file", "told"),
    [
        ("contracts/src/SumTree.sol", "JobMarketplace: the sources have changed"),
        ("contracts/package.json", "TestUSDC: the sources have changed"),
        ("src/fabstir/chain/bindings.py", "bindings.py: differs"),
        ("docs/reference/contracts.md", "contracts.md: differs"),
    ],
)
def test_each_change_is_noticed(copy: Path, file: str, told: str) -> None:
    """A changed import, version, binding or page is found without a compiler."""
    text = (copy / file).read_text()
    changed = text.replace('"solc": "', '"solc": "9') if file.endswith("json") else text + "\n// changed\n"
    (copy / file).write_text(changed)
    done = check(copy)
    assert done.returncode != 0
    assert told in done.stderr


@pytest.mark.real
def test_forgotten_artifacts_are_noticed(copy: Path) -> None:
    """Neither a missing artifact nor one of no contract passes."""
    (copy / "src/fabstir/chain/artifacts/TestUSDC.json").rename(copy / "src/fabstir/chain/artifacts/Gone.json")
    done = check(copy)
    assert "TestUSDC: no artifact" in done.stderr and "Gone.json: of no contract" in done.stderr


def test_lock_names_no_registry() -> None:
    """The lock pins contents by hash and says nothing about where they come from."""
    packages = json.loads((ROOT / "contracts/package-lock.json").read_text())["packages"]
    fetched = {name: entry for name, entry in packages.items() if name}
    assert fetched
    assert all("integrity" in entry and "resolved" not in entry for entry in fetched.values())


def test_versions_are_exact() -> None:
    """No range anywhere: the bytecode depends on it."""
    package = json.loads((ROOT / "contracts/package.json").read_text())
    versions = [*package["dependencies"].values(), *package["optionalDependencies"].values()]
    assert all(version.replace(".", "").isdigit() for version in versions)
