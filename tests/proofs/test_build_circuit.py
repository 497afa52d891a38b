"""tools/build_circuit.py and the checked-in circuit agree. (The contract needs a compiler from npm: `--check` alone compares it too.)"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fabstir.proofs.circuit import BIND_V1

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.real


def _check(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "tools/build_circuit.py"), "--check", "--no-contract", *options]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("circuit", ["bind", "spot"])
def test_the_checked_in_circuit_is_current(circuit: str) -> None:
    """Built again from the tool and the checked-in SRS, every file of the circuit has the same bytes."""
    result = _check("--circuit", circuit)
    assert result.returncode == 0, result.stdout + result.stderr


def test_a_stale_file_is_named(tmp_path: Path) -> None:
    """A file that differs from what the tool makes fails the check and is named."""
    folder = shutil.copytree(BIND_V1, tmp_path / "circuit")
    (folder / "settings.json").write_text("{}")
    result = _check("--folder", str(folder))
    assert result.returncode == 1 and "settings.json" in result.stdout and "vk.key" not in result.stdout


def test_an_unknown_srs_is_no_ceremony(tmp_path: Path) -> None:
    """--srs takes the ceremony's file only, told by its hash; anything else is refused before anything is built."""
    result = _check("--folder", str(tmp_path), "--srs", str(BIND_V1 / "kzg.srs"))
    assert result.returncode == 1 and "not the ceremony's SRS" in result.stderr
