"""What each API key of the gateway has cost, counted from what this renter signed for and what the contract paid out.

A job serves the requests of several keys one after the other. Whoever uses a job is written down before it costs anything, and
what the job cost since is that key's: what was signed, and what was settled above that. So a crash loses no count, and a host
that claims its unsigned tail weeks later is booked to whom it served last. Decides who may go on within a budget; moves no
money. The journal's stream is `gateway:spending`; it has ids and amounts.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Final

import msgspec

from fabstir.domain.errors import error
from fabstir.domain.ids import JobId
from fabstir.domain.money import BaseUnits, Tokens, affordable
from fabstir.ports.journal import Journal
from fabstir.protocol.renter_log import RenterLedger
from fabstir.renter.gateway_keys import KeyCard
from fabstir.renter.jobs import STREAM_PREFIX as JOB_PREFIX
from fabstir.renter.jobs import RenterJob, read_ledger

STREAM: Final = "gateway:spending"
OWNER: Final = ""
"""Requests without a key of the file: the gateway's owner, whose only bound is the purse."""


class Took(msgspec.Struct, frozen=True, tag="took"):
    """From here on the job's cost is this key's."""

    key: str
    job: JobId
    before: BaseUnits
    """What it had cost."""


class Spent(msgspec.Struct, frozen=True, tag="spent"):
    """A job cost its user more."""

    key: str
    job: JobId
    amount: BaseUnits
    upto: BaseUnits
    """What the job has cost with it."""
    final: bool = False
    """It is settled."""


SpendingEvent = Took | Spent
_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final[msgspec.msgpack.Decoder[SpendingEvent]] = msgspec.msgpack.Decoder(SpendingEvent)


def encode_event(event: SpendingEvent) -> bytes:
    """As it stands in the journal (msgpack)."""
    return _encoder.encode(event)


def decode_event(data: bytes) -> SpendingEvent:
    """Raises msgspec.MsgspecError on bytes that no version of this program wrote."""
    return _decoder.decode(data)


class Tally:
    """The fold of the stream. Memory: a number for each key, and one for each job that is not settled."""

    def __init__(self) -> None:
        self.spent: dict[str, BaseUnits] = defaultdict(lambda: BaseUnits(0))
        self.users: dict[JobId, str] = {}
        self.upto: dict[JobId, BaseUnits] = {}

    def apply(self, event: SpendingEvent) -> None:
        """Take an event in."""
        if isinstance(event, Took):
            self.users[event.job], self.upto[event.job] = event.key, event.before
            return
        self.spent[event.key] = BaseUnits(self.spent[event.key] + event.amount)
        self.upto[event.job] = event.upto
        if event.final:
            self.users.pop(event.job, None)
            self.upto.pop(event.job, None)

    @classmethod
    def replay(cls, stream: Iterable[bytes]) -> Tally:
        """Raises LocalFault (`journal_failed`)."""
        tally = cls()
        try:
            for data in stream:
                tally.apply(decode_event(data))
        except msgspec.MsgspecError as unreadable:
            raise error("journal_failed", f"{STREAM}: {unreadable}") from unreadable
        return tally


class Bill:
    """One request on its way: what it may cost."""

    def __init__(self, spending: Spending, key: KeyCard | None) -> None:
        self._spending = spending
        self._card = key
        self._begun: dict[JobId, tuple[RenterLedger, BaseUnits]] = {}
        """The jobs that it used, and what each had cost before."""
        self.held = BaseUnits(0)
        """The most that it may cost by what was granted so far."""

    @property
    def key(self) -> str:
        """Whose it is."""
        return self._card.id if self._card else OWNER

    @property
    def jobs(self) -> Iterable[JobId]:
        """Those that it used."""
        return self._begun.keys()

    async def allow(self, job: RenterJob, wanted: int) -> int:
        """How many of `wanted` tokens may be asked for under `job`, 0 where the budget ends an answer in its middle. Raises Refused
        (`key_budget_exceeded`) where it does not begin, LocalFault (`journal_failed`).
        """
        ledger, received, middle = job.ledger, job.core.received, bool(self._begun)
        if job.id not in self._begun:
            self._begun[job.id] = ledger, cost_of(ledger)
            await self._spending.take(self.key, ledger)
        if self._card is None or (left := self._spending.left(self._card)) is None:
            return wanted
        now, used = _cost_with(ledger, received), self._used(job)
        reach = affordable(BaseUnits(max(0, now + left + self.held - used)), ledger.terms.price) - received
        granted = min(wanted, reach)
        if granted < 1 and not middle:
            raise error("key_budget_exceeded", f"{left} base units left, less than a token costs")
        if granted < 1:
            return 0
        held = BaseUnits(used + _cost_with(ledger, Tokens(received + granted)) - now)
        self._spending.hold(self.key, held - self.held)
        self.held = held
        return granted

    def _used(self, at_hand: RenterJob) -> BaseUnits:
        """What it has cost so far; of the job at hand by what arrived."""
        costs = (
            (_cost_with(ledger, at_hand.core.received) if job == at_hand.id else cost_of(ledger)) - before
            for job, (ledger, before) in self._begun.items()
        )
        return BaseUnits(sum(costs))


