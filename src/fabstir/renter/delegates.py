"""A renter's delegates: other accounts, each of which may spend so much of its tokens on jobs, until then (`Delegation`).

The contract takes from the renter's account within one allowance for all delegates together, and from each within its budget. This
keeps the allowance at what all live budgets leave, so that a budget can be used and nothing beyond all budgets can. Which
accounts were ever named is in the renter's journal (stream `delegates`), since the contract does not list them; what each may
spend is always read from the contract. Refunds go to the renter. Decides no budget.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from typing import Final

import msgspec

from fabstir.domain.errors import error
from fabstir.domain.ids import ZERO_ADDRESS, Address, to_hex
from fabstir.domain.money import MAX_AMOUNT, BaseUnits
from fabstir.ports.chain import MarketChain, TxResult
from fabstir.ports.clock import Clock
from fabstir.ports.journal import Journal

STREAM: Final = "delegates"
MAX_UNTIL: Final = 2**40 - 1
"""The contract keeps times in 40 bits."""


class DelegateNamed(msgspec.Struct, frozen=True, tag="delegate_named"):
    """Written before its budget is set. An account may be named more than once."""

    delegate: Address
    token: Address
    at: float


class Delegate(msgspec.Struct, frozen=True, kw_only=True):
    """One account that was named, as the contract has it now."""

    account: Address
    token: Address
    left: BaseUnits
    until: int
    """Unix seconds from which nothing can be spent."""
    live: bool
    """There is something left, and time."""


class Delegates:
    """Of the account that `chain` signs for. Raises ChainFault, LocalFault (`journal_failed`)."""

    def __init__(self, chain: MarketChain, journal: Journal, clock: Clock) -> None:
        self._chain = chain
        self._journal = journal
        self._clock = clock

    def __repr__(self) -> str:
        return f"<Delegates of {to_hex(self._chain.account)}>"

    async def name(self, delegate: Address, token: Address, budget: BaseUnits, seconds: int) -> tuple[int, TxResult]:
        """For so many seconds `delegate` may spend `budget`, whatever it could before; returns until when.

        Raises PeerFault (`request_invalid`).
        """
        if delegate in (ZERO_ADDRESS, self._chain.account) or token == ZERO_ADDRESS:
            raise error("request_invalid", "a delegate is another account, and its budget is of a token, not of ETH")
        until = await self._chain.timestamp() + seconds
        if not 0 < budget <= MAX_AMOUNT or seconds <= 0 or until > MAX_UNTIL:
            raise error("request_invalid", f"a budget above 0 and a time to come, not {budget} for {seconds} s")
        event = DelegateNamed(delegate, token, self._clock.now())
        await self._journal.append(STREAM, [msgspec.msgpack.encode(event)])
        intent = _intent()
        others = [one.left for one in await self.known() if one.live and (one.account, one.token) != (delegate, token)]
        # the allowance first: a budget that cannot be used yet is no harm, one that fails half-way would be
        await self._chain.approve_delegation(
            f"{intent}:approve", token, BaseUnits(min(sum(others) + budget, MAX_AMOUNT))
        )
        return until, await self._chain.set_delegate(intent, delegate, token, budget, until)

    async def revoke(self, delegate: Address, token: Address) -> TxResult:
        """It may spend nothing any more; jobs that it opened go on."""
        intent = _intent()
        sent = await self._chain.set_delegate(intent, delegate, token, BaseUnits(0), 0)
        left = sum(
            one.left for one in await self.known() if one.live and one.token == token and one.account != delegate
        )
        await self._chain.approve_delegation(f"{intent}:approve", token, BaseUnits(min(left, MAX_AMOUNT)))
        return sent

    async def known(self) -> tuple[Delegate, ...]:
        """Every account that was named from this journal, oldest first."""
        return await read_budgets(self._chain, await self._journal.read(STREAM))


async def read_budgets(chain: MarketChain, events: Iterable[bytes]) -> tuple[Delegate, ...]:
    """What the contract says of the accounts that the `events` name. Raises ChainFault, LocalFault (`journal_failed`)."""
    now, found = await chain.timestamp(), []
    for account, token in _named(events):
        budget = await chain.delegate_budget(chain.account, account, token)
        live = budget.left > 0 and now < budget.until
        found.append(Delegate(account=account, token=token, left=budget.left, until=budget.until, live=live))
    return tuple(found)


def _named(events: Iterable[bytes]) -> list[tuple[Address, Address]]:
    try:
        decoded = [msgspec.msgpack.decode(data, type=DelegateNamed) for data in events]
    except msgspec.MsgspecError as unreadable:
        raise error("journal_failed", f"{STREAM}: {unreadable}") from unreadable
    return list(dict.fromkeys((event.delegate, event.token) for event in decoded))


def _intent() -> str:
    """A new name each time: the same budget may be wanted again later."""
    return f"delegate:{secrets.token_hex(8)}"
