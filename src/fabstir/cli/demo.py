"""`fabstir demo`: the whole market in one go."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from fabstir.cli.frame import COMMON, Common
from fabstir.domain.money import BaseUnits, format_units

if TYPE_CHECKING:
    from fabstir.demo.accounts import SessionRow
    from fabstir.demo.story import Report


class _Screen:
    """Shows the story on stderr, so that stdout holds the result alone."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def say(self, line: str) -> None:
        """One line with the time."""
        print(f"[{time.monotonic() - self._began:5.1f} s] {line}", file=sys.stderr)

    def hear(self, piece: str) -> None:
        """Text as it comes."""
        sys.stderr.write(piece)
        sys.stderr.flush()


def demo(*, common: Common = COMMON) -> int:
    """Bring up a chain, two hosts and a renter; talk; kill a host in the middle of an answer; go on; prove, settle and count.

    Exit code 0 only if all of it held: valid proofs, both sessions paid, the conversation survived, and what went in is what
    came out, to the last unit.
    """
    from fabstir.cli.running import run
    from fabstir.demo.story import play, stage
    from fabstir.ops import logging
    from fabstir.ops.config import LogSection

    logging.configure(LogSection(level="warning"))
    screen = _Screen()

    async def main(root: Path) -> Report:
        async with stage(root, screen) as market:
            return await play(market, screen)

    with tempfile.TemporaryDirectory(prefix="fabstir-demo-") as root:
        report = run(main(Path(root)))
    data: dict[str, Any] = msgspec.to_builtins(report)
    data["seconds"] = round(time.monotonic() - screen._began, 2)
    common.show(data, lambda: _table(report))
    return 0 if report.ok else 1


def _column(session: SessionRow) -> tuple[tuple[str, str], ...]:
    tokens = f"{session.tokens_served} / {session.tokens_acknowledged} / {session.tokens_proven}"
    return (
        ("tokens served / acknowledged / proven", tokens),
        ("deposit", format_units(BaseUnits(session.deposit))),
        ("paid", format_units(BaseUnits(session.paid))),
        ("of it fee", format_units(BaseUnits(session.fee))),
        ("refund", format_units(BaseUnits(session.refund))),
        ("gas", f"{session.gas:,}"),
        ("valid proof", "yes" if session.proof_valid else "NO"),
        ("time to first token", f"{session.ttft_ms:.1f} ms"),
        ("tokens per second", f"{session.tokens_per_s:.0f}"),
        ("proof time", f"{session.prove_s:.2f} s"),
    )


def _table(report: Report) -> object:
    from rich.console import Group
    from rich.table import Table

    table = Table(title="Sessions", pad_edge=False)
    table.add_column("")
    for session in report.sessions:
        table.add_column(f"{session.host[:10]}", justify="right")
    for row in zip(*(_column(session) for session in report.sessions), strict=True):
        table.add_row(row[0][0], *(text for _, text in row))
    money = report.conservation
    verdict = "conserved" if report.conserved else "NOT CONSERVED"
    return Group(
        table,
        f"Money {verdict}: the renter paid {money.renter_paid}, the hosts took out {money.hosts_withdrew}, the treasury "
        f"{money.treasury_withdrew}, {money.left_in_contract} base units are left in the contract.",
        f"{'All of it held' if report.ok else 'SOMETHING DID NOT HOLD'} ({report.seconds:.1f} s).",
    )
