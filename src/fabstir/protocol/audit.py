"""What re-execution says about an answer: evidence for each token, pooled statistics, and a verdict with its rates of
error. Pure.

A host claims that its tokens were drawn from a model, and how likely each one was. Whoever has the weights computes the
distributions again and asks five questions, each with a threshold that honest answers pass but for one time in 50,000,
so that all together accuse an honest host at most once in 10,000 verdicts:

- `probability`: do the claimed log-probabilities of the tokens agree with the recomputed ones? Other weights, another
  quantisation, another prompt do not agree; neither do invented numbers.
- `alternatives`: the same for the tokens that the records name as most likely. Speaks even where the answer itself was
  certain.
- `support`: could the claimed sampler have drawn each token? Replaced, inserted and padded tokens mostly could not.
- `surprise`: were the tokens as likely, over all, as the sampler's own draws? A smaller model that generates, with the
  right model computing the claims afterwards, agrees on the first two and shows here
  (`fabstir.protocol.audit_sampler`).
- `fingerprint`: do the activations agree, where the session holds fingerprints (`fabstir.protocol.fingerprint`)?

Three findings need no threshold: tokens after the end of a turn, a text that the tokens do not spell, more tokens than
asked for. The first, second and fifth threshold and the margin of the third come from a calibration (`Tolerance`); what
it holds for, and what not: docs/how-to/verify.md.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Final, Literal

import msgspec

from fabstir.protocol.audit_sampler import Position
from fabstir.protocol.audit_statistics import Spread, most_of
from fabstir.protocol.generation import GenerationRequest
from fabstir.protocol.transcript import TokenRecord

FALSE_POSITIVE_RATE: Final = 1e-4
"""At most so many verdicts on honest sessions are `inconsistent`."""
QUESTIONS: Final = 5
RATE: Final = FALSE_POSITIVE_RATE / QUESTIONS
LEAST_TOKENS: Final = 200
"""Below this, agreement says too little, whatever a rival would have needed: answers of near-certain tokens carry no evidence."""

Outcome = Literal["consistent", "inconsistent", "not enough evidence"]


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """One answer as a host gave it."""

    request: GenerationRequest
    records: tuple[TokenRecord, ...]
    text: str
    fingerprints: tuple[bytes, ...] = ()


class TokenEvidence(msgspec.Struct, frozen=True, array_like=True):
    """One token, claimed against recomputed; micro-nats."""

    claimed: int
    recomputed: int
    is_best: bool
    """It is the recomputed argmax."""
    shortfall: int
    """By how much it missed what the sampler could have drawn; 0 inside the nucleus (`audit_sampler`)."""
    surprise: int
    alternatives: tuple[int, ...] = ()
    """Claimed minus recomputed, for each token that the record names as most likely."""

    @property
    def difference(self) -> float:
        """|claimed - recomputed| in nats."""
        return abs(self.claimed - self.recomputed) / 1e6

    @property
    def apart(self) -> float:
        """The mean difference of the alternatives, in nats."""
        return sum(map(abs, self.alternatives)) / len(self.alternatives) / 1e6 if self.alternatives else 0.0


class AnswerEvidence(msgspec.Struct, frozen=True, kw_only=True):
    """One answer: its tokens, the distances of its fingerprints, and what is wrong with it whatever the numbers say."""

    tokens: tuple[TokenEvidence, ...]
    distances: tuple[float, ...] = ()
    findings: tuple[str, ...] = ()


class Power(msgspec.Struct, frozen=True, array_like=True):
    """How often `windows` stretches of so many tokens of a rival were found inconsistent."""

    tokens: int
    caught: int
    windows: int


class Rival(msgspec.Struct, frozen=True, kw_only=True):
    """What a cheat was tried against this tolerance."""

    name: str
    power: tuple[Power, ...]
    """By number of tokens, growing."""


class Tolerance(msgspec.Struct, frozen=True, kw_only=True):
    """How honest answers of one weights file differ from their re-execution, as measured; the source of every threshold."""

    model: str
    weights: str
    """SHA-256 of the file, hexadecimal."""
    quantisation: str
    built_with: str
    """Engine and machine that the honest answers came from."""
    command: str
    probability: Spread
    alternatives: Spread | None = None
    fingerprint: Spread | None = None
    margin: int = 0
    """Micro-nats by which an honest token may miss the nucleus: rounding at its edge."""
    outside: float
    """The rate at which honest tokens miss it by more: an upper bound at 95 %."""
    honest: Power | None = None
    """Honest windows of answers that the thresholds were not made from, and how many were accused."""
    rival: Rival | None = None

    @property
    def needed(self) -> int:
        """Tokens from which on the rival is caught in 99 of 100 cases, at least LEAST_TOKENS; 0 where it never is."""
        tried = self.rival.power if self.rival else (Power(LEAST_TOKENS, 1, 1),)
        enough = next((power.tokens for power in tried if power.caught >= 0.99 * power.windows), 0)
        return max(LEAST_TOKENS, enough) if enough else 0


class Gate(msgspec.Struct, frozen=True, kw_only=True):
    """One question: what was measured, and above which value it accuses."""

    name: str
    value: float
    threshold: float
    count: int
    """Measurements."""

    @property
    def passed(self) -> bool:
        return self.value <= self.threshold


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome with everything that it rests on."""

    outcome: Outcome
    tokens: int
    answers: int
    needed: int
    gates: tuple[Gate, ...]
    findings: tuple[str, ...]
    best: float
    """The share of tokens that are the recomputed argmax."""
    false_positive_rate: float = FALSE_POSITIVE_RATE
    miss: Power | None = None
    """How the rival of the tolerance fares with no more tokens than these; None where none was tried."""


