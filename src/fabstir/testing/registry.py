"""Registry, stakes and budgets of `fabstir.testing.chain`, as one account uses them: the contracts' rules, in memory."""

from __future__ import annotations

from typing import Final

import msgspec

from fabstir.domain.ids import ZERO_ADDRESS, Address, Hash32, ModelId
from fabstir.domain.money import BaseUnits
from fabstir.ports.chain import ChainInfo, DelegateBudget, HostEntry, RegisteredOffer, StakeRules, StakeState, TxResult
from fabstir.protocol import settlement
from fabstir.protocol.settlement import Reverted
from fabstir.protocol.settlement_state import add
from fabstir.protocol.signing import Market
from fabstir.testing.chain import INFO, MIN_STAKE, SLASH, Effect, Ledger, MemoryChain, settle, take

MAX_OFFERS: Final = 64
MAX_URL_BYTES: Final = 256
UNSTAKE_SECONDS: Final = 14 * 86_400


class MemoryRegistry:
    """Part of `MemoryMarket`."""

    def __init__(self, chain: MemoryChain, account: Address) -> None:
        self._chain = chain
        self._account = account
        self._contract = Market(chain.info.chain_id, chain.info.market)

    def __repr__(self) -> str:
        return f"<MemoryMarket 0x{self._account.hex()} on {self._chain!r}>"

    @property
    def info(self) -> ChainInfo:
        return self._chain.info

    @property
    def account(self) -> Address:
        return self._account

    # -- reads
    async def hosts(self, model_id: ModelId | None = None) -> list[HostEntry]:
        ledger = self._read()
        return [
            entry
            for entry in ledger.hosts.values()
            if kept_stake(ledger, entry.address) >= MIN_STAKE and (model_id is None or entry.serves(model_id))
        ]

    async def model_approved(self, model_id: ModelId) -> bool:
        return model_id in self._read().models

    async def stake(self, host: Address) -> StakeState:
        ledger = self._read()
        asked, available_at = ledger.unstaking.get(host, (0, 0))
        return StakeState(
            staked=BaseUnits(ledger.market.stakes.get(host, 0)),
            unstaking=BaseUnits(asked),
            available_at=available_at,
            locked_until=ledger.market.locked.get(host, 0),
        )

    async def stake_rules(self) -> StakeRules:
        self._read()
        return StakeRules(token=INFO.usdc, minimum=MIN_STAKE, slash=SLASH)

    async def delegate_budget(self, renter: Address, delegate: Address, token: Address) -> DelegateBudget:
        left, until = self._read().budgets.get((renter, delegate, token), (0, 0))
        return DelegateBudget(left=BaseUnits(left), until=until)

    # -- writes
    async def register_host(
        self, key: str, url: str, encryption_key: Hash32, offers: tuple[RegisteredOffer, ...]
    ) -> TxResult:
        entry = HostEntry(address=self._account, url=url, encryption_key=encryption_key, offers=offers, active=True)

        def effect(ledger: Ledger, now: int, block: int) -> Ledger:
            _check_entry(entry, ledger)
            return msgspec.structs.replace(ledger, hosts={**ledger.hosts, self._account: entry})

        return await self._transact(key, effect)

    async def unregister_host(self, key: str) -> TxResult:
        def effect(ledger: Ledger, now: int, block: int) -> Ledger:
            if self._account not in ledger.hosts:
                raise Reverted("NotRegistered")
            left = {owner: entry for owner, entry in ledger.hosts.items() if owner != self._account}
            return msgspec.structs.replace(ledger, hosts=left)

        return await self._transact(key, effect)

    async def approve_stake(self, key: str, amount: BaseUnits) -> TxResult:
        return await self._transact(
            key, lambda ledger, now, block: allow(ledger, INFO.usdc, self._account, INFO.stakes, amount)
        )

    async def add_stake(self, key: str, amount: BaseUnits) -> TxResult:
        def effect(ledger: Ledger, now: int, block: int) -> Ledger:
            if amount == 0:
                raise Reverted("ZeroAmount")
            return _staked(take(ledger, self._account, INFO.usdc, amount, INFO.stakes), self._account, amount)

        return await self._transact(key, effect)

    async def request_unstake(self, key: str, amount: BaseUnits) -> TxResult:
        def effect(ledger: Ledger, now: int, block: int) -> Ledger:
            if amount > ledger.market.stakes.get(self._account, 0):
                raise Reverted("StakeTooLow")
            asked = (amount, now + UNSTAKE_SECONDS if amount else 0)
            return msgspec.structs.replace(ledger, unstaking={**ledger.unstaking, self._account: asked})

        return await self._transact(key, effect)

    async def withdraw_stake(self, key: str, to: Address) -> TxResult:
        def effect(ledger: Ledger, now: int, block: int) -> Ledger:
            amount, available_at = ledger.unstaking.get(self._account, (0, 0))
            if to in (ZERO_ADDRESS, INFO.stakes):
                raise Reverted("BadRecipient")
            if amount == 0:
                raise Reverted("NothingToClaim")
            if now < max(available_at, ledger.market.locked.get(self._account, 0) + 1):
                raise Reverted("TooEarly")
            ledger = msgspec.structs.replace(ledger, unstaking={**ledger.unstaking, self._account: (0, 0)})
            return _staked(ledger, self._account, -amount).paid(INFO.usdc, to, amount)

        return await self._transact(key, effect)

    async def approve_delegation(self, key: str, token: Address, amount: BaseUnits) -> TxResult:
        return await self._transact(
            key, lambda ledger, now, block: allow(ledger, token, self._account, INFO.delegation, amount)
        )

    async def set_delegate(
        self, key: str, delegate: Address, token: Address, budget: BaseUnits, until: int
    ) -> TxResult:
        def effect(ledger: Ledger, now: int, block: int) -> Ledger:
            if delegate in (ZERO_ADDRESS, self._account) or token == ZERO_ADDRESS:
                raise Reverted("BadDelegate")
            budgets = {**ledger.budgets, (self._account, delegate, token): (budget, until)}
            return msgspec.structs.replace(ledger, budgets=budgets)

        return await self._transact(key, effect)

    # -- how a call becomes a move
    def _read(self) -> Ledger:
        self._chain.check_reachable()
        return self._chain.ledger

    async def _transact(self, key: str, effect: Effect) -> TxResult:
        return await self._chain.transact(self._account, key, effect)

    async def _settle(self, key: str, *calls: settlement.Call) -> TxResult:
        """All calls or none, in one transaction."""

        def effect(ledger: Ledger, now: int, block: int) -> Ledger:
            for call in calls:
                ledger = settle(ledger, call, now, block)
            return ledger

        return await self._transact(key, effect)


