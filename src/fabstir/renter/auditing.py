"""Has answers checked by other hosts, pays them for it, and remembers what came of it.

An audit is a session with a host that scores: it computes how likely each token of an answer was, its records are signed and paid like
those of any answer, and they are compared with what the first host signed. Where they disagree, a second verifier decides. A host that
two verifiers found inconsistent is not taken again by this renter. Holds no text beyond the transcripts that it is given.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from random import SystemRandom
from typing import TYPE_CHECKING, Final

import msgspec
import structlog

from fabstir.domain.errors import FabstirError, error
from fabstir.domain.ids import Address, ModelId, from_hex, to_hex
from fabstir.domain.money import BaseUnits, Tokens
from fabstir.ports.clock import Clock
from fabstir.ports.journal import Journal
from fabstir.protocol.audit import LEAST_TOKENS, AnswerEvidence, Tolerance, Verdict, judge
from fabstir.protocol.audit_by_host import (
    AuditNoted,
    Suspect,
    convicted,
    decode_event,
    encode_event,
    outvoted,
    scored_evidence,
)
from fabstir.protocol.controls import greedy
from fabstir.protocol.messages import WireTerms
from fabstir.protocol.renter_log import RenterLedger
from fabstir.protocol.transcript_file import SessionTranscript, SpokenTurn
from fabstir.renter.access import Wish

if TYPE_CHECKING:
    from fabstir.renter.market import Market

STREAM_PREFIX: Final = "audit:"
WAIT_AT_END_SECONDS: Final = 30.0
"""How long audits that run may still take when the renter ends."""

log = structlog.get_logger()


class HostAudit(msgspec.Struct, frozen=True, kw_only=True):
    """What one verifier said."""

    verifier: Address
    verdict: Verdict
    turns: tuple[SpokenTurn, ...]
    """The verifier's records, answer by answer, as it signed for them."""
    job: str
    """Under which it was paid."""


