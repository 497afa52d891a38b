"""The prover of a host of `spot`: what is committed with traces, what is not and why, and what is proven by which circuit."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path

import pytest
import pytest_asyncio
from tests.proofs.spotting import SALT, TinyHead, seed_for, statement_of, words_of

from fabstir.domain.errors import LocalFault, error
from fabstir.domain.ids import ModelId
from fabstir.ports.engine import ChatMessage
from fabstir.ports.tracer import TracedTokens
from fabstir.proofs import host_spot
from fabstir.proofs.host_spot import HostSpot
from fabstir.proofs.process import EzklProver
from fabstir.proofs.spot_prover import SpotProver
from fabstir.protocol import spot
from fabstir.protocol.held_records import OVERHEAD, HeldRecords
from fabstir.protocol.sampling import read_record
from fabstir.protocol.transcript import RECORD_TAG
from fabstir.testing.clock import ManualClock

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="module")]
SAID = (ChatMessage("user", "bees?"),)


class HeadTracer:
    """States of a `TinyHead`, for records of its own."""

    def __init__(self, head: TinyHead, clock: ManualClock) -> None:
        self.head, self.asked = head, list[tuple[int, int]]()
        self._clock = clock
        self.seconds = 0.0
        """How long one call takes."""
        self.fails = False
        self.hangs = False

    async def start(self) -> None:
        """Nothing to load."""

    async def stop(self) -> None:
        """Nothing to end."""

    async def trace(
        self, messages: tuple[ChatMessage, ...], prefix: str, records: tuple[bytes, ...], first: int
    ) -> TracedTokens:
        """See the port."""
        assert (messages, prefix) == (SAID, "")
        self.asked.append((len(records), first))
        await self._clock.advance(self.seconds)
        if self.hangs:
            await asyncio.Event().wait()
        if self.fails:
            raise error("engine_gone", "the tracer died")
        traces = [self.head.trace(read_record(record).index) for record in records[first:]]
        return TracedTokens(tuple(spot.packed(one.hidden) for one in traces), tuple(one.denominator for one in traces))


class Served:
    """A host's prover, and what it served."""

    def __init__(self, bind: EzklProver, proving: SpotProver, head: TinyHead, capacity: int = 1 << 20) -> None:
        self.clock = ManualClock()
        self.bind, self.head = bind, head
        self.held = HeldRecords(capacity, words=True)
        self.tracer = HeadTracer(head, self.clock)
        self.prover = HostSpot(bind, proving, self.tracer, head, self.held, self.clock)

    def answer(self, first: int, count: int, *, listed: int = 6) -> tuple[bytes, ...]:
        """Digests of an answer that was served."""
        answer, digests = self.held.begin(SAID, "", SALT), []
        for index in range(first, first + count):
            preimage = RECORD_TAG + self.head.trace(index, listed=listed).record
            digests.append(sha256(preimage).digest())
            self.held.keep(digests[-1], preimage, answer)
        return tuple(digests)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def parts(cache: Path) -> AsyncIterator[tuple[EzklProver, SpotProver, TinyHead]]:
    """The processes of both circuits, and a head."""
    bind = EzklProver(chain_id=31337, cache=cache)
    await bind.start()
    proving = SpotProver(bind, chain_id=31337)
    yield bind, proving, await TinyHead(1).commit(proving)
    await bind.stop()


Parts = tuple[EzklProver, SpotProver, TinyHead]


async def test_what_was_served_is_traced_once_and_proven(parts: Parts) -> None:
    """Two answers and a half of a third in one checkpoint: each is traced from its beginning, in one call; the proof verifies, and the
    next checkpoint traces only what is left."""
    served = Served(*parts)
    digests = served.answer(0, 3) + served.answer(3, 2) + served.answer(5, 4)
    made = await served.prover.commit(digests[:7])
    assert made.weaker == "" and served.tracer.asked == [(3, 0), (2, 0), (2, 0)]
    assert await served.prover.provable(made.digest, digests[:7])
    await served.prover.commit(digests[:7])
    rest = await served.prover.commit(digests[7:])
    assert rest.weaker == "" and served.tracer.asked[3:] == [(4, 2)]
    words = words_of(ModelId(bytes(32)), 9, 0, 7)
    statement = statement_of(words, seed_for(4, 9), made.digest)
    with pytest.raises(LocalFault, match="preimages_missing"):
        await served.prover.prove(statement, digests[:6])
    bundle = await served.prover.prove(statement, digests[:7])
    assert bundle.circuit_id == served.prover.circuit_id and await served.prover.verify(statement, bundle)


