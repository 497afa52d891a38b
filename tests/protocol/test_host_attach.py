"""How a renter comes to a job at the host, and how both agree on what was served."""

from __future__ import annotations

import msgspec
import pytest

from fabstir.domain.ids import to_hex
from fabstir.domain.money import BaseUnits, Tokens
from fabstir.protocol.capabilities import ALWAYS
from fabstir.protocol.host_inputs import (
    ChainClosing,
    SessionState,
)
from fabstir.protocol.host_log import (
    CheckpointClosed,
    JobClosed,
    Resynced,
)
from fabstir.protocol.host_session import HostSession
from fabstir.protocol.messages import (
    Receipt,
    SessionReady,
)
from fabstir.protocol.signing import keccak
from tests.protocol.hosting import ack, hello, resume, sent, stored, told
from tests.protocol.market import HOST_KEY, SESSION, World, named, opened, terms

CONTEXT = ("context_truncate", "context_retrieve", "context_compact")


def test_ready_says_all_that_was_agreed() -> None:
    """session_ready names the job, the offer, the bounds, and the position of the meter."""
    world = World(terms(exposure=7, price=250_000), 1_000)
    salt = keccak(b"salt")
    (message,) = sent(world.host.attach(hello(world), salt, 0.0))
    ledger = world.host.ledger
    assert message == SessionReady(
        session_id=SESSION,
        job_id=to_hex(ledger.job),
        host=to_hex(HOST_KEY.address),
        model="m",
        model_id=to_hex(world.terms.model_id),
        protocol=1,
        capabilities=ALWAYS,
        price_per_mtok="250000",
        exposure=7,
        context_size=2048,
        max_message_bytes=1 << 20,
        tokens_served=0,
        tokens_acknowledged=0,
        tokens_affordable=4003,
        transcript=to_hex(ledger.head),
        salt=to_hex(salt),
        message_index=0,
        max_answer_tokens=4096,
        ack_timeout_s=30,
        ping_s=20,
    )


def test_ready_carries_the_state_of_a_running_job() -> None:
    """After an answer: counts, head and the next prompt's index."""
    world = opened(exposure=4)
    world.ask()
    world.say(2)
    world.generate(1)
    world.finish_generation()  # the last receipt stays unanswered
    ledger = world.host.ledger
    effects = world.host.attach(resume(world, tokens_received=3, transcript=to_hex(ledger.heads[3])), keccak(b"s"), 0.0)
    ready, receipt = sent(effects)
    assert (ready.tokens_served, ready.tokens_acknowledged, ready.message_index) == (3, 2, 1)
    assert ready.transcript == to_hex(ledger.heads[3])
    assert isinstance(receipt, Receipt) and receipt.tokens == 3


@pytest.mark.parametrize("state", [SessionState.GENERATING, SessionState.BLOCKED])
def test_busy(state: SessionState) -> None:
    """While an answer streams, another connection is refused and the answer goes on."""
    world = opened(exposure=4)
    world.ask()
    if state is SessionState.BLOCKED:
        world.generate(5)
    before = repr(world.host)
    assert told(world.host.attach(hello(world), keccak(b"s"), 0.0)).code == "session_busy"
    assert (world.host.state, repr(world.host)) == (state, before)


def test_a_finished_job_is_not_attached_to() -> None:
    """The reason says why it ended; a ledger that was finished or closed before starts finished."""
    world = opened()
    world.host_in(ChainClosing("job_expired"))
    refusal = told(world.host.attach(hello(world), keccak(b"s"), 0.0))
    assert (refusal.code, refusal.detail) == ("job_closed", "job_expired")
    again = HostSession(world.replay_host(), HOST_KEY, world.offer)
    assert again.state is SessionState.FINISHED
    assert told(again.attach(hello(world), keccak(b"s"), 0.0)).session_id is None


def test_a_closed_job_is_not_attached_to() -> None:
    """Where the log says closed and nobody finished the session (the renter closed while this host was down)."""
    world = World(terms(), 1_000)
    world.host.ledger.apply(JobClosed(BaseUnits(0), BaseUnits(1_000), 1.0))
    again = HostSession(world.host.ledger, HOST_KEY, world.offer)
    assert told(again.attach(hello(world), keccak(b"s"), 0.0)).code == "job_closed"


def test_another_protocol_version_is_refused() -> None:
    """Versions that this host does not speak; several are welcome where one fits."""
    world = World(terms(), 1_000)
    other = msgspec.structs.replace(hello(world), protocol=(2, 3))
    assert told(world.host.attach(other, keccak(b"s"), 0.0)).code == "message_malformed"
    assert world.host.state is SessionState.DETACHED
    both = msgspec.structs.replace(hello(world), protocol=(2, 1))
    assert named(world.host.attach(both, keccak(b"s"), 0.0)) == ["SessionReady"]