class AuditReport(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that came of it; with the transcript, the evidence for anybody else."""

    host: Address
    model: ModelId
    audits: tuple[HostAudit, ...]
    suspect: Suspect


class AuditBook:
    """What is remembered of hosts. Memory: a few numbers for each audit."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._audits: dict[Address, list[AuditNoted]] = defaultdict(list)

    async def restore(self) -> None:
        """Read what earlier processes wrote. Raises LocalFault (`journal_failed`)."""
        for stream in await self._journal.streams():
            if stream.startswith(STREAM_PREFIX):
                try:
                    events = [decode_event(data) for data in await self._journal.read(stream)]
                except msgspec.MsgspecError as unreadable:
                    raise error("journal_failed", f"{stream}: {unreadable}") from unreadable
                for event in events:
                    self._audits[event.host].append(event)

    async def note(self, event: AuditNoted) -> None:
        """Durable when it returns. Raises LocalFault (`journal_failed`)."""
        await self._journal.append(STREAM_PREFIX + event.host.hex(), [encode_event(event)])
        self._audits[event.host].append(event)

    def of(self, host: Address) -> tuple[AuditNoted, ...]:
        """Oldest first."""
        return tuple(self._audits.get(host, ()))

    @property
    def convicted(self) -> frozenset[Address]:
        """Hosts that are not taken again."""
        return frozenset(host for host, audits in self._audits.items() if convicted(audits))


class Auditor:
    """Asks the market to check a transcript."""

    def __init__(self, market: Market, book: AuditBook, clock: Clock) -> None:
        self._market = market
        self._book = book
        self._clock = clock

    async def audit(
        self, transcript: SessionTranscript, tolerance: Tolerance, *, budget: BaseUnits | None = None
    ) -> AuditReport:
        """By one verifier, and by a second one where the first disagrees with the host.

        Raises Refused (`no_host` where nobody scores this model, `budget_exceeded`), PeerFault (`receipt_file_invalid`), Interrupted,
        ChainFault, LocalFault.
        """
        host = Address(from_hex(transcript.terms.host, 20))
        model = ModelId(from_hex(transcript.terms.model_id, 32))
        turns = [turn for turn in transcript.turns if turn.records and not turn.prompt.adapter]
        if not turns:
            raise error("receipt_file_invalid", "no answer that the model alone gave is in the transcript")
        audits = [await self._ask(host, model, turns, tolerance, frozenset((host,)), budget)]
        if audits[0].verdict.outcome == "inconsistent":
            avoid = frozenset((host, audits[0].verifier))
            try:
                audits.append(await self._ask(host, model, turns, tolerance, avoid, budget))
            except FabstirError as fault:
                log.warning("second_audit_failed", host_address=host, code=fault.code)
        outcomes = [audit.verdict.outcome for audit in audits]
        suspect = outvoted(outcomes[0], outcomes[1] if len(outcomes) > 1 else None)
        return AuditReport(host=host, model=model, audits=tuple(audits), suspect=suspect)

    async def _ask(
        self,
        host: Address,
        model: ModelId,
        turns: Sequence[SpokenTurn],
        tolerance: Tolerance,
        avoid: frozenset[Address],
        budget: BaseUnits | None,
    ) -> HostAudit:
        evidence: list[AnswerEvidence] = []
        scored: list[SpokenTurn] = []
        session = await self._market.start_session(model, budget=budget, wish=Wish(scoring=True, avoid=avoid))
        try:
            for turn in turns:
                asked = turn.generation
                tokens = tuple(record.token for record in turn.records)
                again = await session.score(
                    asked.messages,
                    tokens,
                    prefix=asked.prefix,
                    temperature=asked.temperature,
                    top_p=asked.top_p,
                )
                scored.append(again)
                evidence.append(scored_evidence(turn.records, again.records, greedy=greedy(asked)))
        finally:
            await session.close()
        if len({job.host for job in session.jobs}) > 1:
            raise error("hosts_exhausted", "the verifier failed in the middle, and a verdict is one verifier's")
        job = session.jobs[-1]
        asked_greedily = any(greedy(turn.prompt) for turn in turns)
        verdict = _as_asked(judge(evidence, tolerance), greedy=asked_greedily)
        noted = AuditNoted(
            host=host,
            model=model,
            verifier=job.host,
            outcome=verdict.outcome,
            tokens=Tokens(verdict.tokens),
            at=self._clock.now(),
        )
        await self._book.note(noted)
        log.info("answer_audited", host_address=host, job_id=job.id, state=verdict.outcome)
        return HostAudit(verifier=job.host, verdict=verdict, turns=tuple(scored), job=to_hex(job.id))


def _as_asked(verdict: Verdict, *, greedy: bool) -> Verdict:
    """Without the questions that a verifier's records cannot answer."""
    asked = ("probability", "alternatives", "support") if greedy else ("probability", "alternatives")
    return msgspec.structs.replace(verdict, gates=tuple(gate for gate in verdict.gates if gate.name in asked))


class RandomAudits:
    """Has a share of all answers checked, chosen by chance when they are over, so that no host knows which. Answers of one host are
    gathered until they are evidence. Memory: the answers that are gathered, with their words.
    """

    def __init__(
        self,
        auditor: Auditor,
        tolerance_of: Callable[[ModelId], Awaitable[Tolerance]],
        *,
        share: float,
        budget: BaseUnits | None = None,
    ) -> None:
        """`share`: 0 to 1, of the answers."""
        self._auditor = auditor
        self._tolerance_of = tolerance_of
        self._share = share
        self._budget = budget
        self._chance = SystemRandom()
        self._gathered: dict[tuple[Address, ModelId], list[SpokenTurn]] = defaultdict(list)
        self._running: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        return f"<RandomAudits {self._share:.1%} of answers, {len(self._running)} running>"

    def answered(self, ledger: RenterLedger, turn: SpokenTurn) -> None:
        """An answer is over. Never raises."""
        if not turn.records or self._chance.random() >= self._share:
            return
        terms = ledger.terms
        waiting = self._gathered[terms.host, terms.model_id]
        waiting.append(turn)
        if sum(len(one.records) for one in waiting) < LEAST_TOKENS:
            return
        turns = tuple(waiting)
        waiting.clear()
        transcript = SessionTranscript(
            chain_id=ledger.market.chain_id,
            market=to_hex(ledger.market.address),
            terms=WireTerms.of(terms),
            turns=turns,
        )
        task = asyncio.create_task(self._audit(transcript, terms.model_id), name="random audit")
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def close(self) -> None:
        """Let the audits that run come to their end, for a while. Idempotent."""
        if self._running:
            await asyncio.wait(self._running, timeout=WAIT_AT_END_SECONDS)
        for task in tuple(self._running):
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    async def _audit(self, transcript: SessionTranscript, model: ModelId) -> None:
        try:
            report = await self._auditor.audit(transcript, await self._tolerance_of(model), budget=self._budget)
            if report.suspect != "nobody":
                log.warning("audit_disagrees", host_address=report.host, reason=report.suspect)
        except FabstirError as fault:
            log.warning("audit_failed", host_address=transcript.terms.host, code=fault.code)
