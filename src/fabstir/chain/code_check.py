"""Whether what stands at an address is the compiled contract: its runtime code, byte by byte, without the immutables.

The compiler leaves zeros where a constructor writes immutables, and says where. What is written there is not looked at here;
whoever deployed or examines a contract reads it back through its getters (`deployer`, `doctor`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from fabstir.chain.artifacts import Artifact, load
from fabstir.chain.calls import ask
from fabstir.chain.rpc import JsonRpc
from fabstir.domain.errors import error
from fabstir.domain.ids import Address, to_hex


def same_code(artifact: Artifact, code: bytes) -> bool:
    """Equal everywhere but at immutables."""
    return len(code) == len(artifact.deployed_bytecode) and _masked(artifact, code) == _masked(
        artifact, artifact.deployed_bytecode
    )


def difference(artifact: Artifact, code: bytes) -> str:
    """What is wrong, for a person; empty where nothing is."""
    wanted = artifact.deployed_bytecode
    if same_code(artifact, code):
        return ""
    if not code:
        return "no code"
    if len(code) != len(wanted):
        return f"{len(code)} bytes of code, the artifact has {len(wanted)}"
    ours, theirs = _masked(artifact, wanted), _masked(artifact, code)
    first = next(i for i, (a, b) in enumerate(zip(ours, theirs, strict=True)) if a != b)
    return f"differs from the artifact at byte {first}"


async def code_at(rpc: JsonRpc, place: Address) -> bytes:
    """Runtime code in the newest block; empty where there is none. Raises ChainFault."""
    return bytes.fromhex((await ask(rpc, "eth_getCode", to_hex(place), "latest"))[2:])


async def examine_code(rpc: JsonRpc, contract: str, place: Address) -> str:
    """`difference` between the artifact of `contract` and what stands at `place`. Raises ChainFault."""
    return difference(load(contract), await code_at(rpc, place))


async def check_code(rpc: JsonRpc, chain_id: int, ours: Mapping[str, Address], others: Mapping[str, Address]) -> None:
    """Raises `chain_mismatch` where an address holds no code, `contract_mismatch` where one of `ours` holds other code than the
    artifact of its name. Contracts of `others`, a token say, only have to be there."""
    places = {**ours, **others}
    codes = dict(zip(places, await asyncio.gather(*(code_at(rpc, place) for place in places.values())), strict=True))
    missing = [f"{name} at {to_hex(places[name])}" for name, code in codes.items() if not code]
    if missing:
        raise error("chain_mismatch", detail=f"no code on chain {chain_id}: {', '.join(missing)}")
    foreign = [f"{name} at {to_hex(place)}" for name, place in ours.items() if not same_code(load(name), codes[name])]
    if foreign:
        raise error("contract_mismatch", detail=f"on chain {chain_id}: {', '.join(foreign)}")


def _masked(artifact: Artifact, code: bytes) -> bytes:
    text = bytearray(code)
    for start, length in artifact.immutables:
        text[start : start + length] = bytes(length)
    return bytes(text)
