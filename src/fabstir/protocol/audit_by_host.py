"""What another host's scores say about an answer: the questions of `audit` that can be asked without having the weights. Pure.

The verifier says how likely each token was by its own computation, and which tokens were the most likely; both hosts signed for their
records. So the first two questions can be asked, and of greedy answers the third: the token must be the most likely one. Of drawn answers
nothing is said about sampler and surprise, for which the whole distribution is needed. Where two hosts disagree one of them is wrong;
which one, a third says (`outvoted`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from fabstir.domain.ids import Address, ModelId
from fabstir.domain.money import Tokens
from fabstir.protocol.audit import AnswerEvidence, Outcome, TokenEvidence
from fabstir.protocol.transcript import TokenRecord

Suspect = Literal["nobody", "host", "verifier", "either"]


class AuditNoted(msgspec.Struct, frozen=True, tag="audit_noted", kw_only=True):
    """One audit that is over: what a renter remembers of a host. An event of the stream `audit:<host>`."""

    host: Address
    model: ModelId
    verifier: Address
    outcome: Outcome
    tokens: Tokens
    at: float


_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[AuditNoted] = msgspec.msgpack.Decoder(AuditNoted)


def encode_event(event: AuditNoted) -> bytes:
    """As it stands in the journal (msgpack)."""
    return _encoder.encode(event)


def decode_event(data: bytes) -> AuditNoted:
    """Raises msgspec.MsgspecError on bytes that no version of this program wrote."""
    return _decoder.decode(data)


def scored_evidence(claimed: Sequence[TokenRecord], scored: Sequence[TokenRecord], *, greedy: bool) -> AnswerEvidence:
    """The evidence of one answer; `greedy`: each token has to be the likeliest. Raises ValueError where the two are not about the same
    tokens."""
    if [record.token for record in claimed] != [record.token for record in scored]:
        raise ValueError("other tokens were scored than were claimed")
    return AnswerEvidence(
        tokens=tuple(_token_evidence(one, other, greedy=greedy) for one, other in zip(claimed, scored, strict=True))
    )


def _token_evidence(claimed: TokenRecord, scored: TokenRecord, *, greedy: bool) -> TokenEvidence:
    again = dict(scored.top)
    best, best_logprob = scored.top[0] if scored.top else (scored.token, scored.logprob)
    missed = best_logprob - scored.logprob if greedy and best != scored.token else 0
    return TokenEvidence(
        claimed.logprob,
        scored.logprob,
        best == scored.token,
        max(0, missed),
        0,
        tuple(logprob - again[token] for token, logprob in claimed.top if token in again),
    )


def outvoted(first: Outcome, second: Outcome | None) -> Suspect:
    """Who is wrong after one audit, or two by different verifiers. A verdict without enough evidence counts for nobody."""
    if first == "consistent" or (first != "inconsistent" and second != "inconsistent"):
        return "nobody"
    if second is None or second == "not enough evidence":
        return "either"
    return "host" if first == second == "inconsistent" else "verifier"


def convicted(audits: Sequence[AuditNoted]) -> bool:
    """At least two different verifiers found this host inconsistent, and no fewer than found it consistent: it is not taken again."""
    against = {audit.verifier for audit in audits if audit.outcome == "inconsistent"}
    for_it = {audit.verifier for audit in audits if audit.outcome == "consistent"}
    return len(against) >= 2 and len(against) >= len(for_it)
