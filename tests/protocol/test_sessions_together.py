"""Host and renter against each other: whatever cuts them off, both go on with the same count, voucher and conversation."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fabstir.domain.errors import error
from fabstir.protocol.generation import TokenBatch
from fabstir.protocol.host_inputs import EngineBatch, EngineFailed, SessionState
from fabstir.protocol.messages import ChatMessage, ReceiptAck, decode_from_renter
from fabstir.protocol.renter_items import Ask, Finish, LeaveHost, StopAnswer
from fabstir.protocol.renter_session import RenterState
from tests.protocol.market import World, opened, records, same_ledger


def agree(world: World) -> bool:
    """Everything that went out arrived, and is signed for, on both sides."""
    host, renter = world.host.ledger, world.renter
    return host.served == host.acknowledged == renter.ledger.signed == renter.received


def again(world: World) -> None:
    """The renter comes back with its conversation."""
    world.connect(world.renter.context)
    world.flow()
    assert world.renter.state is RenterState.READY


def fails(world: World) -> None:
    assert world.generation is not None
    world.host_in(EngineFailed(world.generation.turn, error("engine_gone")))
    world.generation = None


# -- whole answers ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("exposure", [1, 3, 16, 64])
@pytest.mark.parametrize("tokens", [0, 1, 15, 16, 31, 32, 33, 63, 64, 65, 100])
@pytest.mark.parametrize("batch", [1, 100])
def test_an_honest_session_hears_of_no_error(exposure: int, tokens: int, batch: int) -> None:
    """Whatever W, the answer's length and the size of the engine's batches: everything is signed, nobody complains, and the end
    releases the renter, even where it comes right behind the answer."""
    world = opened(exposure=exposure)
    for _ in range(2):
        world.ask()
        for at in range(0, tokens, batch):
            world.generate(min(batch, tokens - at))
        world.finish_generation()
        while world.renter.state is not RenterState.READY:
            world.deliver_to_host() or world.deliver_to_renter()
    world.renter_in(Finish())
    world.flow()
    assert agree(world)
    assert world.renter.received == 2 * tokens
    assert world.errors == []
    assert not [effect for effect in world.done if isinstance(effect, LeaveHost)]
    assert world.renter.state is RenterState.ENDED
    released = world.renter.ledger.released
    assert released is not None and released.tokens == 2 * tokens


def test_the_deposit_is_spent_to_the_last_token() -> None:
    """A deposit of 9 pays for 49 tokens at 0.2: all of them are served and signed, none after."""
    world = opened(exposure=16, deposit=9)
    world.ask()
    for _ in range(60):
        world.say(1)
    world.finish_generation("length")
    world.flow()
    assert agree(world)
    assert (world.renter.received, world.renter.ledger.amount(world.renter.received)) == (49, 9)
    world.ask()
    assert [message.code for message in world.errors] == ["deposit_exhausted"]
    assert world.renter.received == 49


# -- the conversation -------------------------------------------------------------------------------------------------------------


def cancelled(world: World) -> None:
    world.renter_in(StopAnswer())
    world.flow()


def completed(world: World) -> None:
    world.say(3)
    world.finish_generation()
    world.flow()


def empty(world: World) -> None:
    world.finish_generation()
    world.flow()


def without_text(world: World) -> None:
    assert world.generation is not None
    world.host_in(EngineBatch(world.generation.turn, TokenBatch(records(world.generated, 3), "")))
    world.generated += 3
    world.finish_generation()
    world.flow()


def engine_failed(world: World) -> None:
    world.say(3)
    fails(world)
    world.flow()


def cut(world: World) -> None:
    world.say(3)
    world.cut()


def renter_crashed(world: World) -> None:
    world.say(3)
    world.crash_renter()


def host_crashed(world: World) -> None:
    world.say(3)
    world.crash_host()


def not_acknowledged(world: World) -> None:
    world.generate(100)
    world.to_renter.clear()
    world.tick(31)
    world.cut()


HAPPENINGS: list[tuple[Callable[[World], None], int]] = [
    (completed, 2),
    (cancelled, 0),
    (empty, 0),
    (without_text, 0),
    (engine_failed, 0),
    (cut, 0),
    (host_crashed, 0),
    (not_acknowledged, 0),
]


@pytest.mark.parametrize(("happening", "adds"), HAPPENINGS, ids=lambda value: getattr(value, "__name__", ""))
def test_both_sides_know_the_same_conversation(happening: Callable[[World], None], adds: int) -> None:
    """After each way in which an answer can end, the engine is asked with the history that the renter has. (The test world compares them
    at each prompt.)"""
    world = opened()
    world.answer(5, "first")
    world.ask("second")
    happening(world)
    if world.renter.state is RenterState.OFFLINE:
        again(world)
    assert len(world.renter.context) == 2 + adds
    world.answer(5, "third")
    assert agree(world)
    assert world.asked[-1].messages == (*world.renter.context[:-2], ChatMessage("user", "third"))
    assert [message.content for message in world.renter.context if message.role == "user"] == (
        ["first", "second", "third"] if adds else ["first", "third"]
    )


def test_a_cancelled_answer_with_text_stays_in_the_conversation() -> None:
    """What the person has read was said."""
    world = opened()
    world.ask("q")
    world.say(3, "half an")
    cancelled(world)
    assert world.renter.context == (ChatMessage("user", "q"), ChatMessage("assistant", "half an"))
    world.answer(2, "next")
    assert world.asked[-1].messages == (*world.renter.context[:2], ChatMessage("user", "next"))


def test_an_answer_goes_on_after_its_prefix() -> None:
    """Prefix and the rest are one answer on both sides."""
    world = opened()
    world.renter_in(Ask(content="q", prefix="once upon "))
    world.flow()
    world.say(3, "a time")
    world.finish_generation()
    world.flow()
    assert world.renter.context[-1].content == "once upon a time"
    world.answer(2, "next")


def test_a_renter_that_crashed_starts_with_what_it_brings() -> None:
    """The host keeps nothing of the conversation for it."""
    world = opened()
    world.answer(5, "first")
    renter_crashed(world)
    again(world)
    world.answer(5, "second")
    assert world.asked[-1].messages == (ChatMessage("user", "second"),)
    assert agree(world)


def test_going_back_in_the_conversation() -> None:
    """Between two answers the renter can go on from an earlier point, on the same connection; no token is forgotten."""
    world = opened()
    world.answer(5, "first")
    world.answer(5, "second")
    world.connect(world.renter.context[:2])
    world.flow()
    assert (world.renter.state, world.host.state) == (RenterState.READY, SessionState.READY)
    world.answer(5, "third")
    assert [m.content for m in world.asked[-1].messages if m.role == "user"] == ["first", "third"]
    assert agree(world) and world.renter.received == 15


# -- cut off at every point ---------------------------------------------------------------------------------------------------------


def session_cut_off(side: str, after: int) -> World:
    """Two answers of 40 tokens under W = 16; `side` breaks `after` effects (or messages) later than the first question."""
    world = opened(exposure=16)
    if side == "host":
        world.host_fuse = after
    elif side == "renter":
        world.renter_fuse = after
    for step in range(1_000):
        if side == "wire" and step == after:
            world.cut(after % 3)
        elif world.renter.state is RenterState.OFFLINE:
            world.cut()
            again(world)
        elif world.to_host or world.to_renter:
            world.deliver_to_host() or world.deliver_to_renter()
        elif world.renter.received == 80:
            if world.renter.state is RenterState.READY:
                break
            world.finish_generation()
        elif world.renter.state is RenterState.READY:
            world.renter_in(Ask(content="q", max_tokens=80 - world.renter.received))
        else:
            world.generate(5)
    return world


@pytest.mark.parametrize("side", ["host", "renter", "wire"])
def test_cut_off_at_every_point(side: str) -> None:
    """A connection that breaks, or a process that dies between any two effects: the session resumes, all tokens are signed in
    the end, both logs say so, and not a token is signed twice or for nothing."""
    broke = 0
    for after in range(90):
        world = session_cut_off(side, after)
        assert agree(world), after
        assert world.renter.received == 80
        broke += (world.host_fuse, world.renter_fuse) == (None, None)
        assert same_ledger(world.replay_host(), world.host.ledger)
        assert world.replay_renter().voucher == world.renter.ledger.voucher
        assert {message.code for message in world.errors} == set()
    assert broke > 30  # later points lie behind the end of the session


def test_a_voucher_that_was_lost_is_given_again() -> None:
    """Signed, stored, and never arrived: after the resume the host asks again and gets the very same one."""
    world = opened()
    world.ask()
    world.generate(10)
    world.finish_generation()
    while world.to_renter:
        world.deliver_to_renter()
    (lost,) = [m for m in map(decode_from_renter, world.to_host) if isinstance(m, ReceiptAck)]
    world.cut()
    assert (world.renter.ledger.signed, world.host.ledger.acknowledged) == (10, 0)
    again(world)
    voucher = world.host.ledger.voucher
    assert voucher is not None and "0x" + voucher.signature.hex() == lost.signature
    assert agree(world)


def test_tokens_that_did_not_arrive_are_not_billed() -> None:
    """Lost on the wire: the host takes them back, and serves others in their place."""
    world = opened()
    world.answer(10)
    world.ask()
    world.generate(8)
    world.to_renter.clear()
    world.cut()
    assert world.host.served == 18
    again(world)
    assert (world.host.served, world.renter.received) == (10, 10)
    world.answer(8)
    assert agree(world) and world.renter.received == 18


def test_a_renter_that_comes_back_after_ack_timeout_goes_on() -> None:
    """The answer was given up, the job was not."""
    world = opened(exposure=4)
    world.ask()
    world.generate(4)
    world.to_renter.clear()
    world.generate(4)
    world.tick(31)
    assert [message.code for message in world.errors] == ["ack_timeout"]
    world.cut()
    again(world)
    world.answer(6)
    assert agree(world) and world.renter.received == 6
