"""A deployment from settings to address book: measure, check, send, look again, write down.

Where a check fails nothing is sent. The record is written before the first transaction, the address book after the last look.
Decides nothing: the plan is `fabstir.chain.deployment`, what is safe `fabstir.chain.checklist`.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import msgspec

from fabstir.bootstrap.keys import read_key_file
from fabstir.bootstrap.parts import address_book, deployed_circuit, deployed_spot, open_journal
from fabstir.chain import addresses, deployment_record
from fabstir.chain.account import ChainAccount
from fabstir.chain.checklist import Wishes, checklist
from fabstir.chain.checks import Check, failed
from fabstir.chain.deployer import Send, carry_out
from fabstir.chain.deployment import Parameters, Plan, plan, salt_of
from fabstir.chain.deployment_record import Record, record_of
from fabstir.chain.devnet import dev_key
from fabstir.chain.networks import Network
from fabstir.chain.outbox import Outbox, OutboxSettings
from fabstir.chain.rpc import JsonRpc
from fabstir.chain.survey import survey
from fabstir.domain.errors import error
from fabstir.domain.ids import Address, Hash32, from_hex
from fabstir.ops import paths
from fabstir.ops.clock import SystemClock
from fabstir.ops.config import Config
from fabstir.ports.journal import OutboxEntry, OutboxStore
from fabstir.protocol.signing import SigningKey

BUILDER: Final = "contracts/tools/build.py"
"""In a checkout; a package has artifacts and no sources."""

Progress = Callable[[str], None]


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What a person asks for."""

    network: Network
    owner: Address | None = None
    treasury: Address | None = None
    token: Address | None = None
    without_circuit: bool = False
    key_file: Path | None = None
    """None on the devnet: its first development key."""


class Prepared(msgspec.Struct, frozen=True, kw_only=True):
    """A plan and what speaks against it."""

    order: Order
    plan: Plan
    checks: tuple[Check, ...]
    left: tuple[str, ...]
    """Steps that are to be sent."""

    @property
    def refused(self) -> list[Check]:
        """Nothing is sent where there is one."""
        return failed(self.checks)


def default_key_file() -> Path:
    """The deployer's key, unless another is named."""
    return paths.config_dir() / "deployer.key"


def deployer_key(order: Order) -> bytes:
    """Raises LocalFault (`key_missing`, `key_invalid`). Takes about a second where it is encrypted."""
    if order.network.play_money and order.key_file is None:
        return dev_key(0, order.network.chain_id)
    path = order.key_file or default_key_file()
    if not path.exists():
        raise error(
            "key_missing",
            str(path),
            "Make the deployer's key as docs/how-to/deploy.md says, or name it with --key-file.",
        )
    return read_key_file(path, order.network.chain_id)


@asynccontextmanager
async def _endpoint(config: Config) -> AsyncIterator[JsonRpc]:
    rpc = JsonRpc(config.chain.rpc_urls, SystemClock())
    try:
        yield rpc
    finally:
        await rpc.close()


async def prepare(config: Config, order: Order, key: bytes, *, stale: Callable[[], str] | None = None) -> Prepared:
    """Measure and check; sends nothing. `stale` says which artifacts are not of their sources (default: `stale_artifacts`).

    Raises ChainFault (`chain_unreachable`), LocalFault.
    """
    current = await asyncio.to_thread(stale or stale_artifacts)
    async with _endpoint(config) as rpc:
        return await _prepare(config, order, rpc, SigningKey(key).address, current)


async def _prepare(config: Config, order: Order, rpc: JsonRpc, deployer: Address, stale: str) -> Prepared:
    begun = deployment_record.load(_record_file(order))
    wanted = _parameters(config, order, deployer)
    made = plan(wanted, await _salt(rpc, begun, deployer))
    found = await survey(rpc, made)
    wishes = Wishes(
        deployer=deployer,
        owner=order.owner,
        treasury=order.treasury,
        token=wanted.token,
        without_circuit=order.without_circuit,
        stale=stale,
    )
    checks = checklist(order.network, wishes, found, begun, record_of(order.network.name, made))
    return Prepared(order=order, plan=made, checks=checks, left=found.left)


