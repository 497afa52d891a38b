"""A host's epochs: commits sessions that wait together, answers the challenge, redeems what was proven.

Decides nothing: `fabstir.protocol.epoch_plan` and `settlement_plan` do. Before an epoch is committed, each of its
sessions has its place in its own log; so after a crash everything follows from journal and contract, and what was
never committed is simply not found there. One epoch at a time; jobs that cannot wait never come here.
"""

from __future__ import annotations

from itertools import groupby

import msgspec
import structlog

from fabstir.domain.errors import FabstirError, error
from fabstir.domain.ids import Hash32
from fabstir.host.jobs import JobBook
from fabstir.host.proving import Proving, siblings_of
from fabstir.ops.metrics import Metrics
from fabstir.ports.chain import ClaimArgs, EpochState, MarketChain, ProofArgs
from fabstir.protocol.commitments import challenged_position, open_path
from fabstir.protocol.epoch_plan import LARGEST, REDEEMED_AT_ONCE, EpochView, OpenEpoch
from fabstir.protocol.epochs import covering_path, drawn, epoch_seed, epoch_words, place_all
from fabstir.protocol.host_log import EpochJoined, HostLedger, ProofAccepted, VoucherAccepted
from fabstir.protocol.settlement_plan import Action, JoinEpoch, JoinRedemption, RedeemByEpoch, RedeemVoucher
from fabstir.protocol.signing import keccak

log = structlog.get_logger("fabstir.settler")

Joining = tuple[HostLedger, JoinEpoch]
Redeeming = tuple[HostLedger, RedeemByEpoch]


def _common(row: Redeeming) -> tuple[bytes, bytes, int, bytes]:
    """Epoch, token, policy, model."""
    ledger, action = row
    return action.epoch.place.root, ledger.terms.token, ledger.terms.policy, ledger.terms.model_id


def claim_of(ledger: HostLedger, voucher: VoucherAccepted) -> ClaimArgs:
    """A voucher, ready for the contract."""
    return ClaimArgs(
        terms=ledger.terms,
        amount=voucher.amount,
        tokens=voucher.tokens,
        transcript=voucher.transcript,
        signature=voucher.signature,
    )


