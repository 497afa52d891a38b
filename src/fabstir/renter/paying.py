"""How money leaves the renter's account: deposits, top-ups and bonds, in the way that the settings and the job ask for.

Four ways. The account's own coins or tokens (approve, then pay); a signed transfer (EIP-3009) that this account sends; the same,
sent by the host (`relay`), so that no ETH is needed; the budget of a principal (`Delegation`). Decides no amounts, writes no
journal. What a host says about a payment that it sends is never believed: the chain is asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from fabstir.domain.errors import FabstirError, error
from fabstir.domain.ids import ZERO_ADDRESS, Address, Hash32, to_hex
from fabstir.domain.money import BaseUnits
from fabstir.domain.terms import Terms
from fabstir.ports.chain import MarketChain
from fabstir.ports.clock import Clock
from fabstir.protocol.authorization import authorization_digest, top_up_nonce
from fabstir.protocol.relay import RelayOpening, RelayTopUp
from fabstir.protocol.renter_log import RenterLedger
from fabstir.protocol.signing import SigningKey
from fabstir.renter.relay import Relay
from fabstir.renter.settings import RenterSettings

AUTHORIZATION_SECONDS: Final = 3_600
RELAYED_SECONDS: Final = 300
"""A host that was given a signed transfer may send it until then, whatever it answered."""
LOOK_SECONDS: Final = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
"""Between looks at the chain for what a host says that it sent: our endpoint may be behind its own."""


class Payer:
    """Of one account. Memory: nothing but a lock."""

    def __init__(
        self,
        chain: MarketChain,
        clock: Clock,
        settings: RenterSettings,
        wallet: SigningKey | None = None,
        relay: Relay | None = None,
    ) -> None:
        """`wallet` is the key of the chain's account. Raises LocalFault (`key_missing`, `config_invalid`)."""
        self._chain = chain
        self._clock = clock
        self._wallet = wallet
        self._relay = relay if settings.relay else None
        self._signs = settings.authorize or settings.relay
        self._principal = settings.principal
        self.token: Final = chain.info.usdc if settings.token is None else settings.token
        self._spending = asyncio.Lock()
        """One at a time: an allowance is set, then used up, before the next one is set."""
        _check(settings, self.token)
        if self._signs and (wallet is None or wallet.address != chain.account):
            raise error("key_missing", "renter settings say `authorize`, and the wallet's key is not given")
        if settings.relay and relay is None:
            raise error("config_invalid", "renter settings say `relay`, and there is none")

    def __repr__(self) -> str:
        return f"<Payer of {to_hex(self.renter)}, by {to_hex(self._chain.account)}>"

    @property
    def renter(self) -> Address:
        """Whose money is spent, and who gets refunds: the principal, or the account itself."""
        return self._principal or self._chain.account

    def owns(self, terms: Terms) -> bool:
        """The job is this account's own; else it is a principal's."""
        return terms.renter == self._chain.account

    async def payable_until(self) -> int:
        """Unix seconds until which a transfer that is signed now is good; 0 where none is signed. Raises ChainFault."""
        if not self._signs:
            return 0
        return int(await self._chain.timestamp()) + (RELAYED_SECONDS if self._relay else AUTHORIZATION_SECONDS)

    async def open(self, ledger: RenterLedger) -> int:
        """Pay the planned deposit; returns the gas that it cost this account. Raises ChainFault; Refused, Interrupted of a relay."""
        terms, deposit, name = ledger.terms, ledger.deposit, to_hex(ledger.job)
        if not self.owns(terms):
            with _budget_explained():
                return (await self._chain.open_as_delegate(f"open:{name}", terms, deposit)).gas_used
        until = ledger.planned.payable_until
        if until:
            signature = self._sign(ledger, deposit, until, Hash32(ledger.job))
            if self._relay is not None:
                await self._relay.open(ledger.planned.host_url, RelayOpening.of(terms, deposit, until, signature))
                await self._see(ledger, deposit)
                return 0
            return (
                await self._chain.open_with_authorization(f"open:{name}", terms, deposit, until, signature)
            ).gas_used
        async with self._spending:
            await self._allow(f"approve:{name}", terms.token, deposit)
            return (await self._chain.open(f"open:{name}", terms, deposit)).gas_used

    async def top_up(self, ledger: RenterLedger, amount: BaseUnits) -> int:
        """Add `amount` to the deposit; returns the gas that it cost this account. Raises as `open`."""
        terms, before = ledger.terms, ledger.deposit
        key, chain = f"{to_hex(ledger.job)}:{before}", self._chain
        if not self.owns(terms):
            with _budget_explained():
                return (await chain.top_up_as_delegate(f"topup:{key}", terms, amount)).gas_used
        if self._signs and terms.token != ZERO_ADDRESS:
            until = await self.payable_until()
            signature = self._sign(ledger, amount, until, top_up_nonce(ledger.job, before))
            if self._relay is not None:
                topping_up = RelayTopUp.of(terms, amount, until, signature)
                await self._relay.top_up(ledger.planned.host_url, ledger.job, topping_up)
                await self._see(ledger, BaseUnits(before + amount))
                return 0
            sent = await chain.top_up_with_authorization(f"topup:{key}", terms, amount, until, signature)
            return sent.gas_used
        async with self._spending:
            await self._allow(f"approve:{key}", terms.token, amount)
            return (await chain.top_up(f"topup:{key}", terms, amount)).gas_used

    async def dispute(self, ledger: RenterLedger) -> None:
        """Object to the host's claim, with the bond of the terms. Raises ChainFault."""
        terms, name = ledger.terms, to_hex(ledger.job)
        async with self._spending:
            await self._allow(f"approve_bond:{name}", terms.token, terms.bond)
            await self._chain.dispute(f"dispute:{name}", terms)

    async def _allow(self, key: str, token: Address, amount: BaseUnits) -> None:
        if token != ZERO_ADDRESS:
            await self._chain.approve(key, token, amount)

    def _sign(self, ledger: RenterLedger, amount: BaseUnits, until: int, nonce: Hash32) -> bytes:
        terms, market = ledger.terms, ledger.market
        if self._wallet is None:
            raise error("key_missing", "a signed transfer was planned, and the wallet's key is not given")
        return self._wallet.sign(
            authorization_digest(market.chain_id, terms.token, terms.renter, market.address, amount, until, nonce)
        )

    async def _see(self, ledger: RenterLedger, deposit: BaseUnits) -> None:
        for pause in (*LOOK_SECONDS, None):
            if (await self._chain.job(ledger.job)).deposit >= deposit:
                return
            if pause is not None:
                await self._clock.sleep(pause)
        raise error("relay_refused", "the host says that the payment was made, and the chain does not show it")


@contextmanager
def _budget_explained() -> Iterator[None]:
    """Of a delegate's payment that the contract refuses, whose decision it is."""
    try:
        yield
    except FabstirError as fault:
        if fault.code == "chain_reverted" and fault.detail.startswith(("OverBudget", "DelegationExpired")):
            step = "Ask the principal for another budget (`fabstir wallet delegate`), or set a smaller renter.budget."
            raise error("chain_reverted", fault.detail, step) from fault
        raise


def _check(settings: RenterSettings, token: Address) -> None:
    """Raises LocalFault (`config_invalid`)."""
    signs = settings.authorize or settings.relay
    if token == ZERO_ADDRESS and (signs or settings.principal):
        raise error("config_invalid", "signed transfers and delegates' budgets are of tokens, not of the chain's coin")
    if settings.principal and signs:
        raise error("config_invalid", "only its owner's key signs a transfer of its money")
