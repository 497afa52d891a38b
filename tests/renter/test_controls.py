"""A question goes to a host that can answer it as it was asked, or to nobody, before anything is paid."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from tests.renter.world import MODEL, world_of

from fabstir.domain.errors import FabstirError, Interrupted, Refused
from fabstir.testing.engine import ScriptedEngine


async def gather(answer: AsyncIterator[str]) -> str:
    return "".join([piece async for piece in answer])


async def test_a_dearer_host_is_taken_where_the_cheap_one_cannot() -> None:
    """Also in the middle of a conversation: the standing connection is left for the one answer's sake, and the history goes along."""
    async with world_of() as world, world.market() as market, market.session(MODEL) as session:
        cheap = await world.host(100_000, ScriptedEngine().offering("top_k"))
        dear = await world.host(200_000)
        assert await gather(session.prompt("hello")) == "You said: hello"
        assert await gather(session.prompt("again", min_p=0.1)) == "You said: again"
        assert [job.host for job in session.jobs] == [cheap.key.address, dear.key.address]
        (request,) = dear.engine.requests
        assert request.min_p == 0.1
        assert [message.content for message in request.messages] == ["hello", "You said: hello", "again"]


async def test_nobody_who_can_is_said_before_a_deposit() -> None:
    """With the control's name and every host's reason."""
    async with world_of(100_000) as world, world.market() as market, market.session(MODEL) as session:
        with pytest.raises(Refused, match=r"control_unsupported.*does not offer adapter:pirate"):
            await gather(session.prompt("hello", adapter="pirate"))
        with pytest.raises(Refused, match="control_invalid"):
            await gather(session.prompt("hello", json_schema="no"))
        assert not session.jobs and not world.hosts[0].ledgers
        assert await gather(session.prompt("hello")) == "You said: hello"


async def test_an_answer_of_a_prescribed_form_that_breaks_is_not_patched_together() -> None:
    """What was delivered is paid; the error comes instead of another host's continuation, which no grammar could bind."""
    async with world_of(100_000, 200_000) as world, world.market() as market, market.session(MODEL) as session:
        first, second = world.hosts
        gate, pieces = first.engine.gate(5), []
        with pytest.raises(FabstirError) as fault:
            async for piece in session.prompt("count 20", json_schema="{}"):
                pieces.append(piece)
                if len(pieces) == 5:
                    await first.kill()
                    gate.open.set()
        assert isinstance(fault.value, Interrupted) and len(pieces) == 5
        assert not second.engine.requests
        assert await gather(session.prompt("count 3", json_schema="{}")) == "1 2 3"
