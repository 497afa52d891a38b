"""A host that lies gets no signature for it and is left; an honest one takes over."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from tests.renter.world import CONTRACT, MODEL, STRANGER, Host, counting, world_of

from fabstir.domain.ids import Hash32, JobId, from_hex, to_hex
from fabstir.domain.money import BaseUnits, Tokens
from fabstir.protocol.messages import FromHost, PaymentRequired, Receipt, SessionReady, StreamChunk
from fabstir.renter import Session
from fabstir.renter.access import PAY_AHEAD


def resigned(host: Host, receipt: Receipt, **changes: Any) -> Receipt:
    """Another receipt, signed by the host as if it were true."""
    changed = msgspec.structs.replace(receipt, **changes)
    [ledger] = host.ledgers
    head = Hash32(from_hex(changed.transcript, 32))
    digest = CONTRACT.receipt_digest(
        JobId(ledger.job), BaseUnits(int(changed.amount)), Tokens(changed.tokens), Tokens(changed.tokens_in), head
    )
    return msgspec.structs.replace(changed, signature=to_hex(host.key.sign(digest)))


def _stranger(host: Host, receipt: Receipt) -> Receipt:
    [ledger] = host.ledgers
    head = Hash32(from_hex(receipt.transcript, 32))
    digest = CONTRACT.receipt_digest(
        ledger.job, BaseUnits(int(receipt.amount)), Tokens(receipt.tokens), Tokens(receipt.tokens_in), head
    )
    return msgspec.structs.replace(receipt, signature=to_hex(STRANGER.sign(digest)))


RECEIPTS: dict[str, Callable[[Host, Receipt], FromHost | bytes]] = {
    "more tokens than were delivered": lambda host, r: resigned(host, r, tokens=r.tokens + 1, amount="8"),
    "fewer tokens": lambda host, r: resigned(host, r, tokens=r.tokens - 1),
    "another transcript": lambda host, r: resigned(host, r, transcript=to_hex(bytes(32))),
    "a higher amount": lambda host, r: resigned(host, r, amount=str(int(r.amount) + 1)),
    "a lower amount": lambda host, r: resigned(host, r, amount="1"),
    "an amount above everything": lambda host, r: resigned(host, r, amount=str(2**96 - 1)),
    "a stranger's signature": _stranger,
    "no signature": lambda host, r: msgspec.structs.replace(r, signature="0x" + "00" * 65),
    "no receipt at all but noise": lambda host, r: b"\xff\xfe",
    "a message of another protocol": lambda host, r: b'{"type":"invoice","amount":"7"}',
}
CHUNKS: dict[str, Callable[[StreamChunk], FromHost | None]] = {
    "a gap": lambda c: msgspec.structs.replace(c, index=c.index + 1),
    "a repetition": lambda c: msgspec.structs.replace(c, index=c.index - 1),
    "a lost chunk": lambda c: None,
    "tokens of another answer": lambda c: msgspec.structs.replace(c, message_index=c.message_index + 1),
    "another session's tokens": lambda c: msgspec.structs.replace(c, session_id="other"),
    "a log-probability above 0": lambda c: msgspec.structs.replace(
        c, tokens=(msgspec.structs.replace(c.tokens[0], logprob=1),)
    ),
}


async def moves_on(session: Session, liar: Host, honest: Host, at_most: int) -> None:
    """The whole answer comes; the liar holds no more than it was signed for before it lied."""
    pieces = [piece async for piece in session.prompt("count 200", max_tokens=400)]
    assert "".join(pieces) == counting(200)
    assert session.last is not None and session.last.completion_tokens == 201
    lied_to, other = session.jobs
    assert (lied_to.host, other.host) == (liar.key.address, honest.key.address)
    assert lied_to.spoiled is not None
    assert lied_to.ledger.signed <= at_most
    assert other.ledger.signed == honest.ledgers[0].acknowledged == 201 - lied_to.core.received


@pytest.mark.parametrize("lie", RECEIPTS)
async def test_a_false_receipt_is_not_signed(lie: str) -> None:
    """The second receipt is false: only the first was signed."""
    async with world_of(100_000, 200_000) as world, world.market() as market, market.session(MODEL) as session:
        liar, honest = world.hosts
        seen: list[int] = []

        def tamper(message: FromHost) -> FromHost | bytes:
            if isinstance(message, Receipt) and message.tokens not in seen:
                seen.append(message.tokens)
            return RECEIPTS[lie](liar, message) if isinstance(message, Receipt) and len(seen) > 1 else message

        liar.tamper = tamper
        await moves_on(session, liar, honest, at_most=32)
        assert session.jobs[0].ledger.signed == 32


@pytest.mark.parametrize("lie", CHUNKS)
async def test_a_stream_with_a_fault_is_not_paid_for(lie: str) -> None:
    """Token 40 is not what it should be: at most the receipt before it was signed."""
    async with world_of(100_000, 200_000) as world, world.market() as market, market.session(MODEL) as session:
        liar, honest = world.hosts
        liar.tamper = lambda m: CHUNKS[lie](m) if isinstance(m, StreamChunk) and m.index == 40 else m
        await moves_on(session, liar, honest, at_most=32)


@pytest.mark.parametrize(
    "change",
    [
        {"price_per_mtok": "100001"},
        {"host": to_hex(STRANGER.address)},
        {"model_id": to_hex(b"\x01" * 32)},
        {"job_id": to_hex(b"\x01" * 32)},
        {"tokens_served": 1},
        {"transcript": to_hex(b"\x01" * 32)},
    ],
    ids=lambda change: next(iter(change)),
)
async def test_a_greeting_that_names_something_else_is_left(change: dict[str, Any]) -> None:
    """Nothing is asked of it."""
    async with world_of(100_000, 200_000) as world, world.market() as market, market.session(MODEL) as session:
        liar = world.hosts[0]
        liar.tamper = lambda m: msgspec.structs.replace(m, **change) if isinstance(m, SessionReady) else m
        assert "".join([piece async for piece in session.prompt("hi")]) == "You said: hi"
        assert liar.engine.requests == []
        assert session.jobs[0].ledger.signed == 0


async def test_a_host_that_lied_is_not_used_again_in_this_session() -> None:
    """Its job is spoiled: where it must be tried again, a new job is opened."""
    async with world_of(100_000) as world, world.market() as market, market.session(MODEL) as session:
        liar = world.hosts[0]
        liar.tamper = lambda m: RECEIPTS["a higher amount"](liar, m) if isinstance(m, Receipt) else m
        with pytest.raises(Exception, match="receipt_invalid"):
            async for _ in session.prompt("count 200"):
                pass
        liar.tamper = lambda m: m
        assert "".join([piece async for piece in session.prompt("hi")]) == "You said: hi"
        assert len(session.jobs) == 2


async def test_a_receipt_that_is_repeated_is_acknowledged_once() -> None:
    """A host may say it again; a second voucher would be refused as stale."""
    async with world_of(100_000) as world, world.market() as market, market.session(MODEL) as session:
        host = world.hosts[0]
        host.repeats = lambda message: isinstance(message, Receipt)
        assert "".join([piece async for piece in session.prompt("count 100", max_tokens=200)]) == counting(100)
        acks = [message for message in host.sent if b"receipt_ack" in message]
        assert len(acks) == len(set(acks)) == 4


async def test_a_host_that_asks_for_more_too_soon_locks_nothing_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """It says `payment_required` from its first token on: the renter counts for itself, and pays when the deposit runs low."""
    monkeypatch.setattr("fabstir.protocol.host_paying.ANNOUNCE_AHEAD", 1 << 40)
    asked: list[FromHost] = []

    def listen(message: FromHost) -> FromHost:
        asked.extend([message] if isinstance(message, PaymentRequired) else [])
        return message

    async with world_of(200_000) as world, world.market() as market, market.session(MODEL, budget=50_000) as session:
        world.hosts[0].tamper = listen
        for _ in range(3):
            assert [piece async for piece in session.prompt("count 20", max_tokens=50)] != []
        (job,) = session.jobs
        assert job.ledger.affordable - job.ledger.signed > PAY_AHEAD * job.ledger.terms.exposure
        assert [key for key in world.chain.mined if key.startswith("topup:")] == []
    assert len(asked) == 1
