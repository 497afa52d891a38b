"""How a renter asks and takes an answer: what of the host's stream is believed, and what becomes of an answer that is cut off."""

from __future__ import annotations

from fabstir.domain.errors import CATALOGUE, FabstirError, error
from fabstir.domain.ids import from_hex, to_hex
from fabstir.domain.money import Tokens
from fabstir.protocol import controls
from fabstir.protocol.context.disclosed import check_plan
from fabstir.protocol.context.history import History
from fabstir.protocol.context.preparing import after, bound_request
from fabstir.protocol.messages import (
    Cancel,
    ChatMessage,
    ContextPlanned,
    Error,
    Prompt,
    Response,
    StreamChunk,
    decode_from_renter,
    encode,
    records_valid,
)
from fabstir.protocol.renter_core import RenterCore, RenterState
from fabstir.protocol.renter_fingerprints import await_fingerprints
from fabstir.protocol.renter_items import (
    AnswerBroken,
    AnswerDone,
    Ask,
    Deliver,
    LeaveHost,
    Planned,
    RenterInput,
    SendHost,
    TurnKept,
)
from fabstir.protocol.renter_log import TurnSeen
from fabstir.protocol.signing import recover
from fabstir.protocol.transcript import TokenRecord
from fabstir.protocol.transcript_file import SpokenTurn


def ask(core: RenterCore, item: Ask) -> None:
    """Ask; nothing is sent that the host could not read."""
    if item.conversation is not None and "stateless" not in core.capabilities:
        raise error("capability_missing", "stateless")
    prompt = Prompt(
        session_id=core.session,
        message_index=core.message_index,
        content=item.content,
        role=item.role,
        tool_call_id=item.tool_call_id,
        prefix=item.prefix,
        score=item.score,
        context=item.context,
        conversation_context=item.conversation,
        summarised=item.summarised if item.conversation is not None else 0,
        **controls.of(item),
    )
    decode_from_renter(encode(prompt))  # the host could not read it, and could not say of which answer that is
    history = core.history if item.conversation is None else History.of(item.conversation, item.summarised)
    roles = frozenset(one.role for one in (*history.messages, prompt.message))
    if fault := controls.missing(controls.needs(item, roles), core.capabilities):
        raise fault  # before anything is said or paid
    core.history = history
    core.prompt, core.answer, core.answer_starts = prompt, [], core.received
    core.records, core.messages, core.plan = [], (), None
    if prompt.context is None:
        _begin(core, prompt, core.history.messages)
    core.sampler = controls.sampler_of(prompt)
    core.state = RenterState.RECEIVING
    core.out.append(SendHost(prompt))


def _begin(core: RenterCore, prompt: Prompt, seen: tuple[ChatMessage, ...]) -> None:
    """Bind the tokens that come to what the engine is given."""
    core.messages = (*seen, prompt.message)
    core.transcript.begin_turn(prompt.message_index, bound_request(core.salt, core.messages, prompt, core.plan))


def context_plan(core: RenterCore, item: ContextPlanned) -> None:
    """What the engine is given, where that was left to the host: it must be what was allowed."""
    prompt = core.asked()
    if item.message_index != prompt.message_index or prompt.context is None or core.plan is not None:
        raise error("message_out_of_order", "context_plan of another answer, or a second one")
    check_plan(item.plan, prompt.context, core.history)
    core.plan = item.plan
    _begin(core, prompt, item.plan.seen(core.history.messages))
    core.out.append(Planned(item.plan))


def _check_planned(core: RenterCore, prompt: Prompt) -> None:
    if prompt.context is not None and core.plan is None:
        raise error("message_out_of_order", "no context_plan before the answer")


def stop_answer(core: RenterCore, item: RenterInput) -> None:
    """Let the host stop; its `response` ends the answer."""
    core.out.append(SendHost(Cancel(session_id=core.session, message_index=core.asked().message_index)))


def stream_chunk(core: RenterCore, item: StreamChunk) -> None:
    """Tokens that follow on what was received before, and no more than were asked for."""
    prompt = core.asked()
    _check_planned(core, prompt)
    if item.session_id != core.session or item.message_index != prompt.message_index:
        raise error("message_out_of_order", "stream_chunk of another answer")
    if item.index != core.received or not records_valid(item.tokens):
        raise error("message_out_of_order", f"stream_chunk at {item.index}, expected {core.received}")
    _check_wanted(core, prompt, item.tokens)
    for record in item.tokens:
        core.transcript.append(core.salt, (record,), core.sampler)
        core.heads[core.received] = core.transcript.head
    core.answer.append(item.content)
    core.records += item.tokens
    core.out.append(Deliver(item.content, len(item.tokens), item.tokens))