def allow(ledger: Ledger, token: Address, owner: Address, spender: Address, amount: int) -> Ledger:
    """ERC-20 `approve`."""
    return msgspec.structs.replace(ledger, allowances={**ledger.allowances, (token, owner, spender): amount})


def spend_budget(ledger: Ledger, grant: tuple[Address, Address, Address], amount: int, now: int) -> Ledger:
    """As `Delegates._spend`. Raises Reverted."""
    left, until = ledger.budgets.get(grant, (0, 0))
    if left < amount:
        raise Reverted("OverBudget")
    if now >= until:
        raise Reverted("DelegationExpired")
    return msgspec.structs.replace(ledger, budgets={**ledger.budgets, grant: (left - amount, until)})


def kept_stake(ledger: Ledger, host: Address) -> int:
    """What is staked and not asked back."""
    return ledger.market.stakes.get(host, 0) - ledger.unstaking.get(host, (0, 0))[0]


def _staked(ledger: Ledger, host: Address, delta: int) -> Ledger:
    market = msgspec.structs.replace(ledger.market, stakes=add(ledger.market.stakes, host, delta))
    return msgspec.structs.replace(ledger, market=market)


def _check_entry(entry: HostEntry, ledger: Ledger) -> None:
    """As NodeRegistry.register does. Raises Reverted."""
    if not 1 <= len(entry.url.encode()) <= MAX_URL_BYTES:
        raise Reverted("BadUrl")
    if not 1 <= len(entry.offers) <= MAX_OFFERS:
        raise Reverted("BadOfferCount")
    if kept_stake(ledger, entry.address) < MIN_STAKE:
        raise Reverted("StakeTooLow")
    seen: set[tuple[ModelId, Address]] = set()
    for offer in entry.offers:
        if offer.price == 0:
            raise Reverted("ZeroPrice")
        if (offer.model_id, offer.token) in seen:
            raise Reverted("DuplicateOffer")
        seen.add((offer.model_id, offer.token))
        if offer.model_id not in ledger.models:
            raise Reverted("ModelNotApproved")
