"""What the renter signs, and what it keeps of the end: only what fits what arrived, at the price of the terms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from fabstir.domain.ids import Hash32, to_hex
from fabstir.domain.money import BaseUnits, Tokens
from fabstir.protocol.messages import (
    Receipt,
    SessionEnd,
)
from fabstir.protocol.renter_items import Connect, Finish, SendHost, SessionClosed, StoreRenter
from fabstir.protocol.renter_log import HostReleased
from fabstir.protocol.renter_session import RenterSession, RenterState
from fabstir.protocol.signing import SigningKey, keccak, recover
from tests.protocol.market import HOST_KEY, MARKET, SESSION, SESSION_KEY, World, opened, terms
from tests.protocol.renting import arriving, left, sent, stored, streaming

# -- what is signed --------------------------------------------------------------------------------------------------------------


def receipt_signed(
    world: World, tokens: int = 10, amount: int = 2, head: Hash32 | None = None, key: SigningKey = HOST_KEY
) -> dict[str, Any]:
    """The fields of a receipt with a right signature over wrong facts."""
    ledger = world.host.ledger
    head = head or ledger.heads[10]
    signature = key.sign(
        MARKET.receipt_digest(ledger.job, BaseUnits(amount), Tokens(tokens), Tokens(ledger.tokens_in), head)
    )
    return {
        "tokens": tokens,
        "amount": str(amount),
        "tokens_in": ledger.tokens_in,
        "transcript": to_hex(head),
        "signature": to_hex(signature),
    }


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda w: receipt_signed(w, amount=3), "receipt_invalid"),
        (lambda w: receipt_signed(w, amount=1), "receipt_invalid"),
        (lambda w: receipt_signed(w, tokens=9, amount=1), "receipt_invalid"),
        (lambda w: receipt_signed(w, tokens=9, amount=1, head=w.host.ledger.heads[9]), "receipt_invalid"),
        (lambda w: receipt_signed(w, tokens=11), "receipt_invalid"),
        (lambda w: receipt_signed(w, tokens=0, amount=0, head=w.host.ledger.heads[0]), "receipt_invalid"),
        (lambda w: receipt_signed(w, head=keccak(b"x")), "receipt_invalid"),
        (lambda w: receipt_signed(w, head=w.host.ledger.heads[9]), "receipt_invalid"),
        (lambda w: receipt_signed(w, key=SESSION_KEY), "receipt_invalid"),
        (lambda w: {"tokens_in": 6}, "receipt_invalid"),
        (lambda w: {"transcript": to_hex(keccak(b"x"))}, "receipt_invalid"),
        (lambda w: {"signature": "0x" + "00" * 65}, "receipt_invalid"),
        (lambda w: {"amount": str(2**96)}, "message_malformed"),
    ],
)
def test_a_wrong_receipt_is_not_signed(change: Callable[[World], dict[str, Any]], code: str) -> None:
    """Other count, price, head or signer than what arrived from this host: the host is left."""
    world = streaming()
    receipt = arriving(world, Receipt)
    effects = world.renter.receive(msgspec.structs.replace(receipt, **change(world)), 0.0)
    assert left(effects).code == code
    assert world.renter.ledger.voucher is None


def test_nothing_is_signed_beyond_the_deposit() -> None:
    """A host whose log says that the deposit is larger gets no voucher above the real one."""
    world = World(terms(price=1_000_000), 9)
    world.host.ledger.deposit = BaseUnits(1_000)
    world.connect()
    world.flow()
    world.ask()
    world.generate(10)
    world.finish_generation()
    effects = world.renter.receive(arriving(world, Receipt), 0.0)
    assert (left(effects).code, left(effects).detail) == ("receipt_invalid", "10 is above the deposit 9")


def test_the_whole_deposit_can_be_signed_away() -> None:
    """Up to its last unit."""
    world = World(terms(price=1_000_000), 10)
    world.connect()
    world.flow()
    world.answer(10)
    assert world.renter.ledger.voucher is not None and world.renter.ledger.voucher.amount == 10


def test_a_right_receipt_is_signed_and_stored_first() -> None:
    """Over the same facts, by the session key; the log has it before the wire."""
    world = streaming()
    effects = world.renter.receive(arriving(world, Receipt), 0.0)
    (voucher,), (ack,) = stored(effects), sent(effects)
    assert [type(effect) for effect in effects] == [StoreRenter, SendHost]
    head = world.host.ledger.heads[10]
    assert (voucher.tokens, voucher.amount, voucher.transcript) == (10, 2, head)
    digest = MARKET.voucher_digest(world.renter.ledger.job, BaseUnits(2), Tokens(10), head)
    assert recover(digest, voucher.signature) == SESSION_KEY.address
    assert (ack.session_id, ack.tokens, ack.amount, ack.transcript) == (SESSION, 10, "2", to_hex(head))
    assert ack.signature == to_hex(voucher.signature)
    assert world.renter.ledger.signed == 10


def test_the_same_receipt_again_gets_the_same_voucher() -> None:
    """After a drop the host may ask again; nothing new is signed or stored."""
    world = streaming()
    receipt = arriving(world, Receipt)
    (first,) = sent(world.renter.receive(receipt, 0.0))
    again = world.renter.receive(receipt, 0.0)
    assert sent(again) == [first]
    assert stored(again) == []


def test_heads_before_the_signed_one_are_forgotten() -> None:
    """Memory is bounded by what is not signed."""
    world = opened()
    for _ in range(3):
        world.answer(40)
    assert list(world.renter._core.heads) == [120]


# -- the end of the session ------------------------------------------------------------------------------------------------------


def ended(world: World, **fields: Any) -> list[Any]:
    """The renter ends a session of 10 signed tokens; the host's answer, with `fields` instead."""
    world.answer(10)
    assert sent(world.renter.receive(Finish(), 0.0)) == [SessionEnd(session_id=SESSION, reason="renter")]
    world.host_in(SessionEnd(session_id=SESSION))
    return world.renter.receive(msgspec.structs.replace(world.on_the_way()[0], **fields), 0.0)