async def test_what_this_process_did_not_serve_is_committed_for_bind(parts: Parts) -> None:
    """All of it, where one record is not held; and `bind` proves it."""
    served = Served(*parts)
    digests = (*served.answer(0, 3), sha256(b"of a process before this one").digest())
    made = await served.prover.commit(digests)
    assert made.weaker.startswith("preimages_missing: record 3") and served.tracer.asked == []
    assert made.digest == (await served.bind.commit(digests)).digest
    assert await served.prover.provable(made.digest, digests)
    statement = statement_of(words_of(ModelId(bytes(32)), 4, 0, 4), seed_for(1, 4), made.digest)
    with pytest.raises(LocalFault, match="preimages_missing"):
        await served.prover.prove(statement, digests)
    assert (await served.prover.weaker.prove(statement, digests)).circuit_id == served.bind.circuit_id


async def test_a_commitment_whose_traces_are_gone_is_told(parts: Parts) -> None:
    """Dropped from memory, or forgotten with its job: neither circuit proves it any more."""
    served = Served(*parts)
    digests = served.answer(0, 3)
    made = await served.prover.commit(digests)
    served.held.forget(digests[:1])
    assert not await served.prover.provable(made.digest, digests)


@pytest.mark.parametrize("what", ["few listed", "tracer fails", "beginning dropped", "too small"])
async def test_why_there_are_no_traces_is_said(parts: Parts, what: str) -> None:
    """In every case the checkpoint is committed for `bind`."""
    served = Served(*parts, capacity=20 * (200 + OVERHEAD) if what == "too small" else 1 << 20)
    digests = served.answer(0, 5, listed=3 if what == "few listed" else 6)
    served.tracer.fails = what == "tracer fails"
    if what == "beginning dropped":
        served.held.forget(digests[:1])
        digests = digests[1:]
    made = await served.prover.commit(digests)
    reasons = {
        "few listed": "proof_failed: record 0 of the checkpoint: the record lists 2 other tokens",
        "tracer fails": "engine_gone: the tracer died",
        "beginning dropped": "preimages_missing: the beginning of an answer is not held any more",
        "too small": "the traces do not fit into memory",
    }
    assert made.weaker.startswith(reasons[what])
    assert made.digest == (await served.bind.commit(digests)).digest


async def test_tracing_has_a_share_of_the_time(parts: Parts) -> None:
    """Half of any minute; who comes then is committed for `bind` at once, and after a while traces are made again."""
    served = Served(*parts)
    served.tracer.seconds = 20.0
    answers = [served.answer(2 * n, 2) for n in range(4)]
    assert [(await served.prover.commit(digests)).weaker for digests in answers[:2]] == ["", ""]
    assert "of the last 60 s" in (await served.prover.commit(answers[2])).weaker
    await served.clock.advance(host_spot.WINDOW_SECONDS)
    assert (await served.prover.commit(answers[3])).weaker == ""


async def test_a_tracer_that_hangs_is_not_waited_for(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is a deadline for each checkpoint."""
    monkeypatch.setattr(host_spot, "DEADLINE_SECONDS", 0.01)
    served = Served(*parts)
    served.tracer.hangs = True
    assert "no traces within" in (await served.prover.commit(served.answer(0, 2))).weaker


async def test_other_states_than_the_head_s_have_no_proof(parts: Parts) -> None:
    """What was traced with another model's weights is committed as it is, and then cannot be proven, by either circuit."""
    bind, proving, head = parts
    served = Served(bind, proving, TinyHead(2))
    served.prover = HostSpot(bind, proving, served.tracer, head, served.held, served.clock)
    digests = served.answer(0, 4)
    made = await served.prover.commit(digests)
    assert made.weaker == ""
    words = words_of(ModelId(bytes(32)), 4, 0, 4)
    statement = statement_of(words, seed_for(2, 4), made.digest)
    with pytest.raises(LocalFault, match=r"proof_failed.*is not what the head makes of the hidden state"):
        await served.prover.prove(statement, digests)
    with pytest.raises(LocalFault, match="proof_failed"):
        await served.prover.weaker.prove(statement, digests)