def served_and_signed(signed: int, served: int) -> World:
    """A host without a renter, with so many tokens signed and served."""
    world = opened(exposure=64)
    if signed:
        world.answer(signed)
    if served > signed:
        world.ask()
        world.generate(served - signed)
    world.cut()
    assert (world.host.ledger.acknowledged, world.host.ledger.served) == (signed, served)
    return world


@pytest.mark.parametrize(
    ("received", "transcript", "outcome"),
    [
        (9, "other", "transcript_mismatch"),  # before the acknowledged
        (10, "same", 10),
        (10, None, 10),
        (10, "other", "transcript_mismatch"),
        (12, "same", 12),
        (12, "other", "transcript_mismatch"),
        (15, "same", 15),
        (15, "other", "transcript_mismatch"),
        (15, None, 15),
        (40, "other", 15),  # the renter has more than the log: it rewinds itself
    ],
)
def test_agreeing_after_a_drop(received: int, transcript: str | None, outcome: str | int) -> None:
    """10 tokens are signed, 15 served: both go on at the smaller count where the heads agree, never before what is signed."""
    world = served_and_signed(10, 15)
    ledger = world.host.ledger
    claimed = {"same": to_hex(ledger.heads.get(received, ledger.head)), "other": "0x" + "ab" * 32, None: None}[
        transcript
    ]
    before, turns = repr(world.host), ledger.message_index
    effects = world.host.attach(resume(world, tokens_received=received, transcript=claimed), keccak(b"s"), 0.0)
    if isinstance(outcome, str):
        assert told(effects).code == outcome
        assert (repr(world.host), stored(effects)) == (before, [])
    else:
        ready = sent(effects)[0]
        assert (ready.tokens_served, ready.message_index) == (outcome, turns)
        assert world.host.served == outcome
        expected = Resynced(Tokens(outcome), ledger.heads[outcome])
        assert stored(effects) == ([] if outcome == 15 else [expected])


def test_init_means_that_nothing_arrived() -> None:
    """What was served and not signed is taken back; after something was signed, session_init does not fit any more."""
    world = served_and_signed(0, 15)
    start = world.host.ledger.heads[0]
    effects = world.host.attach(hello(world), keccak(b"s"), 0.0)
    assert stored(effects) == [Resynced(Tokens(0), start)]
    assert (world.host.served, world.host.ledger.head) == (0, start)
    signed = served_and_signed(10, 10)
    assert told(signed.host.attach(hello(signed), keccak(b"s"), 0.0)).code == "transcript_mismatch"


def test_committed_tokens_are_not_taken_back() -> None:
    """What lies in a checkpoint is about to be proven: both cannot agree on less."""
    world = served_and_signed(10, 15)
    world.host.ledger.apply(CheckpointClosed(keccak(b"c"), b"", Tokens(14)))
    head = to_hex(world.host.ledger.heads[13])
    effects = world.host.attach(resume(world, tokens_received=13, transcript=head), keccak(b"s"), 0.0)
    assert told(effects).code == "transcript_mismatch"
    head = to_hex(world.host.ledger.heads[14])
    effects = world.host.attach(resume(world, tokens_received=14, transcript=head), keccak(b"s"), 0.0)
    assert sent(effects)[0].tokens_served == 14


def test_an_answer_without_tokens_leaves_no_trace_in_the_head_after_a_drop() -> None:
    """The head that a turn without tokens mixed in is set back to the one that both know."""
    world = opened()
    world.answer(10)
    world.ask()
    world.cut()
    ledger = world.host.ledger
    assert ledger.head != ledger.heads[10]
    effects = world.host.attach(
        resume(world, tokens_received=10, transcript=to_hex(ledger.heads[10])), keccak(b"s"), 0.0
    )
    assert stored(effects) == [Resynced(Tokens(10), ledger.heads[10])]


def test_a_refused_attach_takes_nothing_back() -> None:
    """A receipt that waits for its voucher is still good after somebody asked to resume with a wrong transcript."""
    world = opened()
    world.ask()
    world.generate(10)
    world.finish_generation()
    wrong = resume(world, tokens_received=5, transcript="0x" + "ab" * 32)
    assert told(world.host.attach(wrong, keccak(b"s"), 0.0)).code == "transcript_mismatch"
    world.host_in(ack(world, 10))
    assert world.host.ledger.acknowledged == 10


def test_old_receipts_do_not_outlive_an_agreement() -> None:
    """A voucher over tokens that were taken back is refused, although its receipt was once issued."""
    world = opened()
    world.ask()
    world.generate(10)
    world.finish_generation()
    late = ack(world, 10)
    world.cut()
    ledger = world.host.ledger
    world.host.attach(resume(world, tokens_received=4, transcript=to_hex(ledger.heads[4])), keccak(b"s"), 0.0)
    assert told(world.host.receive(late, 0.0)).code == "voucher_invalid"
