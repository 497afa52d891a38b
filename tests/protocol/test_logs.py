"""Both logs: what is written is read back, replaying it is the state, and what no version of this program wrote is refused."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from fabstir.domain.ids import Hash32, JobId, SessionId
from fabstir.domain.money import BaseUnits, Tokens
from fabstir.protocol import host_log, renter_log
from fabstir.protocol.commitments import Checkpoint
from fabstir.protocol.epochs import EpochSession, place_all
from fabstir.protocol.host_log import (
    CheckpointClosed,
    CheckpointRenewed,
    CommitmentMade,
    Credited,
    DepositRaised,
    EpochJoined,
    HostLedger,
    JobAdmitted,
    JobClosed,
    ProofAccepted,
    Resynced,
    SessionFinished,
    TokensServed,
    TurnEnded,
    TurnStarted,
    VoucherAccepted,
)
from fabstir.protocol.renter_log import (
    HostReleased,
    JobOpened,
    JobPlanned,
    JobSettled,
    RenterLedger,
    ToppedUp,
    TopUpPlanned,
    TurnSeen,
    VoucherSigned,
)
from fabstir.protocol.signing import job_id
from fabstir.protocol.transcript import extend, job_head, turn_head
from tests.protocol.market import MARKET, terms

ONE, TWO = Hash32(b"\1" * 32), Hash32(b"\2" * 32)
DIGESTS = tuple(bytes([n]) * 32 for n in range(10, 20))
ADMITTED = JobAdmitted(terms(), BaseUnits(9), MARKET, 1.5)
HOST_EVENTS: list[Any] = [
    ADMITTED,
    TurnStarted(0, ONE),
    TokensServed(b"".join(DIGESTS[:4])),
    VoucherAccepted(Tokens(2), BaseUnits(0), TWO, b"\3" * 65),
    TurnEnded(0, "stop"),
    Resynced(Tokens(3), TWO),
    SessionFinished("over"),
    CheckpointClosed(ONE, b"opening", Tokens(2)),
    CheckpointRenewed(0, TWO, b"opening"),
    CommitmentMade(Tokens(2), ONE, TWO, 1),
    EpochJoined(place_all([EpochSession(JobId(ONE), ONE, TWO, Tokens(n)) for n in (2, 3)])[0], 1),
    ProofAccepted(Tokens(2), 0.25, 300_000),
    Credited(BaseUnits(2), 2.0),
    DepositRaised(BaseUnits(9)),
    JobClosed(BaseUnits(3), BaseUnits(6), 2.5),
]
PLANNED = JobPlanned(terms(), BaseUnits(9), MARKET, b"\2" * 32, "ws://host", 1.5)
RENTER_EVENTS: list[Any] = [
    PLANNED,
    JobOpened(100_000, 2.5),
    VoucherSigned(Tokens(2), BaseUnits(0), TWO, b"\3" * 65),
    TopUpPlanned(BaseUnits(9), 2.5),
    ToppedUp(BaseUnits(9), 60_000, 2.5),
    TurnSeen(0, Tokens(2), "stop"),
    HostReleased(Tokens(2), BaseUnits(0), b"\4" * 65),
    JobSettled(BaseUnits(3), BaseUnits(6), 2.5),
]


def test_the_examples_are_all_events() -> None:
    """So that a new event gets an example."""
    assert {type(event) for event in HOST_EVENTS} == set(host_log.HostEvent.__args__)
    assert {type(event) for event in RENTER_EVENTS} == set(renter_log.RenterEvent.__args__)


@pytest.mark.parametrize("event", HOST_EVENTS, ids=lambda event: type(event).__name__)
def test_host_events_survive_the_journal(event: Any) -> None:
    """Written and read back, an event is itself; under a tag that does not change with the class's name."""
    data = host_log.encode_event(event)
    assert host_log.decode_event(data) == event
    tag = msgspec.msgpack.decode(data)["type"]
    assert tag == "".join("_" + c.lower() if c.isupper() else c for c in type(event).__name__)[1:]


def test_what_was_added_later_is_not_needed_to_read_an_old_log() -> None:
    """Logs of before `model` and `session` were written are read; they say that nothing is known."""
    for event, later in ((ADMITTED, "model"), (HOST_EVENTS[1], "session"), (HOST_EVENTS[6], "released")):
        old = msgspec.msgpack.decode(host_log.encode_event(event))
        del old[later]
        assert host_log.decode_event(msgspec.msgpack.encode(old)) == event
        assert not getattr(event, later)


