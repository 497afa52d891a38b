"""The budget of one session or gateway: deposits are taken from it, and come back when the contract has settled.

Pure bookkeeping. At any time the deposits of open jobs and what settled jobs cost are together at most the budget, so
nothing that a host does can make the renter lose more.
"""

from __future__ import annotations

from fabstir.domain.errors import error
from fabstir.domain.ids import JobId
from fabstir.domain.money import BaseUnits

PARTS = 4
"""A job takes this part of the budget, so that there is something left to move on with when a host fails."""


class Purse:
    """What may be spent. Memory: one number for each job."""

    def __init__(self, budget: BaseUnits, parts: int = PARTS) -> None:
        """`parts`: jobs that find room beside each other before any of them has settled."""
        self.budget = budget
        self._parts = parts
        self._committed: dict[JobId, BaseUnits] = {}

    def __repr__(self) -> str:
        return f"<Purse {self.left} of {self.budget} left, {len(self._committed)} jobs>"

    @property
    def left(self) -> BaseUnits:
        """What may still be deposited."""
        return BaseUnits(self.budget - sum(self._committed.values()))

    def deposit_for(self, smallest: BaseUnits) -> BaseUnits:
        """How much to deposit with a host that takes at least `smallest`. Raises Refused (`budget_exceeded`)."""
        if self.left <= 0 or self.left < smallest:
            raise error(
                "budget_exceeded", f"{self.left} of {self.budget} base units left, the host takes {smallest} or more"
            )
        return BaseUnits(min(self.left, max(smallest, self.budget // self._parts)))

    def admits(self, job: JobId, deposit: BaseUnits) -> bool:
        """There is room for `deposit` in `job`."""
        return deposit <= self.left + self._committed.get(job, 0)

    def take(self, job: JobId, deposit: BaseUnits) -> None:
        """`deposit` goes into `job`. Raises Refused (`budget_exceeded`)."""
        if not self.admits(job, deposit):
            raise error("budget_exceeded", f"{deposit} base units wanted, {self.left} of {self.budget} left")
        self._committed[job] = deposit

    def settled(self, job: JobId, owed: BaseUnits) -> None:
        """`job` cost `owed`; the rest came back."""
        if job in self._committed:
            self._committed[job] = min(owed, self._committed[job])
