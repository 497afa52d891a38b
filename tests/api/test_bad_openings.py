"""Who may not begin, over a real WebSocket: a named error, and afterwards the host is up and the money right (`Served.sound`)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from tests.api.served import Served, SocketWire, named, serving
from tests.host.world import SESSION, STRANGER, Renter, World, eventually
from websockets.exceptions import ConnectionClosedError

from fabstir.domain.ids import to_hex
from fabstir.domain.money import PricePerMTok, Tokens
from fabstir.protocol.messages import (
    Cancel,
    Ping,
    Pong,
    SessionEnd,
    WireTerms,
)

MALFORMED: dict[str, tuple[Any, str]] = {
    "no json": ("hello", "message_malformed"),
    "empty": ("", "message_malformed"),
    "no object": ("[1, 2]", "message_malformed"),
    "no type": ("{}", "message_unknown"),
    "unknown type": ('{"type": "gimme", "session_id": "chat"}', "message_unknown"),
    "a host's type": ('{"type": "receipt", "session_id": "chat"}', "message_unknown"),
    "missing field": ('{"type": "prompt", "session_id": "chat"}', "message_malformed"),
    "wrong type of a field": (
        '{"type": "prompt", "session_id": "chat", "message_index": "0", "content": "x"}',
        "message_malformed",
    ),
    "number out of range": ('{"type": "ping", "id": 1e300}', "message_malformed"),
    "deep nesting": ('{"type": ' + "[" * 20_000 + "]" * 20_000 + "}", "message_malformed"),
    "binary frame": (b'{"type": "ping", "id": 1}', "message_malformed"),
}


@pytest.mark.parametrize(("message", "code"), MALFORMED.values(), ids=MALFORMED)
@pytest.mark.parametrize("begun", [False, True], ids=["before a session", "in a session"])
async def test_what_cannot_be_read_is_answered_and_the_connection_stands(
    served: Served, message: Any, code: str, begun: bool
) -> None:
    """An unknown or malformed message is an error, never silence, and changes nothing."""
    renter = await served.stranger()
    if begun:
        await renter.open()
    named(await renter.refused(message), code)
    if not begun:
        await renter.open()
    assert await renter.chat("go on") == "You said: go on"
    await served.sound(renter)


@pytest.mark.parametrize(
    ("data", "code"), [("x" * 1_048_577, 1009), (b"\xff\xfe", 1007)], ids=["oversized", "not UTF-8"]
)
async def test_a_frame_that_is_none_closes_the_connection(served: Served, data: Any, code: int) -> None:
    """A frame above the bound is never read whole (close 1009); text that is not UTF-8 closes with 1007."""
    renter = await served.renter()
    assert isinstance(renter.wire, SocketWire)
    with contextlib.suppress(ConnectionClosedError):
        await renter.wire.socket.send(data, text=True)
    with pytest.raises(ConnectionClosedError) as closed:
        await renter.wire.receive()
    assert closed.value.rcvd is not None and closed.value.rcvd.code == code
    await eventually(lambda: not served.connected(renter))
    await served.sound(renter)


async def test_a_session_that_sends_only_garbage_is_closed(served: Served) -> None:
    """After MAX_FAULTS unreadable messages the connection ends with `rate_limited`; before a session after MAX_ATTEMPTS."""
    for renter in (await served.renter(), await served.stranger()):
        with pytest.raises(ConnectionClosedError) as closed:
            await _garbage(renter)
        assert closed.value.rcvd is not None and closed.value.rcvd.reason == "rate_limited"
        await served.sound(renter)


async def _garbage(renter: Renter) -> None:
    while True:
        await renter.refused("garbage")


# -- who may begin -----------------------------------------------------------------------------------------------------------


async def test_a_prompt_before_a_session_is_out_of_order(served: Served) -> None:
    """So is every other message but ping; the session may still begin on the same connection."""
    renter = await served.stranger()
    voucher = renter.voucher(1, "0", to_hex(bytes(32)))
    for message in (
        renter.prompt("hello"),
        voucher,
        Cancel(session_id="chat", message_index=0),
        SessionEnd(session_id="chat"),
    ):
        named(await renter.refused(message), "message_out_of_order")
    await renter.send(Ping(id=7))
    assert await renter.next() == Pong(id=7)
    await renter.open()
    await served.sound(renter)


Opening = Callable[[World, Renter], Any]


def _foreign(**changes: Any) -> Opening:
    """An opening with other terms than the host wants, of a job that exists on chain."""

    def make(world: World, renter: Renter) -> Any:
        renter.__init__(renter.wire, world.chain.open(msgspec.structs.replace(renter.terms, **changes)))  # type: ignore[misc]
        return renter.init()

    return make


def _on_chain(**changes: Any) -> Opening:
    """An opening after something happened to the job on chain."""

    def make(world: World, renter: Renter) -> Any:
        world.chain.change(renter.terms, **changes)
        return renter.init()

    return make


def _unopened(world: World, renter: Renter) -> Any:
    world.chain.states.clear()
    return renter.init()


def _another_key(_world: World, renter: Renter) -> Any:
    renter.key = STRANGER
    hello = renter.init()
    renter.key = SESSION
    return hello


def _altered(**changes: Any) -> Opening:
    return lambda _world, renter: renter.init(**changes)


def _issued(seconds: int) -> Opening:
    return lambda _world, renter: renter.init(auth=renter.auth(issued_at=1_800_000_000 + seconds))


def _cheaper_terms(_world: World, renter: Renter) -> Any:
    cheaper = msgspec.structs.replace(renter.terms, price=PricePerMTok(1))
    return renter.init(terms=WireTerms.of(cheaper))


REFUSED: dict[str, tuple[Opening, str]] = {
    "job that is not on chain": (_unopened, "job_unknown"),
    "terms of another job": (_cheaper_terms, "job_terms_mismatch"),
    "job of another host": (_foreign(host=STRANGER.address), "job_foreign"),
    "job of another model": (_foreign(model_id=bytes(32)), "job_foreign"),
    "job in another token": (_foreign(token=bytes(20)), "job_foreign"),
    "job at a lower price": (_foreign(price=PricePerMTok(199_999)), "job_foreign"),
    "exposure above the bound": (_foreign(exposure=Tokens(257)), "job_terms_unacceptable"),
    "challenge too short": (_foreign(challenge=899), "job_terms_unacceptable"),
    "job that expires too soon": (_foreign(expires_at=1_800_000_299), "job_expired"),
    "closed job": (_on_chain(closed=True), "job_closed"),
    "closing job": (_on_chain(closing_at=1_800_000_900), "job_closed"),
    "deposit too small": (_on_chain(deposit=9_999), "job_terms_unacceptable"),
    "exhausted job": (_on_chain(signed=Tokens(5_000_004)), "deposit_exhausted"),
    "wrong session key": (_another_key, "session_unauthorized"),
    "old authorisation": (_issued(-121), "session_unauthorized"),
    "authorisation from the future": (_issued(121), "session_unauthorized"),
    "authorisation of another session": (_altered(session_id="other"), "session_unauthorized"),
    "protocol that nobody speaks": (_altered(protocol=(99,)), "message_malformed"),
}


@pytest.mark.parametrize(("opening", "code"), REFUSED.values(), ids=REFUSED)
async def test_who_may_not_begin_is_told_why(served: Served, opening: Opening, code: str) -> None:
    """Each way not to fit has its own code; the engine never hears of it."""
    renter = await served.stranger()
    named(await renter.refused(opening(served.world, renter)), code)
    named(await renter.refused(renter.prompt("hello")), "message_out_of_order")
    assert served.world.engine.requests == []
    await served.sound(renter)


async def test_an_authorisation_works_once(served: Served) -> None:
    """A recorded session_init, sent again after the first session ended, is `session_unauthorized`."""
    renter = await served.stranger()
    hello = renter.init()
    await renter.open(hello)
    await served.close(renter)
    again = await served.stranger(renter.terms)
    fault = await again.refused(hello)
    named(fault, "session_unauthorized")
    assert "used before" in fault.detail
    await again.open(again.resume())
    await served.sound(again)


async def test_a_second_connection_to_a_job_is_refused_and_the_first_stays(served: Served) -> None:
    """`session_in_use`, also for who holds the key; once the first is gone the second gets in."""
    first = await served.renter()
    second = await served.stranger(first.terms)
    named(await second.refused(second.init()), "session_in_use")
    assert await first.chat("mine") == "You said: mine"
    await eventually(lambda: served.world.ledger(first).exposed == 0)
    await served.close(first)
    second.continues(first)
    await second.open(second.resume())
    await served.sound(second)


async def test_an_unreachable_chain_admits_nobody_and_harms_no_running_session(served: Served) -> None:
    """`chain_unreachable`, with `/health` telling the truth; the running session goes on; afterwards the same connection gets in."""
    running, renter = await served.renter(), await served.stranger()
    served.world.chain.reachable = False
    named(await renter.refused(renter.init()), "chain_unreachable")
    assert await running.chat("hello") == "You said: hello"
    await served.world.clock.advance(3)
    status, health = await served.get("/health")
    assert (status, health["status"], health["chain"]["status"]) == (503, "failing", "down")
    assert "connection refused" in health["chain"]["reason"]
    served.world.chain.reachable = True
    await served.world.clock.advance(3)
    await renter.open()
    await served.sound(renter)


async def test_a_full_host_says_so() -> None:
    """The session above `max_sessions` gets `capacity`; a place that is given up is free again."""
    async with serving(World(max_sessions=2)) as served:
        first, _second, third = await served.renter(), await served.renter(), await served.stranger()
        named(await third.refused(third.init()), "capacity")
        await served.close(first)
        await third.open()
        await served.close(third)
        await served.sound(third)
