"""The market's events about jobs and their claims in a range of blocks, as domain types. Decides nothing."""

from __future__ import annotations

from typing import Any, Final

from fabstir.chain import bindings
from fabstir.chain.calls import ask
from fabstir.chain.follower import LogFollower
from fabstir.chain.rpc import JsonRpc, quantity
from fabstir.domain.errors import error
from fabstir.domain.ids import Address, Hash32, JobId, ModelId
from fabstir.domain.money import BaseUnits, PricePerMTok, Tokens
from fabstir.domain.terms import ProofPolicy, Terms
from fabstir.ports.clock import Clock
from fabstir.protocol.dispute_view import Claimed, Opened

STEPS: Final = 3
"""Readings until the range is whole; a reorganisation in the middle ends one early."""
_CLAIMS: Final = (bindings.ClaimHeld, bindings.ClaimDisputed, bindings.ClaimAnswered)
_TOPICS: Final = {event.TOPIC for event in (bindings.JobOpened, *_CLAIMS)}


async def claim_history(rpc: JsonRpc, clock: Clock, market: Address, start: int) -> list[Opened | Claimed]:
    """From block `start` to the newest. What a reorganisation takes back stays in it: who acts asks for the state.

    Raises ChainFault; never returns a part of the range.
    """
    top = quantity(await ask(rpc, "eth_blockNumber"))
    follower = LogFollower[Opened | Claimed](rpc, clock, (market,), _decode, start=start)
    told: list[Opened | Claimed] = []
    for _ in range(STEPS):
        async for batch in follower.step():
            told += [followed.event for followed in batch if not followed.removed]
        if follower.window.cursor >= top:
            return told
    raise error("chain_unreachable", f"blocks {follower.window.cursor + 1} to {top} could not be read as one chain")


def _decode(log: dict[str, Any]) -> Opened | Claimed | None:
    topic = bytes.fromhex(log["topics"][0][2:]) if log["topics"] else b""
    if topic not in _TOPICS:
        return None
    event = bindings.JobMarketplace.EVENTS[topic].decode(log)
    if isinstance(event, bindings.JobOpened):
        return Opened(JobId(event.id), domain_terms(event.terms))
    return Claimed(JobId(event.id))


def domain_terms(found: bindings.Terms) -> Terms:
    """As the domain has them."""
    return Terms(
        renter=found.renter,
        signer=found.signer,
        host=found.host,
        token=found.token,
        arbiter=found.arbiter,
        price=PricePerMTok(found.price_per_m_tok),
        bond=BaseUnits(found.bond),
        expires_at=found.expires_at,
        challenge=found.challenge,
        exposure=Tokens(found.exposure),
        policy=ProofPolicy(found.policy),
        model_id=ModelId(found.model_id),
        salt=Hash32(found.salt),
    )
