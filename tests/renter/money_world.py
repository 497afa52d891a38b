"""The world of hosts and renters on the whole market in memory (`fabstir.testing.chain`): coins, budgets, allowances, payouts."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from tests.renter.world import MODEL, WALLET, Host, World

from fabstir.domain.errors import FabstirError, error
from fabstir.domain.ids import ZERO_ADDRESS, Address, JobId
from fabstir.domain.money import BaseUnits, PricePerMTok
from fabstir.ports.chain import ClaimArgs
from fabstir.protocol.relay import RelayOpening, RelayTopUp
from fabstir.protocol.signing import SigningKey
from fabstir.testing.chain import INFO, MemoryChain
from fabstir.testing.clock import ManualClock
from fabstir.testing.market import MemoryMarket
from fabstir.testing.prover import HashProver

WEI_PRICE = PricePerMTok(10**18)
"""10**12 wei for a token."""
COINS = 10**18


class MemoryView:
    """`MemoryChain` under the name that the world uses."""

    def __init__(self, clock: ManualClock) -> None:
        self.memory = MemoryChain(clock, prover=HashProver())
        self.memory.approve_model(MODEL)
        for number in range(1, 4):
            self.memory.give_stake(SigningKey(bytes([number]) * 32).address)

    def view(self, account: Address) -> MemoryMarket:
        return self.memory.connect(account)


class MoneyWorld(World):
    """Its hosts send signed payments where their settings say so (`Relay`)."""

    def __init__(self) -> None:
        clock = ManualClock()
        super().__init__(MemoryView(clock), clock)
        self.memory: MemoryChain = self.chain.memory
        self.relayed: list[str] = []
        """What hosts were asked to send."""
        self.silent: set[str] = set()
        """URLs of hosts that say they sent it, and do not."""

    async def open(self, url: str, opening: RelayOpening) -> None:
        """As `HttpRelay`."""
        self.relayed.append(f"open {url}")
        if url not in self.silent:
            await self._asked(self._at(url).node.relay.open(opening))

    async def top_up(self, url: str, job: JobId, topping_up: RelayTopUp) -> None:
        """As `HttpRelay`."""
        self.relayed.append(f"top up {url}")
        await self._asked(self._at(url).node.relay.top_up(job, topping_up))

    async def _asked(self, sending: Any) -> None:
        try:
            await sending
        except FabstirError as fault:
            raise error("relay_refused", f"the host said {fault.code}: {fault.detail}") from fault

    async def settle(self, host: Host) -> None:
        """The host closes every job with what the renter signed."""
        chain = self.chain.view(host.key.address)
        for ledger in host.ledgers:
            voucher = ledger.voucher
            claim = ClaimArgs(
                terms=ledger.terms,
                amount=voucher.amount if voucher else BaseUnits(0),
                tokens=voucher.tokens if voucher else ledger.acknowledged,
                transcript=ledger.head,
                signature=b"",
            )
            if voucher:
                claim = ClaimArgs(
                    terms=ledger.terms,
                    amount=voucher.amount,
                    tokens=voucher.tokens,
                    transcript=voucher.transcript,
                    signature=voucher.signature,
                )
            await chain.close_by_host(f"close:{ledger.job.hex()}", claim)

    def holds(self, account: Address, token: Address = INFO.usdc) -> int:
        return self.memory.ledger.balance(token, account)

    def earned(self, account: Address, token: Address = INFO.usdc) -> int:
        return self.memory.ledger.market.earnings.get((account, token), 0)


@contextlib.asynccontextmanager
async def money_world(
    *prices: int, usdc: int = 10_000_000, coins: int = COINS, **settings: Any
) -> AsyncIterator[MoneyWorld]:
    """One host for each price in USDC, all of them for the same price in coins; the wallet has both currencies."""
    world = MoneyWorld()
    world.memory.mint(WALLET.address, usdc)
    world.memory.mint(WALLET.address, coins, ZERO_ADDRESS)
    for price in prices:
        await world.host(price, **({"price_native": WEI_PRICE} | settings))
    try:
        yield world
    finally:
        for host in world.hosts:
            await host.stop()
