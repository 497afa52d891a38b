"""The host's log of one prompt job, its fold, and the table of what may follow what. Counts, hashes and times; never what was said.

Live and replay take the same road: `PromptLedger.apply(event)`. An intent (`ClaimSent`, `ResultMade`, `CompleteSent`) is written
before what it announces, a fact after it is seen, so a restart finds at most one step whose outcome is open, and asks for
it. Decides nothing: what comes next is `fabstir.protocol.prompt_job`.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

import msgspec

from fabstir.domain.ids import Address, Hash32
from fabstir.domain.money import PricePerMTok, Tokens
from fabstir.domain.prompts import Cid, PromptCompletion, PromptId, PromptTerms
from fabstir.domain.terms import Terms
from fabstir.protocol.prompt_content import answer_head
from fabstir.protocol.prompt_signing import market_terms, prompt_id
from fabstir.protocol.signing import Market, job_id

DIGEST: Final = 32


class Stage(Enum):
    """Where a prompt job stands for this host."""

    SEEN = "seen"
    """Queued; nothing promised."""
    CLAIMING = "claiming"
    """A claim was sent, or is about to be."""
    CLAIMED = "claimed"
    """This host holds it; no answer is there."""
    RUNNING = "running"
    """The engine was asked."""
    MADE = "made"
    """The answer is sealed, and about to be stored."""
    STORED = "stored"
    """The answer can be fetched by its CID."""
    COMPLETING = "completing"
    """The answer is being committed on chain."""
    COMPLETED = "completed"
    """The market job is open; it is to be handed to the settler."""
    SETTLING = "settling"
    """The settler has it. The last stage of an answered prompt."""
    FAILED = "failed"
    """This host cannot do it, and is to give it back."""
    ENDED = "ended"
    """Nothing more comes of it here."""


class PromptSeen(msgspec.Struct, frozen=True, tag="prompt_seen"):
    """This host is about to claim it; first event of the stream."""

    terms: PromptTerms
    board: Address
    market: Market
    host: Address
    at: float


class ClaimSent(msgspec.Struct, frozen=True, tag="prompt_claim_sent"):
    """Intent: claim number `attempt` is about to be sent."""

    attempt: int
    at: float


class ClaimHeld(msgspec.Struct, frozen=True, tag="prompt_claim_held"):
    """Seen on chain: this host holds it until `until`."""

    price: PricePerMTok
    until: int
    at: float


class ClaimLost(msgspec.Struct, frozen=True, tag="prompt_claim_lost"):
    """The claim was refused, lapsed, or was never sent because it was too late."""

    reason: str
    at: float


class ExecutionStarted(msgspec.Struct, frozen=True, tag="prompt_execution_started"):
    """The engine is about to be asked."""

    at: float


class ResultMade(msgspec.Struct, frozen=True, tag="prompt_result_made"):
    """Intent: this answer is sealed and about to be stored. `records` are the tokens' digests, 32 bytes each."""

    cid: Cid
    hash: Hash32
    request: Hash32
    records: bytes
    at: float


class ResultStored(msgspec.Struct, frozen=True, tag="prompt_result_stored"):
    """The store holds it under its CID."""

    at: float


class ResultMissing(msgspec.Struct, frozen=True, tag="prompt_result_missing"):
    """After a crash the store does not hold it, and memory does not either: it must be made again."""

    at: float


class CompleteSent(msgspec.Struct, frozen=True, tag="prompt_complete_sent"):
    """Intent: the answer is about to be committed on chain."""

    at: float


class PromptCompleted(msgspec.Struct, frozen=True, tag="prompt_completed"):
    """Seen on chain: the market job is open."""

    completion: PromptCompletion
    at: float


class HandedOver(msgspec.Struct, frozen=True, tag="prompt_handed_over"):
    """The market job's own log holds the answer; the settler does the rest."""

    at: float


class ExecutionFailed(msgspec.Struct, frozen=True, tag="prompt_execution_failed"):
    """This host cannot do it: code of the error, or `worthless` for an answer that costs nothing."""

    code: str
    at: float


class ClaimReleased(msgspec.Struct, frozen=True, tag="prompt_claim_released"):
    """Given back on chain."""

    reason: str
    at: float


class PromptExpired(msgspec.Struct, frozen=True, tag="prompt_expired"):
    """Over without an answer of this host: deadline, cancelled, refunded, or completed by another."""

    reason: str
    at: float


PromptEvent = (
    PromptSeen
    | ClaimSent
    | ClaimHeld
    | ClaimLost
    | ExecutionStarted
    | ResultMade
    | ResultStored
    | ResultMissing
    | CompleteSent
    | PromptCompleted
    | HandedOver
    | ExecutionFailed
    | ClaimReleased
    | PromptExpired
)
_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final[msgspec.msgpack.Decoder[PromptEvent]] = msgspec.msgpack.Decoder(PromptEvent)

_S = Stage
_HELD: Final = (_S.CLAIMED, _S.RUNNING, _S.MADE, _S.STORED, _S.COMPLETING)
_OPEN: Final = (_S.SEEN, _S.CLAIMING, *_HELD, _S.FAILED)

