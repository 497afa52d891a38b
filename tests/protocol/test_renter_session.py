"""How the renter introduces itself and asks, and what it believes of an answer."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from fabstir.domain.errors import CATALOGUE, FabstirError, error
from fabstir.domain.ids import to_hex
from fabstir.domain.money import Tokens
from fabstir.protocol.host_attaching import ready
from fabstir.protocol.host_session import HostSession
from fabstir.protocol.messages import (
    ChatMessage,
    Error,
    Notice,
    Prompt,
    Response,
    SessionInit,
    SessionReady,
    SessionResume,
    StreamChunk,
    Usage,
    WireTerms,
    decode_from_renter,
    encode,
)
from fabstir.protocol.renter_items import (
    AnswerBroken,
    AnswerDone,
    Ask,
    Connect,
    Deliver,
    HostLost,
    LeaveHost,
    Rewound,
    SessionOpened,
    ShowNotice,
    StopAnswer,
)
from fabstir.protocol.renter_log import TurnSeen
from fabstir.protocol.renter_session import RenterState, as_fault
from fabstir.protocol.signing import keccak, recover
from fabstir.protocol.transcript import TokenRecord
from tests.protocol.market import HOST_KEY, MARKET, SESSION, SESSION_KEY, World, named, opened, records, terms
from tests.protocol.renting import arriving, left, sent, stored, streaming

# -- the end of an answer ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "lie",
    [
        {"finish_reason": "length"},
        {"tokens_used": 9},
        {"usage": Usage(prompt_tokens=6, completion_tokens=10)},
        {"usage": Usage(prompt_tokens=5, completion_tokens=9), "tokens_used": 9},
        {"signature": "0x" + "00" * 65},
        {"signature": to_hex(SESSION_KEY.sign(keccak(b"x")))},
    ],
)
def test_the_end_of_an_answer_is_the_hosts_own_word(lie: dict[str, Any]) -> None:
    """Why it ended and what it counted: whatever is changed on the way, the host did not sign, and the renter leaves."""
    world = streaming(10)
    response = arriving(world, Response)
    changed = msgspec.structs.replace(response, **lie)
    assert left(world.renter.receive(changed, 0.0)).code == "answer_untrusted"
    honest = streaming(10)
    assert isinstance(honest.renter.receive(arriving(honest, Response), 0.0)[-1], AnswerDone)


# -- coming back with a token -------------------------------------------------------------------------------------------------


def with_token() -> World:
    """A session that stands and has been given a token."""
    world = opened()
    again = Connect(session_id=SESSION, context=(ChatMessage("user", "a"),), nonce=keccak(b"m"), issued_at=2)
    world.renter.receive(again, 0.0)
    world.renter.receive(msgspec.structs.replace(ready(world.host._core), token="a.b.c"), 0.0)
    assert world.renter.state is RenterState.READY
    return world


def come_back(world: World) -> Any:
    """What is said on the next connection."""
    world.renter.receive(HostLost("gone"), 0.0)
    again = Connect(session_id=SESSION, context=(ChatMessage("user", "a"),), nonce=keccak(b"o"), issued_at=3)
    (message,) = sent(world.renter.receive(again, 0.0))
    return message


def test_a_token_is_shown_once_in_place_of_a_signature() -> None:
    """The next time there is none, and the renter signs."""
    world = with_token()
    first, second = come_back(world), come_back(world)
    assert (first.token, first.auth) == ("a.b.c", None)
    assert second.token is None and second.auth is not None


def test_where_the_host_refuses_the_token_the_renter_signs() -> None:
    """On the same connection, once; what else is refused is refused."""
    world = with_token()
    shown = come_back(world)
    refusal = Error.of(error("session_token_invalid"))
    (signed,) = sent(world.renter.receive(refusal, 0.0))
    assert signed == msgspec.structs.replace(shown, token=None, auth=signed.auth)
    assert signed.auth is not None and signed.auth.nonce == to_hex(keccak(b"o"))
    assert left(world.renter.receive(refusal, 0.0)).code == "session_token_invalid"
    other = with_token()
    come_back(other)
    assert left(other.renter.receive(Error.of(error("session_in_use")), 0.0)).code == "session_in_use"


# -- introducing itself ----------------------------------------------------------------------------------------------------------


def test_a_first_connection_is_an_init() -> None:
    """Terms, job and an authorisation by the session key, over this session and nonce."""
    renter = World(terms(), 1_000).renter
    nonce = keccak(b"n")
    (message,) = sent(renter.receive(Connect(session_id=SESSION, nonce=nonce, issued_at=77), 0.0))
    assert isinstance(message, SessionInit)
    assert (message.session_id, message.job_id) == (SESSION, to_hex(renter.ledger.job))
    assert message.terms == WireTerms.of(renter.ledger.terms)
    assert message.terms.terms() == renter.ledger.terms
    assert (message.auth.issued_at, message.auth.nonce) == (77, to_hex(nonce))
    digest = MARKET.session_auth_digest(renter.ledger.job, SESSION, 77, nonce)
    assert recover(digest, bytes.fromhex(message.auth.signature[2:])) == SESSION_KEY.address


def test_with_a_history_it_is_a_resume() -> None:
    """A conversation from elsewhere, or tokens that arrived before: the renter says what it has."""
    context = (ChatMessage("user", "a"), ChatMessage("assistant", "b"))
    renter = World(terms(), 1_000).renter
    (message,) = sent(
        renter.receive(Connect(session_id=SESSION, context=context, nonce=keccak(b"n"), issued_at=1), 0.0)
    )
    assert isinstance(message, SessionResume)
    assert (message.conversation_context, message.last_message_index) == (context, 2)
    assert (message.tokens_received, message.transcript) == (0, to_hex(renter.ledger.start))

    world = opened()
    world.answer(10)
    (message,) = sent(world.renter.receive(Connect(session_id=SESSION, nonce=keccak(b"n"), issued_at=1), 0.0))
    assert isinstance(message, SessionResume)
    assert (message.tokens_received, message.transcript) == (10, to_hex(world.host.ledger.heads[10]))


def ready_after(signed: int, received: int) -> tuple[World, SessionReady]:
    """A renter that reconnects with so much signed and received, and the honest answer that waits for it."""
    world = opened()
    if signed:
        world.answer(signed)
    if received > signed:
        world.ask()
        world.generate(received - signed)
        world.deliver_to_renter()
    world.cut()
    world.connect(world.renter.context)
    world.deliver_to_host()
    return world, arriving(world, SessionReady)


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("session_id", "other", "message_malformed"),
        ("job_id", "0x" + "00" * 32, "message_malformed"),
        ("host", "0x" + "00" * 20, "message_malformed"),
        ("model_id", "0x" + "00" * 32, "message_malformed"),
        ("price_per_mtok", "200001", "message_malformed"),
        ("price_per_mtok", "199999", "message_malformed"),
        ("protocol", 2, "message_malformed"),
        ("transcript", "0x" + "00" * 32, "transcript_mismatch"),
        ("tokens_served", 9, "transcript_mismatch"),
        ("tokens_served", 16, "transcript_mismatch"),
        ("tokens_served", 12, "transcript_mismatch"),  # its head is another one
    ],
)
def test_a_host_that_is_ready_for_something_else_is_left(field: str, value: object, code: str) -> None:
    """Another session, job, host, model, price or protocol, or another transcript: nothing is asked of it. (10 signed, 15 received.)"""
    world, ready = ready_after(10, 15)
    effects = world.renter.receive(msgspec.structs.replace(ready, **{field: value}), 0.0)
    assert left(effects).code == code
    assert world.renter.state is RenterState.OFFLINE


def test_it_goes_on_where_the_host_stands() -> None:
    """Tokens that the host does not remember are given back; the next prompt has the index that the host expects."""
    world, ready = ready_after(10, 15)
    head = world.renter._core.heads[12]
    ready = msgspec.structs.replace(ready, tokens_served=12, transcript=to_hex(head), message_index=7)
    assert world.renter.receive(ready, 0.0) == [Rewound(Tokens(12)), SessionOpened(ready)]
    assert (world.renter.received, world.renter.state) == (12, RenterState.READY)
    (prompt,) = sent(world.renter.receive(Ask(content="q"), 0.0))
    assert prompt.message_index == 7
    chunk = StreamChunk(session_id=SESSION, message_index=7, index=12, content="x", tokens=(TokenRecord(1, -1),))
    assert world.renter.receive(chunk, 0.0) == [Deliver("x", 1, chunk.tokens)]


def test_positions_that_were_given_back_are_forgotten() -> None:
    """After both agreed on 12 tokens, the 15 that once arrived are no position any more."""
    world, ready = ready_after(10, 15)
    again = msgspec.structs.replace(ready, tokens_served=12, transcript=to_hex(world.renter._core.heads[12]))
    world.renter.receive(again, 0.0)
    world.renter.receive(HostLost(), 0.0)
    world.renter.receive(Connect(session_id=SESSION, nonce=keccak(b"m"), issued_at=1), 0.0)
    assert left(world.renter.receive(ready, 0.0)).code == "transcript_mismatch"


# -- asking ----------------------------------------------------------------------------------------------------------------------


def test_a_question_becomes_a_prompt() -> None:
    """With all of its parameters."""
    world = opened()
    ask = Ask(content="c", prefix="p", max_tokens=9, temperature=0.1, top_p=0.2, seed=3, stop=("x",))
    (prompt,) = sent(world.renter.receive(ask, 0.0))
    assert prompt == Prompt(
        session_id=SESSION, message_index=0, content="c", prefix="p", max_tokens=9, temperature=0.1, top_p=0.2, seed=3, stop=("x",)
    )  # fmt: skip
    assert decode_from_renter(encode(prompt)) == prompt


def test_what_is_left_out_is_as_on_the_wire() -> None:
    """A question with nothing but its content asks for what a prompt without these fields means."""
    (prompt,) = sent(opened().renter.receive(Ask(content="q"), 0.0))
    assert prompt == Prompt(session_id=SESSION, message_index=0, content="q")


@pytest.mark.parametrize(
    "ask",
    [
        Ask(content=""),
        Ask(content="x" * ((1 << 20) + 1)),
        Ask(content="q", max_tokens=0),
        Ask(content="q", temperature=-0.1),
        Ask(content="q", top_p=0.0),
        Ask(content="q", seed=-1),
        Ask(content="q", stop=("",)),
        Ask(content="q", stop=("x",) * 9),
    ],
    ids=lambda ask: str(ask)[:40],
)
def test_a_question_that_no_host_can_read_is_not_asked(ask: Ask) -> None:
    """Whoever asked hears of it at once; a host could not say of which answer it speaks. The session goes on."""
    world = opened()
    with pytest.raises(FabstirError, match="message_malformed"):
        world.renter.receive(ask, 0.0)
    assert world.renter.state is RenterState.READY
    world.answer(3)
    assert world.renter.received == 3


def test_stopping_cancels_the_running_answer() -> None:
    """By its index; a stop that comes when the answer is complete does nothing."""
    world = opened()
    world.answer(3)
    assert world.renter.receive(StopAnswer(), 0.0) == []
    world.ask()
    (cancel,) = sent(world.renter.receive(StopAnswer(), 0.0))
    assert (cancel.session_id, cancel.message_index) == (SESSION, 1)


# -- what streams in -------------------------------------------------------------------------------------------------------------

BAD_RECORDS = [
    TokenRecord(-1, -1),
    TokenRecord(2**32, -1),
    TokenRecord(1, 1),
    TokenRecord(1, -(2**31) - 1),
    TokenRecord(1, -1, ((2**32, -1),)),
    TokenRecord(1, -1, ((1, 1),)),
    TokenRecord(1, -1, ((1, -1),) * 21),
]
GOOD_RECORDS = [
    TokenRecord(0, 0),
    TokenRecord(2**32 - 1, -(2**31)),
    TokenRecord(1, -1, ((1, -1),) * 20),
]


@pytest.mark.parametrize(
    "fields",
    [
        {"session_id": "other"},
        {"message_index": 1},
        {"index": 1},
        {"index": 9},
        *({"tokens": (record,)} for record in BAD_RECORDS),
    ],
    ids=str,
)
def test_a_chunk_that_does_not_follow_is_not_believed(fields: dict[str, Any]) -> None:
    """Another session or answer, a gap, an overlap, or records outside the format: the host is left, nothing is delivered."""
    world = streaming()
    chunk = world.on_the_way()[0]
    effects = world.renter.receive(msgspec.structs.replace(chunk, **fields), 0.0)
    assert left(effects).code == "message_out_of_order"
    broken, refused = "AnswerBroken message_out_of_order", "LeaveHost message_out_of_order"
    assert named(effects) == ["StoreRenter", "TurnKept", broken, refused]
    assert world.renter.received == 0


# -- answers that are scored -----------------------------------------------------------------------------------------------------


def scoring(tokens: tuple[int, ...]) -> World:
    """A host that scores was asked to, and the question has arrived."""
    world = opened()
    world.offer = msgspec.structs.replace(world.offer, scores=True)
    world.host = HostSession(world.replay_host(), HOST_KEY, world.offer)
    world.cut()
    world.connect()
    world.flow()
    world.renter_in(Ask(content="q", score=tokens))
    world.flow()
    return world


def test_the_tokens_of_a_scored_answer_are_those_that_were_asked_about() -> None:
    """Their number, their order; they are metered and signed for like others, and leave no trace in the conversation."""
    tokens = tuple(record.token for record in records(0, 40))
    world = scoring(tokens)
    assert world.asked[-1].score == tokens and world.asked[-1].max_tokens == 40
    world.say(40)
    world.finish_generation()
    world.flow()
    assert (world.renter.ledger.signed, world.renter.context) == (40, ())
    [turn] = world.kept
    assert tuple(record.token for record in turn.records) == tokens


@pytest.mark.parametrize("tokens", [(1, 0), (0, 1, 5)])
def test_a_host_that_scores_other_tokens_is_left(tokens: tuple[int, ...]) -> None:
    """Nothing of it is signed."""
    world = scoring(tokens)
    world.say(len(tokens))
    assert [effect.fault.code for effect in world.done if isinstance(effect, LeaveHost)] == ["message_out_of_order"]
    assert world.renter.ledger.signed == 0


def test_a_host_that_does_not_score_says_so() -> None:
    """By name, and the session stands."""
    world = opened()
    world.renter_in(Ask(content="q", score=(1, 2)))
    world.flow()
    assert [message.code for message in world.errors] == ["engine_refused"]
    assert world.generation is None


def test_what_is_too_long_to_be_scored_at_once() -> None:
    """Told with the bound, instead of scoring a part."""
    world = scoring(tuple(range(5_000)))
    assert [message.detail for message in world.errors] == ["5000 tokens to score, at most 4096 at once"]


@pytest.mark.parametrize("record", GOOD_RECORDS, ids=str)
def test_records_at_the_bounds_are_fine(record: TokenRecord) -> None:
    """The largest numbers that the record's binary form holds."""
    world = streaming()
    chunk = msgspec.structs.replace(world.on_the_way()[0], tokens=(record,))
    assert world.renter.receive(chunk, 0.0) == [Deliver(chunk.content, 1, chunk.tokens)]


