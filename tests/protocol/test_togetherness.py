"""Both cores together beyond question and answer: what they agree on, what each holds, who is still there, who leaves, who forgets."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from fabstir.domain.errors import FabstirError
from fabstir.domain.ids import Hash32, to_hex
from fabstir.protocol.capabilities import ALWAYS, MEANING, OF_RENTER
from fabstir.protocol.conversation import conversation_hash
from fabstir.protocol.effects import Disconnect
from fabstir.protocol.heartbeat import Beat, Heartbeat
from fabstir.protocol.host_inputs import Leaving, SessionState
from fabstir.protocol.messages import (
    ChatMessage,
    Error,
    Handoff,
    Notice,
    Ping,
    Pong,
    Prompt,
    SessionReady,
    StateSync,
    decode_from_renter,
)
from fabstir.protocol.renter_items import Ask, Clear, DropConnection, Finish, HandedOff, SendHost
from fabstir.protocol.renter_session import PING_SECONDS, RenterState
from fabstir.protocol.signing import keccak
from tests.protocol.hosting import hello, resume, sent
from tests.protocol.market import World, named, opened, same_ledger, terms

TALK = (ChatMessage("user", "Hello"), ChatMessage("assistant", "Hi."))

# -- what both agree on ---------------------------------------------------------------------------------------------------------


def old_renter(world: World) -> World:
    """One that names no capability, as it was before there were any."""
    world.host.attach(msgspec.structs.replace(hello(world), capabilities=()), Hash32(bytes(32)), world.now)
    world.linked = False
    return world


def test_a_host_says_what_it_has_and_a_renter_what_it_understands() -> None:
    """Every name has a meaning; rungs of the ladder come besides."""
    world = World(terms(), 1_000, rung=2)
    world.offer = msgspec.structs.replace(world.offer, scores=True, rungs=(2, 3))
    world.host._core.offer = world.offer
    (ready,) = sent(world.host.attach(hello(world), keccak(b"s"), 0.0))
    assert ready.capabilities == (*ALWAYS, "score", "fingerprints", "rung_2", "rung_3")
    assert set(ready.capabilities[:-2]) == set(MEANING) and set(OF_RENTER) <= set(ALWAYS)
    assert hello(world).capabilities == OF_RENTER and hello(world).client.startswith("fabstir/")


def test_what_is_required_and_missing_is_refused_before_anything_is_agreed() -> None:
    """`capability_missing` names it; the session does not begin, and begins without the demand."""
    world = World(terms(), 1_000)
    wants = msgspec.structs.replace(hello(world), requires=("stream", "teleport"))
    (refusal,) = sent(world.host.attach(wants, keccak(b"s"), 0.0))
    assert (refusal.code, refusal.category, refusal.detail) == ("capability_missing", "refused", "teleport")
    assert world.host.state is SessionState.DETACHED
    unknown = msgspec.structs.replace(hello(world), capabilities=("teleport",), requires=("stream",))
    assert isinstance(sent(world.host.attach(unknown, keccak(b"s"), 0.0))[0], SessionReady)


def test_who_names_nothing_hears_nothing_new() -> None:
    """An older renter gets no session_state, no ping and no handoff: a notice, as ever."""
    world = old_renter(World(terms(), 1_000_000))
    assert world.host.next_deadline() is None
    assert world.tick(1e9) == []
    assert [type(message) for message in sent(world.host.receive(Leaving(), 0.0))] == [Notice]
    assert not world.host.hands_off
    again = World(terms(), 1_000_000)
    assert [type(m) for m in sent(again.host.attach(resume(again), keccak(b"s"), 0.0))] == [SessionReady]


# -- what each holds --------------------------------------------------------------------------------------------------------------


def test_after_a_resume_both_know_the_same() -> None:
    """session_state: the conversation by its hash, the counts and the next index; the renter compares, also where it has asked already."""
    world = opened()
    world.answer(40)
    world.cut()
    world.connect(TALK)
    world.deliver_to_host()
    state = world.on_the_way()[1]
    assert isinstance(state, StateSync)
    assert (state.messages, state.message_index, state.tokens_served, state.tokens_acknowledged) == (2, 1, 40, 40)
    assert state.conversation == to_hex(conversation_hash(world.host._core.salt, TALK))
    world.deliver_to_renter()
    world.ask("before it has read the state")
    assert world.renter.state is RenterState.RECEIVING and not world.done[1:]


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("messages", 1, "state_mismatch"),
        ("conversation", "0x" + "11" * 32, "state_mismatch"),
        ("message_index", 7, "state_mismatch"),
        ("tokens_served", 39, "transcript_mismatch"),
        ("transcript", "0x" + "11" * 32, "transcript_mismatch"),
        ("session_id", "another", "state_mismatch"),
    ],
)
def test_a_host_that_knows_something_else_is_left(field: str, value: Any, code: str) -> None:
    """Nothing more is asked of it, and nothing signed."""
    world = opened()
    world.answer(40)
    world.cut()
    world.connect(TALK)
    world.deliver_to_host()
    ready, state = world.on_the_way()[:2]
    world.renter_in(ready)
    got = named(world.renter.receive(msgspec.structs.replace(state, **{field: value}), 0.0))
    assert got == [f"LeaveHost {code}"]


def test_clearing_forgets_on_both_sides_and_keeps_the_meter() -> None:
    """The next prompt is answered without what was said; index, counts and vouchers go on."""
    world = opened()
    world.answer(40, "what was said")
    assert len(world.host._core.history.messages) == 2
    world.renter_in(Clear())
    world.meant = ()
    world.flow()
    assert not world.host._core.history.messages and not world.renter.context
    assert world.renter.state is RenterState.READY and world.host.served == world.renter.received == 40
    world.answer(10, "after")
    assert [message.content for message in world.asked[-1].messages] == ["after"]
    assert same_ledger(world.host.ledger, world.replay_host())


def test_what_crosses_an_introduction_is_no_fault() -> None:
    """Cleared, and then another conversation is begun before the host's word about the first arrived."""
    world = opened()
    world.answer(8)
    world.renter_in(Clear())
    world.connect(TALK)
    world.flow()
    assert world.renter.state is RenterState.READY and not [e for e in world.done if "Leave" in repr(e)]
    assert world.host._core.history.messages == TALK


