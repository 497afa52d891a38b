"""A renter that comes back in a channel with the token of its last `session_ready`: no signature, no look at the chain."""

from __future__ import annotations

import pytest
from tests.api.served import named
from tests.host.test_entrance import Sealed, enter, stranger
from tests.host.world import Renter, World, eventually

from fabstir.protocol.messages import SessionEnd
from fabstir.testing.transport import TransportEnd


async def back(world: World, renter: Renter) -> Renter:
    """The same renter in a new channel, before it has said a word."""
    assert isinstance(renter.wire, Sealed)
    await renter.wire.transport.close("host_unreachable")
    await eventually(lambda: renter.job not in world.jobs_at_work())
    return Renter(Sealed(await enter(world.connect())), renter.terms).continues(renter)


async def opened(world: World) -> tuple[Renter, str]:
    """A renter with a session in a channel, one answer on, and its token."""
    renter, _ = await stranger(world)
    await renter.open()
    assert await renter.chat("hello") == "You said: hello"
    await eventually(lambda: world.ledger(renter).exposed == 0)
    assert renter.ready.token is not None
    return renter, renter.ready.token


async def test_a_token_resumes_without_signature_and_without_the_chain() -> None:
    """The session goes on where it was; the next token comes with the answer, and the old one is used up."""
    async with World().running() as world:
        renter, token = await opened(world)
        reads = world.chain.reads
        again = await back(world, renter)
        await again.open(again.resume(auth=None, token=token))
        assert world.chain.reads == reads and again.ready.token not in (None, token)
        assert await again.chat("still me") == "You said: still me"
        third = await back(world, again)
        named(await third.refused(third.resume(auth=None, token=token)), "session_token_invalid")
        await third.open(third.resume())
        assert await third.chat("signed") == "You said: signed"


async def test_between_two_answers_a_token_replaces_the_signature_too() -> None:
    """On the connection that stands."""
    async with World().running() as world:
        renter, token = await opened(world)
        await renter.open(renter.resume(auth=None, token=token))
        named(await renter.refused(renter.resume(auth=None, token=token)), "session_token_invalid")
        assert await renter.chat("hello") == "You said: hello"


async def test_plain_text_has_no_tokens() -> None:
    """None is given where it could be read on the way, and none is taken; and who brings nothing is nobody."""
    async with World().running() as world:
        plain = await world.renter()
        assert plain.ready.token is None
        renter, token = await opened(world)
        assert isinstance(renter.wire, Sealed)
        await renter.wire.transport.close("ended")
        await eventually(lambda: renter.job not in world.jobs_at_work())
        end: TransportEnd = world.connect()
        thief = Renter(end, renter.terms).continues(renter)
        named(await thief.refused(thief.resume(auth=None, token=token)), "session_token_invalid")
        named(await thief.refused(thief.resume(auth=None)), "session_unauthorized")


async def test_a_token_of_another_session_or_job_is_none() -> None:
    """Whoever has one cannot use it for another one's."""
    async with World().running() as world:
        _, stolen = await opened(world)
        renter, _ = await opened(world)
        again = await back(world, renter)
        named(await again.refused(again.resume(auth=None, token=stolen)), "session_token_invalid")
        named(await again.refused(again.resume(auth=None, token=stolen, session_id="other")), "session_token_invalid")


@pytest.mark.parametrize("by", ["operator", "end", "chain"])
async def test_a_token_ends_with_its_session(by: str) -> None:
    """The operator revoked it, the renter ended the session, or the chain closed the job."""
    async with World().running() as world:
        renter, token = await opened(world)
        if by == "end":
            await renter.send(SessionEnd(session_id="chat"))
            await renter.until(SessionEnd)
            await eventually(lambda: renter.job not in world.jobs_at_work())
        elif by == "chain":
            await world.node.chain_closing(renter.job)
        else:
            world.node.tokens.revoke(job=renter.job)
        again = await back(world, renter)
        named(await again.refused(again.resume(auth=None, token=token)), "session_token_invalid")
