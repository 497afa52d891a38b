"""The address book: where the contracts are, by chain id, in one JSON file that people may read and edit.

`{"31337": {"network": "devnet", "market": "0x...", "registry": "0x...", "models": "0x...", ...}}`; the network's name is for people
and may be missing. Only reads and writes; whether code is at the addresses is checked on connecting (`market`).
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Final

import msgspec

from fabstir.chain.networks import network_of
from fabstir.domain.errors import error
from fabstir.domain.ids import address, to_hex
from fabstir.ports.chain import ChainInfo


class _Entry(msgspec.Struct, forbid_unknown_fields=True):
    market: str
    registry: str
    models: str
    proofs: str
    usdc: str
    stakes: str
    board: str
    delegation: str
    epochs: str
    network: str | None = None


_Book = dict[str, _Entry]
_OLD_BOOK: Final = "Move the file away and start `fabstir devnet` again; on another chain, add the addresses of this version's contracts."
"""A book of earlier contracts is not completed: what it names does not fit what is missing."""


def load(path: Path, chain_id: int) -> ChainInfo | None:
    """The contracts of that chain; None where file or entry is missing. Raises `config_invalid` on a file that cannot be read."""
    entry = _read(path).get(str(chain_id))
    if entry is None:
        return None
    try:
        return ChainInfo(
            chain_id=chain_id,
            market=address(entry.market),
            registry=address(entry.registry),
            models=address(entry.models),
            proofs=address(entry.proofs),
            usdc=address(entry.usdc),
            stakes=address(entry.stakes),
            board=address(entry.board),
            delegation=address(entry.delegation),
            epochs=address(entry.epochs),
        )
    except ValueError as cause:
        raise error("config_invalid", detail=f"{path}, chain {chain_id}: {cause}") from cause


def save(path: Path, info: ChainInfo) -> None:
    """Set the entry of `info.chain_id`, keep the others; readers see the old file or the new one, never a part."""
    book = _read(path)
    book[str(info.chain_id)] = _Entry(
        market=to_hex(info.market),
        registry=to_hex(info.registry),
        models=to_hex(info.models),
        proofs=to_hex(info.proofs),
        usdc=to_hex(info.usdc),
        stakes=to_hex(info.stakes),
        board=to_hex(info.board),
        delegation=to_hex(info.delegation),
        epochs=to_hex(info.epochs),
        network=known.name if (known := network_of(info.chain_id)) else None,
    )
    replace_file(path, msgspec.json.format(msgspec.json.encode(book), indent=2) + b"\n")


def _read(path: Path) -> _Book:
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Book)
    except FileNotFoundError:
        return {}
    except msgspec.ValidationError as cause:
        raise error("config_invalid", f"{path}: {cause}", _OLD_BOOK) from cause
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as cause:
        raise error("config_invalid", detail=f"{path}: {cause}") from cause


def replace_file(path: Path, content: bytes) -> None:
    """Write the file whole; readers see the old one or the new one. Raises `config_invalid` where that cannot be done."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.name)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except OSError as cause:
        raise error("config_invalid", detail=f"{path}: {cause}") from cause
