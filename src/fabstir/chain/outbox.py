"""Transactions that happen once: stored before they are signed, stored signed before they are sent, followed until they
are mined.

An intent is named by its key. Asked twice, it is sent once, also across restarts: a mined one gives its first result,
one under way is joined. The life of an entry:

    planned -> signed -> mined | reverted        planned -> abandoned: refused before anything was signed; may be asked again
       ^---------'  a foreign transaction took the nonce, so no signed form can be mined any more

One nonce per entry, one transaction per nonce: a fee bump signs the same nonce again, so at most one form is mined. A
caller waits at most `patience`; the entry is followed for as long as the outbox is open. Never decides what to send.
Specification: research/chain.md 3.2.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Final

import msgspec

from fabstir.chain import transactions
from fabstir.chain.account import ChainAccount, PushAnswer, Receipt
from fabstir.chain.fees import GWEI, Fee, bumped_fee, first_fee
from fabstir.chain.rpc import JsonRpc
from fabstir.chain.transactions import Signed, Transaction
from fabstir.domain.errors import ChainFault, FabstirError, error
from fabstir.domain.ids import Address, address, to_hex
from fabstir.ports.chain import TxResult
from fabstir.ports.clock import Clock
from fabstir.ports.journal import OutboxEntry, OutboxStore
from fabstir.protocol.signing import SigningKey

UNSEEN_ROUNDS: Final = 5
"""A nonce was used and no endpoint shows a receipt of ours: asked so often, with pauses, before a foreign transaction is believed."""

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


class Outbox:
    """One per account and process. Memory: one task for each entry under way."""

    def __init__(
        self,
        rpc: JsonRpc,
        store: OutboxStore,
        key: SigningKey,
        clock: Clock,
        *,
        chain_id: int,
        scope: str = "",
        gas_floors: Mapping[bytes, int] | None = None,
        settings: OutboxSettings = OutboxSettings(),  # noqa: B008 - frozen
    ) -> None:
        """`scope` names chain and account, so that one store serves several. `gas_floors`: least gas by selector of the call."""
        self._account = ChainAccount(rpc, key.address)
        self._store = store
        self._key = key
        self._clock = clock
        self._chain_id = chain_id
        self._scope = scope
        self._gas_floors = gas_floors or {}
        self._settings = settings
        self._nonces = asyncio.Lock()
        self._next_nonce: int | None = None
        self._running: dict[str, asyncio.Task[TxResult]] = {}

    def __repr__(self) -> str:
        return f"<Outbox {to_hex(self._key.address)} next_nonce={self._next_nonce} running={sorted(self._running)}>"

    async def send(self, key: str, to: Address, data: bytes, value: int = 0) -> TxResult:
        """Return when mined. Raises ChainFault: `chain_reverted`, or `transaction_lost` / `fee_too_high` while it is still followed."""
        name = self._scope + key
        task = self._running.get(name)
        if task is None:
            fresh = OutboxEntry(
                key=name, sender=to_hex(self._key.address), to=to_hex(to), data=data, value=value,
                created_at=self._clock.now(),
            )  # fmt: skip
            task = self._start(fresh, patient=False)
        await self._wait({task})
        if not task.done():
            raise await self._overdue(name)
        return task.result()

    async def reconcile(self) -> None:
        """After a restart: send what was planned, look up and push again what was signed; return when all is settled or patience ends.

        What was planned and is refused now is abandoned; what the chain still does not show stays followed.
        """
        mine = [e for e in await self._store.unfinished() if self._is_mine(e) and e.key not in self._running]
        tasks = {self._start(entry, patient=True) for entry in mine}
        if tasks:
            await self._wait(tasks)

    async def close(self) -> None:
        """Stop following. The store keeps what the next process needs."""
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # -- tasks
    def _start(self, fresh: OutboxEntry, *, patient: bool) -> asyncio.Task[TxResult]:
        task = asyncio.create_task(self._drive(fresh, patient=patient), name=f"outbox {fresh.key}")
        self._running[fresh.key] = task
        task.add_done_callback(lambda done: self._ended(fresh.key, done))
        return task

    def _ended(self, name: str, task: asyncio.Task[TxResult]) -> None:
        del self._running[name]
        if not task.cancelled():
            task.exception()  # read here: the caller may have left

    async def _wait(self, tasks: set[asyncio.Task[TxResult]]) -> None:
        timer = asyncio.create_task(self._clock.sleep(self._settings.patience))
        try:
            pending: set[asyncio.Task[TxResult]] = set(tasks)
            while pending and not timer.done():
                await asyncio.wait({timer, *pending}, return_when=asyncio.FIRST_COMPLETED)
                pending = {task for task in pending if not task.done()}
        finally:
            timer.cancel()

    async def _overdue(self, name: str) -> FabstirError:
        entry = await self._store.get(name)
        nonce = "not signed yet" if entry is None or entry.nonce is None else f"nonce {entry.nonce}"
        with contextlib.suppress(ChainFault):
            base_fee = await self._account.base_fee()
            if base_fee > self._settings.max_fee:
                detail = f"{base_fee / GWEI:g} gwei, the bound is {self._settings.max_fee / GWEI:g}; {nonce}"
                return error("fee_too_high", detail=detail)
        return error("transaction_lost", detail=f"{nonce}, after {self._settings.patience:g} s")

    # -- the life of an entry
    async def _drive(self, fresh: OutboxEntry, *, patient: bool) -> TxResult:
        entry = await self._store.get(fresh.key)
        if entry is None or entry.status == "abandoned":
            entry = fresh
            await self._store.put(entry)
        while True:
            if entry.status == "planned":
                entry = await self._plan_through(entry, patient=patient)
            elif entry.status == "signed":
                entry = await self._follow(entry)
            elif entry.status == "mined":
                return TxResult(hash=entry.hashes[-1], block=entry.block, gas_used=entry.gas_used)
            else:
                raise error("chain_reverted", detail=entry.error)

    async def _plan_through(self, entry: OutboxEntry, *, patient: bool) -> OutboxEntry:
        """planned -> signed, or raise with the entry abandoned. `patient`: wait out a chain that nobody can reach."""
        while True:
            try:
                gas = await self._gas(entry)
                async with self._nonces:
                    return await self._sign(entry, gas)
            except ChainFault as fault:
                if patient and fault.code == "chain_unreachable":
                    await self._clock.sleep(self._settings.longest_poll)
                    continue
                await self._store.put(msgspec.structs.replace(entry, status="abandoned", error=str(fault)))
                raise

    async def _gas(self, entry: OutboxEntry) -> int:
        # A verifier that answers false when it runs out of gas makes estimates far too low (research 1.1), hence the floor.
        estimate = await self._account.estimate(entry.to, entry.data, entry.value)
        with_margin = max(estimate * self._settings.gas_margin_percent // 100, estimate + GAS_HEADROOM)
        return max(with_margin, self._gas_floors.get(entry.data[:4], 0))

    async def _sign(self, entry: OutboxEntry, gas: int) -> OutboxEntry:
        fee = first_fee(await self._account.base_fee(), self._settings.tip, self._settings.max_fee)
        needed, held = entry.value + gas * fee.max_fee, await self._account.balance()
        if needed > held:  # signed, it would hold up every later nonce
            raise error("funds_insufficient", detail=f"{entry.sender} holds {held} wei, {needed} are needed")
        nonce = await self._allocate()
        signed = self._form(entry, nonce, gas, fee)
        stored = msgspec.structs.replace(
            entry, nonce=nonce, status="signed", raw=(signed.raw,), hashes=(signed.hash,), error=""
        )
        await self._store.put(stored)
        self._next_nonce = nonce + 1
        return stored

    async def _allocate(self) -> int:
        if self._next_nonce is None:
            own = [e.nonce + 1 for e in await self._store.unfinished() if self._is_mine(e) and e.nonce is not None]
            self._next_nonce = max([await self._account.next_nonce(), *own])
        return self._next_nonce

    def _form(self, entry: OutboxEntry, nonce: int, gas: int, fee: Fee) -> Signed:
        transaction = Transaction(
            chain_id=self._chain_id, nonce=nonce, fee=fee, gas=gas, to=address(entry.to), value=entry.value, data=entry.data
        )  # fmt: skip
        return transactions.sign(transaction, self._key)

    async def _push(self, entry: OutboxEntry) -> PushAnswer:
        """The newest form. A chain that nobody reaches is no failure here: it is pushed again later."""
        try:
            return await self._account.push(entry.raw[-1])
        except ChainFault as fault:
            return PushAnswer("refused", str(fault))

    async def _follow(self, entry: OutboxEntry) -> OutboxEntry:
        """signed -> mined, reverted, or planned again where a foreign transaction has the nonce."""
        pause, unseen, pushed_at = 0.0, 0, self._clock.monotonic()
        answer = PushAnswer("refused")  # nobody has it yet, as far as this process knows
        while True:
            receipt = await self._receipt(entry, everywhere=unseen > 0)
            if receipt is not None:
                return await self._finish(entry, receipt)
            if unseen >= UNSEEN_ROUNDS:
                return await self._replan(entry)
            if self._clock.monotonic() - pushed_at >= self._settings.bump_after:
                entry, answer = await self._bump(entry), PushAnswer("refused")
            if answer.outcome in ("refused", "nonce_used"):
                answer, pushed_at = await self._push(entry), self._clock.monotonic()
                unseen = unseen + 1 if answer.outcome == "nonce_used" else 0
            await self._clock.sleep(pause)
            pause = min(max(pause * 2, self._settings.first_poll), self._settings.longest_poll)

    async def _receipt(self, entry: OutboxEntry, *, everywhere: bool) -> Receipt | None:
        with contextlib.suppress(ChainFault):
            if everywhere:
                return await self._account.receipt_anywhere(entry.hashes)
            return await self._account.receipt(entry.hashes)
        return None

    async def _bump(self, entry: OutboxEntry) -> OutboxEntry:
        """The same nonce with a higher fee, stored; unchanged where the bound or an unreachable chain forbids."""
        last = transactions.read(entry.raw[-1])
        try:
            fee = bumped_fee(last.fee, await self._account.base_fee(), self._settings.max_fee)
        except ChainFault:
            return entry
        if fee is None:
            return entry
        signed = self._form(entry, last.nonce, last.gas, fee)
        entry = msgspec.structs.replace(entry, raw=(*entry.raw, signed.raw), hashes=(*entry.hashes, signed.hash))
        await self._store.put(entry)
        return entry

    async def _finish(self, entry: OutboxEntry, receipt: Receipt) -> OutboxEntry:
        index = entry.hashes.index(receipt.hash)
        done = msgspec.structs.replace(
            entry,
            raw=(*entry.raw[:index], *entry.raw[index + 1 :], entry.raw[index]),
            hashes=(*entry.hashes[:index], *entry.hashes[index + 1 :], receipt.hash),
            status="mined" if receipt.succeeded else "reverted",
            block=receipt.block,
            gas_used=receipt.gas_used,
            error="" if receipt.succeeded else await self._reason(entry, receipt),
        )
        await self._store.put(done)
        return done

    async def _reason(self, entry: OutboxEntry, receipt: Receipt) -> str:
        limit = transactions.read(entry.raw[entry.hashes.index(receipt.hash)]).gas
        if receipt.gas_used >= limit:
            return f"out of gas: all {limit} were used in block {receipt.block}"
        return await self._account.revert_reason(entry.to, entry.data, entry.value, receipt)

    async def _replan(self, entry: OutboxEntry) -> OutboxEntry:
        async with self._nonces:
            self._next_nonce = None
        planned = msgspec.structs.replace(entry, status="planned", nonce=None, raw=(), hashes=())
        await self._store.put(planned)
        return planned

    def _is_mine(self, entry: OutboxEntry) -> bool:
        return entry.key.startswith(self._scope) and entry.sender == to_hex(self._key.address)
