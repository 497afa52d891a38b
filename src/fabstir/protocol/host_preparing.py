"""How a host takes a prompt: it has the engine count what is new, plans what the engine is given, and only then begins the answer."""

from __future__ import annotations

from fabstir.domain.errors import error
from fabstir.protocol.answer import require_controls
from fabstir.protocol.context.brought import check
from fabstir.protocol.context.history import History
from fabstir.protocol.context.preparing import Preparation
from fabstir.protocol.effects import CountTokens
from fabstir.protocol.host_answering import begin, cancel, finish_turn, generate, wanted
from fabstir.protocol.host_core import HostCore
from fabstir.protocol.host_inputs import EngineFailed, HostInput, MemoryShort, SessionState, TimerRest, TokensCounted
from fabstir.protocol.messages import Cancel, Notice, Prompt


def prompt(core: HostCore, item: Prompt, now: float) -> None:
    """Take the next prompt, where the deposit pays for a token of its answer."""
    core.check_session(item.session_id)
    ledger = core.ledger
    if item.message_index != ledger.message_index:
        raise error("message_out_of_order", f"message_index {item.message_index}, expected {ledger.message_index}")
    if core.leaving:
        raise error("draining")
    if core.meter.left <= 0:
        raise error("deposit_exhausted", f"{core.served} tokens served, {ledger.affordable} paid for")
    wanted(core, item)
    history = _history(core, item)
    if core.forgotten and item.conversation_context is None:
        raise error("context_forgotten", "no question came for a while, and memory is short")
    require_controls(item, history.messages, core.offer)
    core.preparation = Preparation(core.turns + 1, item, history, core.offer.limits)
    core.turns = core.preparation.turn
    core.state = SessionState.PREPARING
    core.out.append(CountTokens(core.preparation.texts, core.turns))


def _history(core: HostCore, item: Prompt) -> History:
    """What was said before: what the prompt brings along, or what the session holds."""
    if item.conversation_context is None:
        return core.history
    return check(item.conversation_context, item.summarised, core.offer.limits).knowing(core.history)


def tokens_counted(core: HostCore, item: TokensCounted, now: float) -> None:
    """Plan, and begin."""
    preparation = core.preparing()
    if item.turn != preparation.turn:
        return
    core.preparation, core.state = None, SessionState.READY  # where it stays if the prompt is refused
    prepared = preparation.plan(item.weights, core.offer.frame, core.offer.context_size)
    begin(core, preparation.prompt, prepared)
    if preparation.cancelled:
        finish_turn(core, core.running(), "cancelled")
    else:
        generate(core)


def counting_failed(core: HostCore, item: EngineFailed, now: float) -> None:
    """The engine did not count: the prompt is refused, nothing has begun."""
    if item.turn == core.preparing().turn:
        core.preparation, core.state = None, SessionState.READY
        raise item.fault


def cancel_preparing(core: HostCore, item: Cancel, now: float) -> None:
    """The answer will begin, so that both sides know what it would have been to, and be over at once."""
    core.check_session(item.session_id)
    if item.message_index == core.preparing().prompt.message_index:
        core.preparing().cancelled = True
    else:
        cancel(core, item, now)


def rest(core: HostCore, item: TimerRest, now: float) -> None:
    """No question came for a while."""
    core.rest()


def forget(core: HostCore, item: MemoryShort, now: float) -> None:
    """Memory is short, and this conversation was asked about longest ago: its renter has it."""
    core.history = History()
    core.forgotten = True
    told = "This host gave up its copy of the conversation for want of memory: bring it along when you ask next."
    core.send(Notice(code="context_forgotten", message=told, session_id=core.session))


def decided(core: HostCore, item: HostInput) -> int | None:
    """Index of the prompt whose fate `item` decides: an error that it leads to is about that prompt."""
    if isinstance(item, Prompt):
        return item.message_index
    if core.preparation is not None and isinstance(item, TokensCounted | EngineFailed):
        return core.preparation.prompt.message_index
    return None