def test_a_session_s_tag_tells_sessions_apart_and_not_their_names() -> None:
    """Eight bytes, another for each session and each job."""
    jobs = [job_id(terms()), job_id(terms(exposure=65))]
    tags = {host_log.session_tag(job, SessionId(name)) for job in jobs for name in ("alpha", "beta")}
    assert len(tags) == 4
    assert all(len(tag) == 8 and b"alpha" not in tag for tag in tags)


@pytest.mark.parametrize("event", RENTER_EVENTS, ids=lambda event: type(event).__name__)
def test_renter_events_survive_the_journal(event: Any) -> None:
    """As the host's."""
    data = renter_log.encode_event(event)
    assert renter_log.decode_event(data) == event
    tag = msgspec.msgpack.decode(data)["type"]
    assert tag == "".join("_" + c.lower() if c.isupper() else c for c in type(event).__name__)[1:]


@pytest.mark.parametrize("decode", [host_log.decode_event, renter_log.decode_event])
@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        msgspec.msgpack.encode({"type": "from_the_future"}),
        msgspec.msgpack.encode({"tokens": 1}),
        host_log.encode_event(ADMITTED)[:-1],
        msgspec.msgpack.encode({"type": "turn_ended", "message_index": "0", "reason": ""}),
        msgspec.msgpack.encode({"type": "voucher_signed", "tokens": 1}),
    ],
)
def test_foreign_bytes_are_refused(decode: Any, data: bytes) -> None:
    """Torn, of another version, or of something else."""
    with pytest.raises(msgspec.MsgspecError):
        decode(data)


def test_a_log_begins_at_its_beginning() -> None:
    """Empty, or without its first event, it is no log of a job."""
    for events in ([], HOST_EVENTS[1:]):
        with pytest.raises(ValueError, match="begins with job_admitted"):
            HostLedger.replay(events)
    for events in ([], RENTER_EVENTS[1:]):
        with pytest.raises(ValueError, match="begins with job_planned"):
            RenterLedger.replay(events)


def ledger(*events: Any) -> HostLedger:
    return HostLedger.replay([ADMITTED, *events])


def test_a_new_job() -> None:
    """Nothing is served; the head binds the job; the deposit pays for 49 tokens at 0.2."""
    new = ledger()
    assert (new.job, new.head, new.heads) == (job_id(terms()), job_head(MARKET, terms()), {0: new.head})
    assert (new.served, new.acknowledged, new.exposed, new.affordable, new.message_index) == (0, 0, 0, 49, 0)
    assert (new.deposit, new.admitted_at, new.finished, new.closed, new.in_turn) == (9, 1.5, "", None, False)
    assert (new.amount(Tokens(49)), new.amount(Tokens(50))) == (9, 10)


def test_tokens_are_counted_and_chained() -> None:
    """Each digest extends the head; the positions since the acknowledged one keep theirs, before a turn's mixing."""
    served = ledger(TurnStarted(0, ONE), TokensServed(b"".join(DIGESTS[:3])), TurnEnded(0, "stop"))
    start = turn_head(job_head(MARKET, terms()), 0, Tokens(0), ONE)
    heads = [extend(start, DIGESTS[:n]) for n in range(4)]
    assert (served.served, served.exposed, served.head) == (3, 3, heads[3])
    assert served.heads == {0: job_head(MARKET, terms()), 1: heads[1], 2: heads[2], 3: heads[3]}
    assert (served.message_index, served.in_turn) == (1, False)
    assert served.records_between(Tokens(1), 2) == DIGESTS[1:3]
    assert (served.head_at(Tokens(2)), served.head_at(Tokens(4))) == (heads[2], None)
    served.apply(TurnStarted(1, TWO))
    assert (served.message_index, served.in_turn) == (2, True)
    assert served.head == turn_head(heads[3], 1, Tokens(3), TWO)
    assert served.heads[3] == heads[3]


def test_a_voucher_moves_the_acknowledged_position() -> None:
    """Heads before it are forgotten."""
    signed = ledger(TurnStarted(0, ONE), TokensServed(b"".join(DIGESTS[:3])), HOST_EVENTS[3])
    assert (signed.acknowledged, signed.exposed, signed.voucher) == (2, 1, HOST_EVENTS[3])
    assert list(signed.heads) == [2, 3]


def test_a_resync_takes_tokens_back() -> None:
    """Those beyond, with their heads; what is served next takes their place."""
    back = ledger(TurnStarted(0, ONE), TokensServed(b"".join(DIGESTS[:4])), Resynced(Tokens(2), TWO))
    assert (back.served, back.head) == (2, TWO)
    assert list(back.heads) == [0, 1, 2] and back.heads[2] == TWO
    back.apply(TokensServed(DIGESTS[7]))
    assert back.records == [*DIGESTS[:2], DIGESTS[7]]
    assert back.heads[3] == extend(TWO, DIGESTS[7:8])


