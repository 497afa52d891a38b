"""What this host can still collect, job by job, as of the settler's last look: for health, metrics and the log.

Warns once for each chance that will soon be gone and that a pass of the settler did not take, and once for each dispute
that it did not answer. Deadlines go on while the chain cannot be asked: then the host's clock says how far. Decides
nothing and sends nothing; the rows are `fabstir.protocol.claims`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import msgspec
import structlog

from fabstir.domain.ids import Address, JobId
from fabstir.domain.terms import JobState
from fabstir.host.health import ClaimsPart
from fabstir.ops.metrics import Metrics
from fabstir.ports.clock import Clock
from fabstir.protocol.claims import Claim, Kind, TailAbove, any_amount, claims_of
from fabstir.protocol.host_log import HostLedger

log = structlog.get_logger("fabstir.settler")


class _Seen(msgspec.Struct, frozen=True):
    ledger: HostLedger
    job: JobState
    staked: bool


class Outlook:
    """Of one host. Memory: the contract's last known state of each open job."""

    def __init__(self, metrics: Metrics, clock: Clock, tail_above: TailAbove = any_amount) -> None:
        """`tail_above`: from which worth an unsigned tail in a currency is claimed."""
        self._metrics = metrics
        self._clock = clock
        self._tail_above = tail_above
        self._ahead = 0.0
        """The chain's time less the host's, when it was last asked."""
        self._seen: dict[JobId, _Seen] = {}
        self._warned: set[tuple[JobId, Kind, int]] = set()

    def __repr__(self) -> str:
        return f"<Outlook {len(self._seen)} jobs>"

    def rows(self) -> list[Claim]:
        """Every row, job by job, by the time that it is now."""
        now = int(self._clock.now() + self._ahead)
        return [
            row
            for seen in self._seen.values()
            for row in claims_of(
                seen.ledger,
                seen.job,
                now,
                tail_above=self._tail_above(seen.ledger.terms.token),
                staked=seen.staked,
            )
        ]

    def note(self, ledger: HostLedger, job: JobState, now: int, *, staked: bool = True) -> None:
        """What the contract says about one job. `now` is the chain's time."""
        self._ahead = now - self._clock.now()
        self._seen[ledger.job] = _Seen(ledger, job, staked)

    def forget(self, job: JobId) -> None:
        """Something of it was just collected: nothing is known until the next look."""
        self._seen.pop(job, None)

    def keep(self, jobs: set[JobId]) -> None:
        """A pass is over: forget every job that is not in `jobs`, show the sums, warn of what is left at risk."""
        self._seen = {job: seen for job, seen in self._seen.items() if job in jobs}
        rows = self.rows()
        self._show(rows)
        at_risk = {(row.job, row.kind, row.expires_at): row for row in rows if row.needs_care}
        for row in (row for key, row in at_risk.items() if key not in self._warned):
            log.warning(
                "claim_at_risk", job_id=row.job, state=row.kind.value, amount=row.amount, expires_at=row.expires_at
            )
        self._warned = {key for key in self._warned if key[0] in jobs} | at_risk.keys()

    def part(self, problems: int) -> ClaimsPart:
        """For `/health`; sets the gauges, too. `problems`: jobs whose settlement is delayed."""
        rows = self.rows()
        self._show(rows)
        expiring, disputed = sum(row.expires_soon for row in rows), sum(row.kind is Kind.ANSWER for row in rows)
        reason = f"{expiring} near their deadline or past it, {disputed} disputed: `fabstir claims` lists them"
        at_risk = expiring or disputed
        return ClaimsPart(
            status="degraded" if at_risk else "ok",
            reason=reason if at_risk else "",
            held=sum(row.kind is Kind.HELD for row in rows),
            disputed=disputed,
            expiring=expiring,
            problems=problems,
        )

    def _show(self, rows: list[Claim]) -> None:
        kinds = {Kind.HELD: self._metrics.claims_held, Kind.ANSWER: self._metrics.claims_disputed}
        for kind, gauge in kinds.items():
            gauge.show(_sums(row for row in rows if row.kind is kind))
        self._metrics.claimable.show(_sums(row for row in rows if row.kind not in kinds))
        self._metrics.claims_expiring.set(sum(row.expires_soon for row in rows))


def _sums(rows: Iterable[Claim]) -> Counter[Address]:
    """Of each token by itself."""
    sums = Counter[Address]()
    for row in rows:
        sums[row.token] += row.amount
    return sums
