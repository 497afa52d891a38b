"""The `PromptBoard`, as host and renter see it: one account's view of prompt jobs, beside its view of the market.

Writes go through the outbox, as all of `fabstir.ports.chain` do: `key` names the intent, which is sent at most once. Events
are a hint what to look at; what a job's state is says `prompt`.
"""

from __future__ import annotations

from typing import Literal, Protocol

import msgspec

from fabstir.domain.ids import ZERO_ADDRESS, Address, Hash32
from fabstir.domain.money import BaseUnits, Tokens
from fabstir.domain.prompts import Cid, PromptCompletion, PromptId, PromptStatus, PromptTerms
from fabstir.ports.chain import MarketChain, TxResult

BoardEventName = Literal["posted", "assigned", "claimed", "released", "completed", "cancelled", "refunded"]


class BoardEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One event of the board. `terms` are in `posted` alone: whoever follows keeps them."""

    name: BoardEventName
    prompt: PromptId
    terms: PromptTerms | None = None
    host: Address = ZERO_ADDRESS
    until: int = 0
    """Unix seconds at which claim or reservation is over."""


class BoardFeed(Protocol):
    """What happened on the board since the last look."""

    async def read(self) -> list[BoardEvent]:
        """Everything new, in order; empty where nothing is. Raises ChainFault; then nothing is lost.

        After a reorganisation an event may come again, or have been of a block that is gone.
        """
        ...


class PromptChain(MarketChain, Protocol):
    """One account's view of market and board. Raises ChainFault."""

    # -- reads
    async def prompt(self, prompt: PromptId) -> PromptStatus: ...
    async def completion(self, prompt: PromptId, since: float) -> PromptCompletion | None:
        """The event of its completion, looked for in the blocks from Unix second `since` on; None where there is none."""
        ...

    async def follow_board(self, since: float) -> BoardFeed:
        """The events from Unix second `since` on."""
        ...

    # -- writes
    async def approve_board(self, key: str, token: Address, amount: BaseUnits) -> TxResult: ...
    async def post_prompt(self, key: str, terms: PromptTerms) -> TxResult:
        """Deposit the escrow: native coin, or an ERC-20 that the board may take."""
        ...

    async def post_prompt_with_authorization(
        self, key: str, terms: PromptTerms, valid_before: int, signature: bytes
    ) -> TxResult:
        """Relay a renter's signed escrow (EIP-3009)."""
        ...

    async def claim_prompt(self, key: str, terms: PromptTerms, host: Address) -> TxResult: ...
    async def assign_prompts(self, key: str, pairs: tuple[tuple[PromptTerms, Address], ...]) -> TxResult:
        """Reserve each prompt for its host; all or none."""
        ...

    async def release_prompt(self, key: str, terms: PromptTerms) -> TxResult: ...
    async def complete_prompt(
        self, key: str, terms: PromptTerms, tokens: Tokens, result_cid: Cid, result_hash: Hash32
    ) -> TxResult: ...
    async def cancel_prompt(self, key: str, terms: PromptTerms) -> TxResult: ...
    async def refund_prompt(self, key: str, terms: PromptTerms) -> TxResult: ...
    async def set_claim_delegate(self, key: str, delegate: Address, until: int) -> TxResult:
        """Let `delegate` claim and release for this account until then (Unix seconds); 0 takes it back."""
        ...