def closing_signature(world: World, tokens: int = 10, amount: int = 2, key: Any = HOST_KEY) -> str:
    return to_hex(key.sign(MARKET.close_digest(world.host.ledger.job, BaseUnits(amount), Tokens(tokens))))


def test_the_host_releases_the_renter() -> None:
    """With its Close signature over exactly what was signed, the renter can close at once."""
    world = opened()
    effects = ended(world)
    (released,) = stored(effects)
    assert released == HostReleased(Tokens(10), BaseUnits(2), bytes.fromhex(closing_signature(world)[2:]))
    assert world.renter.ledger.released == released
    assert isinstance(effects[-1], SessionClosed)
    assert world.renter.state is RenterState.ENDED


@pytest.mark.parametrize(
    "change",
    [
        lambda w: {"close_signature": None},
        lambda w: {"close_signature": closing_signature(w, key=SESSION_KEY)},
        lambda w: {"close_signature": closing_signature(w, amount=3)},
        lambda w: {"close_signature": closing_signature(w, tokens=9)},
        lambda w: {"close_signature": "0x" + "00" * 65},
        lambda w: {"tokens_acknowledged": 9},
        lambda w: {"tokens_acknowledged": 11, "close_signature": closing_signature(w, tokens=11)},
    ],
)
def test_a_release_that_does_not_fit_is_none(change: Callable[[World], dict[str, Any]]) -> None:
    """Somebody else's signature, or one over other facts, is not kept; the session has ended all the same."""
    world = opened()
    effects = ended(world, **change(world))
    assert stored(effects) == []
    assert world.renter.ledger.released is None
    assert world.renter.state is RenterState.ENDED


def test_repr_says_where_it_stands() -> None:
    """State and counts, and nothing that was said."""
    world = opened()
    world.answer(10, "a secret")
    job = world.renter.ledger.job.hex()[:8]
    assert repr(world.renter) == f"<RenterSession {job} ready: received 10, signed 10>"
    assert repr(world.host._core.history) == "<History 2 messages, 1 turns, 14 characters>"


def test_what_is_left_after_a_crash_is_what_was_signed() -> None:
    """The log has counts and heads at the signed position; everything beyond is forgotten and not owed."""
    world = opened()
    world.answer(10)
    world.ask()
    world.generate(5)
    world.deliver_to_renter()
    again = RenterSession(world.replay_renter(), SESSION_KEY)
    assert (again.received, again.ledger.signed, again.state) == (10, 10, RenterState.OFFLINE)
    (message,) = sent(again.receive(Connect(session_id=SESSION, nonce=keccak(b"n"), issued_at=1), 0.0))
    assert (message.tokens_received, message.transcript) == (10, to_hex(again.ledger.signed_head))
