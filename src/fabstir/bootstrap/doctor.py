"""`fabstir doctor chain`, from the settings: endpoints, contracts, account. Sends nothing, changes nothing, needs no key.

A part that cannot be looked at is told as skipped, with the reason; the other parts are looked at all the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from fabstir.bootstrap.keys import key_file, read_key
from fabstir.bootstrap.parts import chain_info, circuit_to_prove, served_model
from fabstir.chain.checks import Check
from fabstir.chain.doctor_account import examine_account, examine_host
from fabstir.chain.doctor_contracts import examine_circuit, examine_contracts
from fabstir.chain.doctor_endpoints import examine_endpoints
from fabstir.chain.rpc import JsonRpc
from fabstir.domain.errors import FabstirError
from fabstir.domain.ids import Address
from fabstir.ops.clock import SystemClock
from fabstir.ops.config import Config, Role
from fabstir.ports.chain import ChainInfo
from fabstir.protocol.signing import SigningKey

Report = dict[str, list[Check]]
"""Part -> its checks."""


async def examine_chain(config: Config, role: Role, account: Address | None = None) -> Report:
    """All of it. `account`: looked at in the place of the role's key."""
    clock = SystemClock()
    info, missing = _contracts(config)
    rpc = JsonRpc(config.chain.rpc_urls, clock)
    try:
        endpoints = await examine_endpoints(rpc, config.chain.chain_id, info.market if info else None, clock)
        report = {"endpoints": endpoints.checks}
        if not endpoints.usable:
            reason = "no endpoint answers, or one serves another chain"
            return report | {part: [_skipped(part, reason)] for part in ("contracts", "account")}
        report["contracts"] = await _guarded("contracts", examine_contracts(rpc, info)) if info else [missing]
        report["account"] = await _account(config, role, account, rpc, info)
        return report
    finally:
        await rpc.close()


def _contracts(config: Config) -> tuple[ChainInfo | None, Check]:
    try:
        return chain_info(config), _skipped("contracts", "")
    except FabstirError as unknown:
        said = f"{unknown.code}: {unknown.detail}"
        return None, Check(name="contracts", verdict="fail", measured=said, next_step=unknown.next_step)


async def _account(
    config: Config, role: Role, account: Address | None, rpc: JsonRpc, info: ChainInfo | None
) -> list[Check]:
    if account is None:
        if not key_file(config, role).exists():
            return [_skipped("account", f"no key at {key_file(config, role)}; --account ADDRESS needs none")]
        try:
            account = SigningKey(await asyncio.to_thread(read_key, config, role)).address
        except FabstirError as closed:
            return [_skipped("account", f"{closed.code}: {closed.detail}; --account ADDRESS needs no key")]
    found = await _guarded("account", examine_account(rpc, account))
    if role == "host" and info is not None:
        found += await _guarded("host", _host(config, rpc, info, account))
        found += await _guarded("proofs", _proofs(config, rpc, info))
    return found


async def _host(config: Config, rpc: JsonRpc, info: ChainInfo, account: Address) -> list[Check]:
    return await examine_host(rpc, info, account, (await served_model(config)).model_id)


async def _proofs(config: Config, rpc: JsonRpc, info: ChainInfo) -> list[Check]:
    name = f"{config.proofs.backend}/{config.proofs.circuit}"
    return await examine_circuit(rpc, info, name, circuit_to_prove(config))


async def _guarded(name: str, examination: Coroutine[Any, Any, list[Check]]) -> list[Check]:
    """An examination that an error ends is one failed check."""
    try:
        return await examination
    except FabstirError as fault:
        said = f"{fault.code}: {fault.message} ({fault.detail})"
        return [Check(name=name, verdict="fail", measured=said, next_step=fault.next_step)]


def _skipped(name: str, reason: str) -> Check:
    return Check(name=name, verdict="skipped", measured=reason)
