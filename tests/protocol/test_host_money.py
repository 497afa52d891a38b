"""What a host signs and takes: receipts, vouchers, the end of a session."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from fabstir.domain.ids import SessionId, to_hex
from fabstir.domain.money import BaseUnits, Tokens
from fabstir.protocol.effects import Disconnect, RequestSettlement, Store
from fabstir.protocol.generation import TokenBatch
from fabstir.protocol.host_inputs import (
    ChainClosing,
    DepositSeen,
    EngineBatch,
    EngineFinished,
    RenterLost,
    SessionState,
)
from fabstir.protocol.host_log import (
    SessionFinished,
    TurnEnded,
    VoucherAccepted,
)
from fabstir.protocol.messages import (
    Cancel,
    PaymentReceived,
    PaymentRequired,
    Ping,
    Pong,
    Prompt,
    Receipt,
    SessionEnd,
)
from fabstir.protocol.signing import keccak, recover
from tests.protocol.hosting import END, ack, blocked, blocked_until, hello, sent, stored, told
from tests.protocol.market import HOST_KEY, MARKET, SESSION, SESSION_KEY, World, named, opened, records, terms

# -- receipts and vouchers -------------------------------------------------------------------------------------------------------


def receipted(tokens: int = 10, deposit: int = 1_000_000) -> World:
    world = opened(deposit=deposit)
    world.ask()
    world.generate(tokens)
    world.finish_generation()
    return world


def test_a_receipt_is_signed_over_what_is_stored() -> None:
    """Count, price and head are the ledger's; the signature is the host's, over the digest of `Receipt`."""
    world = receipted()
    receipt = next(m for m in world.on_the_way() if isinstance(m, Receipt))
    ledger = world.host.ledger
    assert (receipt.session_id, receipt.tokens, receipt.amount) == (SESSION, 10, "2")
    assert (receipt.transcript, receipt.tokens_in) == (to_hex(ledger.heads[10]), 5)
    digest = MARKET.receipt_digest(ledger.job, BaseUnits(2), Tokens(10), Tokens(5), ledger.heads[10])
    assert recover(digest, bytes.fromhex(receipt.signature[2:])) == HOST_KEY.address


def test_a_voucher_is_stored() -> None:
    """Exactly what was signed goes to the log."""
    world = receipted()
    good = ack(world, 10)
    effects = world.host.receive(good, 0.0)
    head = world.host.ledger.heads[10]
    assert stored(effects) == [VoucherAccepted(Tokens(10), BaseUnits(2), head, bytes.fromhex(good.signature[2:]))]
    assert world.host.ledger.acknowledged == 10
    assert list(world.host.ledger.heads) == [10]


def _signature(world: World, key: Any = SESSION_KEY, tokens: int = 10, amount: int = 2, head: Any = None) -> str:
    ledger = world.host.ledger
    head = head or ledger.heads[10]
    return to_hex(key.sign(MARKET.voucher_digest(ledger.job, BaseUnits(amount), Tokens(tokens), head)))


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda w: {"amount": "3", "signature": _signature(w, amount=3)}, "voucher_invalid"),
        (lambda w: {"amount": "1", "signature": _signature(w, amount=1)}, "voucher_invalid"),
        (lambda w: {"amount": "1000001"}, "voucher_above_deposit"),
        (lambda w: {"amount": "1000000"}, "voucher_invalid"),
        (lambda w: {"amount": str(2**96)}, "message_malformed"),
        (lambda w: {"tokens": 9, "amount": "1", "signature": _signature(w, tokens=9, amount=1)}, "voucher_invalid"),
        (lambda w: {"tokens": 11, "signature": _signature(w, tokens=11)}, "voucher_invalid"),
        (lambda w: {"tokens": 0}, "voucher_stale"),
        (lambda w: {"transcript": to_hex(keccak(b"x")), "signature": _signature(w, head=keccak(b"x"))}, "voucher_invalid"),
        (lambda w: {"transcript": to_hex(keccak(b"x"))}, "voucher_invalid"),
        (lambda w: {"signature": _signature(w, key=HOST_KEY)}, "voucher_invalid"),
        (lambda w: {"signature": _signature(w, tokens=9)}, "voucher_invalid"),
        (lambda w: {"signature": "0x" + "00" * 65}, "voucher_invalid"),
    ],
)  # fmt: skip
def test_a_wrong_voucher_is_refused_and_changes_nothing(change: Any, code: str) -> None:
    """Other amount, count, transcript or signer: refused by name, and the right one is still taken."""
    world = receipted()
    before = repr(world.host)
    effects = world.host.receive(ack(world, 10, **change(world)), 0.0)
    assert (told(effects).code, told(effects).message_index) == (code, None)
    assert (repr(world.host), world.host.ledger.voucher) == (before, None)
    assert named(world.host.receive(ack(world, 10), 0.0)) == ["Store"]


def test_each_voucher_is_taken_once() -> None:
    """The same one again, or an older one after a newer one, is stale."""
    world = opened()
    world.ask()
    world.generate(32)
    world.generate(32)
    older, newer = ack(world, 32), ack(world, 64)
    assert named(world.host.receive(newer, 0.0)) == ["Store"]
    assert told(world.host.receive(newer, 0.0)).code == "voucher_stale"
    assert told(world.host.receive(older, 0.0)).code == "voucher_stale"
    assert world.host.ledger.acknowledged == 64


def test_two_receipts_in_flight() -> None:
    """Both are good, in order: the older voucher does not make the newer one invalid."""
    world = opened()
    world.ask()
    world.generate(32)
    world.generate(32)
    for tokens in (32, 64):
        assert named(world.host.receive(ack(world, tokens), 0.0)) == ["Store"]
        assert world.host.ledger.acknowledged == tokens


def test_receipts_that_were_answered_are_forgotten() -> None:
    """Memory holds the heads of receipts that wait for a voucher, no others."""
    world = opened()
    for _ in range(3):
        world.answer(40)
    assert world.host._core.meter._issued == {}
    world.ask()
    world.generate(32)
    world.generate(32)
    world.host_in(ack(world, 152))
    assert list(world.host._core.meter._issued) == [184]


def test_nothing_is_receipted_twice() -> None:
    """An answer that ends where a receipt was just given does not give it again: a second voucher would be refused as stale."""
    world = opened()
    world.ask()
    world.generate(32)
    effects = world.host.receive(EngineFinished(1, END), 0.0)
    assert named(effects) == ["Store", "Response"]


def test_nothing_is_receipted_that_is_signed() -> None:
    """An answer without a token after the last voucher needs no receipt."""
    world = opened()
    world.answer(10)
    world.ask()
    assert named(world.host.receive(EngineFinished(2, END), 0.0)) == ["Store", "Response"]


# -- endings ---------------------------------------------------------------------------------------------------------------------


def test_cancelling_an_answer_without_tokens() -> None:
    """It ends as cancelled, costs nothing, and the next prompt is answered."""
    world = opened()
    world.ask()
    effects = world.host.receive(Cancel(session_id=SESSION, message_index=0), 0.0)
    assert named(effects) == ["CancelGeneration", "Store", "Response"]
    response = sent(effects)[-1]
    assert (response.finish_reason, response.tokens_used, response.usage.prompt_tokens) == ("cancelled", 0, 0)
    assert stored(effects) == [TurnEnded(0, "cancelled")]
    assert world.host.ledger.message_index == 1


def test_cancelling_drops_what_waits() -> None:
    """What was held back at the bound is neither sent nor billed."""
    world = blocked(opened(exposure=4), 6)
    effects = world.host.receive(Cancel(session_id=SESSION, message_index=0), 0.0)
    assert sent(effects)[-1].tokens_used == 4
    assert (world.host.served, blocked_until(world)) == (4, None)


def test_the_end_comes_with_a_close_signature() -> None:
    """Over what was acknowledged, so that the renter can close at once; then settlement is asked for and the connection ends."""
    world = opened()
    world.answer(10)
    effects = world.host.receive(SessionEnd(session_id=SESSION, reason="bye"), 0.0)
    ledger = world.host.ledger
    end = sent(effects)[0]
    assert (end.reason, end.tokens_served, end.tokens_acknowledged) == ("ended by the renter", 10, 10)
    digest = MARKET.close_digest(ledger.job, BaseUnits(2), Tokens(10))
    assert recover(digest, bytes.fromhex(end.close_signature[2:])) == HOST_KEY.address
    assert stored(effects) == [SessionFinished("ended by the renter", released=True)]
    assert repr(world.host._core.history) == "<History 0 messages, 0 turns, 0 characters>"
    assert [e for e in effects if isinstance(e, RequestSettlement | Disconnect)] == [
        RequestSettlement("ended by the renter"),
        Disconnect("ended"),
    ]


def test_ending_in_the_middle_of_an_answer() -> None:
    """What was served stays served; the close covers only what was acknowledged."""
    world = opened()
    world.answer(10)
    world.ask()
    world.generate(5)
    effects = world.host.receive(SessionEnd(session_id=SESSION), 0.0)
    assert [type(e).__name__ for e in stored(effects)] == ["TokensServed", "TurnEnded", "SessionFinished"]
    assert stored(effects)[1] == TurnEnded(1, "ended")
    end = sent(effects)[-1]
    assert (end.tokens_served, end.tokens_acknowledged) == (15, 10)


def test_a_lost_renter_leaves_an_open_job() -> None:
    """Tokens that went out are in the log with the reason; the conversation is forgotten."""
    world = opened()
    world.answer(10, "earlier")
    world.ask()
    world.generate(5)
    effects = world.host.receive(RenterLost("client_too_slow"), 0.0)
    assert [type(e).__name__ for e in stored(effects)] == ["TokensServed", "TurnEnded"]
    assert stored(effects)[-1] == TurnEnded(1, "client_too_slow")
    assert effects[-1] == RequestSettlement("connection lost")
    assert (world.host.state, world.host.served, world.host.connected) == (SessionState.DETACHED, 15, False)
    assert repr(world.host._core.history) == "<History 0 messages, 0 turns, 0 characters>"


def test_closing_on_chain_ends_the_service() -> None:
    """The renter is told once and disconnected; detached jobs end silently. The code is the reason in the log."""
    world = opened()
    effects = world.host.receive(ChainClosing("job_expired"), 0.0)
    assert (sent(effects)[0].code, sent(effects)[0].session_id) == ("job_expired", SESSION)
    assert effects[1] == Disconnect("job_expired")
    assert stored(effects) == [SessionFinished("job_expired")]
    alone = World(terms(), 1_000)
    effects = alone.host.receive(ChainClosing(), 0.0)
    assert effects == [Store((SessionFinished("job_closed"),)), RequestSettlement("job_closed")]


def test_ping() -> None:
    """Answered with the same id."""
    assert sent(opened().host.receive(Ping(id=7), 0.0)) == [Pong(id=7)]


def test_repr_says_where_it_stands() -> None:
    """State, counts and bound; a test and a person read the same line."""
    world = blocked(opened(exposure=4), 6)
    job = world.host.ledger.job.hex()[:8]
    assert repr(world.host) == f"<HostSession {job} blocked: served 4, acknowledged 0, W 4>"
    assert repr(world.host.ledger) == f"<HostLedger {job} open: served 4, acknowledged 0>"
    assert [s.value for s in SessionState if _connected(s)] == ["ready", "preparing", "generating", "blocked"]


def _connected(state: SessionState) -> bool:
    world = opened()
    world.host._core.state = state
    return world.host.connected


def test_session_ids_belong_to_the_connection() -> None:
    """Errors before the first session_init name no session; a new one replaces the old."""
    world = World(terms(), 1_000)
    assert told(world.host.receive(Cancel(session_id=SESSION, message_index=0), 0.0)).session_id is None
    other = msgspec.structs.replace(hello(world), session_id=SessionId("second"))
    world.host.attach(hello(world), keccak(b"s"), 0.0)
    world.host.attach(other, keccak(b"s"), 0.0)
    assert (
        told(world.host.receive(Prompt(session_id=SESSION, message_index=0, content="q"), 0.0)).session_id == "second"
    )


# -- a deposit that runs out -----------------------------------------------------------------------------------------------------


def test_a_deposit_that_runs_out_is_announced_once_for_each() -> None:
    """Where it pays for four W of tokens and no more: while there is time to top up."""
    world = opened(deposit=60)  # 0.2 base units a token: 304 tokens, and 4 W are 256
    world.ask()
    assert [made(world, count) for count in (47, 1, 1)] == [[], [(48, 304, "60")], []]
    world.host_in(DepositSeen(BaseUnits(61)))
    assert [made(world, count) for count in (3, 1, 1)] == [[], [(53, 309, "61")], []]


def made(world: World, count: int) -> list[tuple[int, int, str]]:
    """What the host asks for while the engine makes `count` tokens, one by one."""
    asked = []
    for _ in range(count):
        first = world.generated
        world.generated += 1
        for message in world.host_in(EngineBatch(1, TokenBatch(records(first, 1), "a"))):
            if isinstance(message, PaymentRequired):
                asked.append((message.tokens_served, message.tokens_affordable, message.deposit))
        world.flow()
    return asked


def test_a_raised_deposit_is_written_down_and_confirmed() -> None:
    """What the chain shows counts, never less than before; each look is answered."""
    world = opened(deposit=60)
    for seen, known in ((60, 60), (900, 900), (60, 900)):
        (answer,) = world.host_in(DepositSeen(BaseUnits(seen)))
        assert isinstance(answer, PaymentReceived)
        assert (answer.deposit, world.host.ledger.deposit, world.replay_host().deposit) == (str(known), known, known)