def test_clearing_waits_for_the_answer() -> None:
    """`session_busy`; the answer goes on."""
    world = opened()
    world.ask()
    with pytest.raises(FabstirError, match="message_out_of_order"):
        world.renter.receive(Clear(), 0.0)
    world.say(5)
    world.finish_generation()
    world.flow()
    assert world.renter.received == 5


def test_a_prompt_may_bring_the_whole_conversation() -> None:
    """Stateless use: what the host held is replaced, both go on from what was brought, and hash the same request."""
    world = opened()
    world.answer(8, "forgotten")
    world.renter_in(Ask(content="and now?", conversation=TALK))
    world.meant = (*TALK, ChatMessage("user", "and now?"))
    world.flow()
    assert world.asked[-1].messages == world.meant
    world.say(8, "Now.")
    world.finish_generation()
    world.flow()
    assert world.renter.context == world.host._core.history.messages == (
        *TALK,
        ChatMessage("user", "and now?"),
        ChatMessage("assistant", "Now."),
    )  # fmt: skip
    world.answer(4, "without")
    assert world.renter.received == world.host.served == world.host.ledger.acknowledged == 20


def test_an_empty_conversation_is_one_too() -> None:
    """`conversation_context: []` is a first question; None goes on."""
    world = opened()
    world.answer(8)
    world.renter_in(Ask(content="fresh", conversation=()))
    prompt = decode_from_renter(world.to_host[-1])
    assert isinstance(prompt, Prompt) and prompt.conversation_context == ()
    world.meant = (ChatMessage("user", "fresh"),)
    world.flow()
    assert len(world.asked[-1].messages) == 1


# -- who is still there -----------------------------------------------------------------------------------------------------------


def test_a_heartbeat_asks_once_and_then_gives_up() -> None:
    """Silence for a period: ask. For another one: gone. Anything heard in between begins anew."""
    heart = Heartbeat(10.0, 100.0)
    assert (heart.tick(109.9), heart.deadline) == (Beat.NOTHING, 110.0)
    assert (heart.tick(110.0), heart.count, heart.deadline) == (Beat.ASK, 1, 120.0)
    heart.heard(115.0)
    assert (heart.tick(124.9), heart.tick(125.0), heart.count) == (Beat.NOTHING, Beat.ASK, 2)
    assert heart.tick(135.0) is Beat.SILENT


def test_the_host_asks_and_the_renter_answers() -> None:
    """Between two answers as well as during one; the answer is what was heard."""
    world = opened()
    for _ in range(5):
        (ping,) = world.tick(20.0)
        assert isinstance(ping, Ping)
        world.deliver_to_renter()
        assert isinstance(decode_from_renter(world.to_host[-1]), Pong)
        world.deliver_to_host()
        world.host.heard(world.now)
    world.ask()
    assert [type(message) for message in world.tick(20.0)] == [Ping]


