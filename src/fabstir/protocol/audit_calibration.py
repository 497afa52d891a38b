"""From honest answers to a tolerance: which differences are honest, and how often whom the thresholds would accuse.
Pure.

Every second answer makes the thresholds, the others try them: windows of whole answers are drawn from those again and
again (with replacement), and how many are accused is stored beside the tolerance. The same is done with the answers of
a rival, a cheat that somebody made on purpose. Randomness comes in as an argument.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec
import numpy as np

from fabstir.protocol.audit import AnswerEvidence, Power, Rival, Sums, Tolerance, accused, sums
from fabstir.protocol.audit_statistics import spread_of, upper_rate

LENGTHS: Final = (16, 32, 64, 128, 256, 512, 1024, 2048)
"""Tokens of the windows for which a rival's chances are written down."""
HONEST_TOKENS: Final = 256
HONEST_WINDOWS: Final = 20_000
RIVAL_WINDOWS: Final = 2_000
MARGIN_FACTOR: Final = 2
"""The margin at the edge of the nucleus, in units of the largest difference that was seen there."""

WHOLE: Final = frozenset({"answers", "tokens", "best", "named", "missed", "chunks", "wrong"})


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """What a tolerance is of and where it came from."""

    model: str
    weights: str
    quantisation: str
    built_with: str
    command: str


def fit(
    answers: Sequence[AnswerEvidence], origin: Origin, chance: np.random.Generator, windows: int = HONEST_WINDOWS
) -> Tolerance:
    """The tolerance of these honest answers. Raises ValueError where there are fewer than two, or one is wrong in itself."""
    made_from, tried_on = answers[::2], answers[1::2]
    if not tried_on or not all(answer.tokens for answer in answers):
        raise ValueError("at least two answers with tokens are needed")
    if any(answer.findings for answer in answers):
        raise ValueError(f"an answer is not honest: {next(a.findings for a in answers if a.findings)[0]}")
    margin = _margin(made_from)
    tokens = [token for answer in made_from for token in answer.tokens]
    missed = sum(token.shortfall > margin for token in tokens)
    named = [[token.apart for token in answer.tokens if token.alternatives] for answer in made_from]
    distances = [answer.distances for answer in made_from if answer.distances]
    tolerance = Tolerance(
        model=origin.model,
        weights=origin.weights,
        quantisation=origin.quantisation,
        built_with=origin.built_with,
        command=origin.command,
        probability=spread_of([[token.difference for token in answer.tokens] for answer in made_from]),
        alternatives=spread_of([values for values in named if values]) if any(named) else None,
        fingerprint=spread_of(distances, largest=1.0) if distances else None,
        margin=margin,
        outside=upper_rate(missed, len(tokens)),
    )
    honest = power(tried_on, tolerance, HONEST_TOKENS, windows, chance)
    return msgspec.structs.replace(tolerance, honest=honest)


def with_rival(
    tolerance: Tolerance,
    name: str,
    answers: Sequence[AnswerEvidence],
    chance: np.random.Generator,
    windows: int = RIVAL_WINDOWS,
) -> Tolerance:
    """The tolerance with what a cheat's answers met under it."""
    tried = tuple(power(answers, tolerance, length, windows, chance) for length in LENGTHS)
    return msgspec.structs.replace(tolerance, rival=Rival(name=name, power=tried))


def power(
    answers: Sequence[AnswerEvidence], tolerance: Tolerance, tokens: int, windows: int, chance: np.random.Generator
) -> Power:
    """How many of `windows` drawn stretches of at least `tokens` tokens are accused."""
    drawn = draw([sums(answer, tolerance) for answer in answers], tokens, windows, chance)
    return Power(tokens, sum(accused(total, tolerance) for total in drawn), windows)


def draw(parts: Sequence[Sums], tokens: int, windows: int, chance: np.random.Generator) -> list[Sums]:
    """Sums of whole answers, drawn with replacement until there are at least `tokens` tokens."""
    names = Sums.__struct_fields__
    table = np.array([[getattr(part, name) for name in names] for part in parts], np.float64)
    lengths = table[:, names.index("tokens")]
    drawn = []
    for _ in range(windows):
        chosen: list[int] = []
        reached = 0.0
        while reached < tokens:
            chosen.append(int(chance.integers(len(parts))))
            reached += lengths[chosen[-1]]
        total = dict(zip(names, table[chosen].sum(axis=0).tolist(), strict=True))
        drawn.append(Sums(**{name: int(total[name]) if name in WHOLE else total[name] for name in names}))
    return drawn


def _margin(answers: Sequence[AnswerEvidence]) -> int:
    """By how much honest rounding moves the edge of a nucleus: twice the largest difference of a token."""
    differences = [abs(token.claimed - token.recomputed) for answer in answers for token in answer.tokens]
    return MARGIN_FACTOR * max(differences, default=0)
