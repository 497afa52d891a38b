"""The renter's log of one prompt job, its fold, and the table of what may follow what. Counts, hashes and signatures only.

What a check of the result needs (record salt, reply key) is not in here: the renter seals the prompt to its own key, too, and
reads it back from where it lies. Decides nothing: what comes next is `fabstir.protocol.prompt_order`.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

import msgspec

from fabstir.domain.ids import Address, Hash32
from fabstir.domain.money import BaseUnits, Tokens, cost
from fabstir.domain.prompts import PromptCompletion, PromptId, PromptTerms
from fabstir.domain.terms import Terms
from fabstir.protocol.prompt_signing import market_terms, prompt_id
from fabstir.protocol.signing import Market, job_id


class OrderStage(Enum):
    """Where a prompt job stands for its renter."""

    PLANNED = "planned"
    """Written down; perhaps posted."""
    POSTED = "posted"
    """The money lies on the board; hosts may work."""
    ANSWERED = "answered"
    """The answer is committed, the market job is open; the result is to be fetched."""
    ACCEPTED = "accepted"
    """The result is what the host committed to; nothing is signed yet."""
    REFUSED = "refused"
    """It is not, or nobody could fetch it."""
    SIGNED = "signed"
    """The voucher is made; the host is to get it."""
    DELIVERED = "delivered"
    """The host has the voucher."""
    DISPUTED = "disputed"
    """The host's claim is disputed."""
    ENDED = "ended"
    """Paid, refunded, cancelled or lost."""


class OrderPlanned(msgspec.Struct, frozen=True, tag="order_planned"):
    """Intent: these terms are about to be posted; first event of the stream."""

    terms: PromptTerms
    board: Address
    market: Market
    at: float


class OrderPosted(msgspec.Struct, frozen=True, tag="order_posted"):
    """Seen on chain."""

    at: float


class HostAssigned(msgspec.Struct, frozen=True, tag="order_host_assigned"):
    """Intent: the job is about to be reserved for `host`."""

    host: Address
    at: float


class HostLapsed(msgspec.Struct, frozen=True, tag="order_host_lapsed"):
    """`host` had its claim or reservation run out."""

    host: Address
    until: int
    at: float


class AnswerSeen(msgspec.Struct, frozen=True, tag="order_answer_seen"):
    """Seen on chain: an answer is committed."""

    completion: PromptCompletion
    at: float


class ResultAccepted(msgspec.Struct, frozen=True, tag="order_result_accepted"):
    """Fetched, opened, checked; `transcript` is the head over its records, computed here."""

    transcript: Hash32
    at: float


class ResultRefused(msgspec.Struct, frozen=True, tag="order_result_refused"):
    """Code of the error."""

    code: str
    at: float


class AnswerSigned(msgspec.Struct, frozen=True, tag="order_answer_signed"):
    """The voucher for the whole answer, stored before it is sent."""

    tokens: Tokens
    amount: BaseUnits
    transcript: Hash32
    signature: bytes
    at: float


class VoucherDelivered(msgspec.Struct, frozen=True, tag="order_voucher_delivered"):
    """The host confirmed it."""

    at: float


class DisputeSent(msgspec.Struct, frozen=True, tag="order_dispute_sent"):
    """Intent: the host's claim is about to be disputed."""

    reason: str
    at: float


class OrderEnded(msgspec.Struct, frozen=True, tag="order_ended"):
    """Seen on chain; last event of the stream."""

    how: str
    at: float


OrderEvent = (
    OrderPlanned
    | OrderPosted
    | HostAssigned
    | HostLapsed
    | AnswerSeen
    | ResultAccepted
    | ResultRefused
    | AnswerSigned
    | VoucherDelivered
    | DisputeSent
    | OrderEnded
)
_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final[msgspec.msgpack.Decoder[OrderEvent]] = msgspec.msgpack.Decoder(OrderEvent)

