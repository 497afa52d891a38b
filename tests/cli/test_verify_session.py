"""`fabstir verify session`: a session that a host signed, as a file, through the weights once more, and what a shell sees of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from tests.cli.conftest import Fabstir
from tests.protocol.market import HOST_KEY, MARKET, SESSION_KEY, terms

from fabstir.bootstrap.parts import TINY_REPOSITORY
from fabstir.domain.ids import Hash32, SessionId, from_hex, to_hex
from fabstir.domain.money import Tokens, cost
from fabstir.domain.terms import Terms
from fabstir.engines.model_file import default_model
from fabstir.engines.reexecution.prompts import calibration_request
from fabstir.engines.reexecution.sampling import make_answers
from fabstir.engines.reexecution.tolerances import read_tolerance, tolerance_for
from fabstir.models.identity import identify
from fabstir.protocol.audit import Answer
from fabstir.protocol.messages import Prompt, WireTerms
from fabstir.protocol.signing import job_id
from fabstir.protocol.transcript import TokenRecord, Transcript, job_head
from fabstir.protocol.transcript_file import SessionTranscript, SignedCount, SpokenTurn, encode_file

MODEL = default_model()
SALT = "0x" + "07" * 32
FRESH = 3_000_000
pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def answers() -> list[Answer]:
    """Twenty real ones."""
    return asyncio.run(make_answers(MODEL, [calibration_request(FRESH + number) for number in range(20)], threads=1))


def turns(answers: Sequence[Answer]) -> tuple[SpokenTurn, ...]:
    """As the renter keeps them."""
    kept, before = [], 0
    for index, answer in enumerate(answers):
        request = answer.request
        prompt = Prompt(
            session_id=SessionId("talk"), message_index=index, content=request.messages[-1].content,
            max_tokens=request.max_tokens, temperature=request.temperature, top_p=request.top_p, seed=request.seed,
        )  # fmt: skip
        kept.append(
            SpokenTurn(
                tokens_before=before,
                messages=request.messages,
                prompt=prompt,
                salt=SALT,
                text=answer.text,
                records=answer.records,
                finish_reason="stop",
            )
        )
        before += len(answer.records)
    return tuple(kept)


def agreed(**changes: Any) -> Terms:
    """Terms of the model that ships."""
    return replace(terms(), model_id=identify(MODEL, TINY_REPOSITORY).model_id, **changes)


def session(given: Sequence[SpokenTurn], agreement: Terms) -> SessionTranscript:
    """The session, signed by both sides."""
    running = Transcript(job_head(MARKET, agreement), Tokens(0))
    for turn in given:
        running.begin_turn(turn.prompt.message_index, turn.request)
        running.append(Hash32(from_hex(turn.salt, 32)), turn.records, turn.sampler)
    job, amount, read = job_id(agreement), cost(running.tokens, agreement.price), Tokens(0)
    receipt = HOST_KEY.sign(MARKET.receipt_digest(job, amount, running.tokens, read, running.head))
    voucher = SESSION_KEY.sign(MARKET.voucher_digest(job, amount, running.tokens, running.head))
    return SessionTranscript(
        chain_id=MARKET.chain_id, market=to_hex(MARKET.address), terms=WireTerms.of(agreement), model="tiny-chat",
        turns=tuple(given),
        signed=SignedCount(
            tokens=running.tokens, tokens_in=read, amount=str(amount), transcript=to_hex(running.head),
            receipt=to_hex(receipt), voucher=to_hex(voucher),
        ),
    )  # fmt: skip


def written(path: Path, kept: SessionTranscript) -> str:
    """The file's name."""
    file = path / "session.json"
    file.write_bytes(encode_file(kept))
    return str(file)


def test_an_honest_session_is_consistent(fabstir: Fabstir, answers: list[Answer], tmp_path: Path) -> None:
    """Exit code 0, every question answered with its threshold, and the rates of error beside it."""
    kept = session(turns(answers), agreed())
    ran = fabstir("verify", "session", written(tmp_path, kept), "--model", str(MODEL), "--threads", "1", "--json")
    told = ran.json()
    assert (ran.code, told["outcome"], told["signed"]) == (0, "consistent", True)
    assert [question["name"] for question in told["questions"]] == [
        "probability",
        "alternatives",
        "support",
        "surprise",
    ]
    assert all(question["passed"] for question in told["questions"])
    assert told["tokens"] == told["tokens_signed"] == sum(len(answer.records) for answer in answers)
    assert told["false_positive_rate"] == 1e-4
    assert told["honest_trials"]["of"] == 20_000
    assert told["calibration"]["tokens"] > 10_000