def test_a_host_that_says_more_than_was_asked_is_left() -> None:
    """max_tokens is the renter's bound on what an answer can cost: not one token more is taken or signed."""
    world = opened()
    world.answer(5)
    world.ask(max_tokens=3)
    world.host._core.answer.budget = 100  # type: ignore[union-attr]  # a host that does not keep to it
    world.generate(3)
    world.flow()
    assert (world.renter.received, world.renter.state) == (8, RenterState.RECEIVING)
    world.generate(1)
    assert left(world.renter.receive(world.on_the_way()[0], 0.0)).code == "message_out_of_order"
    assert world.renter.received == 8


def test_text_and_partial_answer() -> None:
    """What arrived of the running answer can be seen; it is not yet part of the conversation."""
    world = opened()
    world.ask()
    world.generate(2, "ab")
    world.generate(1, "c")
    world.flow()
    assert (world.renter.partial, world.renter.context) == ("abc", ())


# -- how an answer ends ----------------------------------------------------------------------------------------------------------


def test_a_complete_answer_joins_the_conversation() -> None:
    """Question and answer, prefix included; the log counts what arrived."""
    world = opened()
    world.renter_in(Ask(content="q", prefix="once "))
    world.flow()
    world.generate(2, "more")
    world.finish_generation()
    effects = world.renter.receive(arriving(world, Response), 0.0)
    assert stored(effects) == [TurnSeen(0, Tokens(2), "stop")]
    assert isinstance(effects[-1], AnswerDone) and effects[-1].response.tokens_used == 2
    assert world.renter.context == (ChatMessage("user", "q"), ChatMessage("assistant", "once more"))


