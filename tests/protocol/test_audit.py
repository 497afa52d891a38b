"""The verdict: honest evidence is consistent, each kind of cheat is not, and too little of it says nothing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabstir.protocol.audit import (
    LEAST_TOKENS,
    AnswerEvidence,
    Power,
    Rival,
    Sums,
    TokenEvidence,
    Tolerance,
    findings,
    judge,
    sums,
    token_evidence,
)
from fabstir.protocol.audit_calibration import Origin, fit, power, with_rival
from fabstir.protocol.audit_sampler import Position
from fabstir.protocol.transcript import TokenRecord

ORIGIN = Origin(model="m", weights="00", quantisation="F16", built_with="test", command="test")


def answers(
    count: int, *, drift: float = 100.0, outside: float = 0.0, surprise: int = -5_000, far: float = 0.001, seed: int = 1
) -> list[AnswerEvidence]:
    """Answers of 20 tokens whose claims miss by `drift` micro-nats or so."""
    chance = np.random.Generator(np.random.PCG64(seed))

    def token() -> TokenEvidence:
        missed = 3_000_000 if chance.random() < outside else 0
        miss, other = chance.normal(0, drift, 2)
        return TokenEvidence(-500_000, round(-500_000 + miss), True, missed, surprise, (round(other), round(other)))

    return [AnswerEvidence(tokens=tuple(token() for _ in range(20)), distances=(far,)) for _ in range(count)]


@pytest.fixture(scope="module")
def tolerance() -> Tolerance:
    """Of 400 honest answers."""
    return fit(answers(400), ORIGIN, np.random.Generator(np.random.PCG64(9)), windows=1000)


def test_honest_answers_are_consistent(tolerance: Tolerance) -> None:
    """Answers that the calibration did not see."""
    verdict = judge(answers(20, seed=2), tolerance)
    assert verdict.outcome == "consistent" and verdict.findings == ()
    assert {gate.name for gate in verdict.gates} == {
        "probability",
        "alternatives",
        "support",
        "surprise",
        "fingerprint",
    }
    assert all(gate.passed for gate in verdict.gates)
    assert (verdict.tokens, verdict.answers, verdict.best) == (400, 20, 1.0)


def test_the_calibration_tries_its_thresholds_on_answers_that_it_did_not_use(tolerance: Tolerance) -> None:
    """And says how many were accused, of how many."""
    assert tolerance.honest == Power(256, 0, 1000)
    assert (tolerance.probability.count, tolerance.probability.answers) == (4000, 200)


@pytest.mark.parametrize(
    ("cheat", "gate"),
    [
        ({"drift": 400.0}, "probability"),
        ({"outside": 0.05}, "support"),
        ({"surprise": 60_000}, "surprise"),
        ({"far": 0.4}, "fingerprint"),
    ],
    ids=str,
)
def test_each_question_finds_its_cheat(tolerance: Tolerance, cheat: dict[str, float], gate: str) -> None:
    """By the question that is made for it."""
    verdict = judge(answers(20, seed=3, **cheat), tolerance)  # type: ignore[arg-type]
    assert verdict.outcome == "inconsistent"
    assert gate in {found.name for found in verdict.gates if not found.passed}


def test_a_finding_decides_whatever_the_numbers_say(tolerance: Tolerance) -> None:
    """A text that the tokens do not spell needs no statistics."""
    wrong = AnswerEvidence(tokens=answers(1)[0].tokens, findings=("the tokens do not spell the text",))
    verdict = judge([wrong], tolerance)
    assert (verdict.outcome, verdict.findings) == ("inconsistent", wrong.findings)


def test_little_evidence_says_nothing(tolerance: Tolerance) -> None:
    """Neither for the host nor against it, and how much is needed is said."""
    assert judge([], tolerance).outcome == "not enough evidence"
    verdict = judge(answers(9, seed=4), tolerance)
    assert (verdict.outcome, verdict.needed) == ("not enough evidence", LEAST_TOKENS)


def test_a_rival_that_is_never_caught_leaves_no_consistent_verdict(tolerance: Tolerance) -> None:
    """A tolerance that cannot tell a cheat from an honest host must not acquit."""
    same = with_rival(tolerance, "twin", answers(50, seed=5), np.random.Generator(np.random.PCG64(9)), windows=100)
    assert same.needed == 0
    assert judge(answers(100, seed=6), same).outcome == "not enough evidence"


def test_a_rival_says_how_many_tokens_find_it_out(tolerance: Tolerance) -> None:
    """From the table of its trials, by the number of tokens at hand."""
    far = with_rival(
        tolerance, "coarser", answers(50, drift=150.0, seed=5), np.random.Generator(np.random.PCG64(9)), windows=100
    )
    assert far.rival is not None
    assert far.needed >= LEAST_TOKENS
    caught = [row.caught for row in far.rival.power]
    assert caught[0] < caught[-1] == far.rival.power[-1].windows
    verdict = judge(answers(20, seed=2), far)
    assert verdict.miss is not None and verdict.miss.tokens <= verdict.tokens


@given(one=st.integers(1, 5), other=st.integers(1, 5))
def test_sums_of_answers_add_up(tolerance: Tolerance, one: int, other: int) -> None:
    """So that pooled answers and windows of them are the same arithmetic."""
    given_answers = answers(one + other)
    parts = [sums(answer, tolerance) for answer in given_answers]
    left, right = sum(parts[:one], Sums()), sum(parts[one:], Sums())
    assert left + right == right + left
    assert (left + right).tokens == 20 * (one + other) == judge(given_answers, tolerance).tokens


def test_a_window_is_made_of_whole_answers(tolerance: Tolerance) -> None:
    """As sessions are."""
    tried = power(answers(10, drift=2000.0), tolerance, 30, 50, np.random.Generator(np.random.PCG64(1)))
    assert tried == Power(30, 50, 50)


@pytest.mark.parametrize("wrong", [[], answers(1)])
def test_too_few_answers_are_no_calibration(wrong: list[AnswerEvidence]) -> None:
    """Nor are none."""
    with pytest.raises(ValueError, match="at least two"):
        fit(wrong, ORIGIN, np.random.Generator(np.random.PCG64(1)))


def test_a_calibration_of_answers_that_are_wrong_in_themselves_is_refused() -> None:
    """It would teach that the fault is honest."""
    wrong = AnswerEvidence(tokens=answers(1)[0].tokens, findings=("odd",))
    with pytest.raises(ValueError, match="not honest: odd"):
        fit([*answers(3), wrong], ORIGIN, np.random.Generator(np.random.PCG64(1)))


def test_the_evidence_of_a_token_is_claimed_against_recomputed() -> None:
    """Alternative by alternative."""
    record = TokenRecord(7, -100_000, ((7, -100_000), (8, -2_500_000)))
    position = Position(-100_040, 0, -3, (-100_040, -2_499_000), ((7, -100_040),))
    found = token_evidence(record, position)
    assert (found.difference, found.is_best, found.surprise) == (40e-6, True, -3)
    assert found.alternatives == (40, -1000)
    assert found.apart == pytest.approx(520e-6)
    assert Rival(name="r", power=()).power == ()


@pytest.mark.parametrize(
    ("pieces", "ends", "text", "stop", "says"),
    [
        ([b"Hel", b"lo", b""], [0, 0, 1], "Hello", (), ()),
        ([b" Hel", b"lo"], [0, 0], "Hello", (), ()),
        ([b"Hi", b"\n\nUser"], [0, 0], "Hi", ("\n\n",), ()),
        ([b"Hi", b"\n"], [0, 0], "Hi", ("\n\n",), ()),
        ([b"caf", b"\xc3"], [0, 0], "caf", (), ()),
        ([b"Hel"], [0], "Hello", (), ()),
        ([b"Hel", b"lo"], [0, 0], "Hullo", (), ("the tokens do not spell the text",)),
        ([b"Hel", b"lo", b" there"], [0, 0, 0], "Hello", (), ("the tokens do not spell the text",)),
        ([b"Hello", b"", b" again"], [0, 1, 0], "Hello again", (), ("1 tokens after the end of the turn",)),
        ([b"a"] * 9, [0] * 9, "a" * 9, (), ("9 tokens, at most 8 were asked for",)),
    ],
)
def test_an_answer_that_does_not_add_up_is_found(
    pieces: list[bytes], ends: list[bool], text: str, stop: tuple[str, ...], says: tuple[str, ...]
) -> None:
    """Its text is spelled by its tokens, up to a stop sequence or half a character; nothing follows the end; no more than was asked for."""
    assert findings(pieces=pieces, ends=[bool(end) for end in ends], text=text, stop=stop, max_tokens=8) == says