def test_a_session_with_invented_probabilities_is_not(fabstir: Fabstir, answers: list[Answer], tmp_path: Path) -> None:
    """Exit code 3, and the question that accuses."""
    lies = [
        replace(answer, records=tuple(TokenRecord(record.token, -1000) for record in answer.records))
        for answer in answers
    ]
    kept = session(turns(lies), agreed())
    ran = fabstir("verify", "session", written(tmp_path, kept), "--model", str(MODEL), "--threads", "1")
    assert ran.code == 3
    assert ran.out.startswith("INCONSISTENT")
    assert "WRONG  probability" in ran.out
    assert "The host signed" in ran.out


def test_a_short_session_says_how_much_is_missing(fabstir: Fabstir, answers: list[Answer], tmp_path: Path) -> None:
    """Exit code 4; without signatures it says that, too."""
    kept = replace(session(turns(answers[:2]), agreed()), signed=None)
    ran = fabstir("verify", "session", written(tmp_path, kept), "--model", str(MODEL), "--threads", "1")
    assert ran.code == 4
    assert "it takes at least 200 tokens" in ran.out
    assert "Nothing in this file was signed by the host" in ran.out


def test_other_weights_than_the_job_names_are_refused(fabstir: Fabstir, answers: list[Answer], tmp_path: Path) -> None:
    """Before anything is computed: another file, or another name for it."""
    file = written(tmp_path, session(turns(answers), agreed()))
    other = tmp_path / MODEL.name
    other.write_bytes(MODEL.read_bytes() + b"\0")
    for model, option in ((str(other), TINY_REPOSITORY), (str(MODEL), "someone/else")):
        ran = fabstir("verify", "session", file, "--model", model, "--repository", option, "--json")
        assert (ran.code, ran.json()["error"]["code"]) == (1, "weights_differ")


@pytest.mark.parametrize("damage", ["truncated", "not signed for", "no file"])
def test_a_file_that_does_not_hold_together_is_refused(
    fabstir: Fabstir, answers: list[Answer], tmp_path: Path, damage: str
) -> None:
    """No verdict about words that nobody signed."""
    kept = session(turns(answers), agreed())
    file = Path(written(tmp_path, kept))
    if damage == "truncated":
        file.write_bytes(file.read_bytes()[:-100])
    elif damage == "not signed for":
        (first, *rest) = kept.turns
        other = replace(first, records=(replace(first.records[0], logprob=-1), *first.records[1:]))
        file.write_bytes(encode_file(replace(kept, turns=(other, *rest))))
    else:
        file.unlink()
    ran = fabstir("verify", "session", str(file), "--model", str(MODEL), "--json")
    assert (ran.code, ran.json()["error"]["code"]) in {(1, "receipt_file_invalid"), (1, "request_invalid")}


def test_a_tolerance_of_other_weights_is_refused(fabstir: Fabstir, answers: list[Answer], tmp_path: Path) -> None:
    """Its thresholds would mean nothing here."""
    known = json.loads(next(Path("src/fabstir/engines/reexecution/data").glob("*.json")).read_text())
    foreign = tmp_path / "tolerance.json"
    foreign.write_text(json.dumps(known | {"weights": "00" * 32}))
    file = written(tmp_path, session(turns(answers), agreed()))
    ran = fabstir("verify", "session", file, "--model", str(MODEL), "--tolerance", str(foreign), "--json")
    assert (ran.code, ran.json()["error"]["code"]) == (1, "tolerance_invalid")
    foreign.write_text("{}")
    ran = fabstir("verify", "session", file, "--model", str(MODEL), "--tolerance", str(foreign), "--json")
    assert (ran.code, ran.json()["error"]["code"]) == (1, "tolerance_invalid")


def test_a_calibration_makes_a_file_that_a_session_can_be_checked_with(fabstir: Fabstir, tmp_path: Path) -> None:
    """Small, so its thresholds are loose; of these weights, with how it was made."""
    place = tmp_path / "made.json"
    ran = fabstir(
        "verify",
        "calibrate",
        "--model",
        str(MODEL),
        "--answers",
        "20",
        "--output",
        str(place),
        "--threads",
        "1",
        "--json",
    )
    assert ran.code == 0, ran.err
    made, shipped = read_tolerance(place), tolerance_for(identify(MODEL, TINY_REPOSITORY).sha256)
    assert made.weights == shipped.weights
    assert made.command == f"fabstir verify calibrate --model {MODEL.name} --answers 20"
    assert made.probability.answers == 10
    assert made.outside > shipped.outside