def _check_wanted(core: RenterCore, prompt: Prompt, records: tuple[TokenRecord, ...]) -> None:
    at, wanted = core.received - core.answer_starts, len(prompt.score) or prompt.max_tokens
    if at + len(records) > wanted:
        raise error("message_out_of_order", f"more than the {wanted} tokens that were asked for")
    if prompt.score and tuple(record.token for record in records) != prompt.score[at : at + len(records)]:
        raise error("message_out_of_order", "the host scored other tokens than were asked for")


def response(core: RenterCore, item: Response) -> None:
    """The answer is complete."""
    prompt = core.asked()
    if item.message_index != prompt.message_index:
        raise error("message_out_of_order", "response of another answer")
    _check_planned(core, prompt)
    if core.plan is not None and item.context != core.plan:
        raise error("context_plan_invalid", "the response has another plan than the answer began with")
    _check_signature(core, item)
    core.history = after(core.history, prompt, 0, prompt.prefix + core.partial, item.finish_reason)
    core.message_index = prompt.message_index + 1
    core.prompt = None
    core.state = RenterState.READY
    core.record(TurnSeen(item.message_index, core.received, item.finish_reason))
    _keep(core, prompt, item.finish_reason, item.usage.prompt_tokens)
    await_fingerprints(core, prompt)
    core.out.append(AnswerDone(item))


def _check_signature(core: RenterCore, item: Response) -> None:
    """The host says so itself, of what arrived here. Raises PeerFault (`answer_untrusted`)."""
    ledger, counts = core.ledger, item.usage
    digest = ledger.market.response_digest(
        ledger.job,
        item.message_index,
        Tokens(counts.completion_tokens),
        counts.prompt_tokens,
        item.finish_reason,
        core.transcript.head,
    )
    if (
        item.tokens_used != counts.completion_tokens
        or recover(digest, from_hex(item.signature, 65)) != ledger.terms.host
    ):
        raise error("answer_untrusted", f"{to_hex(ledger.terms.host)} did not sign this end of an answer")


def host_error(core: RenterCore, item: Error) -> None:
    """An error that names the answer ends it, and both sides must agree again before the next (`Connect`). While a session opens or
    ends, it means that the host does not want us. Any other is about a single message and changes nothing."""
    fault = as_fault(item)
    if core.state is RenterState.RECEIVING and item.message_index == core.asked().message_index:
        break_off(core, fault)
        core.state = RenterState.OFFLINE
    elif core.state in (RenterState.OPENING, RenterState.ENDING):
        leave(core, fault)


def break_off(core: RenterCore, fault: FabstirError) -> None:
    """The answer is cut off; what was delivered of it stays."""
    core.record(TurnSeen(core.asked().message_index, core.received, fault.code))
    _keep(core, core.asked(), fault.code, 0)
    core.prompt = None
    core.out.append(AnswerBroken(fault))


def _keep(core: RenterCore, prompt: Prompt, reason: str, prompt_tokens: int) -> None:
    if not core.messages:
        return  # cut off before it was known what it answers: it is in no transcript
    turn = SpokenTurn(
        tokens_before=core.answer_starts,
        messages=core.messages,
        prompt=prompt,
        salt=to_hex(core.salt),
        text=core.partial,
        records=tuple(core.records),
        prompt_tokens=prompt_tokens,
        finish_reason=reason,
        plan=core.plan,
    )
    core.out.append(TurnKept(turn))


def leave(core: RenterCore, fault: FabstirError) -> None:
    """Nothing more is signed for this host on this connection."""
    if core.state is RenterState.RECEIVING:
        break_off(core, fault)
    core.state = RenterState.OFFLINE
    core.out.append(LeaveHost(fault))


def as_fault(message: Error) -> FabstirError:
    """The host's error as one of ours; a code that this version does not know becomes `engine_failed`, its words kept."""
    code = message.code if message.code in CATALOGUE else "engine_failed"
    return error(code, message.detail or message.message, message.next_step)
