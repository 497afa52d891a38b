"""What a host does with its stake by hand: raise it, ask for it back, take it. Reads first, and names what stands against it before
anything is sent; asked twice, it does nothing the second time.

Amounts are what shall be, not what is added: whoever repeats a command after a crash does not stake twice. What the contract allows is
decided by `contracts/src/HostStake.sol`; what the running node keeps up by itself, by `registration`.
"""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from typing import Final

import msgspec

from fabstir.domain.errors import error
from fabstir.domain.ids import Address, to_hex
from fabstir.domain.money import BaseUnits, format_units
from fabstir.ports.chain import MarketChain, TxResult


class StakeReport(msgspec.Struct, frozen=True, kw_only=True):
    """Everything about one host's stake. Amounts in base units of the stake's token, times in Unix seconds."""

    account: str
    staked: BaseUnits
    asked_back: BaseUnits
    kept: BaseUnits
    """Staked and not asked back: what counts for the registry."""
    minimum: BaseUnits
    enough: bool
    withdrawable_from: int
    """0 where nothing is asked back."""
    locked_until: int
    """A claim of this host can be disputed until then."""
    chain_time: int
    holds: BaseUnits
    """Of the token, in the account itself."""


class Staking:
    """Of the account that `chain` signs for. Raises ChainFault."""

    def __init__(self, chain: MarketChain) -> None:
        self._chain = chain

    def __repr__(self) -> str:
        return f"<Staking {to_hex(self._chain.account)}>"

    async def report(self) -> StakeReport:
        """As the chain has it now."""
        chain = self._chain
        rules, held = await chain.stake_rules(), await chain.stake(chain.account)
        kept = BaseUnits(held.staked - held.unstaking)
        return StakeReport(
            account=to_hex(chain.account),
            staked=held.staked,
            asked_back=held.unstaking,
            kept=kept,
            minimum=rules.minimum,
            enough=kept >= rules.minimum,
            withdrawable_from=max(held.available_at, held.locked_until + 1) if held.unstaking else 0,
            locked_until=held.locked_until,
            chain_time=await chain.timestamp(),
            holds=await chain.balance(rules.token, chain.account),
        )

    async def raise_to(self, wanted: BaseUnits | None) -> TxResult | None:
        """Keep `wanted` (default: the minimum) staked; None where that is so. Raises `funds_insufficient`."""
        found = await self.report()
        goal = found.minimum if wanted is None else wanted
        missing = BaseUnits(goal - found.kept)
        if missing <= 0:
            return None
        if found.holds < missing:
            detail = f"{format_units(missing)} are missing, {found.account} holds {format_units(found.holds)}"
            raise error(
                "funds_insufficient",
                detail,
                "Send USDC to the account; on the devnet: `fabstir wallet fund --role host`.",
            )
        key = _intent("raise")
        await self._chain.approve_stake(f"{key}:approve", missing)
        return await self._chain.add_stake(key, missing)

    async def ask_back(self, amount: BaseUnits) -> TxResult | None:
        """Ask for `amount` in the place of all that was asked before; 0 takes the request back. None where so much is asked already:
        asking again would begin the delay anew. Raises `stake_exceeded`.
        """
        found = await self.report()
        if amount > found.staked:
            raise error("stake_exceeded", f"{format_units(amount)} asked, {format_units(found.staked)} staked")
        if amount == found.asked_back:
            return None
        return await self._chain.request_unstake(_intent("ask"), amount)

    async def withdraw(self, to: Address | None = None) -> tuple[BaseUnits, TxResult]:
        """What was asked back, to `to` (default: the account). Raises `stake_not_requested`, `stake_locked`."""
        found = await self.report()
        if not found.asked_back:
            raise error("stake_not_requested", f"{format_units(found.staked)} are staked")
        if found.chain_time < found.withdrawable_from:
            reason = "a claim can be disputed" if found.locked_until >= found.chain_time else "the delay runs"
            raise error(
                "stake_locked", f"{format_units(found.asked_back)} until {utc(found.withdrawable_from)}; {reason}"
            )
        sent = await self._chain.withdraw_stake(_intent("withdraw"), to or self._chain.account)
        return found.asked_back, sent


def utc(seconds: int) -> str:
    """For people."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


_ID_BYTES: Final = 8


def _intent(what: str) -> str:
    """A new name each time, since the same amounts may be wanted again later. What an earlier process left was finished before
    (`reconcile`) and is in what was read.
    """
    return f"stake:{what}:{secrets.token_hex(_ID_BYTES)}"