class Epochs:
    """Part of the settler. Memory: what the contract said at the last look."""

    def __init__(self, book: JobBook, chain: MarketChain, proving: Proving) -> None:
        self._book = book
        self._chain = chain
        self._proving = proving
        self._open: OpenEpoch | None = None
        self._proven: dict[Hash32, bool] = {}

    def __repr__(self) -> str:
        return f"<Epochs {self._open}>"

    async def look(self) -> None:
        """Ask the contract, once for each pass. Where it cannot be asked there are no epochs in this pass."""
        self._open, self._proven = None, {}
        try:
            state: EpochState = await self._chain.epoch(self._chain.account)
            self._open = OpenEpoch(state.pending_block, state.digest, await self._chain.block_number())
        except FabstirError as fault:
            log.warning("epochs_unknown", code=fault.code, detail=fault.detail)

    async def view(self, ledger: HostLedger) -> EpochView | None:
        """The epochs as this job sees them. Raises ChainFault."""
        if self._open is None:
            return None
        place = ledger.epoch.place if ledger.epoch else None
        if place is not None and place.root not in self._proven:
            self._proven[place.root] = await self._chain.proven_epoch(self._chain.account, place.root) > 0
        return self._open.view(place, {root for root, known in self._proven.items() if known})

    @property
    def waiting(self) -> bool:
        """An epoch is on its way: look again with the next block."""
        return self._open is not None and self._open.busy

    def drawn(self, seed_hash: Hash32) -> HostLedger | None:
        """Whose session the challenge of the open epoch falls to; None where no log holds it."""
        opened, info = self._open, self._chain.info
        held = [
            ledger for ledger in self._book.ledgers() if opened and ledger.epoch and opened.holds(ledger.epoch.place)
        ]
        if not held or held[0].epoch is None:
            return None
        any_place = held[0].epoch.place
        seed = epoch_seed(info.chain_id, info.epochs, self._chain.account, any_place.root, seed_hash)
        place = drawn(
            [ledger.epoch.place for ledger in held if ledger.epoch], challenged_position(seed, any_place.total)
        )
        return next((ledger for ledger in held if place and ledger.epoch and ledger.epoch.place is place), None)

    def concerned(self, joining: list[Joining]) -> list[HostLedger]:
        """Whose money waits where an epoch cannot go on: who would join, and who is in the open one."""
        opened = self._open
        inside = [one for one in self._book.ledgers() if opened and one.epoch and opened.holds(one.epoch.place)]
        return inside + [ledger for ledger, _ in joining if ledger not in inside]

    async def answer(self, metrics: Metrics) -> None:
        """The challenge of the open epoch, where it is known. Raises FabstirError."""
        if self._open is None or not self._open.answerable:
            return
        seed_hash = await self._chain.block_hash(self._open.seed_block)
        ledger = None if seed_hash is None else self.drawn(seed_hash)
        if seed_hash is None or ledger is None or ledger.epoch is None:
            log.warning("epoch_not_in_journal", block=self._open.pending_block)
            return
        proof, seconds = await self._prove(ledger, ledger.epoch, seed_hash)
        place = ledger.epoch.place
        key = f"prove_epoch:{place.root.hex()}:{self._open.seed_block}:{seed_hash[:8].hex()}"
        result = await self._chain.prove_epoch(key, ledger.terms, siblings_of(place.siblings), proof)
        metrics.prove_seconds.observe(seconds)
        before = {other.job: max((p.tokens for p in other.proofs), default=0) for other in self._book.ledgers()}
        for other in self._book.ledgers():
            joined = other.epoch
            if joined is None or joined.place.root != place.root:
                continue
            tokens = joined.place.session.tokens
            async with self._book.exclusive(other):
                share = result.gas_used // place.width
                await self._book.record(other, ProofAccepted(tokens, seconds / place.width, share))
            metrics.proven_tokens.inc(max(0, tokens - before[other.job]))
            self._proving.accepted(proof, other.job, metrics)
        log.info("epoch_proven", sessions=place.width, tokens=place.total, gas_used=result.gas_used)

    async def _prove(self, ledger: HostLedger, joined: EpochJoined, seed_hash: Hash32) -> tuple[ProofArgs, float]:
        info, place = self._chain.info, joined.place
        seed = epoch_seed(info.chain_id, info.epochs, self._chain.account, place.root, seed_hash)
        position = challenged_position(seed, place.total) - place.before
        path = open_path(ledger.joined, position)

        def words_of(circuit: Hash32) -> bytes:
            return epoch_words(info.chain_id, info.epochs, ledger.terms, place, path, circuit)

        return await self._proving.prove(ledger, place.session, path, seed, words_of)

    async def commit(self, joining: list[Joining]) -> None:
        """Write every session's place into its log, then commit. What is beyond the bound waits. Raises FabstirError."""
        joining = joining[:LARGEST]
        places = place_all([action.joined for _, action in joining])
        for (ledger, action), place in zip(joining, places, strict=True):
            async with self._book.exclusive(ledger):
                await self._book.record(ledger, EpochJoined(place, action.checkpoints))
        root, total = places[0].root, places[0].total
        block = await self._chain.block_number()
        result = await self._chain.commit_epoch(f"epoch:{root.hex()}:{block // 256}", root, total)
        log.info("epoch_committed", sessions=len(places), tokens=total, gas_used=result.gas_used)

    async def redeem(self, redeeming: list[Redeeming]) -> list[tuple[HostLedger, FabstirError]]:
        """Everything that proven epochs hold, in bounded batches: each of one epoch, and of jobs that have in common what the contract
        is told only once. Returns what was not taken."""
        failed: list[tuple[HostLedger, FabstirError]] = []
        in_order = sorted(redeeming, key=lambda row: (*_common(row), row[1].epoch.place.index))
        for (root, *_), group in groupby(in_order, key=_common):
            rows = list(group)
            for at in range(0, len(rows), REDEEMED_AT_ONCE):
                failed += await self._redeem_or_split(Hash32(root), rows[at : at + REDEEMED_AT_ONCE])
        return failed

    async def _redeem_or_split(self, root: Hash32, batch: list[Redeeming]) -> list[tuple[HostLedger, FabstirError]]:
        """A claim that the contract refuses must not hold up the others: then each half goes on its own."""
        try:
            await self._redeem(root, batch)
        except FabstirError as fault:
            if fault.code != "chain_reverted" or len(batch) == 1:
                return [(ledger, fault) for ledger, _ in batch]
            middle = len(batch) // 2
            halves = batch[:middle], batch[middle:]
            return [row for half in halves for row in await self._redeem_or_split(root, half)]
        return []

    async def _redeem(self, root: Hash32, batch: list[Redeeming]) -> None:
        places = [action.epoch.place for _, action in batch]
        if any(action.voucher.transcript != action.epoch.place.session.head for _, action in batch):
            raise error("journal_failed", "a voucher is not over what the epoch holds")
        what = b"".join(ledger.job + action.voucher.tokens.to_bytes(4, "big") for ledger, action in batch)
        await self._chain.redeem_by_epoch(
            f"redeem_epoch:{root.hex()}:{keccak(what).hex()}",
            tuple(claim_of(ledger, action.voucher) for ledger, action in batch),
            tuple(place.session.tree_root for place in places),
            root,
            covering_path(places),
        )
        log.info("epoch_redeemed", sessions=len(batch))


class Together(msgspec.Struct):
    """What one pass of the settler collects, because it costs less with others."""

    vouchers: list[tuple[HostLedger, VoucherAccepted]] = msgspec.field(default_factory=list)
    """Due."""
    travelling: list[tuple[HostLedger, VoucherAccepted]] = msgspec.field(default_factory=list)
    """Worth a place beside one that is due."""
    joining: list[Joining] = msgspec.field(default_factory=list)
    redeeming: list[Redeeming] = msgspec.field(default_factory=list)

    def take(self, ledger: HostLedger, action: Action) -> None:
        """Whatever is of no concern here is left alone."""
        match action:
            case RedeemVoucher(voucher=voucher):
                self.vouchers.append((ledger, voucher))
            case JoinRedemption(voucher=voucher):
                self.travelling.append((ledger, voucher))
            case JoinEpoch():
                self.joining.append((ledger, action))
            case RedeemByEpoch():
                self.redeeming.append((ledger, action))
            case _:
                pass
