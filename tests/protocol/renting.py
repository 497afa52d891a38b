"""What the tests of the renter's core share: an answer on its way, and what an effect list says."""

from __future__ import annotations

from typing import Any

from fabstir.domain.errors import FabstirError
from fabstir.protocol.messages import (
    ReceiptAck,
)
from fabstir.protocol.renter_items import LeaveHost, SendHost, StoreRenter
from fabstir.protocol.renter_log import VoucherSigned
from tests.protocol.market import World, opened


def sent(effects: list[Any]) -> list[Any]:
    return [effect.message for effect in effects if isinstance(effect, SendHost)]


def stored(effects: list[Any]) -> list[Any]:
    return [event for effect in effects if isinstance(effect, StoreRenter) for event in effect.events]


def left(effects: list[Any]) -> FabstirError:
    """The renter left the host for this; nothing was signed."""
    assert isinstance(effects[-1], LeaveHost)
    assert not [event for event in stored(effects) if isinstance(event, VoucherSigned)]
    assert not [message for message in sent(effects) if isinstance(message, ReceiptAck)]
    return effects[-1].fault


def streaming(tokens: int = 10, **fields: Any) -> World:
    """An answer whose `tokens` tokens are on their way, and a receipt over them."""
    world = opened(**fields)
    world.ask()
    world.generate(tokens)
    world.finish_generation()
    return world


def arriving(world: World, kind: type) -> Any:
    """Deliver what comes before the next message of `kind`; returns that, not yet delivered."""
    while type(world.on_the_way()[0]) is not kind:
        world.deliver_to_renter()
    return world.on_the_way()[0]
