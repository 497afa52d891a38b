"""What the tests of the host's core share: right messages of a renter, and what an effect list says."""

from __future__ import annotations

from typing import Any

from fabstir.domain.ids import to_hex
from fabstir.domain.money import Tokens
from fabstir.protocol.effects import Send, Store
from fabstir.protocol.generation import GenerationEnd
from fabstir.protocol.host_inputs import (
    SessionState,
)
from fabstir.protocol.messages import (
    Error,
    ReceiptAck,
    SessionInit,
    SessionResume,
    decode_from_renter,
)
from tests.protocol.market import MARKET, SESSION, SESSION_KEY, World

END = GenerationEnd(finish_reason="stop", prompt_tokens=5, completion_tokens=0)


def hello(world: World) -> SessionInit:
    """A right session_init of this job."""
    fresh = World(world.terms, 1)
    fresh.connect()
    message = decode_from_renter(fresh.to_host[0])
    assert isinstance(message, SessionInit)
    return message


def resume(world: World, **fields: Any) -> SessionResume:
    init = hello(world)
    return SessionResume(session_id=init.session_id, job_id=init.job_id, terms=init.terms, auth=init.auth, **fields)


def sent(effects: list[Any]) -> list[Any]:
    return [effect.message for effect in effects if isinstance(effect, Send)]


def stored(effects: list[Any]) -> list[Any]:
    return [event for effect in effects if isinstance(effect, Store) for event in effect.events]


def told(effects: list[Any]) -> Error:
    """The one message, an error."""
    (message,) = sent(effects)
    assert isinstance(message, Error)
    return message


def ack(world: World, up_to: int, **fields: Any) -> ReceiptAck:
    """The voucher that an honest renter gives at `up_to`, with `fields` instead."""
    ledger = world.host.ledger
    amount, head = ledger.amount(Tokens(up_to)), ledger.heads[up_to]
    signature = SESSION_KEY.sign(MARKET.voucher_digest(ledger.job, amount, Tokens(up_to), head))
    right: dict[str, Any] = {
        "session_id": SESSION,
        "tokens": up_to,
        "amount": str(amount),
        "transcript": to_hex(head),
        "signature": to_hex(signature),
    }
    return ReceiptAck(**(right | fields))


def blocked(world: World, generated: int) -> World:
    """An answer of which more is generated than the bound lets out."""
    world.ask()
    world.generate(generated)
    assert world.host.state is SessionState.BLOCKED
    return world


def blocked_until(world: World) -> float | None:
    """When an acknowledgement must have come; None where none is waited for."""
    return world.host._core.blocked_until