_S = OrderStage
TRANSITIONS: Final[dict[tuple[OrderStage, type], OrderStage]] = {
    (_S.PLANNED, OrderPosted): _S.POSTED,
    (_S.POSTED, HostAssigned): _S.POSTED,
    (_S.POSTED, HostLapsed): _S.POSTED,
    (_S.POSTED, AnswerSeen): _S.ANSWERED,
    (_S.ANSWERED, ResultAccepted): _S.ACCEPTED,
    (_S.ANSWERED, ResultRefused): _S.REFUSED,
    (_S.ACCEPTED, AnswerSigned): _S.SIGNED,
    (_S.SIGNED, VoucherDelivered): _S.DELIVERED,
    (_S.REFUSED, DisputeSent): _S.DISPUTED,
    **{(stage, OrderEnded): _S.ENDED for stage in _S if stage is not _S.ENDED},
}
"""(stage, event) -> stage. Anything else is a log that no version of this program wrote, and is refused with ValueError."""


def encode_event(event: OrderEvent) -> bytes:
    """As it stands in the journal (msgpack)."""
    return _encoder.encode(event)


def decode_event(data: bytes) -> OrderEvent:
    """Raises msgspec.MsgspecError on bytes that no version of this program wrote."""
    return _decoder.decode(data)


class OrderLedger:
    """The fold of one prompt job's log on the renter's side."""

    def __init__(self, planned: OrderPlanned) -> None:
        self.planned: Final = planned
        self.terms: Final[PromptTerms] = planned.terms
        self.prompt: Final[PromptId] = prompt_id(planned.terms)
        self.stage = OrderStage.PLANNED
        self.assigned: list[Address] = []
        """Every host that it was reserved for, in order."""
        self.lapses: set[tuple[Address, int]] = set()
        """(host, until) of each claim or reservation that ran out."""
        self.answer: PromptCompletion | None = None
        self.transcript: Hash32 | None = None
        self.fault = ""
        self.voucher: AnswerSigned | None = None
        self.ended = ""

    @classmethod
    def replay(cls, events: list[OrderEvent]) -> OrderLedger:
        """The ledger after `events`. Raises ValueError where no version of this program can have written them."""
        if not events or not isinstance(events[0], OrderPlanned):
            raise ValueError("an order's log begins with order_planned")
        ledger = cls(events[0])
        for event in events[1:]:
            ledger.apply(event)
        return ledger

    @property
    def lapsed(self) -> frozenset[Address]:
        """Hosts that let it run out: not asked again."""
        return frozenset(host for host, _ in self.lapses)

    @property
    def market_terms(self) -> Terms | None:
        """Of the job that pays for the answer; None before it is open. Raises ValueError where they do not hash to the job that
        the board named."""
        if self.answer is None:
            return None
        terms = market_terms(self.planned.board, self.terms, self.answer)
        if job_id(terms) != self.answer.job:
            raise ValueError("the market job's terms do not hash to its id")
        return terms

    @property
    def price(self) -> BaseUnits:
        """What the answer costs; 0 while there is none."""
        return cost(self.answer.tokens, self.answer.price) if self.answer else BaseUnits(0)

    def apply(self, event: OrderEvent) -> None:
        """Take one event in. Raises ValueError where it cannot follow."""
        stage = TRANSITIONS.get((self.stage, type(event)))
        if stage is None:
            raise ValueError(f"{type(event).__name__} cannot follow {self.stage.value}")
        self.stage = stage
        match event:
            case HostAssigned():
                self.assigned.append(event.host)
            case HostLapsed():
                self.lapses.add((event.host, event.until))
            case AnswerSeen():
                self.answer = event.completion
            case ResultAccepted():
                self.transcript = event.transcript
            case ResultRefused():
                self.fault = event.code
            case AnswerSigned():
                self.voucher = event
            case OrderEnded():
                self.ended = event.how
            case _:
                pass  # the stage is all that changes

    def __repr__(self) -> str:
        return (
            f"<OrderLedger {self.prompt.hex()[:8]} {self.stage.value}: {len(self.lapses)} lapsed, costs {self.price}>"
        )
