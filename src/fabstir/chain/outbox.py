"""Transactions that happen once: stored before they are signed, stored signed before they are sent, followed until they
are buried.

An intent is named by its key. Asked twice, it is sent once, also across restarts: one in a block gives its result, one
under way is joined. The life of an entry:

    planned -> signed <-> in a block -> mined | reverted    planned -> abandoned: refused before anything was signed; may be asked again
       ^---------'  a foreign transaction took the nonce, so no signed form can be mined any more

One nonce per entry, one transaction per nonce: a fee bump signs the same nonce again, so at most one form is mined. What
a reorganisation takes out of its block is sent again, as it was. A foreign transaction of this account means a second
program with this key: then nothing more is sent (`key_in_use`), what was signed is only looked for. A caller waits at
most `patience`; the entry is followed for as long as the outbox is open. Never decides what to send. Nonces and fees:
`signer`; orphaned blocks: `block_watch`. Specification: research/chain.md 3.2.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from typing import Final

import msgspec
import structlog

from fabstir.chain import transactions
from fabstir.chain.account import ChainAccount, PushAnswer, Receipt
from fabstir.chain.block_watch import BlockWatch
from fabstir.chain.fees import GWEI
from fabstir.chain.rpc import JsonRpc
from fabstir.chain.signer import GAS_HEADROOM, OutboxSettings, Signer
from fabstir.domain.errors import ChainFault, FabstirError, error
from fabstir.domain.ids import Address, to_hex
from fabstir.ports.chain import TransactionEnd, TxResult
from fabstir.ports.clock import Clock
from fabstir.ports.journal import NO_BLOCK, OutboxEntry, OutboxStore
from fabstir.protocol.signing import SigningKey

__all__ = ["GAS_HEADROOM", "Outbox", "OutboxSettings"]

log = structlog.get_logger("fabstir.chain")

UNSEEN_ROUNDS: Final = 5
"""A nonce was used and no endpoint shows a receipt of ours: asked so often, with pauses, before it is looked for who used it."""


class Outbox:
    """One per account and process. Memory: one task for each entry under way, and the block watch."""

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
        self._signer = Signer(self._account, key, chain_id, gas_floors or {}, settings)
        self._store = store
        self._sender: Final = to_hex(key.address)
        self._clock = clock
        self._scope = scope
        self._settings = settings
        self._signing = asyncio.Lock()
        self._running: dict[str, asyncio.Task[TxResult]] = {}
        self._watch = BlockWatch(
            rpc, clock, settings.watch_every, on_orphaned=self._take_up_orphan, on_buried=self._bury
        )
        self._refusal: FabstirError | None = None
        self.on_end: Callable[[TransactionEnd, int], None] = _ignore
        """Hears of the end of each transaction, once, and of the gas that it used."""

    def __repr__(self) -> str:
        return f"<Outbox {self._signer!r} running={sorted(self._running)}>"

    @property
    def waiting(self) -> int:
        """Entries that are in no block yet."""
        return len(self._running)

    @property
    def state(self) -> tuple[str, str]:
        """(`ok`, `fee_too_high` or `key_in_use`; the reason)."""
        if self._refusal is not None:
            return self._refusal.code, str(self._refusal)
        if self._running and self._signer.fee_is_too_high:
            return "fee_too_high", str(self._too_high())
        return "ok", ""

    async def send(self, key: str, to: Address, data: bytes, value: int = 0) -> TxResult:
        """Return when it is in a block. Raises ChainFault: `chain_reverted`; `transaction_lost`, `fee_too_high` while it is still
        followed; `key_in_use`."""
        name = self._scope + key
        task = self._running.get(name)
        if task is None:
            fresh = OutboxEntry(
                key=name, sender=self._sender, to=to_hex(to), data=data, value=value, created_at=self._clock.now()
            )
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
        await self._watch.close()  # nothing is taken up any more
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._watch.close()  # what came into a block meanwhile

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
        if self._refusal is not None:
            return self._refusal
        entry = await self._store.get(name)
        nonce = "not signed yet" if entry is None or entry.nonce is None else f"nonce {entry.nonce}"
        with contextlib.suppress(ChainFault):
            await self._signer.look_at_fee()
            if self._signer.fee_is_too_high:
                return self._too_high(nonce)
        return error("transaction_lost", detail=f"{nonce}, after {self._settings.patience:g} s")

    def _too_high(self, *more: str) -> FabstirError:
        asked, bound = self._signer.base_fee / GWEI, self._settings.max_fee / GWEI
        return error("fee_too_high", detail="; ".join((f"{asked:g} gwei, the bound is {bound:g}", *more)))

    # -- the life of an entry
    async def _drive(self, fresh: OutboxEntry, *, patient: bool) -> TxResult:
        entry = await self._store.get(fresh.key)
        if entry is None or entry.status == "abandoned":
            if self._refusal is not None:
                raise self._refusal
            entry = fresh
            await self._store.put(entry)
        elif entry.status == "signed" and entry.block:
            entry = await self._look_again(entry)
        while True:
            if entry.status == "planned":
                entry = await self._plan_through(entry, patient=patient)
            elif entry.status == "signed" and not entry.block:
                entry = await self._follow(entry)
            elif entry.error:
                raise error("chain_reverted", detail=entry.error)
            else:
                return TxResult(hash=entry.hashes[-1], block=entry.block, gas_used=entry.gas_used)

    async def _plan_through(self, entry: OutboxEntry, *, patient: bool) -> OutboxEntry:
        """planned -> signed, or raise with the entry abandoned. `patient`: wait out a chain that nobody can reach."""
        while True:
            if self._refusal is not None:
                raise self._refusal  # the entry stays planned: a later process, with the key for itself, sends it
            try:
                gas = await self._signer.gas(entry)
                async with self._signing:
                    return await self._sign(entry, gas)
            except ChainFault as fault:
                if fault.code == "key_in_use":
                    self._refuse(fault)
                elif patient and fault.code == "chain_unreachable":
                    await self._clock.sleep(self._settings.longest_poll)
                else:
                    await self._store.put(msgspec.structs.replace(entry, status="abandoned", error=str(fault)))
                    self.on_end(TransactionEnd.REFUSED, 0)
                    raise

    async def _sign(self, entry: OutboxEntry, gas: int) -> OutboxEntry:
        own = [other for other in await self._store.unfinished() if self._is_mine(other)]
        signed = await self._signer.sign(entry, gas, own)
        await self._store.put(signed)
        self._signer.given(transactions.read(signed.raw[-1]).nonce)
        return signed

    async def _push(self, entry: OutboxEntry) -> PushAnswer:
        """The newest form. A chain that nobody reaches is no failure here: it is pushed again later."""
        if self._refusal is not None:
            return PushAnswer("refused", str(self._refusal))
        try:
            return await self._account.push(entry.raw[-1])
        except ChainFault as fault:
            return PushAnswer("refused", str(fault))

    async def _follow(self, entry: OutboxEntry) -> OutboxEntry:
        """signed -> in a block, or planned again where a foreign transaction has the nonce."""
        poll, again, unseen = 0.0, 0.0, 0
        pushed_at = self._clock.monotonic()
        answer = PushAnswer("refused")  # nobody has it yet, as far as this process knows
        while True:
            receipt = await self._receipt(entry, everywhere=unseen > 0)
            if receipt is not None:
                return await self._arrive(entry, receipt)
            if unseen >= UNSEEN_ROUNDS:
                unseen = 0
                if await self._is_taken(entry):
                    return await self._replan(entry)
            waited = self._clock.monotonic() - pushed_at
            if waited >= self._settings.bump_after:
                entry, answer = await self._bump(entry), PushAnswer("refused")
            if answer.outcome == "nonce_used" or (answer.outcome == "refused" and waited >= again):
                answer, pushed_at = await self._push(entry), self._clock.monotonic()
                unseen = unseen + 1 if answer.outcome == "nonce_used" else 0
                # what a node refuses (a fee below the block's) it will mostly refuse in a moment too
                again = min(max(again * 2, self._settings.first_poll), self._settings.bump_after)
            await self._clock.sleep(poll)
            poll = min(max(poll * 2, self._settings.first_poll), self._settings.longest_poll)

    async def _receipt(self, entry: OutboxEntry, *, everywhere: bool) -> Receipt | None:
        with contextlib.suppress(ChainFault):
            if everywhere:
                return await self._account.receipt_anywhere(entry.hashes)
            return await self._account.receipt(entry.hashes, transactions.read(entry.raw[-1]).nonce)
        return None

    async def _bump(self, entry: OutboxEntry) -> OutboxEntry:
        """The same nonce with a higher fee, stored; unchanged where bound, refusal or an unreachable chain forbids."""
        bumped = entry
        if self._refusal is None:
            with contextlib.suppress(ChainFault):
                bumped = await self._signer.bump(entry)
        if bumped is not entry:
            await self._store.put(bumped)
        return bumped

    async def _is_taken(self, entry: OutboxEntry) -> bool:
        """Whether the nonce is certainly used by a transaction that was not signed here. One in a recent block is the sign of
        another program at work: then nothing more is sent."""
        try:
            use = await self._account.nonce_use(transactions.read(entry.raw[-1]).nonce)
            if await self._account.receipt_anywhere(entry.hashes) is not None:
                return False
        except ChainFault:
            return False
        if use.kind == "found" and use.transaction is not None and use.transaction not in entry.hashes:
            foreign = to_hex(use.transaction)
            self._refuse(self._signer.in_use(f"{foreign} has nonce {entry.nonce} and was not signed here"))
            return True
        return use.kind == "buried"

    async def _arrive(self, entry: OutboxEntry, receipt: Receipt) -> OutboxEntry:
        """signed -> in a block; the form that is there goes last, for it is the one to send again."""
        index = entry.hashes.index(receipt.hash)
        there = msgspec.structs.replace(
            entry,
            raw=(*entry.raw[:index], *entry.raw[index + 1 :], entry.raw[index]),
            hashes=(*entry.hashes[:index], *entry.hashes[index + 1 :], receipt.hash),
            block=receipt.block,
            block_hash=receipt.block_hash,
            gas_used=receipt.gas_used,
            error="" if receipt.succeeded else await self._reason(entry, receipt),
        )
        await self._store.put(there)
        self._watch.add(there.key, there.block, there.block_hash)
        return there

    async def _look_again(self, entry: OutboxEntry) -> OutboxEntry:
        """Whether a signed entry is still in its block: as it was, in another block, or in none and to be sent again."""
        if await self._watch.still_there(entry.block, entry.block_hash) is not False:
            self._watch.add(entry.key, entry.block, entry.block_hash)
            return entry
        try:
            receipt = await self._account.receipt_anywhere(entry.hashes)
        except ChainFault:
            return entry
        if receipt is not None:
            return await self._arrive(entry, receipt)
        self._watch.remove(entry.key)
        orphan = msgspec.structs.replace(entry, block=0, block_hash=NO_BLOCK, gas_used=0, error="")
        await self._store.put(orphan)
        return orphan

    async def _take_up_orphan(self, name: str) -> None:
        entry = await self._store.get(name)
        if entry is not None and name not in self._running:
            self._start(entry, patient=True)

    async def _bury(self, name: str) -> None:
        entry = await self._store.get(name)
        if entry is not None and entry.status == "signed" and entry.block:
            end = TransactionEnd.REVERTED if entry.error else TransactionEnd.MINED
            await self._store.put(msgspec.structs.replace(entry, status=end.value))
            self.on_end(end, entry.gas_used)
        self._watch.remove(name)

    async def _reason(self, entry: OutboxEntry, receipt: Receipt) -> str:
        limit = transactions.read(entry.raw[entry.hashes.index(receipt.hash)]).gas
        if receipt.gas_used >= limit:
            return f"out of gas: all {limit} were used in block {receipt.block}"
        return await self._account.revert_reason(entry.to, entry.data, entry.value, receipt)

    async def _replan(self, entry: OutboxEntry) -> OutboxEntry:
        async with self._signing:
            self._signer.forget()
        planned = msgspec.structs.replace(entry, status="planned", nonce=None, raw=(), hashes=())
        await self._store.put(planned)
        self.on_end(TransactionEnd.LOST, 0)
        return planned

    def _refuse(self, fault: FabstirError) -> None:
        if self._refusal is None:
            self._refusal = fault
            log.error("sending_stopped", code=fault.code, detail=fault.detail, next_step=fault.next_step)

    def _is_mine(self, entry: OutboxEntry) -> bool:
        return entry.key.startswith(self._scope) and entry.sender == self._sender


def _ignore(end: TransactionEnd, gas_used: int) -> None:
    """Nobody counts."""