class Spending:
    """All keys. Memory: that of `Tally`, and one ledger for each job that a key used and that is not settled."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._tally = Tally()
        self._ledgers: dict[JobId, RenterLedger] = {}
        self._held: dict[str, int] = defaultdict(int)
        self._running: set[JobId] = set()
        """Jobs that a request uses now: what they cost is held, and booked at its end."""
        self._writing = asyncio.Lock()

    def __repr__(self) -> str:
        return f"<Spending {len(self._tally.spent)} keys, {len(self._ledgers)} jobs>"

    async def restore(self, ledgers: Iterable[RenterLedger]) -> None:
        """Read what earlier processes wrote, and book what they did not come to. `ledgers`: of the jobs that are not settled.
        Raises LocalFault (`journal_failed`).
        """
        self._tally = Tally.replay(await self._journal.read(STREAM))
        known = {ledger.job: ledger for ledger in ledgers}
        for job in self._tally.users:
            self._ledgers[job] = known.get(job) or await read_ledger(self._journal, JOB_PREFIX + job.hex())
        await self.book()

    def spent(self, key: KeyCard) -> BaseUnits:
        """Up to the last time that it was booked."""
        return self._tally.spent[key.id]

    def left(self, key: KeyCard) -> BaseUnits | None:
        """Of its budget, less what its running requests may still cost; None without a budget."""
        return None if key.limit is None else BaseUnits(key.limit - self._tally.spent[key.id] - self._held[key.id])

    @asynccontextmanager
    async def bill(self, key: KeyCard | None) -> AsyncIterator[Bill]:
        """One request of `key`. What it cost is durable at the end. Raises LocalFault (`journal_failed`), Refused
        (`key_budget_exceeded`) where nothing is left.
        """
        await self.book()
        if key is not None and (left := self.left(key)) is not None and left <= 0:
            raise error("key_budget_exceeded", "nothing is left that no running request may cost")
        bill = Bill(self, key)
        try:
            yield bill
        finally:
            self._held[bill.key] -= bill.held
            self._running.difference_update(bill.jobs)
            await asyncio.shield(self.book())

    def hold(self, key: str, amount: int) -> None:
        """Until its bill is over."""
        self._held[key] += amount

    async def take(self, key: str, ledger: RenterLedger) -> None:
        """The job of `ledger` is used for `key` now, and booked when its bill is over. Raises LocalFault (`journal_failed`)."""
        if self._tally.users.get(ledger.job, OWNER) != key:
            await self.book()
            async with self._writing:
                await self._record(Took(key, ledger.job, cost_of(ledger)))
                self._ledgers[ledger.job] = ledger
        self._running.add(ledger.job)

    async def book(self) -> None:
        """Write down what each job that no request uses cost its user since it was looked at last. Raises LocalFault
        (`journal_failed`).
        """
        async with self._writing:
            for job, ledger in [*self._ledgers.items()]:
                user, cost, final = self._tally.users[job], cost_of(ledger), ledger.settled is not None
                more = BaseUnits(max(0, cost - self._tally.upto[job]))
                if job not in self._running and (final or (more and user != OWNER)):
                    amount = more if user != OWNER else BaseUnits(0)
                    await self._record(Spent(user, job, amount, cost, final))
                    if final:
                        del self._ledgers[job]

    async def _record(self, event: SpendingEvent) -> None:
        await self._journal.append(STREAM, [encode_event(event)])
        self._tally.apply(event)


def cost_of(ledger: RenterLedger) -> BaseUnits:
    """What the job has cost so far: signed for, or paid out."""
    signed = ledger.amount(ledger.signed)
    return max(signed, ledger.settled.owed) if ledger.settled else signed


def _cost_with(ledger: RenterLedger, received: Tokens) -> BaseUnits:
    """Once what arrived is signed for."""
    return max(ledger.amount(received), cost_of(ledger))
