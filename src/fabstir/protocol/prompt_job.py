"""What a host does next about one prompt job: a pure planner over its ledger, the board's state and the clock.

`plan` returns one action; a shell carries it out, writes down the event that it names, and asks again. The order of the
questions *is* the policy: what the chain shows is noted first, then a completed job is handed to the settler, a claim that
cannot be kept is given back, and only then is worked on. Restart-safe, because nothing is remembered here. Keys of
transactions name prompt and claim, so the outbox sends each at most once. Never claims by itself: the queue says which.
"""

from __future__ import annotations

import msgspec

from fabstir.domain.ids import JobId, to_hex
from fabstir.domain.money import BaseUnits, PricePerMTok, Tokens, cost
from fabstir.domain.prompts import Cid, PromptCompletion, PromptState, PromptStatus
from fabstir.domain.terms import Terms
from fabstir.protocol.host_log import HostEvent, JobAdmitted, SessionFinished, TokensServed, TurnStarted
from fabstir.protocol.prompt_log import PromptLedger, Stage


class PromptRules(msgspec.Struct, frozen=True, kw_only=True):
    """The margins."""

    complete_margin: float = 12.0
    """Seconds before a claim lapses in which no completion is sent any more: it could be mined too late."""
    claim_margin: float = 4.0
    """Seconds that a claim needs to be mined."""
    max_executions: int = 3
    """Generations that are begun before this host gives the job back."""
    max_holds: int = 3
    """Claims of one job that may run out or be given back; more would only cost gas."""


class PromptSituation(msgspec.Struct, frozen=True, kw_only=True):
    """What is known now."""

    status: PromptStatus
    now: float
    """Unix seconds: the later of this machine's clock and the newest block's time, so that nothing is believed held that is not."""
    needed: float
    """Seconds that the longest answer takes at the measured speed, safety included."""
    chosen: bool = False
    """The queue said to claim it."""
    completion: PromptCompletion | None = None
    """The board's event, once there is one."""
    prompt_ready: bool = False
    """The prompt is in memory, opened and valid."""
    executing: bool = False
    """The engine works on it, since `executing_for` seconds."""
    executing_for: float = 0.0


# -- actions -------------------------------------------------------------------------------------------------------------------


class Rest(msgspec.Struct, frozen=True):
    """Nothing to do before `until`, or before something happens where it is None."""

    reason: str
    until: float | None = None


class SendClaim(msgspec.Struct, frozen=True):
    """Log `ClaimSent(attempt)` unless it is the last event already, then claim under `key`. Refused: log `ClaimLost`."""

    key: str
    attempt: int


class NoteHeld(msgspec.Struct, frozen=True):
    """The board shows this host's claim: log `ClaimHeld`."""

    price: PricePerMTok
    until: int


class NoteLost(msgspec.Struct, frozen=True):
    """The claim is not this host's any more, or never was: log `ClaimLost`."""

    reason: str


class NoteExpired(msgspec.Struct, frozen=True):
    """Over without an answer of this host: log `PromptExpired`."""

    reason: str


class NoteCompleted(msgspec.Struct, frozen=True):
    """The board shows this host's answer: log `PromptCompleted`."""

    completion: PromptCompletion


class FetchPrompt(msgspec.Struct, frozen=True):
    """Fetch by CID, check, open, decode; into memory only. Impossible: log `ExecutionFailed`."""

    cid: Cid


class Execute(msgspec.Struct, frozen=True):
    """Log `ExecutionStarted`, ask the engine, seal the answer, log `ResultMade`. Stop at `until`. Failed: log `ExecutionFailed`."""

    until: float


class StoreResult(msgspec.Struct, frozen=True):
    """Store the sealed answer if memory has it, else look whether the store does; log `ResultStored` or `ResultMissing`."""

    cid: Cid


class SendComplete(msgspec.Struct, frozen=True):
    """Log `CompleteSent` unless it is the last event already, then complete under `key`. Refused although the claim holds: log
    `ExecutionFailed`."""

    key: str
    tokens: Tokens


class SendRelease(msgspec.Struct, frozen=True):
    """Give the claim back under `key`, then log `ClaimReleased`."""

    key: str
    reason: str


class GiveUp(msgspec.Struct, frozen=True):
    """Log `ExecutionFailed`: it will not work here."""

    code: str


class HandOver(msgspec.Struct, frozen=True):
    """Write `handover(...)` as the log of the market job unless it is there, then log `HandedOver` and wake the settler."""

    job: JobId
    terms: Terms


Action = (
    Rest
    | SendClaim
    | NoteHeld
    | NoteLost
    | NoteExpired
    | NoteCompleted
    | FetchPrompt
    | Execute
    | StoreResult
    | SendComplete
    | SendRelease
    | GiveUp
    | HandOver
)


def plan(ledger: PromptLedger, situation: PromptSituation, rules: PromptRules) -> Action:
    """The next action for one prompt job."""
    match ledger.stage:
        case Stage.SETTLING:
            return Rest("with the settler")
        case Stage.COMPLETED:
            return _hand_over(ledger)
        case Stage.ENDED:
            return _after_the_end(ledger, situation)
    if situation.status.ended:
        return _ended(ledger, situation)
    if situation.status.held_by(ledger.seen.host, situation.now):
        return _held(ledger, situation, rules)
    return _not_held(ledger, situation, rules)


