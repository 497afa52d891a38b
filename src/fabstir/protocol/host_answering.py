"""How a host answers: from the prompt to the last token, held back where the renter has not acknowledged, cut off where something broke."""

from __future__ import annotations

from fabstir.domain.errors import FabstirError, error
from fabstir.domain.ids import to_hex
from fabstir.domain.money import Tokens
from fabstir.protocol.answer import Answer
from fabstir.protocol.context.preparing import NOTHING, Prepared, after, bound_request
from fabstir.protocol.effects import CancelGeneration, RunGeneration, Store
from fabstir.protocol.generation import TokenBatch, request_of
from fabstir.protocol.host_core import HostCore
from fabstir.protocol.host_fingerprints import fingerprint
from fabstir.protocol.host_inputs import EngineBatch, EngineFailed, EngineFinished, Leaving, SessionState
from fabstir.protocol.host_leaving import LEAVING
from fabstir.protocol.host_log import TurnEnded, TurnStarted, session_tag
from fabstir.protocol.host_paying import announce_payment
from fabstir.protocol.messages import (
    Cancel,
    ContextPlanned,
    Error,
    Prompt,
    ReceiptAck,
    Response,
    SessionClear,
    StreamChunk,
    Usage,
)
from fabstir.protocol.tool_text import plain


def begin(core: HostCore, item: Prompt, prepared: Prepared) -> None:
    """The answer begins: it is in the log, and the renter is told to what."""
    most, left = wanted(core, item), core.meter.left
    core.answer = Answer(core.turns, item, min(most, left), deposit_bound=left < most)
    core.history, core.prepared = prepared.history, prepared
    core.held_answer = None
    if core.held is not None and not item.adapter:  # the weights that records are traced with are without it
        core.held_answer = core.held.begin(plain(prepared.seen, item), item.prefix, core.salt)
    request = bound_request(core.salt, prepared.seen, item, prepared.plan)
    core.store(TurnStarted(item.message_index, request, session_tag(core.ledger.job, core.session)))
    core.state = SessionState.GENERATING
    if item.context is not None:
        core.send(ContextPlanned(session_id=core.session, message_index=item.message_index, plan=prepared.plan))


def generate(core: HostCore) -> None:
    """Let the engine answer."""
    answer = core.running()
    request = request_of(answer.prompt, core.prepared.seen, answer.budget, cache=core.ledger.job.hex())
    core.out.append(RunGeneration(request, answer.turn))
    announce_payment(core)


def wanted(core: HostCore, item: Prompt) -> int:
    """Tokens that the renter asks for, within this host's bounds."""
    longest = core.offer.max_answer_tokens
    if not item.score:
        return min(item.max_tokens, longest)
    if not core.offer.scores:
        raise error("engine_refused", "this host does not score answers; see `capabilities` in session_ready")
    if len(item.score) > longest:
        raise error("engine_refused", f"{len(item.score)} tokens to score, at most {longest} at once")
    return len(item.score)


def engine_batch(core: HostCore, item: EngineBatch, now: float) -> None:
    """Tokens came from the engine."""
    answer = core.running()
    if item.turn == answer.turn:
        answer.hold(item.batch)
        pump(core, now)


def engine_finished(core: HostCore, item: EngineFinished, now: float) -> None:
    """The engine has said all."""
    answer = core.running()
    if item.turn == answer.turn:
        answer.end = item.end
        pump(core, now)


def engine_failed(core: HostCore, item: EngineFailed, now: float) -> None:
    """The engine broke off."""
    if item.turn == core.running().turn:
        break_off(core, item.fault, cancel=False)


def pump(core: HostCore, now: float) -> None:
    """Serve what may be served; then block, or finish the answer."""
    answer = core.running()
    while (batch := answer.take(core.meter.room)) is not None:
        _serve(core, answer, batch)
        if core.meter.receipt_due:
            core.store()
            core.send_receipt()
    if answer.waiting:
        _block(core, now)
    elif answer.end is not None:
        finish_turn(core, answer, answer.finish_reason(answer.end))
    else:
        _unblock(core)


def _serve(core: HostCore, answer: Answer, batch: TokenBatch) -> None:
    first = core.meter.serve(core.salt, batch.records, answer.sampler, core.held_answer)
    announce_payment(core)
    core.send(
        StreamChunk(
            session_id=core.session,
            message_index=answer.prompt.message_index,
            index=first,
            content=batch.text,
            tokens=batch.records,
        )
    )