def test_an_answer_without_text_leaves_no_trace() -> None:
    """As at the host."""
    world = opened()
    world.answer(0)
    assert world.renter.context == ()


@pytest.mark.parametrize("index", [1, 2])
def test_a_response_to_something_else_is_not_believed(index: int) -> None:
    """The answer is not complete because a host says so about another one."""
    world = streaming()
    response = msgspec.structs.replace(arriving(world, Response), message_index=index)
    assert left(world.renter.receive(response, 0.0)).code == "message_out_of_order"


@pytest.mark.parametrize("index", [None, 1])
def test_an_error_about_something_else_does_not_end_the_answer(index: int | None) -> None:
    """Only an error that names the answer ends it."""
    world = streaming()
    assert (
        world.renter.receive(
            Error(code="rate_limited", category="refused", message="", retryable=True, message_index=index), 0.0
        )
        == []
    )
    assert world.renter.state is RenterState.RECEIVING
    world.flow()
    assert world.renter.received == 10


def test_an_error_about_the_answer_ends_it() -> None:
    """The log has the code and the count; both sides must agree again before the next question."""
    world = opened()
    world.ask()
    world.say(4)
    effects = world.renter.receive(
        Error(code="engine_gone", category="refused", message="m", retryable=True, detail="d", message_index=0), 0.0
    )
    assert stored(effects) == [TurnSeen(0, Tokens(4), "engine_gone")]
    assert isinstance(effects[-1], AnswerBroken) and (effects[-1].fault.code, effects[-1].fault.detail) == (
        "engine_gone",
        "d",
    )
    assert world.renter.state is RenterState.OFFLINE
    assert world.renter.partial == "<0:4>"


def test_a_lost_connection_ends_the_answer() -> None:
    """By name, with what the shell knows."""
    world = opened()
    world.ask()
    effects = world.renter.receive(HostLost("reset"), 0.0)
    assert isinstance(effects[-1], AnswerBroken)
    assert (effects[-1].fault.code, effects[-1].fault.detail) == ("host_unreachable", "reset")


@pytest.mark.parametrize("code", ["engine_gone", "from_the_future"])
def test_errors_of_a_host_keep_their_words(code: str) -> None:
    """A code that this version does not know is an engine_failed with the host's words."""
    fault = as_fault(Error(code=code, category="refused", message="m", retryable=True, detail="d", next_step="n"))
    assert fault.code == (code if code in CATALOGUE else "engine_failed")
    assert (fault.detail, fault.next_step) == ("d", "n")
    assert as_fault(Error(code=code, category="refused", message="m", retryable=True)).detail == "m"


def test_a_notice_is_shown() -> None:
    """Whatever else happens."""
    notice = Notice(code="draining", message="soon")
    assert opened().renter.receive(notice, 0.0) == [ShowNotice(notice)]
