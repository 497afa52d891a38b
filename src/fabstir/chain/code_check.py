"""Whether what stands at an address is the contract that this package was built with.

Compares the runtime code byte by byte with the artifact, leaving out the places of immutables, which the constructor
fills. A contract behind a proxy does not pass: this package's contracts have none. Decides nothing about addresses.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from fabstir.chain import artifacts
from fabstir.chain.artifacts import Artifact
from fabstir.chain.faults import translate
from fabstir.chain.rpc import JsonRpc, RpcError
from fabstir.domain.errors import error
from fabstir.domain.ids import Address, to_hex


def is_code_of(artifact: Artifact, code: bytes) -> bool:
    """Whether `code` is the artifact's, whatever its immutables are."""
    return _masked(artifact, code) == _masked(artifact, artifact.deployed_bytecode)


def _masked(artifact: Artifact, code: bytes) -> bytes:
    masked = bytearray(code)
    for start, length in artifact.immutables:
        masked[start : start + length] = bytes(min(length, max(0, len(code) - start)))
    return bytes(masked)


async def check_code(rpc: JsonRpc, chain_id: int, ours: Mapping[str, Address], others: Mapping[str, Address]) -> None:
    """Raises `chain_mismatch` where an address holds no code, `contract_mismatch` where one of `ours` holds other code than the
    artifact of its name. Contracts of `others`, a token say, only have to be there."""
    places = {**ours, **others}
    codes = dict(zip(places, await asyncio.gather(*(_code(rpc, place) for place in places.values())), strict=True))
    missing = [f"{name} at {to_hex(places[name])}" for name, code in codes.items() if not code]
    if missing:
        raise error("chain_mismatch", detail=f"no code on chain {chain_id}: {', '.join(missing)}")
    foreign = [
        f"{name} at {to_hex(place)}"
        for name, place in ours.items()
        if not is_code_of(artifacts.load(name), codes[name])
    ]
    if foreign:
        raise error("contract_mismatch", detail=f"on chain {chain_id}: {', '.join(foreign)}")


async def _code(rpc: JsonRpc, place: Address) -> bytes:
    try:
        answer: Any = await rpc.request("eth_getCode", to_hex(place), "latest")
    except RpcError as fault:
        raise translate(fault) from fault
    return bytes.fromhex(answer[2:])