def _block(core: HostCore, now: float) -> None:
    if core.state is not SessionState.BLOCKED:
        core.store()
        core.send_receipt()
        core.state = SessionState.BLOCKED
        core.blocked_until = now + core.offer.ack_timeout


def _unblock(core: HostCore) -> None:
    core.blocked_until = None
    core.state = SessionState.GENERATING


def finish_turn(core: HostCore, answer: Answer, reason: str) -> None:
    """The answer is complete, or complete enough: bill it and say so."""
    prepared = core.prepared
    core.history = after(core.history, answer.prompt, prepared.question, answer.text, reason)
    usage = Usage(prompt_tokens=answer.end.prompt_tokens if answer.end else 0, completion_tokens=answer.served)
    core.store(TurnEnded(answer.prompt.message_index, reason, Tokens(usage.prompt_tokens)))
    core.send_receipt()
    ledger, index = core.ledger, answer.prompt.message_index
    digest = ledger.market.response_digest(
        ledger.job, index, Tokens(answer.served), usage.prompt_tokens, reason, ledger.head
    )
    core.send(
        Response(
            session_id=core.session,
            message_index=index,
            tokens_used=answer.served,
            finish_reason=reason,
            usage=usage,
            context=prepared.plan,
            signature=to_hex(core.key.sign(digest)),
        )
    )
    fingerprint(core, answer, prepared.seen)
    _idle(core)


def _idle(core: HostCore) -> None:
    core.answer = None
    core.prepared = NOTHING
    core.blocked_until = None
    core.state = SessionState.READY


def cancel(core: HostCore, item: Cancel, now: float) -> None:
    """Stop the answer; what was served stays served and is billed."""
    core.check_session(item.session_id)
    answer = core.answer
    if answer is not None and item.message_index == answer.prompt.message_index:
        core.out.append(CancelGeneration(answer.turn))
        finish_turn(core, answer, "cancelled")
    elif item.message_index > core.ledger.message_index:
        raise error("message_out_of_order", f"message_index {item.message_index} is not being answered")
    # else it crossed the end or the refusal of its answer on the way, which is no fault of the renter


def break_off(core: HostCore, fault: FabstirError, cancel: bool = True) -> None:
    """End the answer with a named error; what was served stays served and billed, what was held back is dropped. Neither side
    counts it as said: the renter brings the conversation along when it asks again."""
    answer = core.running()
    if cancel:
        core.out.append(CancelGeneration(answer.turn))
    core.store(TurnEnded(answer.prompt.message_index, fault.code))
    core.send_receipt()
    core.send(Error.of(fault, core.session, answer.prompt.message_index))
    _idle(core)


def leaving(core: HostCore, item: Leaving, now: float) -> None:
    """Nothing new is begun here. An answer that streams may end, unless there is no time left; what was delivered of it stays served and
    is billed, and the renter goes on elsewhere after it."""
    first, core.leaving = not core.leaving, True
    if first and "handoff" not in core.agreed:
        core.send(LEAVING)
    if not item.now or "handoff" not in core.agreed:
        return
    if core.preparation is not None:  # not in the log, and nothing was said of it: as if it had never come
        core.preparation, core.state = None, SessionState.READY
    if (answer := core.answer) is not None:
        core.out.append(CancelGeneration(answer.turn))
        core.store(TurnEnded(answer.prompt.message_index, "draining"))
        core.send_receipt()
        _idle(core)


def busy(core: HostCore, item: Prompt | SessionClear, now: float) -> None:
    """One answer at a time."""
    raise error("session_busy")


def receipt_ack(core: HostCore, item: ReceiptAck, now: float) -> None:
    """A voucher came: what waited for it goes on."""
    core.check_session(item.session_id)
    core.out.append(Store(core.meter.accept(item)))
    if core.answer is not None:
        pump(core, now)


def overdue(core: HostCore) -> None:
    """The acknowledgement that the stream waits for did not come in time."""
    ledger = core.ledger
    unpaid = f"{core.served - ledger.acknowledged} tokens of {ledger.terms.exposure} unacknowledged"
    break_off(core, error("ack_timeout", unpaid))
