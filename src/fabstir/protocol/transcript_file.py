"""What a renter keeps of a session to have it checked later: by itself, or by anyone to whom it gives the file.

Two forms of the same thing. A *session transcript* holds the words: with it and the weights, an answer can be computed again
(`fabstir verify session`). A *receipt file* holds only hashes, counts and signatures, and can be shown to anybody
(`fabstir verify receipt`). Both are JSON objects that name their form in `format`. Reads and checks; computes no model.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from fabstir.domain.errors import error
from fabstir.domain.ids import Address, Hash32, JobId, SessionId, from_hex, to_hex
from fabstir.domain.money import BaseUnits, Tokens, cost
from fabstir.domain.terms import Terms
from fabstir.protocol.context.preparing import bound_request
from fabstir.protocol.controls import sampler_of
from fabstir.protocol.fingerprinted import MAX_CHUNKS, FingerprintedAnswer
from fabstir.protocol.generation import GenerationRequest, request_of
from fabstir.protocol.messages import (
    ChatMessage,
    ContextPlan,
    Count,
    Decimal,
    Hex20,
    Hex32,
    Prompt,
    Signature,
    WireTerms,
    records_valid,
)
from fabstir.protocol.renter_log import RenterLedger
from fabstir.protocol.signing import Market, job_id, recover
from fabstir.protocol.transcript import Sampler, TokenRecord, Transcript, job_head, record_digest

TRANSCRIPT_FORMAT: Final = "fabstir/session-transcript/1"
RECEIPT_FORMAT: Final = "fabstir/receipt/1"


class SignedCount(msgspec.Struct, frozen=True, kw_only=True):
    """What both sides signed: the host its `Receipt`, the renter its `Voucher`."""

    tokens: Count
    tokens_in: Count
    amount: Decimal
    transcript: Hex32
    receipt: Signature
    """Of the host, over all five."""
    voucher: Signature
    """Of the renter's session key, over all but `tokens_in`."""


class SpokenTurn(msgspec.Struct, frozen=True, kw_only=True):
    """One answer, with its words."""

    tokens_before: Count
    """Tokens of the job before it."""
    messages: tuple[ChatMessage, ...]
    """What the engine was given, the question included."""
    prompt: Prompt
    """The question as it was sent, with the sampler's parameters and the seed."""
    salt: Hex32
    """Of the connection."""
    text: str
    records: tuple[TokenRecord, ...]
    prompt_tokens: Count = 0
    """By the host; 0 where the answer was cut off."""
    finish_reason: str = ""
    plan: ContextPlan | None = None
    """Of `messages`, where the prompt has a `context`: part of what the transcript binds."""
    fingerprints: Annotated[tuple[bytes, ...], Meta(max_length=MAX_CHUNKS)] = ()
    """Of the activations behind its tokens, where the host made some; base64 in the file."""
    fingerprints_signature: Signature | None = None
    """Of the host, over them (EIP-712 `Fingerprints`)."""

    @property
    def request(self) -> Hash32:
        """The hash that the transcript binds."""
        return bound_request(Hash32(from_hex(self.salt, 32)), self.messages, self.prompt, self.plan)

    @property
    def generation(self) -> GenerationRequest:
        """What an engine is asked for the same answer. Raises Refused (`control_invalid`)."""
        return request_of(self.prompt, self.messages)

    @property
    def sampler(self) -> Sampler:
        """What its tokens were drawn with."""
        return sampler_of(self.prompt)

    def digests(self) -> Iterator[bytes]:
        """Of its records."""
        salt, sampler = Hash32(from_hex(self.salt, 32)), self.sampler
        for index, record in enumerate(self.records, self.tokens_before):
            yield record_digest(salt, index, record, sampler)

    def hashed(self) -> HashedTurn:
        """The same without the words."""
        return HashedTurn(
            tokens_before=self.tokens_before,
            message_index=self.prompt.message_index,
            request=to_hex(self.request),
            records=b"".join(self.digests()),
        )

    def until(self, tokens: int) -> SpokenTurn:
        """What of it lies before position `tokens`; the text stays whole. Fingerprints are of all of it or of nothing."""
        records = self.records[: max(0, tokens - self.tokens_before)]
        if len(records) == len(self.records):
            return self
        return msgspec.structs.replace(self, records=records, fingerprints=(), fingerprints_signature=None)