def handover(ledger: PromptLedger, at: float) -> tuple[HostEvent, ...]:
    """The log of the market job, as if a session had served one answer of which the renter signed nothing."""
    terms, result = ledger.market_terms, ledger.result
    if terms is None or result is None:
        raise ValueError("only a completed prompt is handed over")
    return (
        JobAdmitted(terms, deposit_of(terms), ledger.seen.market, at),
        TurnStarted(0, result.request),
        TokensServed(result.records),
        SessionFinished("prompt_completed"),
    )


def deposit_of(terms: Terms) -> BaseUnits:
    """What the board puts into the market job: exactly the price of the answer."""
    return cost(terms.exposure, terms.price)


# -- the parts -----------------------------------------------------------------------------------------------------------------


def _hand_over(ledger: PromptLedger) -> Action:
    terms = ledger.market_terms
    if terms is None or ledger.completed is None:
        raise AssertionError("a completed prompt has a market job")
    return HandOver(ledger.completed.completion.job, terms)


def _after_the_end(ledger: PromptLedger, situation: PromptSituation) -> Action:
    """What was sent may be mined after this host gave up: a claim is given back, an answer is paid for."""
    status = situation.status
    if status.held_by(ledger.seen.host, situation.now):
        return SendRelease(_key("release-late", ledger, status.until), ledger.fault)
    if _answered(ledger, situation) and situation.completion is not None:
        return NoteCompleted(situation.completion)
    return Rest("ended")


def _answered(ledger: PromptLedger, situation: PromptSituation) -> bool:
    """The answer that the board shows is this one."""
    status = situation.status
    ours = status.state is PromptState.COMPLETED and status.host == ledger.seen.host
    return ours and ledger.result is not None


def _ended(ledger: PromptLedger, situation: PromptSituation) -> Action:
    status, done = situation.status, situation.completion
    if status.state is not PromptState.COMPLETED:
        return NoteExpired(status.state.name.lower())
    if not _answered(ledger, situation):  # with this host's key, too, where another process used it
        return NoteExpired("completed elsewhere")
    return NoteCompleted(done) if done is not None else Rest("the event of the completion is awaited")


def _held(ledger: PromptLedger, situation: PromptSituation, rules: PromptRules) -> Action:
    """This host holds the claim: note it, or work, or give it back in time."""
    status, now = situation.status, situation.now
    if ledger.stage in (Stage.SEEN, Stage.CLAIMING):
        return NoteHeld(status.price, status.until)
    if ledger.stage is Stage.FAILED:
        return SendRelease(_key("release", ledger, ledger.holds), ledger.fault)
    last = status.until - rules.complete_margin
    if ledger.stage is Stage.COMPLETING:  # sent, or about to be: only the chain knows whether it came in time
        return SendComplete(_key("complete", ledger, ledger.holds), ledger.tokens)
    if now + _remaining(ledger, situation) >= last:
        return SendRelease(_key("release", ledger, ledger.holds), "too_late")
    if ledger.result is not None:
        if cost(ledger.tokens, status.price) == 0:
            return GiveUp("worthless")
        if ledger.stage is Stage.MADE:
            return StoreResult(ledger.result.cid)
        return SendComplete(_key("complete", ledger, ledger.holds), ledger.tokens)
    if situation.executing:
        return Rest("the engine works on it", last)
    if ledger.executions >= rules.max_executions:
        return GiveUp("engine_failed")
    return Execute(last) if situation.prompt_ready else FetchPrompt(ledger.terms.prompt_cid)


def _remaining(ledger: PromptLedger, situation: PromptSituation) -> float:
    """Seconds of generation that are still to come."""
    if ledger.result is not None:
        return 0.0
    return max(0.0, situation.needed - situation.executing_for) if situation.executing else situation.needed


def _not_held(ledger: PromptLedger, situation: PromptSituation, rules: PromptRules) -> Action:
    """Nobody or another holds it. A claim is sent only while there is time to keep it."""
    status, now = situation.status, situation.now
    ours = status.claimed_by(ledger.seen.host)
    if ledger.stage not in (Stage.SEEN, Stage.CLAIMING):
        return NoteLost("lapsed" if ours or now >= status.until else "taken")
    if ours and status.until != ledger.last_until:  # it was mined and ran out while this host was not there
        return NoteHeld(status.price, status.until)
    start = now + rules.claim_margin
    time = min(ledger.terms.execute_seconds, ledger.terms.deadline - start)
    in_time = _remaining(ledger, situation) + rules.complete_margin <= time
    if ledger.stage is Stage.CLAIMING:
        if not in_time:
            return NoteLost("too_late")
        if not status.free_for(ledger.seen.host, now):
            return NoteLost("taken")
        return SendClaim(_key("claim", ledger, ledger.attempt), ledger.attempt)
    if not in_time:
        return NoteExpired("deadline")
    if ledger.holds >= rules.max_holds:
        return NoteExpired("tried too often")
    if not situation.chosen or not status.free_for(ledger.seen.host, now):
        return Rest("queued")
    return SendClaim(_key("claim", ledger, ledger.attempt + 1), ledger.attempt + 1)


def _key(verb: str, ledger: PromptLedger, number: int) -> str:
    return f"prompt:{verb}:{to_hex(ledger.prompt)}:{number}"