def test_a_renter_that_is_gone_is_noticed_after_two_periods() -> None:
    """Its connection is closed with `peer_silent`, once."""
    world = opened()
    world.tick(20.0)
    effects = world.host.tick(world.now + 20.0)
    assert effects == [Disconnect("peer_silent")]
    assert world.host.tick(world.now + 99.0) == []


def test_a_renter_that_holds_an_acknowledgement_back_is_not_asked() -> None:
    """At the bound it is the voucher that is waited for."""
    world = opened(exposure=4)
    world.ask()
    world.generate(6)
    assert world.host.state is SessionState.BLOCKED
    assert world.tick(29.0) == []
    assert [m.code for m in world.tick(1.0) if isinstance(m, Error)] == ["ack_timeout"]


def test_the_renter_asks_too_and_drops_a_host_that_is_gone() -> None:
    """Silence counts from when it listens; what arrives is a sign of life."""
    world = opened()
    assert world.renter.tick(1e9) == []
    world.renter.listen(100.0)
    assert world.renter.tick(100.0 + PING_SECONDS) == [SendHost(Ping(id=1))]
    world.renter.receive(Pong(id=1), 120.0)
    assert world.renter.tick(120.0 + PING_SECONDS) == [SendHost(Ping(id=2))]
    assert world.renter.tick(120.0 + 2 * PING_SECONDS) == [DropConnection()]
    assert world.renter.tick(1e9) == []


# -- who leaves -------------------------------------------------------------------------------------------------------------------


def test_a_host_that_leaves_hands_an_idle_session_over() -> None:
    """At once; the renter ends the job there and has the host's signature to close it."""
    world = opened()
    world.answer(40)
    (handoff,) = world.host_in(Leaving())
    assert isinstance(handoff, Handoff)
    assert (handoff.reason, handoff.tokens_served, handoff.message_index, handoff.grace_s) == ("draining", 40, 1, 5)
    assert world.host_in(Leaving(now=True)) == []
    world.flow()
    world.renter_in(Finish())
    world.flow()
    assert world.renter.state is RenterState.ENDED and world.renter.ledger.released


def test_an_answer_may_end_before_the_host_leaves() -> None:
    """`response`, then `handoff`; no further prompt is taken."""
    world = opened()
    world.ask()
    assert world.host_in(Leaving()) == []
    world.say(10)
    world.finish_generation()
    assert [type(message).__name__ for message in world.on_the_way()] == ["Receipt", "Response", "Handoff"]
    world.flow()
    world.renter_in(Ask(content="more"))
    world.deliver_to_host()
    (refusal,) = world.on_the_way()
    assert (refusal.code, refusal.message_index) == ("draining", 1)


def test_an_answer_is_handed_over_in_its_middle() -> None:
    """Where there is no time left: the engine is stopped, what went out is receipted, signed and paid; the renter hears `draining`, keeps
    what was delivered, and ends the session in good order."""
    world = opened()
    world.ask()
    world.say(50)
    world.host_in(Leaving())
    world.generate(7)
    effects = named(world.host.receive(Leaving(now=True), world.now))
    assert effects == ["CancelGeneration", "Store", "Receipt", "Handoff"]
    world = opened()
    world.ask()
    world.say(50)
    world.generate(7)
    world.host_in(Leaving(now=True))
    world.flow()
    assert named(world.done) == ["AnswerBroken draining"]
    assert world.renter.received == 57 == world.host.ledger.acknowledged
    world.renter_in(Finish())
    world.flow()
    assert world.renter.ledger.released and world.host.ledger.finished


@pytest.mark.parametrize("field", ["tokens_served", "session_id"])
def test_a_handoff_from_elsewhere_is_not_believed(field: str) -> None:
    """Another count or another session: the host is left."""
    world = opened()
    world.answer(40)
    (handoff,) = world.host_in(Leaving())
    other = msgspec.structs.replace(handoff, **{field: 39 if field == "tokens_served" else "another"})
    assert named(world.renter.receive(other, 0.0)) == ["LeaveHost transcript_mismatch"]


def test_nobody_begins_at_a_host_that_leaves() -> None:
    """`draining` to whoever would replace the conversation, and the renter knows why."""
    world = opened()
    world.host_in(Leaving())
    (refusal,) = sent(world.host.attach(resume(world), keccak(b"s"), 0.0))
    assert refusal.code == "draining"
    effects = world.renter.receive(world.on_the_way()[0], 0.0)
    assert [type(effect) for effect in effects] == [HandedOff] and world.renter.state is RenterState.READY
