"""What the host of the settings can still collect: its journal, read beside it, and the chain. No key, no lock; sends nothing."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import msgspec

from fabstir.bootstrap.parts import chain_info
from fabstir.chain import bindings
from fabstir.chain.calls import ask
from fabstir.chain.conversion import job_state
from fabstir.chain.rpc import JsonRpc, quantity
from fabstir.domain.errors import error
from fabstir.domain.ids import ZERO_ADDRESS, Address, to_hex
from fabstir.domain.money import BaseUnits
from fabstir.domain.terms import JobState
from fabstir.host.jobs import STREAM_PREFIX
from fabstir.ops.clock import SystemClock
from fabstir.ops.config import Config
from fabstir.ports.chain import ChainInfo
from fabstir.protocol.claims import Claim, claims_of
from fabstir.protocol.host_log import HostLedger, decode_event
from fabstir.storage.journal import JOURNAL_FILE
from fabstir.storage.reader import JournalReader

T = TypeVar("T")


class Outstanding(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that is to be had, as of block time `now`."""

    now: int
    claims: tuple[Claim, ...]
    withdrawable: tuple[tuple[Address, BaseUnits], ...]
    """(token, what `withdraw` pays) of the host's account."""
    unstaking: BaseUnits
    stake_available_at: int
    """Unix seconds from which `unstaking` can leave, locks included; 0 where nothing is asked back."""


async def read_claims(config: Config) -> Outstanding:
    """Raises LocalFault (`journal_missing`, `journal_unreadable`), ChainFault."""
    info = chain_info(config)
    ledgers = await asyncio.to_thread(open_ledgers, config.host.data_dir, info)
    rpc = JsonRpc(config.chain.rpc_urls, SystemClock())
    try:
        now = quantity((await ask(rpc, "eth_getBlockByNumber", "latest", False))["timestamp"])
        claims: list[Claim] = []
        for ledger in ledgers:
            claims += claims_of(ledger, await _job(rpc, info, ledger), now)
        hosts = {ledger.terms.host for ledger in ledgers}
        unstaking, available_at = await _stake(rpc, info, hosts)
        tokens = {info.usdc, ZERO_ADDRESS, *(ledger.terms.token for ledger in ledgers)}
        return Outstanding(
            now=now,
            claims=tuple(claims),
            withdrawable=tuple(
                [(token, amount) for token in sorted(tokens) if (amount := await _earnings(rpc, info, hosts, token))]
            ),
            unstaking=unstaking,
            stake_available_at=available_at,
        )
    finally:
        await rpc.close()


def open_ledgers(data_dir: Path, info: ChainInfo) -> list[HostLedger]:
    """Jobs of this market that the journal does not say are over. Raises as `read_claims`."""
    found = []
    with JournalReader(data_dir / JOURNAL_FILE) as journal:
        for stream in journal.streams():
            if not stream.startswith(STREAM_PREFIX):
                continue
            try:
                with contextlib.closing(journal.events(stream)) as events:
                    ledger = HostLedger.replay([decode_event(event) for event in events])
            except (msgspec.MsgspecError, ValueError) as unreadable:
                raise error("journal_unreadable", f"{journal.path}, {stream}: {unreadable}") from unreadable
            where = (ledger.market.chain_id, ledger.market.address)
            if ledger.closed is None and where == (info.chain_id, info.market):
                found.append(ledger)
    return found


async def _job(rpc: JsonRpc, info: ChainInfo, ledger: HostLedger) -> JobState:
    market = bindings.JobMarketplace
    return job_state(await _call(rpc, info.market, market.encode_jobs(ledger.job), market.decode_jobs))


async def _earnings(rpc: JsonRpc, info: ChainInfo, hosts: set[Address], token: Address) -> BaseUnits:
    market = bindings.JobMarketplace
    calls = [_call(rpc, info.market, market.encode_earnings(host, token), market.decode_earnings) for host in hosts]
    return BaseUnits(sum(await asyncio.gather(*calls)))


async def _stake(rpc: JsonRpc, info: ChainInfo, hosts: set[Address]) -> tuple[BaseUnits, int]:
    stake, amount, available_at = bindings.HostStake, 0, 0
    for host in hosts:
        found = await _call(rpc, info.stakes, stake.encode_stake_of(host), stake.decode_stake_of)
        amount += found.unstaking
        if found.unstaking:
            available_at = max(available_at, found.available_at, found.locked_until + 1)
    return BaseUnits(amount), available_at


async def _call(rpc: JsonRpc, to: Address, data: bytes, decode: Callable[[bytes], T]) -> T:
    answer = await ask(rpc, "eth_call", {"to": to_hex(to), "data": to_hex(data)}, "latest")
    return decode(bytes.fromhex(answer[2:]))