def token_evidence(record: TokenRecord, position: Position) -> TokenEvidence:
    """The evidence of one token."""
    return TokenEvidence(
        record.logprob,
        position.logprob,
        record.token == position.best,
        position.shortfall,
        position.surprise,
        tuple(claim - again for (_, claim), again in zip(record.top, position.asked, strict=True)),
    )


def findings(
    *,
    pieces: Sequence[bytes],
    ends: Sequence[bool],
    text: str,
    stop: Sequence[str],
    max_tokens: int,
    goes_on: bool = False,
) -> tuple[str, ...]:
    """What is wrong with an answer whatever its probabilities are.

    `pieces`: the bytes of each token; `ends`: whether it ends a turn; `goes_on`: where the request says that the answer goes on after one.
    """
    found = []
    if any(ends[:-1]) and not goes_on:
        found.append(f"{len(ends) - 1 - ends.index(True)} tokens after the end of the turn")
    if len(pieces) > max_tokens:
        found.append(f"{len(pieces)} tokens, at most {max_tokens} were asked for")
    spelled = b"".join(piece for piece, end in zip(pieces, ends, strict=True) if not end).decode("utf-8", "replace")
    if not any(_accounts(candidate, text, stop) for candidate in (spelled, spelled.removeprefix(" "))):
        found.append("the tokens do not spell the text")
    return tuple(found)


def _accounts(spelled: str, text: str, stop: Sequence[str]) -> bool:
    """Whether `text` is what was shown of `spelled`: all of it, or up to a stop sequence or an unfinished character.

    A text that goes on after the tokens is no fault of the host: a renter cuts off what nobody signed for, and keeps the words.
    """
    if text.startswith(spelled.rstrip("\ufffd")):
        return True
    if not spelled.startswith(text):
        return False
    rest = spelled[len(text) :].rstrip("\ufffd")
    return not rest or any(rest.startswith(end) or end.startswith(rest) for end in stop)


class Sums(msgspec.Struct, frozen=True, kw_only=True):
    """What the questions need to know of some answers; sums of two answers add up."""

    answers: int = 0
    tokens: int = 0
    best: int = 0
    difference: float = 0.0
    """Cut at the tolerance's bound, as all sums of differences."""
    named: int = 0
    apart: float = 0.0
    missed: int = 0
    surprise: float = 0.0
    chunks: int = 0
    distance: float = 0.0
    wrong: int = 0
    """Answers with findings."""

    def __add__(self, other: Sums) -> Sums:
        return Sums(**{name: getattr(self, name) + getattr(other, name) for name in self.__struct_fields__})


def sums(answer: AnswerEvidence, tolerance: Tolerance) -> Sums:
    """The sums of one answer."""
    named = [token.apart for token in answer.tokens if token.alternatives] if tolerance.alternatives else []
    distances = answer.distances if tolerance.fingerprint else ()
    return Sums(
        answers=1,
        tokens=len(answer.tokens),
        best=sum(token.is_best for token in answer.tokens),
        difference=_cut_sum([token.difference for token in answer.tokens], tolerance.probability),
        named=len(named),
        apart=_cut_sum(named, tolerance.alternatives),
        missed=sum(token.shortfall > tolerance.margin for token in answer.tokens),
        surprise=sum(token.surprise for token in answer.tokens) / 1e6,
        chunks=len(distances),
        distance=_cut_sum(distances, tolerance.fingerprint),
        wrong=bool(answer.findings),
    )


def gates(total: Sums, tolerance: Tolerance) -> tuple[Gate, ...]:
    """Every question that there is something to say about."""
    allowed = most_of(total.tokens, tolerance.outside, RATE)
    found = (
        _mean_gate("probability", total.difference, total.tokens, tolerance.probability),
        _mean_gate("alternatives", total.apart, total.named, tolerance.alternatives),
        Gate(name="support", value=total.missed, threshold=allowed, count=total.tokens),
        Gate(name="surprise", value=total.surprise, threshold=math.log(1 / RATE), count=total.tokens),
        _mean_gate("fingerprint", total.distance, total.chunks, tolerance.fingerprint),
    )
    return tuple(gate for gate in found if gate is not None and gate.count)


def _cut_sum(values: Sequence[float], spread: Spread | None) -> float:
    return math.fsum(min(value, spread.bound) for value in values) if spread else 0.0


def _mean_gate(name: str, total: float, count: int, spread: Spread | None) -> Gate | None:
    if spread is None or not count:
        return None
    return Gate(name=name, value=total / count, threshold=spread.threshold(count, RATE), count=count)


def accused(total: Sums, tolerance: Tolerance) -> bool:
    """Whether a verdict on these would be `inconsistent`."""
    return bool(total.wrong) or not all(gate.passed for gate in gates(total, tolerance))


def judge(answers: Iterable[AnswerEvidence], tolerance: Tolerance) -> Verdict:
    """The verdict on answers of one host with one model, pooled."""
    answers = tuple(answers)
    total = sum((sums(answer, tolerance) for answer in answers), Sums())
    found = gates(total, tolerance)
    wrong = tuple(dict.fromkeys(finding for answer in answers for finding in answer.findings))
    outcome: Outcome = "consistent"
    if wrong or not all(gate.passed for gate in found):
        outcome = "inconsistent"
    elif not 0 < tolerance.needed <= total.tokens:
        outcome = "not enough evidence"
    tried = tolerance.rival.power if tolerance.rival else ()
    return Verdict(
        outcome=outcome,
        tokens=total.tokens,
        answers=total.answers,
        needed=tolerance.needed,
        gates=found,
        findings=wrong,
        best=total.best / total.tokens if total.tokens else 0.0,
        miss=next((power for power in reversed(tried) if power.tokens <= total.tokens), None),
    )