class SessionTranscript(msgspec.Struct, frozen=True, kw_only=True):
    """One job with its words. Secret like the conversation itself."""

    format: Literal["fabstir/session-transcript/1"] = TRANSCRIPT_FORMAT
    chain_id: Annotated[int, Meta(ge=1, lt=2**53)]
    market: Hex20
    terms: WireTerms
    model: str = ""
    """What the host called it."""
    turns: tuple[SpokenTurn, ...] = ()
    signed: SignedCount | None = None

    def hashed(self) -> ReceiptFile:
        """The same without the words."""
        return ReceiptFile(
            chain_id=self.chain_id,
            market=self.market,
            terms=self.terms,
            turns=tuple(turn.hashed() for turn in self.turns),
            signed=self.signed,
        )


class HashedTurn(msgspec.Struct, frozen=True, kw_only=True):
    """One answer as hashes."""

    tokens_before: Count
    message_index: Count
    request: Hex32
    """Salted hash of the conversation, the question, the sampler's parameters and the seed."""
    records: bytes
    """The digests of its token records, 32 bytes each; base64 in the file."""

    def until(self, tokens: int) -> HashedTurn:
        """What of it lies before position `tokens`."""
        return msgspec.structs.replace(self, records=self.records[: 32 * max(0, tokens - self.tokens_before)])


class ReceiptFile(msgspec.Struct, frozen=True, kw_only=True):
    """One job as hashes, counts and signatures."""

    format: Literal["fabstir/receipt/1"] = RECEIPT_FORMAT
    chain_id: Annotated[int, Meta(ge=1, lt=2**53)]
    market: Hex20
    terms: WireTerms
    turns: tuple[HashedTurn, ...] = ()
    signed: SignedCount | None = None


class CheckedReceipt(msgspec.Struct, frozen=True, kw_only=True):
    """What a receipt says, once everything in it was found to hold together."""

    job: JobId
    terms: Terms
    tokens: Tokens
    """Signed by both sides."""
    tokens_in: Tokens
    amount: BaseUnits
    transcript: Hash32
    turns: int
    tokens_unsigned: Tokens
    """In the file beyond what was signed."""


class _Form(msgspec.Struct):
    format: str = ""


_forms: Final = {TRANSCRIPT_FORMAT: SessionTranscript, RECEIPT_FORMAT: ReceiptFile}
encode_file: Final = msgspec.json.Encoder().encode


def read_file(data: bytes) -> SessionTranscript | ReceiptFile:
    """Either form. Raises PeerFault (`receipt_file_invalid`)."""
    try:
        form = msgspec.json.decode(data, type=_Form).format
        kind = _forms.get(form)
        if kind is None:
            raise error("receipt_file_invalid", f"format {form[:40]!r}; this version reads {', '.join(_forms)}")
        file: SessionTranscript | ReceiptFile = msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as fault:
        raise error("receipt_file_invalid", f"not readable: {fault}"[:200]) from None
    return file


def read_transcript(data: bytes) -> SessionTranscript:
    """With words. Raises PeerFault (`receipt_file_invalid`)."""
    file = read_file(data)
    if not isinstance(file, SessionTranscript):
        raise error("receipt_file_invalid", "the file holds hashes only; a session transcript is needed")
    for turn in file.turns:
        if not records_valid(turn.records):
            raise error("receipt_file_invalid", f"a record of the answer at token {turn.tokens_before} is out of range")
    return file


