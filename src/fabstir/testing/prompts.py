"""The prompt board of `fabstir.testing.chain`, as one account uses it.

`MemoryBoard` has the rules; here its calls become transactions that move money and open jobs in the market. A call works on
a copy of the board, so that a refused one changes nothing, as on a chain.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Final

import msgspec

from fabstir.domain.errors import error
from fabstir.domain.ids import ZERO_ADDRESS, Address, Hash32
from fabstir.domain.money import BaseUnits, Tokens
from fabstir.domain.prompts import Cid, PromptCompletion, PromptId, PromptStatus, PromptTerms
from fabstir.ports.chain import TxResult
from fabstir.ports.prompts import BoardEvent, BoardEventName
from fabstir.protocol import settlement
from fabstir.protocol.authorization import authorization_digest
from fabstir.protocol.prompt_signing import escrow_of, prompt_id
from fabstir.protocol.settlement import Reverted
from fabstir.protocol.signing import recover
from fabstir.testing.chain import INFO, MIN_STAKE, Effect, Ledger, MemoryChain, settle, take
from fabstir.testing.memory_board import MemoryBoard
from fabstir.testing.registry import MemoryRegistry, allow, kept_stake

_NAMES: Final[dict[str, BoardEventName]] = {
    "PromptPosted": "posted",
    "PromptAssigned": "assigned",
    "PromptClaimed": "claimed",
    "PromptReleased": "released",
    "PromptCompleted": "completed",
    "PromptCancelled": "cancelled",
    "PromptRefunded": "refunded",
}
Move = Callable[[MemoryBoard], object]


class MemoryFeed:
    """`BoardFeed` over the board's events."""

    def __init__(self, chain: MemoryChain, taken: int) -> None:
        self._chain = chain
        self._taken = taken

    async def read(self) -> list[BoardEvent]:
        """Everything new."""
        self._chain.check_reachable()
        found = self._chain.ledger.board.events[self._taken :]
        self._taken += len(found)
        return [
            BoardEvent(name=_NAMES[one.name], prompt=one.prompt, terms=one.terms, host=one.host, until=one.until)
            for one in found
        ]


class MemoryPrompts(MemoryRegistry):
    """Part of `MemoryMarket`."""

    # -- reads
    async def prompt(self, prompt: PromptId) -> PromptStatus:
        return self._read().board.status(prompt)

    async def completion(self, prompt: PromptId, since: float) -> PromptCompletion | None:
        board = self._read().board
        late = any(event.at >= since for event in board.events if event.completion and event.prompt == prompt)
        return board.completion(prompt) if late else None

    async def follow_board(self, since: float) -> MemoryFeed:
        events = self._read().board.events
        return MemoryFeed(self._chain, sum(event.at < since for event in events))

    # -- writes
    async def approve_board(self, key: str, token: Address, amount: BaseUnits) -> TxResult:
        board = self._chain.info.board
        return await self._transact(key, lambda ledger, now, block: allow(ledger, token, self._account, board, amount))

    async def post_prompt(self, key: str, terms: PromptTerms) -> TxResult:
        if terms.token == ZERO_ADDRESS and self._read().balance(ZERO_ADDRESS, self._account) < escrow_of(terms):
            raise error("funds_insufficient", detail=f"{escrow_of(terms)} wei are needed")
        return await self._transact(key, self._posting(terms, self._account, self._chain.info.board))

    async def post_prompt_with_authorization(
        self, key: str, terms: PromptTerms, valid_before: int, signature: bytes
    ) -> TxResult:
        post, info = self._posting(terms, terms.renter, None), self._chain.info
        escrow, nonce = escrow_of(terms), Hash32(prompt_id(terms))

        def effect(ledger: Ledger, now: int, block: int) -> Ledger:
            if terms.token == ZERO_ADDRESS:
                raise Reverted("BadPrompt")
            posted = post(ledger, now, block)
            parties = (info.chain_id, terms.token, terms.renter, info.board)
            if now >= valid_before:
                raise Reverted("AuthorizationExpired")
            if recover(authorization_digest(*parties, escrow, valid_before, nonce), signature) != terms.renter:
                raise Reverted("SignatureInvalid")
            return posted

        return await self._transact(key, effect)

    async def claim_prompt(self, key: str, terms: PromptTerms, host: Address) -> TxResult:
        return await self._on_board(key, lambda board: board.claim(self._account, terms, host))

    async def assign_prompts(self, key: str, pairs: tuple[tuple[PromptTerms, Address], ...]) -> TxResult:
        return await self._on_board(key, lambda board: board.assign_many(self._account, pairs))

    async def release_prompt(self, key: str, terms: PromptTerms) -> TxResult:
        return await self._on_board(key, lambda board: board.release(self._account, terms))

    async def complete_prompt(
        self, key: str, terms: PromptTerms, tokens: Tokens, result_cid: Cid, result_hash: Hash32
    ) -> TxResult:
        return await self._on_board(
            key, lambda board: board.complete(self._account, terms, tokens, result_cid, result_hash)
        )

    async def cancel_prompt(self, key: str, terms: PromptTerms) -> TxResult:
        return await self._on_board(key, lambda board: board.cancel(self._account, terms))

    async def refund_prompt(self, key: str, terms: PromptTerms) -> TxResult:
        return await self._on_board(key, lambda board: board.refund(terms))

    async def set_claim_delegate(self, key: str, delegate: Address, until: int) -> TxResult:
        return await self._on_board(key, lambda board: board.set_claim_delegate(self._account, delegate, until))

    # -- how a call becomes a move
    def _posting(self, terms: PromptTerms, payer: Address, spender: Address | None) -> Effect:
        def effect(ledger: Ledger, now: int, block: int) -> Ledger:
            ledger = moved(ledger, lambda board: board.post(payer, terms), now, block)
            return take(ledger, payer, terms.token, escrow_of(terms), spender)

        return effect

    async def _on_board(self, key: str, move: Move) -> TxResult:
        return await self._transact(key, lambda ledger, now, block: moved(ledger, move, now, block))


def moved(ledger: Ledger, move: Move, now: int, block: int) -> Ledger:
    """The board's move, with what it pays back and the jobs that it opens. Raises Reverted."""
    before, board = ledger.board, _copied(ledger, now)
    move(board)
    ledger = msgspec.structs.replace(ledger, board=board)
    for (renter, token), total in board.refunded.items():
        ledger = ledger.paid(token, renter, total - before.refunded.get((renter, token), 0))
    for token, held in board.escrowed.items():
        opened = [(job, terms, deposit) for job, (terms, deposit) in board.jobs.items() if job not in before.jobs]
        ledger = ledger.paid(token, INFO.board, held - before.escrowed.get(token, 0))
        for _, terms, deposit in opened:
            if terms.token == token:
                ledger = settle(ledger, settlement.Open(INFO.board, terms, deposit), now, block)
    return ledger


def _copied(ledger: Ledger, now: int) -> MemoryBoard:
    """A board that can be changed, at the time of the next block, with the registry as it is."""
    board = copy.copy(ledger.board)
    for name, value in vars(board).items():
        if isinstance(value, dict | list | set):
            setattr(board, name, copy.copy(value))
    board.now = now
    board.active = {host for host in ledger.hosts if kept_stake(ledger, host) >= MIN_STAKE}
    board.prices = {
        (entry.address, offer.model_id, offer.token): offer.price
        for entry in ledger.hosts.values()
        for offer in entry.offers
    }
    return board
