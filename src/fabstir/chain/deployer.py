"""Carries out a deployment plan, step by step: looks, sends what is missing, looks again.

Asks the chain and not its memory what is done, so it can be begun again at any point. Believes a contract only where its code is
the artifact's and every constructor argument reads back. What sends (the outbox, or the devnet's operator) is given by its caller.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from fabstir.chain.artifacts import load
from fabstir.chain.calls import ask
from fabstir.chain.code_check import code_at, difference
from fabstir.chain.deployment import Create, Plan, Probe, Step
from fabstir.chain.rpc import JsonRpc
from fabstir.domain.errors import error
from fabstir.domain.ids import Address, to_hex

LOOKS: Final = 20
"""How often a mined step is looked for: an endpoint may be a few blocks behind the one that gave the receipt."""
LOOK_PAUSE: Final = 0.5

Send = Callable[[str, Address, bytes], Awaitable[object]]
"""(name of the intent, to, data); returns when mined, raises ChainFault."""
Progress = Callable[[str], None]


async def carry_out(rpc: JsonRpc, plan: Plan, send: Send, progress: Progress) -> None:
    """All steps that are not done. Raises ChainFault; what was done stays, and the next call goes on."""
    for step in plan.steps:
        if await is_done(rpc, step):
            continue
        await send(f"deploy:{to_hex(plan.salt)[2:10]}:{to_hex(plan.info.market)[2:10]}:{step.name}", step.to, step.data)
        await see_done(rpc, step)
        progress(f"{step.name} is at {to_hex(step.address)}" if isinstance(step, Create) else f"{step.name} is done")


async def is_done(rpc: JsonRpc, step: Step) -> bool:
    """Whether the step needs no transaction. Raises ChainFault (`chain_mismatch`) where something else stands at its address."""
    if isinstance(step, Create):
        code = await code_at(rpc, step.address)
        if not code:
            return False
        wrong = difference(load(step.name), code) or ", ".join(await unmet(rpc, step.probes))
        if wrong:
            raise error("chain_mismatch", f"{step.name} at {to_hex(step.address)}: {wrong}")
        return True
    return len(await unmet(rpc, step.probes)) < len(step.probes)


async def unmet(rpc: JsonRpc, probes: tuple[Probe, ...]) -> list[str]:
    """What reads back otherwise than it should, in words."""
    wrong = []
    for probe in probes:
        answer = await read(rpc, probe.to, probe.data)
        if not probe.holds(answer):
            wanted = "anything but zero" if probe.word is None else to_hex(probe.word)
            wrong.append(f"{probe.what} is {to_hex(answer[:32])}, wanted {wanted}")
    return wrong


async def read(rpc: JsonRpc, to: Address, data: bytes) -> bytes:
    """One eth_call on the newest block. Raises ChainFault."""
    return bytes.fromhex((await ask(rpc, "eth_call", {"to": to_hex(to), "data": to_hex(data)}, "latest"))[2:])


async def see_done(rpc: JsonRpc, step: Step) -> None:
    """Wait until a mined step can be seen. Raises ChainFault."""
    for look in range(LOOKS):
        if await is_done(rpc, step):
            return
        if look + 1 < LOOKS:
            await asyncio.sleep(LOOK_PAUSE)
    raise error("chain_failed", f"{step.name} was mined, and its effect cannot be seen", "Run the same command again.")
