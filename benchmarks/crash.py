"""Claim: a host that dies at any journal write loses at most W tokens and is never paid twice. The peer is the bound W.

A whole conversation is served, proven and settled for each kill point; `--quick` tries a few, the full run every write, before and after.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
from pathlib import Path
from typing import Any

from common import main

from fabstir.demo.crash import KillPoint, Phase, crash_market
from fabstir.ops import logging
from fabstir.ops.config import LogSection

QUICK: tuple[tuple[int, Phase], ...] = ((3, "after"), (8, "before"), (13, "after"), (22, "before"))
MOST_WRITES = 80
EXPOSURE = 64


async def _run(quick: bool) -> list[KillPoint]:
    points = []
    with tempfile.TemporaryDirectory(prefix="fabstir-crash-") as root:
        async with crash_market(Path(root)) as market:
            if quick:
                return [await market.run(write, phase) for write, phase in QUICK]
            phases: tuple[Phase, ...] = ("before", "after")
            for write in range(1, MOST_WRITES):
                runs = [await market.run(write, phase) for phase in phases]
                points += runs
                if not any(run.killed for run in runs):
                    break
    return points


def measure(quick: bool) -> dict[str, Any]:
    """Worst loss over all kill points."""
    logging.configure(LogSection(level="error"))
    points = [point for point in asyncio.run(_run(quick)) if point.killed]
    lost = [point.tokens_received - point.tokens_paid for point in points]
    recovery = [point.recovery_s for point in points]
    return {
        "claim": "a crash at any journal write costs the host at most W tokens",
        "ours": max(lost),
        "peer": EXPOSURE,
        "ratio": round(max(lost) / EXPOSURE, 3),
        "unit": "tokens lost in the worst run",
        "n": len(points),
        "paid_twice_tokens": sum(max(0, point.tokens_paid - point.tokens_signed) for point in points),
        "faults": sum(1 for point in points if point.fault(EXPOSURE)),
        "recovery_median_s": round(statistics.median(recovery), 2),
        "recovery_worst_s": round(max(recovery), 2),
    }


if __name__ == "__main__":
    main(measure, __doc__ or "")
