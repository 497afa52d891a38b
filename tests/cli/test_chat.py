"""`fabstir chat` in a conversation."""

from __future__ import annotations

import pytest
from tests.renter.world import MODEL, world_of

from fabstir.cli.chat import _talk
from fabstir.cli.currency import currency_of


async def test_a_conversation_survives_what_cannot_be_taken_and_begins_anew(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Words that no host takes are named and left out; after `/clear` the model is given the new question alone."""
    lines = iter(["hello", "a bell \a rings", "and you", "/clear", "again", ""])
    monkeypatch.setattr("builtins.input", lambda _prompt: next(lines))
    async with world_of(100_000) as world, world.market() as market, market.session(MODEL) as session:
        await _talk(session, "scripted", {}, currency_of(market.token, market.usdc))
        asked = [len(request.messages) for request in world.hosts[0].engine.requests]
    said = capsys.readouterr()
    answers = [line for line in said.out.splitlines() if line.startswith("You said")]
    assert answers == ["You said: hello", "You said: and you", "You said: again"]
    assert asked == [1, 3, 1] and "context_invalid" in said.err
