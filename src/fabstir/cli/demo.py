"""`fabstir demo`: the whole market in one go."""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from cyclopts import Parameter

from fabstir.cli.frame import COMMON, Common
from fabstir.cli.gateway import examples
from fabstir.domain.money import BaseUnits, format_units

if TYPE_CHECKING:
    from fabstir.demo.accounts import SessionRow
    from fabstir.demo.story import Report, Stage


class _Screen:
    """Shows the story on stderr, so that stdout holds the result alone."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    @property
    def seconds(self) -> float:
        """Since the start."""
        return round(time.monotonic() - self._began, 2)

    def say(self, line: str) -> None:
        """One line with the time."""
        print(f"[{time.monotonic() - self._began:5.1f} s] {line}", file=sys.stderr)

    def hear(self, piece: str) -> None:
        """Text as it comes."""
        sys.stderr.write(piece)
        sys.stderr.flush()


def demo(
    *,
    keep: Annotated[bool, Parameter(negative="", help="Leave the market running afterwards, until Ctrl-C.")] = False,
    common: Common = COMMON,
) -> int:
    """Bring up a chain, two hosts and a renter; talk; kill a host in the middle of an answer; go on; prove, settle and count.

    Exit code 0 only if all of it held: valid proofs, both sessions paid, the conversation survived, and what went in is what
    came out, to the last unit. With --keep the addresses and two ways to talk to the market are printed as well.
    """
    from fabstir.cli.running import run_until_stopped
    from fabstir.demo.story import keep as leave_running
    from fabstir.demo.story import play, stage
    from fabstir.ops import logging
    from fabstir.ops.config import LogSection

    logging.configure(LogSection(level="warning"))
    screen = _Screen()

    async def main(root: Path, stop: asyncio.Event) -> Report:
        async with stage(root, screen) as market:
            report = await _unless_stopped(play(market, screen), stop)
            data = msgspec.to_builtins(report) | {"seconds": screen.seconds}
            common.show(data, lambda: _table(report))
            if keep:
                await leave_running(market, stop, lambda url: screen.say(_kept(market, url)))
            return report

    with tempfile.TemporaryDirectory(prefix="fabstir-demo-") as root:
        report = run_until_stopped(lambda stop: main(Path(root), stop))
    return 0 if report.ok else 1


async def _unless_stopped(work: Coroutine[Any, Any, Report], stop: asyncio.Event) -> Report:
    """The result of `work`; Ctrl-C ends it in order, everything that was started goes down."""
    playing, stopping = asyncio.ensure_future(work), asyncio.ensure_future(stop.wait())
    await asyncio.wait((playing, stopping), return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not playing.done():
        playing.cancel()
        await asyncio.gather(playing, return_exceptions=True)
        raise KeyboardInterrupt
    return playing.result()


def _kept(market: Stage, url: str) -> str:
    from fabstir.ports.chain import contract_addresses

    lines = [f"  {name:10} {place}" for name, place in contract_addresses(market.net.info).items()]
    lines += [f"  host {name}    {host.url}" for name, host in market.hosts.items()]
    lines += [f"  chain     {market.net.url}", f"  renter    0x{market.renter_account.hex()}", f"  gateway   {url}/v1"]
    return "the market runs on, Ctrl-C ends it\n" + "\n".join(lines) + "\n\n" + examples(f"{url}/v1")


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
