"""What host and renter say to each other about prompt jobs over HTTP: the voucher for an answer, and how a job gets on.

Amounts are decimal strings, hashes 0x-prefixed lower-case hex, as in `fabstir.protocol.messages`. Pure.
Specification: docs/reference/http.md (generated from here).
"""

from __future__ import annotations

import msgspec

from fabstir.domain.errors import error
from fabstir.domain.ids import Hash32, from_hex, to_hex
from fabstir.domain.money import BaseUnits, Tokens
from fabstir.protocol.messages import Count, Decimal, Hex32, Signature
from fabstir.protocol.prompt_order_log import AnswerSigned
from fabstir.protocol.prompt_tracking import Position, TrackedChange


class WireVoucher(msgspec.Struct, frozen=True, kw_only=True):
    """The renter's voucher for the whole answer: signed as in a session (EIP-712 `Voucher`), with the key `signer` of the terms."""

    tokens: Count
    amount: Decimal
    transcript: Hex32
    """The head over the answer's token records."""
    signature: Signature

    @classmethod
    def of(cls, signed: AnswerSigned) -> WireVoucher:
        """`signed` as text."""
        return cls(
            tokens=signed.tokens,
            amount=str(signed.amount),
            transcript=to_hex(signed.transcript),
            signature=to_hex(signed.signature),
        )

    def values(self) -> tuple[Tokens, BaseUnits, Hash32, bytes]:
        """(tokens, amount, transcript, signature)."""
        head = Hash32(from_hex(self.transcript, 32))
        return Tokens(self.tokens), BaseUnits(int(self.amount)), head, from_hex(self.signature, 65)


class WireProgress(msgspec.Struct, frozen=True, kw_only=True):
    """Where a prompt job stands at this host."""

    prompt: Hex32
    stage: str
    """`claiming`, `claimed`, `running`, `made`, `stored`, `completing`, `completed`, `settling`, `failed`, `seen` or `ended`."""
    reason: str
    """Why a claim was lost or given back, or the job ended."""
    at: float
    """Unix seconds."""
    position: str
    """Hand it back as `after` to get what follows."""
    lagged: bool = False
    """Changes before this one were forgotten."""

    @classmethod
    def of(cls, change: TrackedChange, position: Position, lagged: bool = False) -> WireProgress:
        """`change` as text."""
        return cls(
            prompt=to_hex(change.prompt),
            stage=change.stage,
            reason=change.reason,
            at=change.at,
            position=f"{position.epoch}-{position.sequence}",
            lagged=lagged,
        )


def position_of(text: str) -> Position:
    """A reader's position. Raises PeerFault (`request_invalid`)."""
    epoch, _, sequence = text.partition("-")
    if not (epoch.isascii() and epoch.isdigit() and sequence.isascii() and sequence.isdigit()):
        raise error("request_invalid", "`after` is a position that this host gave")
    return Position(int(epoch[:18]), int(sequence[:18]))
