"""Gives planned transactions their gas, fee and nonce, and signs them: once for a nonce, again for a higher fee.

One nonce after the other, under one lock, after everything that store and chain know of. A nonce that the chain has
seen and that was not signed here is the sign of a second program with the same key: `key_in_use`, before anything more
is signed. Nothing above the fee bound is ever signed. Never sends.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from fabstir.chain import transactions
from fabstir.chain.account import ChainAccount
from fabstir.chain.fees import GWEI, Fee, bumped_fee, first_fee
from fabstir.chain.transactions import Signed, Transaction
from fabstir.domain.errors import FabstirError, error
from fabstir.domain.ids import address, to_hex
from fabstir.ports.journal import OutboxEntry
from fabstir.protocol.signing import SigningKey

GAS_HEADROOM: Final = 50_000
"""Two storage slots (22,100 each) that were set at the estimate and are empty in the block, because a transaction came between."""


class OutboxSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How much, how long, how often."""

    tip: int = 1_000_000
    """Wei for one unit of gas; Base's sequencer orders by it and takes any (research/chain.md 3.3: base fee 5,000,000)."""
    max_fee: int = 10 * GWEI
    """`chain.max_fee_gwei`."""
    gas_margin_percent: int = 125
    bump_after: float = 12.0
    """Seconds without a receipt: six blocks of Base, one of Ethereum."""
    patience: float = 120.0
    """Seconds that a caller waits; the entry goes on."""
    first_poll: float = 0.05
    longest_poll: float = 1.0
    watch_every: float = 2.0
    """Seconds between two looks at whether the blocks with our transactions are still there."""


class Signer:
    """Of one account. Memory: one nonce."""

    def __init__(
        self,
        account: ChainAccount,
        key: SigningKey,
        chain_id: int,
        gas_floors: Mapping[bytes, int],
        settings: OutboxSettings,
    ) -> None:
        self._account = account
        self._key = key
        self._chain_id = chain_id
        self._gas_floors = gas_floors
        self._settings = settings
        self._next_nonce: int | None = None
        self.base_fee = 0
        """What the newest block asked when somebody last looked, in wei."""

    def __repr__(self) -> str:
        return f"<Signer {to_hex(self._key.address)} next_nonce={self._next_nonce}>"

    @property
    def fee_is_too_high(self) -> bool:
        """The chain asks more than the bound."""
        return self.base_fee > self._settings.max_fee

    async def look_at_fee(self) -> int:
        """Of the newest block. Raises ChainFault."""
        self.base_fee = await self._account.base_fee()
        return self.base_fee

    async def gas(self, entry: OutboxEntry) -> int:
        """The limit. Raises `chain_reverted` where the contract would refuse."""
        # A verifier that answers false when it runs out of gas makes estimates far too low (research 1.1), hence the floor.
        estimate = await self._account.estimate(entry.to, entry.data, entry.value)
        with_margin = max(estimate * self._settings.gas_margin_percent // 100, estimate + GAS_HEADROOM)
        return max(with_margin, self._gas_floors.get(entry.data[:4], 0))

    async def sign(self, entry: OutboxEntry, gas: int, own: list[OutboxEntry]) -> OutboxEntry:
        """The entry with the next nonce; it counts as given away once `given` is called. `own`: what may be in a pool or block.

        One call at a time. Raises `funds_insufficient`, `key_in_use`, ChainFault.
        """
        fee = first_fee(await self.look_at_fee(), self._settings.tip, self._settings.max_fee)
        needed, held = entry.value + gas * fee.max_fee, await self._account.balance()
        if needed > held:  # signed, it would hold up every later nonce
            raise error("funds_insufficient", detail=f"{entry.sender} holds {held} wei, {needed} are needed")
        nonce = await self._allocate(own)
        signed = self._form(entry, nonce, gas, fee)
        return msgspec.structs.replace(
            entry, nonce=nonce, status="signed", raw=(signed.raw,), hashes=(signed.hash,), error=""
        )

    def given(self, nonce: int) -> None:
        """The signed form with `nonce` is stored."""
        self._next_nonce = nonce + 1

    def forget(self) -> None:
        """Ask the chain for the next nonce."""
        self._next_nonce = None

    async def bump(self, entry: OutboxEntry) -> OutboxEntry:
        """The same nonce with a higher fee; unchanged where the bound forbids. Raises ChainFault."""
        last = transactions.read(entry.raw[-1])
        fee = bumped_fee(last.fee, await self.look_at_fee(), self._settings.max_fee)
        if fee is None:
            return entry
        signed = self._form(entry, last.nonce, last.gas, fee)
        return msgspec.structs.replace(entry, raw=(*entry.raw, signed.raw), hashes=(*entry.hashes, signed.hash))

    async def _allocate(self, own: list[OutboxEntry]) -> int:
        if self._next_nonce is None:
            signed = [entry.nonce + 1 for entry in own if entry.nonce is not None]
            return max([await self._account.next_nonce(), *signed])
        seen = await self._account.next_nonce()
        if seen > self._next_nonce:
            seen = await self._account.least_next_nonce()  # one endpoint alone may be wrong, and this stops the host
        if seen > self._next_nonce:
            raise self.in_use(
                f"the chain has seen nonce {seen - 1}, this program signed none above {self._next_nonce - 1}"
            )
        return self._next_nonce

    def in_use(self, evidence: str) -> FabstirError:
        """`key_in_use` for this account."""
        return error("key_in_use", detail=f"{to_hex(self._key.address)}: {evidence}")

    def _form(self, entry: OutboxEntry, nonce: int, gas: int, fee: Fee) -> Signed:
        transaction = Transaction(
            chain_id=self._chain_id, nonce=nonce, fee=fee, gas=gas, to=address(entry.to), value=entry.value, data=entry.data
        )  # fmt: skip
        return transactions.sign(transaction, self._key)
