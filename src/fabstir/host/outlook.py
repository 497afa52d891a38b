"""What this host can still collect, job by job, as of the settler's last look: for health, metrics and the log.

Warns once for each chance that will soon be gone, and once for each dispute. Decides nothing and sends nothing; the rows
are `fabstir.protocol.claims`.
"""

from __future__ import annotations

from collections.abc import Iterator

import structlog

from fabstir.domain.ids import JobId
from fabstir.domain.terms import JobState
from fabstir.ops.metrics import Metrics
from fabstir.protocol.claims import Claim, Kind, claims_of
from fabstir.protocol.host_log import HostLedger

log = structlog.get_logger("fabstir.settler")


class Outlook:
    """Of one host. Memory: at most three rows for each open job."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._rows: dict[JobId, tuple[Claim, ...]] = {}
        self._warned: set[tuple[JobId, Kind, int]] = set()

    def __repr__(self) -> str:
        return f"<Outlook {len(self._rows)} jobs>"

    def rows(self) -> Iterator[Claim]:
        """Every row, job by job."""
        return (row for rows in self._rows.values() for row in rows)

    def note(self, ledger: HostLedger, job: JobState, now: int) -> None:
        """Look at one job anew. `now` is the chain's time."""
        rows = claims_of(ledger, job, now)
        if rows:
            self._rows[ledger.job] = rows
        else:
            self._rows.pop(ledger.job, None)
        for row in rows:
            if row.needs_care or row.kind is Kind.ANSWER:
                self._warn(row)

    def keep(self, jobs: set[JobId]) -> None:
        """Forget every job that is not in `jobs`, then show the sums."""
        self._rows = {job: rows for job, rows in self._rows.items() if job in jobs}
        self._warned = {warned for warned in self._warned if warned[0] in jobs}
        kinds = {Kind.HELD: self._metrics.claims_held, Kind.ANSWER: self._metrics.claims_disputed}
        for kind, gauge in kinds.items():
            gauge.set(sum(row.amount for row in self.rows() if row.kind is kind))
        collectable = (row.amount for row in self.rows() if row.kind not in kinds)
        self._metrics.claimable.set(sum(collectable))
        self._metrics.claims_expiring.set(sum(row.needs_care for row in self.rows()))

    def _warn(self, row: Claim) -> None:
        key = (row.job, row.kind, row.expires_at)
        if key not in self._warned:
            self._warned.add(key)
            log.warning(
                "claim_at_risk", job_id=row.job, state=row.kind.value, amount=row.amount, expires_at=row.expires_at
            )
