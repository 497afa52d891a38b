"""`fabstir claims`: everything that the host on this machine can still collect, and what expires when."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from fabstir.cli.frame import CONFIGURED, Configured
from fabstir.domain.ids import ZERO_ADDRESS, Address, to_hex
from fabstir.domain.money import BaseUnits, format_units
from fabstir.protocol.claims import Claim, Kind, Urgency

if TYPE_CHECKING:
    from fabstir.bootstrap.claims import Outstanding

WORDS: Final = {
    Kind.REDEEM: "signed: redeem",
    Kind.PROVE: "signed: prove, then redeem",
    Kind.CLAIM: "unsigned: prove, then claim",
    Kind.HELD: "claimed: wait",
    Kind.SETTLE: "claimed: settle",
    Kind.ANSWER: "DISPUTED: open the records",
}


def claims(*, common: Configured = CONFIGURED) -> int:
    """What the host can collect now, what it must wait for, and what is gone when. Reads its journal and the chain; sends nothing.

    A host that runs does all of it by itself. Exit code 1 where something expires soon (within the hour, or half of the job's challenge
    window where that is shorter), is overdue or disputed: then see that the host runs and that its chain answers
    (`fabstir host status`, `fabstir doctor chain`). Prompt jobs that are not completed yet are not in it.
    """
    from fabstir.bootstrap.claims import read_claims
    from fabstir.cli.running import run

    found = run(read_claims(common.settings(quietly=True)))
    common.show(_as_data(found), lambda: _as_table(found))
    return 1 if any(claim.needs_care for claim in found.claims) else 0


def _as_data(found: Outstanding) -> dict[str, Any]:
    return {
        "now": found.now,
        "claims": [
            {
                "job": to_hex(claim.job),
                "kind": claim.kind.value,
                "token": to_hex(claim.token),
                "amount": str(claim.amount),
                "renter": to_hex(claim.renter),
                "available_at": claim.available_at,
                "expires_at": claim.expires_at,
                "urgency": claim.urgency.value,
            }
            for claim in found.claims
        ],
        "withdrawable": [{"token": to_hex(token), "amount": str(amount)} for token, amount in found.withdrawable],
        "unstaking": {"amount": str(found.unstaking), "available_at": found.stake_available_at},
        "jobs_elsewhere": found.elsewhere,
    }


def _as_table(found: Outstanding) -> object:
    from rich.console import Group
    from rich.table import Table

    table = Table(title="To collect, before the fee", box=None, pad_edge=False, title_justify="left")
    for heading in ("job", "what", "amount", "from", "gone at"):
        table.add_column(heading, overflow="fold")
    for claim in sorted(found.claims, key=lambda claim: (claim.expires_at or claim.available_at, claim.job)):
        table.add_row(
            to_hex(claim.job)[:10],
            WORDS[claim.kind],
            _money(claim.token, claim.amount),
            _when(claim.available_at) if claim.available_at else "now",
            _deadline(claim),
        )
    lines: list[object] = [table] if found.claims else ["No job has anything to collect."]
    for token, amount in found.withdrawable:
        lines.append(f"To withdraw: {_money(token, amount)}")
    if found.unstaking:
        lines.append(f"Stake asked back: {format_units(found.unstaking)}, available {_when(found.stake_available_at)}")
    if found.elsewhere:
        lines.append(f"Left out, open jobs of another chain or market than the settings name: {found.elsewhere}")
    return Group(*lines)  # type: ignore[arg-type]


def _money(token: Address, amount: BaseUnits) -> str:
    return format_units(amount, 18, "ETH") if token == ZERO_ADDRESS else format_units(amount)


def _deadline(claim: Claim) -> str:
    if not claim.expires_at:
        return ""
    mark = {Urgency.SOON: " (soon)", Urgency.GONE: " (overdue)", Urgency.LATER: ""}[claim.urgency]
    return _when(claim.expires_at) + mark


def _when(at: int) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")
