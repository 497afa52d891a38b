"""The command that a newcomer runs first."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest


@pytest.mark.real
@pytest.mark.scenario
def test_demo_holds() -> None:
    """`fabstir demo --json` prints one JSON object and nothing else on stdout, and all of it holds."""
    command = [sys.executable, "-m", "fabstir", "demo", "--json"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 0, ended.stderr[-2000:]
    report = json.loads(ended.stdout)
    assert report["ok"] and report["conserved"] and report["survived"]
    assert len(report["sessions"]) == 2
    for session in report["sessions"]:
        assert session["proof_valid"]
        assert 0 < session["tokens_acknowledged"] <= session["tokens_proven"] <= session["tokens_served"]
        assert session["deposit"] == session["paid"] + session["refund"]
        assert session["gas"] > 0 and session["prove_s"] > 0 and session["tokens_per_s"] > 0 and session["ttft_ms"] > 0
    paid = sum(session["paid"] for session in report["sessions"])
    money = report["conservation"]
    assert money["renter_paid"] == paid == money["hosts_withdrew"] + money["treasury_withdrew"]
    assert money["left_in_contract"] == 0
