"""A settler on a market in memory: a host's book and journal, a prover, a chain with its stake, and what the settler told the sessions."""

from __future__ import annotations

import msgspec
from tests.protocol.market import HOST_KEY, SESSION_KEY, terms

from fabstir.domain.ids import ZERO_ADDRESS, Hash32, JobId
from fabstir.domain.money import BaseUnits, Tokens
from fabstir.domain.terms import JobState, Terms
from fabstir.host.jobs import JobBook
from fabstir.host.settler import Settler
from fabstir.ports.journal import Journal
from fabstir.protocol.host_log import (
    HostEvent,
    HostLedger,
    JobAdmitted,
    SessionFinished,
    TokensServed,
    VoucherAccepted,
    decode_event,
)
from fabstir.protocol.settlement_plan import SettlementRules
from fabstir.protocol.signing import Market, SigningKey, job_id
from fabstir.testing.chain import INFO, MemoryChain
from fabstir.testing.clock import ManualClock
from fabstir.testing.journal import MemoryJournal
from fabstir.testing.market import MemoryMarket
from fabstir.testing.prover import WEAKER_CIRCUIT_ID, HashProver

RENTER = SigningKey(b"\x09" * 32)
DEPOSIT = BaseUnits(1_000_000)
PRICE = 2_000_000_000


class World:
    """A host's book, a chain, a settler, and what the settler told the sessions."""

    def __init__(
        self, journal: Journal | None = None, *, staked: bool = True, own: bytes = b"", **rules: object
    ) -> None:
        """`own`: the prover's commitments are its own (`HashProver`)."""
        self.clock = ManualClock()
        self.prover = HashProver(weaker=HashProver(WEAKER_CIRCUIT_ID), own=own)
        self.chain = MemoryChain(self.clock, prover=self.prover)
        self.host: MemoryMarket = self.chain.connect(HOST_KEY.address)
        self.renter: MemoryMarket = self.chain.connect(RENTER.address)
        self.chain.mint(RENTER.address, 100 * DEPOSIT)
        self.chain.mint(RENTER.address, 10**18, ZERO_ADDRESS)
        self.journal = journal or MemoryJournal()
        self.book = JobBook(self.journal)
        self.told: list[JobId] = []
        self.idle = 0.0
        """Seconds since the renters left."""
        self.rules = msgspec.structs.replace(SettlementRules(), **rules)
        self.settler = self._settler()
        if staked:
            self.chain.give_stake(HOST_KEY.address)

    def _settler(self) -> Settler:
        return Settler(
            self.book,
            self.host,
            self.prover,
            self.clock,
            self.rules,
            idle_for=lambda _job: self.idle,
            on_closing=self._tell,
        )

    async def restart(self) -> None:
        """Another process with the same journal and the same chain."""
        self.book = JobBook(self.journal)
        await self.book.restore()
        self.settler = self._settler()

    async def _tell(self, job: JobId, _code: str) -> None:
        self.told.append(job)

    async def job(
        self,
        served: int,
        signed: int,
        *,
        finished: bool = True,
        salt: int = 1,
        deposit: BaseUnits = DEPOSIT,
        **other: object,
    ) -> HostLedger:
        """A job on chain and in the book, with `served` tokens of which `signed` are acknowledged."""
        await self.prover.start()
        agreed = self._terms(salt, **other)
        if agreed.token != ZERO_ADDRESS:
            await self.renter.approve(f"approve:{salt}", INFO.usdc, deposit)
        await self.renter.open(f"open:{salt}", agreed, deposit)
        contract = Market(INFO.chain_id, INFO.market)
        ledger = await self.book.admit(JobAdmitted(agreed, deposit, contract, self.clock.now()))
        records = b"".join(bytes([salt]) + n.to_bytes(31, "big") for n in range(served))
        async with self.book.exclusive(ledger):
            await self.book.record(ledger, TokensServed(records))
        if signed:
            await self.sign(ledger, signed)
        async with self.book.exclusive(ledger):
            if finished:
                await self.book.record(ledger, SessionFinished("ended by the renter"))
        return ledger

    def _terms(self, salt: int, **other: object) -> Terms:
        fresh = {"renter": RENTER.address, "token": INFO.usdc, "salt": Hash32(bytes([salt]) * 32), "price": PRICE}
        expiry = {"expires_at": int(self.clock.now()) + 86_400}
        return msgspec.structs.replace(terms(), **(fresh | expiry | other))

    def stop_after(self, key: str, phase: str, name: str) -> None:
        """The answer to one transaction gets lost: the pass over its job ends there."""
        if key.startswith(name) and phase == "after":
            self.chain.lost_answers = 1

    async def sign(self, ledger: HostLedger, tokens: int) -> None:
        """The renter acknowledges so many tokens."""
        amount, head = ledger.amount(Tokens(tokens)), ledger.heads[tokens]
        digest = ledger.market.voucher_digest(ledger.job, amount, Tokens(tokens), head)
        async with self.book.exclusive(ledger):
            await self.book.record(ledger, VoucherAccepted(Tokens(tokens), amount, head, SESSION_KEY.sign(digest)))

    async def serve(self, ledger: HostLedger, tokens: int) -> None:
        """More tokens in a running job, not signed for."""
        first = len(ledger.records)
        records = b"".join(b"more" + n.to_bytes(28, "big") for n in range(first, first + tokens))
        async with self.book.exclusive(ledger):
            await self.book.record(ledger, TokensServed(records))

    async def settle(self, passes: int = 12) -> None:
        """Passes, with a block between them."""
        for _ in range(passes):
            await self.settler.settle()
            self.chain.mine()

    async def state(self, ledger: HostLedger) -> JobState:
        return await self.host.job(job_id(ledger.terms))

    async def dispute(self, ledger: HostLedger) -> None:
        """The renter objects, and pays the bond."""
        await self.renter.approve(f"bond:{ledger.job.hex()}:{self.chain.block}", INFO.usdc, ledger.terms.bond)
        await self.renter.dispute(f"dispute:{ledger.job.hex()}:{self.chain.block}", ledger.terms)

    async def events(self, ledger: HostLedger) -> list[HostEvent]:
        """The job's log."""
        return [decode_event(data) for data in await self.journal.read("job:" + ledger.job.hex())]

    def earned(self) -> int:
        """What host and treasury can withdraw."""
        earnings = self.chain.ledger.market.earnings
        return sum(earnings.values())