def test_checkpoints_commitments_and_proofs() -> None:
    """Are kept in order; the voucher that ends with the checkpoints is known, however many newer ones there are, and no others."""
    proven = ledger(
        TurnStarted(0, ONE),
        TokensServed(b"".join(DIGESTS)),
        VoucherAccepted(Tokens(8), BaseUnits(1), TWO, b"\3" * 65),
        CheckpointClosed(ONE, b"", Tokens(5)),
        CheckpointClosed(TWO, b"", Tokens(3)),
        CommitmentMade(Tokens(8), ONE, TWO, 2),
        VoucherAccepted(Tokens(10), BaseUnits(2), ONE, b"\3" * 65),
        ProofAccepted(Tokens(8), 0.25, 1),
    )
    assert proven.checkpoints == [Checkpoint(ONE, Tokens(5)), Checkpoint(TWO, Tokens(3))]
    assert (proven.checkpointed, proven.commitment) == (8, CommitmentMade(Tokens(8), ONE, TWO, 2))
    assert proven.covered is not None and proven.covered.tokens == 8
    assert list(proven._beyond) == [8, 10]
    proven.apply(CheckpointClosed(ONE, b"", Tokens(1)))
    assert proven.covered is None
    assert list(proven._beyond) == [10]
    assert proven.proofs == [ProofAccepted(Tokens(8), 0.25, 1)]


def test_the_end_of_a_job() -> None:
    """Finished for a reason, then closed with what was paid; a job can be admitted again with another deposit."""
    assert [ledger(SessionFinished("over", signed)).released for signed in (False, True)] == [False, True]
    over = ledger(SessionFinished("over"))
    assert (over.finished, repr(over)) == ("over", f"<HostLedger {over.job.hex()[:8]} over: served 0, acknowledged 0>")
    over.apply(HOST_EVENTS[-1])
    assert over.closed == HOST_EVENTS[-1]
    assert repr(over) == f"<HostLedger {over.job.hex()[:8]} closed: served 0, acknowledged 0>"
    over.apply(msgspec.structs.replace(ADMITTED, deposit=BaseUnits(20)))
    assert (over.deposit, over.affordable) == (20, 104)


def test_the_renters_side() -> None:
    """What was signed, the head there, the host's release, the settlement."""
    new = RenterLedger.replay([PLANNED])
    assert (new.job, new.start, new.affordable) == (job_id(terms()), job_head(MARKET, terms()), 49)
    assert (new.signed, new.signed_head, new.amount(Tokens(50))) == (0, new.start, 10)
    assert repr(new) == f"<RenterLedger {new.job.hex()[:8]} planned: signed 0 tokens>"
    new.apply(RENTER_EVENTS[1])
    assert new.opened and repr(new) == f"<RenterLedger {new.job.hex()[:8]} open: signed 0 tokens>"
    for event in RENTER_EVENTS[2:]:
        new.apply(event)
    assert (new.signed, new.signed_head, new.voucher) == (2, TWO, RENTER_EVENTS[2])
    assert (new.released, new.settled, new.deposit) == (RENTER_EVENTS[-2], RENTER_EVENTS[-1], 9)
    assert repr(new) == f"<RenterLedger {new.job.hex()[:8]} settled: signed 2 tokens>"


def test_what_was_committed_stays_what_it_was() -> None:
    """A checkpoint that is made again counts for later commitments and epochs; those that were made before keep what they had."""
    place = place_all([EpochSession(JobId(ONE), ONE, TWO, Tokens(2))])[0]
    made = CommitmentMade(Tokens(2), ONE, TWO, 1)
    closed = CheckpointClosed(ONE, b"", Tokens(2))
    ledger = HostLedger.replay([ADMITTED, TokensServed(b"".join(DIGESTS[:2])), closed, made, EpochJoined(place, 1)])
    ledger.apply(CheckpointRenewed(0, TWO, b""))
    first, second = Checkpoint(ONE, Tokens(2)), Checkpoint(TWO, Tokens(2))
    assert (ledger.committed, ledger.joined, ledger.checkpoints) == ((first,), (first,), [second])
    ledger.apply(made)
    ledger.apply(EpochJoined(place, 1))
    assert (ledger.committed, ledger.joined, ledger.checkpointed) == ((second,), (second,), 2)
