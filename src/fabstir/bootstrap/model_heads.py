"""Commitments to the model in a weights file, and their way into the registry.

Committing needs no chain and no key: the file, the prover process, and a folder in the cache that lets it go on where it stopped.
Proposing is a transaction of one account, with its journal, so that the account has one outbox.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import msgspec

from fabstir.bootstrap.parts import deployed_spot
from fabstir.bootstrap.staking import host_chain
from fabstir.chain import bindings
from fabstir.chain.conversion import approve_model
from fabstir.chain.market import MarketClient
from fabstir.domain.errors import error
from fabstir.domain.ids import Hash32
from fabstir.models.head import PACKAGED, CommittedHead, HeadRows, commit_head, points_file, stored_head
from fabstir.models.identity import identify
from fabstir.ops import paths
from fabstir.ops.config import Config
from fabstir.proofs.process import EzklProver
from fabstir.proofs.spot_prover import SpotProver
from fabstir.protocol.model_identity import NO_HEAD, HeadCommitment, ModelIdentity

PROPOSED: Final = 1
"""`ModelRegistry.Status`."""

Progress = Callable[[int, int], None]
"""(rows done, rows)."""


class ModelCommitment(msgspec.Struct, frozen=True, kw_only=True):
    """What the registry gets to know about one file."""

    identity: ModelIdentity
    head: HeadCommitment = NO_HEAD


class Registration(msgspec.Struct, frozen=True, kw_only=True):
    """What became of it."""

    model: ModelCommitment
    status: str
    """`proposed`, `approved`, or what it was before."""
    registry: bytes
    owner_call: bytes
    """What the registry's owner sends to approve exactly this; empty where it is done."""


async def commit_model(
    config: Config, file: Path, repository: str, progress: Progress, *, head: bool = True
) -> ModelCommitment:
    """Read, hash, and commit every row of the head. Raises LocalFault (`model_invalid`, `srs_development_only`, `prover_unavailable`)."""
    identity = await asyncio.to_thread(identify, file, repository)
    if not head:
        return ModelCommitment(identity=identity)
    async with _spot_prover(config) as prover:
        made = await committed_head(prover, file, identity, progress)
        return ModelCommitment(identity=identity, head=made.commitment)


async def committed_head(
    prover: SpotProver, file: Path, identity: ModelIdentity, progress: Progress = lambda _done, _rows: None
) -> CommittedHead:
    """The head of a file with its tree, as far as it was not committed yet. Raises LocalFault."""
    rows = await asyncio.to_thread(HeadRows, file)
    known = await asyncio.to_thread(stored_head, rows, _points_files(identity, prover.circuit_id))
    if known is not None:
        progress(rows.count, rows.count)
        return known
    _, points = _points_files(identity, prover.circuit_id)
    return await commit_head(rows, points, prover.points, lambda done: progress(done, rows.count))


async def known_head(file: Path, identity: ModelIdentity) -> CommittedHead | None:
    """The head of a file whose rows were all committed before, by the package or by `fabstir model commit` here; else None. Raises
    LocalFault (`model_invalid`) where its head is none for `spot`."""
    rows = await asyncio.to_thread(HeadRows, file)
    return await asyncio.to_thread(stored_head, rows, _points_files(identity, deployed_spot()))


def _points_files(identity: ModelIdentity, circuit: Hash32) -> tuple[Path, Path]:
    """Where the points may be: in the package, in the cache."""
    folders = (PACKAGED, paths.cache_dir() / "heads")
    packaged, cached = (points_file(folder, identity.sha256, circuit) for folder in folders)
    return packaged, cached


async def register_model(config: Config, model: ModelCommitment, *, approve: bool) -> Registration:
    """Propose from the host's account what is not known yet; `approve`: as the registry's owner. Raises LocalFault, ChainFault."""
    async with host_chain(config) as chain:
        return await _register(chain, model, approve=approve)


async def _register(chain: MarketClient, model: ModelCommitment, *, approve: bool) -> Registration:
    model_id = model.identity.model_id
    known = await chain.registered_model(model_id)
    if known is None or (known.status == PROPOSED and not same_head(known.head, model.head)):
        intent = f"propose-model:{model_id.hex()}:{model.head.root.hex()[:16]}"
        await chain.propose_model(intent, model.identity, model.head)
    elif known.status != PROPOSED and not same_head(known.head, model.head):
        raise error("model_invalid", f"0x{model_id.hex()} is registered with another head than this file has")
    if approve and (known is None or known.status == PROPOSED):
        await chain.approve_model(f"approve-model:{model_id.hex()}", model_id, model.head)
    after = await chain.registered_model(model_id)
    status = ("unknown", "proposed", "approved", "deprecated")[0 if after is None else after.status]
    call = b"" if status != "proposed" else approve_model(model_id, model.head)
    return Registration(model=model, status=status, registry=bytes(chain.info.models), owner_call=call)


def same_head(known: bindings.Head, head: HeadCommitment) -> bool:
    """Whether the registry's is this one."""
    return (known.root, known.rows, known.width, known.scale) == (head.root, head.rows, head.width, head.scale)


@asynccontextmanager
async def _spot_prover(config: Config) -> AsyncIterator[SpotProver]:
    prover = EzklProver(chain_id=config.chain.chain_id, cache=paths.cache_dir())
    spot = SpotProver(prover, chain_id=config.chain.chain_id)
    await prover.start()
    try:
        yield spot
    finally:
        await prover.stop()
