"""What re-execution says about an answer: evidence for each token, pooled statistics, and a verdict with its rates of error. Pure.

A host claims that its tokens were drawn from a model, and how likely each one was. Whoever has the weights computes the distributions again
and asks five questions, each with a threshold that honest answers pass but for one time in 50,000, so that all together accuse an honest
host at most once in 10,000 verdicts:

- `probability`: do the claimed log-probabilities of the tokens agree with the recomputed ones? Other weights, another quantisation, another
  prompt do not agree; neither do invented numbers.
- `alternatives`: the same for the tokens that the records name as most likely. Speaks even where the answer itself was certain.
- `support`: could the claimed sampler have drawn each token? Replaced, inserted and padded tokens mostly could not.
- `surprise`: were the tokens as likely, over all, as the sampler's own draws? A smaller model that generates, with the right model computing
  the claims afterwards, agrees on the first two and shows here (`fabstir.protocol.audit_sampler`).
- `fingerprint`: do the activations agree, where the session holds fingerprints (`fabstir.protocol.fingerprint`)?

Three findings need no threshold: tokens after the end of a turn, a text that the tokens do not spell, more tokens than asked for.
The first, second and fifth threshold and the margin of the third come from a calibration (`Tolerance`); what it holds for, and what not:
docs/how-to/verify.md.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Final, Literal

import msgspec

from fabstir.protocol.audit_sampler import Position
from fabstir.protocol.audit_statistics import Spread, at_most, cut_mean, most_of
from fabstir.protocol.transcript import TokenRecord

FALSE_POSITIVE_RATE: Final = 1e-4
"""At most so many verdicts on honest sessions are `inconsistent`."""
QUESTIONS: Final = 5
RATE: Final = FALSE_POSITIVE_RATE / QUESTIONS
LEAST_TOKENS: Final = 200
"""Below this, agreement says too little; where a rival was measured, `Tolerance.needed` says it exactly."""

Outcome = Literal["consistent", "inconsistent", "not enough evidence"]


class TokenEvidence(msgspec.Struct, frozen=True, array_like=True):
    """One token, claimed against recomputed; micro-nats."""

    claimed: int
    recomputed: int
    is_best: bool
    """It is the recomputed argmax."""
    shortfall: int
    """How far its log-probability lies below that of the least likely token that the sampler could have drawn; 0 inside the nucleus."""
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
        """Tokens from which on the rival is caught in 99 of 100 cases; LEAST_TOKENS without one, 0 where it is never."""
        if self.rival is None:
            return LEAST_TOKENS
        return next((power.tokens for power in self.rival.power if power.caught >= 0.99 * power.windows), 0)


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

    @property
    def score(self) -> float:
        """The largest measurement in parts of its threshold; 1 is where it accuses. For comparing cheats, not for judging."""
        return max((gate.value / gate.threshold for gate in self.gates if gate.threshold > 0), default=0.0)


def token_evidence(record: TokenRecord, position: Position) -> TokenEvidence:
    """The evidence of one token."""
    return TokenEvidence(
        record.logprob,
        position.logprob,
        record.token == position.best,
        max(0, position.cutoff - position.logprob),
        position.surprise,
        tuple(claim - again for (_, claim), again in zip(record.top, position.asked, strict=True)),
    )


def findings(
    *, pieces: Sequence[bytes], ends: Sequence[bool], text: str, stop: Sequence[str], max_tokens: int
) -> tuple[str, ...]:
    """What is wrong with an answer whatever its probabilities are. `ends`: whether each token ends a turn; `pieces`: its bytes."""
    found = []
    if any(ends[:-1]):
        found.append(f"{len(ends) - 1 - ends.index(True)} tokens after the end of the turn")
    if len(pieces) > max_tokens:
        found.append(f"{len(pieces)} tokens, at most {max_tokens} were asked for")
    spelled = b"".join(piece for piece, end in zip(pieces, ends, strict=True) if not end).decode("utf-8", "replace")
    if not any(_accounts(candidate, text, stop) for candidate in (spelled, spelled.removeprefix(" "))):
        found.append("the tokens do not spell the text")
    return tuple(found)


def _accounts(spelled: str, text: str, stop: Sequence[str]) -> bool:
    """Whether `text` is what was shown of `spelled`: all of it, or up to a stop sequence or an unfinished character."""
    if not spelled.startswith(text):
        return False
    rest = spelled[len(text) :].rstrip("\ufffd")
    return not rest or any(rest.startswith(end) or end.startswith(rest) for end in stop)


def gates(answers: Iterable[AnswerEvidence], tolerance: Tolerance) -> tuple[Gate, ...]:
    """Every question that there is something to say about."""
    answers = tuple(answers)
    tokens = [token for answer in answers for token in answer.tokens]
    distances = [distance for answer in answers for distance in answer.distances]
    found = [_mean_gate("probability", [token.difference for token in tokens], tolerance.probability)]
    if tolerance.alternatives is not None:
        named = [token.apart for token in tokens if token.alternatives]
        found.append(_mean_gate("alternatives", named, tolerance.alternatives))
    missed = sum(token.shortfall > tolerance.margin for token in tokens)
    allowed = most_of(len(tokens), tolerance.outside, RATE)
    found.append(Gate(name="support", value=missed, threshold=allowed, count=len(tokens)))
    surprise = math.fsum(token.surprise for token in tokens) / 1e6
    found.append(Gate(name="surprise", value=surprise, threshold=math.log(1 / RATE), count=len(tokens)))
    if tolerance.fingerprint is not None:
        found.append(_mean_gate("fingerprint", distances, tolerance.fingerprint))
    return tuple(gate for gate in found if gate.count)


def _mean_gate(name: str, values: Sequence[float], spread: Spread) -> Gate:
    return Gate(
        name=name,
        value=cut_mean(values, spread.bound),
        threshold=spread.threshold(len(values), RATE),
        count=len(values),
    )


def judge(answers: Iterable[AnswerEvidence], tolerance: Tolerance) -> Verdict:
    """The verdict on answers of one host with one model, pooled."""
    answers = tuple(answers)
    found = gates(answers, tolerance)
    wrong = tuple(dict.fromkeys(finding for answer in answers for finding in answer.findings))
    tokens = sum(len(answer.tokens) for answer in answers)
    outcome: Outcome = "consistent"
    if wrong or not all(gate.passed for gate in found):
        outcome = "inconsistent"
    elif not 0 < tolerance.needed <= tokens:
        outcome = "not enough evidence"
    tried = tolerance.rival.power if tolerance.rival else ()
    return Verdict(
        outcome=outcome,
        tokens=tokens,
        answers=len(answers),
        needed=tolerance.needed,
        gates=found,
        findings=wrong,
        best=sum(token.is_best for answer in answers for token in answer.tokens) / tokens if tokens else 0.0,
        miss=next((power for power in reversed(tried) if power.tokens <= tokens), None),
    )


def chance_of_as_many(missed: int, tokens: int, tolerance: Tolerance) -> float:
    """The probability that an honest host misses the nucleus at least so often."""
    return 1 - at_most(missed - 1, tokens, tolerance.outside) if missed else 1.0
