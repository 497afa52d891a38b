"""What is held of served records: in memory, bounded, and exactly what the journal's digests are made of."""

from __future__ import annotations

from hashlib import sha256

from fabstir.domain.money import BaseUnits
from fabstir.protocol.held_records import OVERHEAD, HeldRecords, HeldTrace
from fabstir.protocol.host_log import HostLedger, JobAdmitted
from fabstir.protocol.messages import ChatMessage
from fabstir.protocol.meter import Meter
from fabstir.protocol.sampling import read_record
from fabstir.protocol.transcript import RECORD_TAG, record_salt
from tests.protocol.market import HOST_KEY, MARKET, records, terms
from tests.protocol.recording import SALT, WARM


def _entries(count: int) -> list[tuple[bytes, bytes]]:
    preimages = [bytes([n]) * 100 for n in range(count)]
    return [(sha256(preimage).digest(), preimage) for preimage in preimages]


def test_what_is_kept_is_found_until_it_is_forgotten() -> None:
    """And what was never kept, or was forgotten twice, is simply not there."""
    held, ((one, first), (two, second)) = HeldRecords(), _entries(2)
    held.keep(one, first)
    held.keep(two, second)
    assert (held.find(one), held.find(two), held.find(bytes(32))) == (first, second, None)
    held.forget([one, one, bytes(32)])
    assert (held.find(one), held.find(two)) == (None, second)
    assert repr(held) == f"<HeldRecords 1 records, {100 + OVERHEAD} of {256 << 20} bytes>"


def test_the_oldest_go_first_beyond_the_capacity() -> None:
    """What is kept again is young again, and counts once."""
    held, entries = HeldRecords(3 * (100 + OVERHEAD)), _entries(4)
    for entry in (*entries[:3], entries[0], entries[3]):
        held.keep(*entry)
    assert [held.find(digest) is not None for digest, _ in entries] == [True, False, True, True]
    nothing = HeldRecords(0)
    nothing.keep(*entries[0])
    assert nothing.find(entries[0][0]) is None


def test_the_meter_keeps_what_it_counts() -> None:
    """Each stored digest of served tokens leads to its record, with the index, the salt and the sampler that it was served with."""
    ledger, held = HostLedger(JobAdmitted(terms(), BaseUnits(1_000), MARKET, 0.0)), HeldRecords()
    meter = Meter(ledger, HOST_KEY, held)
    meter.serve(SALT, records(0, 5), WARM)
    meter.record()
    meter.serve(SALT, records(5, 2), WARM)
    meter.record()
    assert ledger.served == 7
    for index, digest in enumerate(ledger.records):
        preimage = held.find(digest)
        assert preimage is not None
        opened = read_record(preimage.removeprefix(RECORD_TAG))
        assert (opened.token, opened.index, opened.sampler) == (index, index, WARM)
        assert opened.salt == record_salt(SALT, index)


def test_answers_and_traces_are_held_where_they_are_asked_for() -> None:
    """Of a session's answers: what each was given to, which records are its own and where; a trace counts and goes with its record."""
    plain, held = HeldRecords(), HeldRecords(2_000, words=True)
    said = (ChatMessage("user", "bees?"),)
    assert plain.begin(said, "", SALT) is None
    answer = held.begin(said, "Bees", SALT)
    assert answer is not None and "bees" not in repr(answer)
    (one, first), (two, second), (three, third) = _entries(3)
    held.keep(one, first, answer)
    held.keep(two, second, answer)
    held.keep(three, third)
    assert (held.answer_of(two), held.answer_of(three), held.answer_of(bytes(32))) == ((answer, 1), None, None)
    trace = HeldTrace(bytes(3 * 100), 5, bytes(64))
    held.keep_trace(two, trace)
    held.keep_trace(bytes(32), trace)
    assert (held.trace_of(two), held.trace_of(one), held.answer_of(two)) == (trace, None, (answer, 1))
    assert repr(held) == f"<HeldRecords 3 records, {3 * (100 + OVERHEAD) + 364 + OVERHEAD} of 2000 bytes>"
    held.keep_trace(one, HeldTrace(bytes(600), 5, bytes(64)))
    assert held.find(three) is None and held.trace_of(one) is not None
    held.forget([one, two])
    assert repr(held) == "<HeldRecords 0 records, 0 of 2000 bytes>"


def test_a_session_holds_what_it_was_asked() -> None:
    """Each answer with the conversation before it, its prefix and the connection's salt, while it is served."""
    held, key = HeldRecords(words=True), HOST_KEY
    meter = Meter(HostLedger(JobAdmitted(terms(), BaseUnits(10**12), MARKET, 0.0)), key, held)
    answer = held.begin((ChatMessage("user", "bees?"),), "", SALT)
    meter.serve(SALT, records(0, 2), WARM, answer)
    meter.record()
    assert answer is not None and len(answer.digests) == 2
    assert [held.answer_of(digest) for digest in answer.digests] == [(answer, 0), (answer, 1)]
