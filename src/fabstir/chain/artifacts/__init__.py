"""The compiled contracts, one JSON file each: {abi, bytecode, deployedBytecode, immutables, storageLayout,
solcVersion, sourceHash}.

Written by contracts/tools/build.py, checked for being current, shipped in the package: a user needs no compiler and no
Node. Most code wants `fabstir.chain.bindings`; this is for deployment and for comparing what stands on a chain.
"""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from typing import Any

import msgspec

from fabstir.domain.errors import error


class Artifact(msgspec.Struct, frozen=True):
    """One compiled contract."""

    name: str
    abi: list[dict[str, Any]]
    bytecode: bytes
    """Creation code, without constructor arguments."""
    deployed_bytecode: bytes
    """Runtime code with zeros where immutables go."""
    immutables: tuple[tuple[int, int], ...]
    """(start, length) of each place in the runtime code that the constructor fills."""
    source_hash: str


@cache
def load(name: str) -> Artifact:
    """The artifact of contract `name`. Raises LocalFault (`config_invalid`) where there is none."""
    file = resources.files(__name__).joinpath(f"{name}.json")
    if not file.is_file():
        raise error("config_invalid", detail=f"there is no contract called {name} in this package")
    raw = json.loads(file.read_text("utf-8"))
    return Artifact(
        name=name,
        abi=raw["abi"],
        bytecode=bytes.fromhex(raw["bytecode"].removeprefix("0x")),
        deployed_bytecode=bytes.fromhex(raw["deployedBytecode"].removeprefix("0x")),
        immutables=tuple((start, length) for start, length in raw["immutables"]),
        source_hash=raw["sourceHash"],
    )
