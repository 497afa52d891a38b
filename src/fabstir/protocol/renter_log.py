"""The renter's log of one job, and its fold: what was signed for, and what the transcript was there.

Holds counts, hashes, signatures and the job's session key; never what was said. A voucher is in the log before it is on
the wire, so that a restarted renter never signs less or other than before.
"""

from __future__ import annotations

from typing import Final

import msgspec

from fabstir.domain.ids import Hash32, JobId
from fabstir.domain.money import BaseUnits, Tokens, affordable, cost
from fabstir.domain.terms import Terms
from fabstir.protocol.signing import Market, job_id
from fabstir.protocol.transcript import job_head


class JobPlanned(msgspec.Struct, frozen=True, tag="job_planned"):
    """Intent: these terms are about to be opened. First event of its stream."""

    terms: Terms
    deposit: BaseUnits
    market: Market
    session_key: bytes
    host_url: str
    at: float
    payable_until: int = 0
    """Unix seconds until which the signed transfer can pay the deposit, whoever sends it; 0: this account sends the deposit."""
    rung: int | None = None
    """Of the ladder of verification that the price is of, where one was asked for by name."""


class JobOpened(msgspec.Struct, frozen=True, tag="job_opened"):
    """The deposit is in the contract."""

    gas_used: int
    at: float


class TopUpPlanned(msgspec.Struct, frozen=True, tag="top_up_planned"):
    """Intent: `amount` is about to be added to the deposit."""

    amount: BaseUnits
    at: float


class ToppedUp(msgspec.Struct, frozen=True, tag="topped_up"):
    """Seen on chain: the deposit now. Also where a top-up failed: then it is what it was."""

    deposit: BaseUnits
    gas_used: int
    at: float


class VoucherSigned(msgspec.Struct, frozen=True, tag="voucher_signed"):
    """Written before it is sent."""

    tokens: Tokens
    amount: BaseUnits
    transcript: Hash32
    signature: bytes
    receipt: bytes = b""
    """The host's signature over the same, and `tokens_in`; empty in logs of before this was written."""
    tokens_in: Tokens = Tokens(0)


class TurnSeen(msgspec.Struct, frozen=True, tag="turn_seen"):
    """An answer ended; `received` counts the job's tokens, `reason` is a finish reason or an error code."""

    message_index: int
    received: Tokens
    reason: str


class HostReleased(msgspec.Struct, frozen=True, tag="host_released"):
    """The host agreed to the end: with its Close signature the renter may close at once."""

    tokens: Tokens
    amount: BaseUnits
    close_signature: bytes


class JobSettled(msgspec.Struct, frozen=True, tag="job_settled"):
    """Seen on chain; last event of the stream."""

    owed: BaseUnits
    refund: BaseUnits
    at: float


RenterEvent = JobPlanned | JobOpened | TopUpPlanned | ToppedUp | VoucherSigned | TurnSeen | HostReleased | JobSettled
_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final[msgspec.msgpack.Decoder[RenterEvent]] = msgspec.msgpack.Decoder(RenterEvent)


def encode_event(event: RenterEvent) -> bytes:
    """As it stands in the journal (msgpack)."""
    return _encoder.encode(event)


def decode_event(data: bytes) -> RenterEvent:
    """Raises msgspec.MsgspecError on bytes that no version of this program wrote."""
    return _decoder.decode(data)


class RenterLedger:
    """The fold of one job's log on the renter's side."""

    def __init__(self, planned: JobPlanned) -> None:
        self.planned: Final = planned
        self.terms: Final[Terms] = planned.terms
        self.market: Final[Market] = planned.market
        self.job: Final[JobId] = job_id(planned.terms)
        self.deposit = planned.deposit
        self.topping_up: TopUpPlanned | None = None
        """A top-up of which it is not known whether it was mined."""
        self.start: Final = job_head(planned.market, planned.terms)
        self.opened = False
        self.voucher: VoucherSigned | None = None
        self.released: HostReleased | None = None
        self.settled: JobSettled | None = None

    @classmethod
    def replay(cls, events: list[RenterEvent]) -> RenterLedger:
        """The ledger after `events`. Raises ValueError where they do not begin with JobPlanned."""
        if not events or not isinstance(events[0], JobPlanned):
            raise ValueError("a job's log begins with job_planned")
        ledger = cls(events[0])
        for event in events[1:]:
            ledger.apply(event)
        return ledger

    @property
    def signed(self) -> Tokens:
        """Tokens that the renter signed for: all that it can be made to pay, beyond the bounded unsigned tail."""
        return self.voucher.tokens if self.voucher else Tokens(0)

    @property
    def signed_head(self) -> Hash32:
        """The transcript's head at `signed`."""
        return self.voucher.transcript if self.voucher else self.start

    @property
    def affordable(self) -> Tokens:
        """What the deposit pays for, from the start of the job."""
        return affordable(self.deposit, self.terms.price)

    def amount(self, tokens: Tokens) -> BaseUnits:
        """Cumulative price of `tokens`."""
        return cost(tokens, self.terms.price)

    def apply(self, event: RenterEvent) -> None:
        """Take one event in."""
        match event:
            case JobOpened():
                self.opened = True
            case TopUpPlanned():
                self.topping_up = event
            case ToppedUp():
                self.topping_up, self.deposit = None, event.deposit
            case VoucherSigned():
                self.voucher = event
            case HostReleased():
                self.released = event
            case JobSettled():
                self.settled = event
            case JobPlanned() | TurnSeen():
                pass  # nothing is derived from these

    def __repr__(self) -> str:
        state = "settled" if self.settled else "open" if self.opened else "planned"
        return f"<RenterLedger {self.job.hex()[:8]} {state}: signed {self.signed} tokens>"
