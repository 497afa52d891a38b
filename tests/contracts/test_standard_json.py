"""What explorers get: one file that compiles to the code on the chain, without any file beside it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fabstir.chain import artifacts

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.real
def test_the_standard_json_compiles_to_the_artifact(tmp_path: Path) -> None:
    """Of the contract with the most sources: every one is inside, and the compiler, which finds none elsewhere, makes the same bytes."""
    builder = ROOT / "contracts/tools/build.py"
    subprocess.run([sys.executable, str(builder), "--standard-json", str(tmp_path)], check=True, capture_output=True)
    text = (tmp_path / "JobMarketplace.json").read_text()
    only_stdin = (
        "const solc = require('solc'); process.stdout.write(solc.compile(require('fs').readFileSync(0, 'utf8')))"
    )
    done = subprocess.run(
        ["node", "-e", only_stdin], input=text, capture_output=True, text=True, check=True, cwd=ROOT / "contracts"
    )
    output: dict[str, Any] = json.loads(done.stdout)
    assert [fault["message"] for fault in output.get("errors", []) if fault["severity"] != "info"] == []
    compiled = output["contracts"]["src/JobMarketplace.sol"]["JobMarketplace"]["evm"]["bytecode"]["object"]
    assert bytes.fromhex(compiled) == artifacts.load("JobMarketplace").bytecode
    assert sorted(file.stem for file in tmp_path.iterdir()) == sorted(
        file.stem for file in (ROOT / "src/fabstir/chain/artifacts").glob("*.json")
    )