def _parameters(config: Config, order: Order, deployer: Address) -> Parameters:
    """What was left out is the deployer's; the checklist refuses that where it matters."""
    network = order.network
    circuit = deployed_circuit(config) if network.play_money and not order.without_circuit else None
    return Parameters(
        chain_id=network.chain_id,
        deployer=deployer,
        owner=order.owner or deployer,
        treasury=order.treasury or deployer,
        token=order.token or network.usdc,
        circuit=circuit,
        spot=deployed_spot() if circuit is not None else None,
    )


async def _salt(rpc: JsonRpc, begun: Record | None, deployer: Address) -> Hash32:
    if begun is not None and not begun.finished:
        return Hash32(from_hex(begun.salt, 32))
    return salt_of(await ChainAccount(rpc, deployer).next_nonce())


async def deploy(config: Config, prepared: Prepared, key: bytes, progress: Progress) -> Record:
    """Carry out what was prepared. Raises LocalFault (`deployment_refused`), ChainFault; called again it goes on where it stopped."""
    refused = prepared.refused
    if refused:
        told = "; ".join(f"{check.name}: {check.measured}. {check.next_step}" for check in refused)
        raise error("deployment_refused", told)
    file, name = _record_file(prepared.order), prepared.order.network.name
    deployment_record.save(file, record_of(name, prepared.plan))
    async with _endpoint(config) as rpc:
        async with _sender(config, prepared.order, rpc, SigningKey(key)) as send:
            await carry_out(rpc, prepared.plan, send, progress)
        left = (await survey(rpc, prepared.plan)).left
        if left:
            raise error("chain_failed", f"not there any more: {', '.join(left)}", "Run the same command again.")
    addresses.save(address_book(), prepared.plan.info)
    finished = record_of(name, prepared.plan, finished=True)
    deployment_record.save(file, finished)
    return finished


def _record_file(order: Order) -> Path:
    return deployment_record.file_of(address_book(), order.network.name)


@asynccontextmanager
async def _sender(config: Config, order: Order, rpc: JsonRpc, key: SigningKey) -> AsyncIterator[Send]:
    """The outbox: each transaction is stored before it is sent, its fee is bumped and bounded. A devnet may be another one the next
    time under the same id, so its outbox is forgotten with the process.
    """
    chain_id, settings = order.network.chain_id, OutboxSettings(max_fee=config.chain.max_fee_gwei * 10**9)
    journal = (
        None
        if order.network.play_money
        else open_journal(paths.data_dir() / f"deployer-{order.network.name}", chain_id)
    )
    store: OutboxStore = journal or _Forgetful()
    outbox = Outbox(rpc, store, key, SystemClock(), chain_id=chain_id, scope=f"{chain_id}:", settings=settings)
    try:
        await outbox.reconcile()
        yield outbox.send
    finally:
        await outbox.close()
        if journal is not None:
            await journal.close()


class _Forgetful:
    """Entries of one process."""

    def __init__(self) -> None:
        self._entries: dict[str, OutboxEntry] = {}

    async def put(self, entry: OutboxEntry) -> None:
        """Replaces what is there under the key."""
        self._entries[entry.key] = entry

    async def get(self, key: str) -> OutboxEntry | None:
        """None where it was never put."""
        return self._entries.get(key)

    async def unfinished(self) -> list[OutboxEntry]:
        """A process begins with none."""
        return []


def stale_artifacts() -> str:
    """What the builder says of artifacts that are not of the sources in this checkout; empty where all are, and in a package."""
    root = Path(__file__).resolve().parents[3]
    if not (root / BUILDER).is_file():
        return ""
    done = subprocess.run(
        [sys.executable, str(root / BUILDER), "--check", "--sources"], capture_output=True, text=True, check=False
    )
    return "" if done.returncode == 0 else " ".join(done.stderr.split())
