"""Sends renters' signed payments to the contract, for jobs of this host alone: the host pays the gas, the renter needs no ETH.

Checks first what costs nothing (`fabstir.protocol.relay`), then what the chain says, then its own limits, and only then sends: so
many transactions in an hour, a quarter of them for one renter, a few under way at a time, one for each renter. A payment is sent
once, whoever asks again (the outbox key is the job's id, and for a top-up the deposit before). Holds no money.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Final

import structlog

from fabstir.domain.errors import error
from fabstir.domain.ids import Address, JobId, to_hex
from fabstir.ports.chain import MarketChain, TxResult
from fabstir.ports.clock import Clock
from fabstir.protocol.offer import Offer
from fabstir.protocol.relay import Relayed, RelayOpening, RelayTopUp, Transfer, check_opening, check_top_up, transfer_of
from fabstir.protocol.signing import job_id

MINUTE: Final = 60.0
HOUR: Final = 3_600.0
UNDER_WAY: Final = 8
"""Requests at the same time, those that only read the chain included."""
ASKED_A_MINUTE: Final = 120
"""Requests that are looked at; each costs two or three reads of the chain, whatever comes of it."""
ONE_RENTERS_SHARE: Final = 4
"""One part in so many of an hour's transactions, and at least one."""

log = structlog.get_logger()


class Relay:
    """Of one host. Memory: a minute of requests, an hour of transactions, the renters of those under way."""

    def __init__(self, chain: MarketChain, offer: Callable[[], Offer], clock: Clock, per_hour: int) -> None:
        """`offer`: what is offered now."""
        self._chain = chain
        self._offer = offer
        self._clock = clock
        self.per_hour = per_hour
        self._sent: deque[tuple[float, Address]] = deque()
        self._asked: deque[float] = deque()
        self._busy: set[Address] = set()

    def __repr__(self) -> str:
        return f"<Relay {len(self._sent)} of {self.per_hour} in this hour, {len(self._busy)} under way>"

    async def open(self, message: RelayOpening) -> Relayed:
        """Open the job. Raises Refused (as admission, `relay_off`, `relay_refused`, `rate_limited`, `capacity`), PeerFault, ChainFault."""
        transfer = transfer_of(message)
        job = job_id(transfer.terms)
        check_opening(transfer, job, self._offer(), self._clock.now())
        key = f"relay_open:{to_hex(job)}"
        with self._one_of(transfer.terms.renter):
            state = await self._chain.job(job)
            if state.closed:
                raise error("job_closed")
            if not state.deposit:  # else it is the answer to an earlier request that is wanted
                await self._check_funds(transfer)
                self._count(transfer.terms.renter)
            return await self._send(
                job,
                transfer,
                lambda: self._chain.open_with_authorization(
                    key, transfer.terms, transfer.amount, transfer.valid_before, transfer.signature
                ),
            )

    async def top_up(self, job: JobId, message: RelayTopUp) -> Relayed:
        """Add to the deposit of `job`. Raises as `open`."""
        transfer = transfer_of(message)
        with self._one_of(transfer.terms.renter):
            state = await self._chain.job(job)
            check_top_up(transfer, job, state, self._offer(), self._clock.now())
            await self._check_funds(transfer)
            self._count(transfer.terms.renter)
            key = f"relay_topup:{to_hex(job)}:{state.deposit}"
            return await self._send(
                job,
                transfer,
                lambda: self._chain.top_up_with_authorization(
                    key, transfer.terms, transfer.amount, transfer.valid_before, transfer.signature
                ),
            )

    # -- bounds ------------------------------------------------------------------------------------------------------------

    @contextmanager
    def _one_of(self, renter: Address) -> Iterator[None]:
        if renter in self._busy:
            raise error("rate_limited", "a payment of this renter is under way")
        if len(self._busy) >= UNDER_WAY:
            raise error("capacity", f"{UNDER_WAY} payments are under way")
        now = self._clock.monotonic()
        _forget(self._asked, now - MINUTE)
        if len(self._asked) >= ASKED_A_MINUTE:
            raise error("rate_limited", f"{ASKED_A_MINUTE} requests a minute are looked at")
        self._asked.append(now)
        self._busy.add(renter)
        try:
            yield
        finally:
            self._busy.discard(renter)

    def _count(self, renter: Address) -> None:
        now = self._clock.monotonic()
        while self._sent and self._sent[0][0] <= now - HOUR:
            self._sent.popleft()
        share = max(1, self.per_hour // ONE_RENTERS_SHARE)
        if len(self._sent) >= self.per_hour or Counter(who for _, who in self._sent)[renter] >= share:
            raise error("rate_limited", f"{self.per_hour} payments an hour are sent, {share} for one renter")
        self._sent.append((now, renter))

    async def _check_funds(self, transfer: Transfer) -> None:
        terms = transfer.terms
        holds = await self._chain.balance(terms.token, terms.renter)
        if holds < transfer.amount:
            raise error("relay_refused", f"the renter holds {holds}, the transfer is of {transfer.amount} base units")

    async def _send(self, job: JobId, transfer: Transfer, send: Callable[[], Awaitable[TxResult]]) -> Relayed:
        sent = await send()
        log.info("payment_relayed", job_id=job, deposit=transfer.amount, tx_hash=sent.hash, gas_used=sent.gas_used)
        return Relayed(job_id=to_hex(job), tx_hash=to_hex(sent.hash), block=sent.block, gas_used=sent.gas_used)


def _forget(times: deque[float], before: float) -> None:
    while times and times[0] <= before:
        times.popleft()
