"""Examines RPC endpoints, one by one and against each other: does each answer, serve the right chain, keep up, and know what the
node asks for. Reads only; what is found is judged here and nothing is changed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from fabstir.chain.checks import Check, Verdict, graded, judge
from fabstir.chain.follower import SPAN
from fabstir.chain.rpc import Endpoint, EndpointDown, JsonRpc, RpcError, quantity
from fabstir.domain.ids import Address, to_hex
from fabstir.ports.clock import Clock
from fabstir.protocol.admission import AUTH_WINDOW_SECONDS

SLOW_MS: Final = 1_000
"""A settlement asks about ten times in a row."""
OLD_SECONDS: Final = (30, 120)
"""Fifteen blocks of Base warn; then the endpoint, or the chain, stands still."""
BEHIND_BLOCKS: Final = (10, 64)
"""The follower unwinds 64 blocks (`follower.DEPTH`); an endpoint farther behind shows another past."""
AHEAD_SECONDS: Final = (15, AUTH_WINDOW_SECONDS)
"""Beyond it, hosts refuse what renters sign."""
LOG_SPANS: Final = (10_000, SPAN, 500, 1)
TAGS: Final = ("safe", "finalized")


class EndpointFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What one endpoint said."""

    label: str
    fault: str = ""
    latency_ms: int = 0
    chain_id: int = 0
    head: int = 0
    head_time: int = 0
    tags: dict[str, int | None] = {}
    """Block of each finality tag; None where it is not known."""
    log_span: int = 0
    """The largest range of eth_getLogs that was accepted."""


async def look_at(endpoint: Endpoint, market: Address | None, clock: Clock) -> EndpointFacts:
    """Ask one endpoint, without failover."""
    began = clock.monotonic()
    try:
        chain_id = quantity(await endpoint.request("eth_chainId"))
        latency = round((clock.monotonic() - began) * 1000)
        block = await endpoint.request("eth_getBlockByNumber", "latest", False)
        if block is None:
            return EndpointFacts(label=endpoint.label, fault="knows no block")
        head = quantity(block["number"])
        return EndpointFacts(
            label=endpoint.label,
            latency_ms=latency,
            chain_id=chain_id,
            head=head,
            head_time=quantity(block["timestamp"]),
            tags={tag: await _tag(endpoint, tag) for tag in TAGS},
            log_span=await _log_span(endpoint, market, head),
        )
    except (EndpointDown, RpcError) as fault:
        said = str(fault) if isinstance(fault, EndpointDown) else fault.message
        return EndpointFacts(label=endpoint.label, fault=said)


async def _tag(endpoint: Endpoint, tag: str) -> int | None:
    try:
        block: dict[str, Any] | None = await endpoint.request("eth_getBlockByNumber", tag, False)
    except (EndpointDown, RpcError):
        return None
    return quantity(block["number"]) if block else None


async def _log_span(endpoint: Endpoint, market: Address | None, head: int) -> int:
    for span in LOG_SPANS:
        query: dict[str, Any] = {"fromBlock": hex(max(0, head - span + 1)), "toBlock": hex(head)}
        if market is not None:
            query["address"] = to_hex(market)
        try:
            await endpoint.request("eth_getLogs", query)
        except (EndpointDown, RpcError):
            continue
        return span
    return 0


class Endpoints(msgspec.Struct, frozen=True, kw_only=True):
    """The checks of all, and whether what they say can be believed: one answers, and none serves another chain."""

    checks: list[Check]
    usable: bool


async def examine_endpoints(rpc: JsonRpc, chain_id: int, market: Address | None, clock: Clock) -> Endpoints:
    """All endpoints at once."""
    found = await asyncio.gather(*(look_at(endpoint, market, clock) for endpoint in rpc.endpoints))
    return judge_endpoints(found, chain_id, clock.now())


def judge_endpoints(found: Sequence[EndpointFacts], chain_id: int, now: float) -> Endpoints:
    """Each one, against the bounds and against the others. Pure."""
    answering = [facts for facts in found if not facts.fault]
    top = max((facts.head for facts in answering), default=0)
    checks = [
        check
        for facts in found
        for check in (
            _judge_answer(facts, chain_id, top, now) if not facts.fault else [_judge_fault(facts, bool(answering))]
        )
    ]
    usable = bool(answering) and all(facts.chain_id == chain_id for facts in answering)
    return Endpoints(checks=checks, usable=usable)


def _judge_fault(facts: EndpointFacts, others: bool) -> Check:
    """The node goes on with the others, without anything in reserve."""
    why, next_step = "Every endpoint that is named answers", "Start it, or take it out of chain.rpc_urls."
    return graded(f"{facts.label} reachable", "warn" if others else "fail", facts.fault, why, next_step)


def _judge_answer(facts: EndpointFacts, chain_id: int, top: int, now: float) -> list[Check]:
    label = facts.label
    age, behind = round(now - facts.head_time), top - facts.head
    slow = facts.latency_ms > SLOW_MS
    tags = ", ".join(f"{tag} {block if block is not None else 'unknown'}" for tag, block in facts.tags.items())
    another = "Take it out of chain.rpc_urls, or use another one."
    return [
        graded(f"{label} reachable", "warn" if slow else "ok", f"{facts.latency_ms} ms", f"at most {SLOW_MS} ms", another),
        judge(f"{label} chain", facts.chain_id == chain_id, facts.chain_id, f"chain.chain_id is {chain_id}", another),
        graded(f"{label} head", _grade(age, OLD_SECONDS), f"block {facts.head}, {age} s old", _bounds(OLD_SECONDS, "s"), another),
        graded(f"{label} behind", _grade(behind, BEHIND_BLOCKS), f"{behind} blocks", _bounds(BEHIND_BLOCKS, "blocks"), another),
        graded(
            f"{label} clock",
            _grade(-age, AHEAD_SECONDS),
            f"chain {'ahead of' if age < 0 else 'not ahead of'} this machine: {-age} s",
            _bounds(AHEAD_SECONDS, "s ahead"),
            "Set this machine's clock (NTP).",
        ),
        graded(
            f"{label} finality",
            "warn" if None in facts.tags.values() else "ok",
            tags,
            "Without the tags the node counts blocks",
            another,
        ),
        _judge_logs(facts, another),
    ]  # fmt: skip


def _judge_logs(facts: EndpointFacts, next_step: str) -> Check:
    verdict: Verdict = "fail" if not facts.log_span else "ok" if facts.log_span >= SPAN else "warn"
    why = f"{SPAN} blocks in one eth_getLogs; the node asks for less where it must, more slowly"
    return graded(f"{facts.label} logs", verdict, f"{facts.log_span} blocks", why, next_step)


def _grade(value: float, bounds: tuple[int, int]) -> Verdict:
    return "ok" if value <= bounds[0] else "warn" if value <= bounds[1] else "fail"


def _bounds(bounds: tuple[int, int], unit: str) -> str:
    return f"at most {bounds[0]} {unit}; from {bounds[1]} on it fails"