TRANSITIONS: Final[dict[tuple[Stage, type], Stage]] = {
    (_S.SEEN, ClaimSent): _S.CLAIMING,
    (_S.SEEN, ClaimHeld): _S.CLAIMED,
    (_S.CLAIMING, ClaimHeld): _S.CLAIMED,
    (_S.CLAIMING, ClaimLost): _S.SEEN,
    **{(stage, ClaimLost): _S.SEEN for stage in _HELD},
    (_S.FAILED, ClaimLost): _S.ENDED,
    (_S.CLAIMED, ExecutionStarted): _S.RUNNING,
    (_S.RUNNING, ExecutionStarted): _S.RUNNING,
    (_S.RUNNING, ResultMade): _S.MADE,
    (_S.MADE, ResultStored): _S.STORED,
    (_S.MADE, ResultMissing): _S.CLAIMED,
    (_S.STORED, CompleteSent): _S.COMPLETING,
    **{(stage, PromptCompleted): _S.COMPLETED for stage in (*_OPEN, _S.ENDED)},
    (_S.COMPLETED, HandedOver): _S.SETTLING,
    **{(stage, ExecutionFailed): _S.FAILED for stage in _HELD},
    **{(stage, ClaimReleased): _S.SEEN for stage in _HELD},
    (_S.FAILED, ClaimReleased): _S.ENDED,
    (_S.ENDED, ClaimReleased): _S.ENDED,
    **{(stage, PromptExpired): _S.ENDED for stage in _OPEN},
}
"""(stage, event) -> stage. A completion may show up at any time: it was sent, and mined later than anybody thought. Anything else
is a log that no version of this program wrote, and is refused with ValueError."""


def encode_event(event: PromptEvent) -> bytes:
    """As it stands in the journal (msgpack)."""
    return _encoder.encode(event)


def decode_event(data: bytes) -> PromptEvent:
    """Raises msgspec.MsgspecError on bytes that no version of this program wrote."""
    return _decoder.decode(data)


class PromptLedger:
    """The fold of one prompt job's log. Memory: 32 bytes for each token of the answer."""

    def __init__(self, seen: PromptSeen) -> None:
        self.seen: Final = seen
        self.terms: Final[PromptTerms] = seen.terms
        self.prompt: Final[PromptId] = prompt_id(seen.terms)
        self.stage = Stage.SEEN
        self.attempt = 0
        """Claims sent."""
        self.held: ClaimHeld | None = None
        self.holds = 0
        """Claims that were this host's."""
        self.last_until = 0
        """When the last of them lapses or lapsed: tells a new one from it."""
        self.executions = 0
        self.result: ResultMade | None = None
        """Outlives a claim: an answer that is there is not generated again."""
        self.stored = False
        self.completed: PromptCompleted | None = None
        self.fault = ""
        """Code of the error for which this host gave up, or why it is over."""

    @classmethod
    def replay(cls, events: list[PromptEvent]) -> PromptLedger:
        """The ledger after `events`. Raises ValueError where no version of this program can have written them."""
        if not events or not isinstance(events[0], PromptSeen):
            raise ValueError("a prompt job's log begins with prompt_seen")
        ledger = cls(events[0])
        for event in events[1:]:
            ledger.apply(event)
        return ledger

    @property
    def tokens(self) -> Tokens:
        """Of the answer; 0 while there is none."""
        return Tokens(len(self.result.records) // DIGEST) if self.result else Tokens(0)

    @property
    def digests(self) -> tuple[bytes, ...]:
        """The answer's token records, hashed."""
        records = self.result.records if self.result else b""
        return tuple(records[at : at + DIGEST] for at in range(0, len(records), DIGEST))

    @property
    def market_terms(self) -> Terms | None:
        """Of the job that pays for the answer; None before it is open. Raises ValueError where they do not hash to the job that
        the board named: then this program and the contract differ, and nothing may be signed."""
        if self.completed is None:
            return None
        terms = market_terms(self.seen.board, self.terms, self.completed.completion)
        if job_id(terms) != self.completed.completion.job:
            raise ValueError("the market job's terms do not hash to its id")
        return terms

    @property
    def head(self) -> Hash32 | None:
        """The market job's transcript after the answer; None before both are there."""
        terms = self.market_terms
        if terms is None or self.result is None:
            return None
        return answer_head(self.seen.market, terms, self.result.request, self.digests)

    def apply(self, event: PromptEvent) -> None:
        """Take one event in. Raises ValueError where it cannot follow."""
        stage = TRANSITIONS.get((self.stage, type(event)))
        if stage is None:
            raise ValueError(f"{type(event).__name__} cannot follow {self.stage.value}")
        self.stage = stage
        match event:
            case ClaimSent():
                self.attempt = event.attempt
            case ClaimHeld():
                self.held, self.holds, self.last_until = event, self.holds + 1, event.until
                self.stage = self._stage_of_result()
            case ClaimLost() | ClaimReleased():
                self.held = None
            case ExecutionStarted():
                self.executions += 1
            case ResultMade():
                self.result = event
            case ResultStored():
                self.stored = True
            case ResultMissing():
                self.result = None
            case PromptCompleted():
                self.completed, self.held = event, None
            case ExecutionFailed():
                self.fault = event.code
            case PromptExpired():
                self.fault, self.held = self.fault or event.reason, None
            case _:
                pass  # the stage is all that changes

    def _stage_of_result(self) -> Stage:
        if self.result is None:
            return Stage.CLAIMED
        return Stage.STORED if self.stored else Stage.MADE

    def __repr__(self) -> str:
        return (
            f"<PromptLedger {self.prompt.hex()[:8]} {self.stage.value}: attempt {self.attempt}, {self.tokens} tokens>"
        )