def check(file: SessionTranscript | ReceiptFile) -> CheckedReceipt:
    """That the hashes lead from the terms to what was signed, that both signatures are those of the terms, and that the price is the
    agreed one. Needs no chain. Raises PeerFault (`receipt_file_invalid`) with the first thing that is wrong.
    """
    hashed = file.hashed() if isinstance(file, SessionTranscript) else file
    terms = hashed.terms.terms()
    market = Market(hashed.chain_id, Address(from_hex(hashed.market, 20)))
    job, signed = job_id(terms), hashed.signed
    heads, served = _heads(hashed, job_head(market, terms))
    if signed is None:
        raise error("receipt_file_invalid", f"nothing was signed; {served} tokens are in the file")
    tokens, tokens_in, amount = Tokens(signed.tokens), Tokens(signed.tokens_in), BaseUnits(int(signed.amount))
    head = heads.get(tokens)
    if head is None:
        raise error("receipt_file_invalid", f"{tokens} tokens are signed, {served} are in the file")
    if to_hex(head) != signed.transcript:
        raise error("receipt_file_invalid", f"the first {tokens} tokens are not those that were signed")
    if amount != cost(tokens, terms.price):
        raise error(
            "receipt_file_invalid", f"{amount} is not the price of {tokens} tokens, {cost(tokens, terms.price)}"
        )
    if recover(market.receipt_digest(job, amount, tokens, tokens_in, head), _sig(signed.receipt)) != terms.host:
        raise error("receipt_file_invalid", "the host of the terms did not sign this")
    if recover(market.voucher_digest(job, amount, tokens, head), _sig(signed.voucher)) != terms.signer:
        raise error("receipt_file_invalid", "the session key of the terms did not sign this")
    if isinstance(file, SessionTranscript):
        for turn in file.turns:
            _check_fingerprints(turn, heads, market, terms)
    return CheckedReceipt(
        job=job,
        terms=terms,
        tokens=tokens,
        tokens_in=tokens_in,
        amount=amount,
        transcript=head,
        turns=len(hashed.turns),
        tokens_unsigned=Tokens(served - tokens),
    )


def _check_fingerprints(turn: SpokenTurn, heads: dict[int, Hash32], market: Market, terms: Terms) -> None:
    """That the host of the terms signed those that there are, of this answer."""
    if not turn.fingerprints and turn.fingerprints_signature is None:
        return
    count = Tokens(len(turn.records))
    of = FingerprintedAnswer(
        session=SessionId(""),
        message_index=turn.prompt.message_index,
        first=Tokens(turn.tokens_before),
        tokens=count,
        transcript=heads[turn.tokens_before + count],
    )
    signature = _sig(turn.fingerprints_signature or "0x" + "00" * 65)
    host = of.signed_by(market, job_id(terms), turn.fingerprints, signature)
    if host != terms.host or not of.fits(turn.fingerprints):
        raise error(
            "receipt_file_invalid",
            f"the host did not sign the fingerprints of the answer at token {turn.tokens_before}",
        )


def signed_count(ledger: RenterLedger) -> SignedCount | None:
    """What both sides signed last; None where nothing is, or an older version did not keep the host's signature."""
    voucher = ledger.voucher
    if voucher is None or not voucher.receipt:
        return None
    return SignedCount(
        tokens=voucher.tokens,
        tokens_in=voucher.tokens_in,
        amount=str(voucher.amount),
        transcript=to_hex(voucher.transcript),
        receipt=to_hex(voucher.receipt),
        voucher=to_hex(voucher.signature),
    )


def _heads(file: ReceiptFile, start: Hash32) -> tuple[dict[int, Hash32], Tokens]:
    """Position -> head, and how many tokens there are."""
    running = Transcript(start, Tokens(0))
    heads = {0: start}
    for one, other in pairwise(file.turns):
        if other.message_index <= one.message_index:
            raise error("receipt_file_invalid", f"answer {other.message_index} comes after answer {one.message_index}")
    for turn in file.turns:
        if turn.tokens_before != running.tokens or len(turn.records) % 32:
            raise error(
                "receipt_file_invalid", f"an answer begins at token {turn.tokens_before}, expected {running.tokens}"
            )
        running.begin_turn(turn.message_index, Hash32(from_hex(turn.request, 32)))
        for at in range(0, len(turn.records), 32):
            running.take(turn.records[at : at + 32])
            heads[running.tokens] = running.head
    return heads, running.tokens


def _sig(text: str) -> bytes:
    return from_hex(text, 65)
