"""What the host of the settings can still collect: its journal, read beside it, and the chain. No key, no lock; sends nothing."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

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
from fabstir.host.settings import settlement_rules
from fabstir.ops.clock import SystemClock
from fabstir.ops.config import Config
from fabstir.ports.chain import ChainInfo
from fabstir.protocol.claims import Claim, TailAbove, claims_of
from fabstir.protocol.host_log import HostLedger, decode_event
from fabstir.storage.journal import JOURNAL_FILE
from fabstir.storage.reader import JournalReader

T = TypeVar("T")
AT_ONCE: Final = 16
"""Questions that an endpoint is asked at a time."""


class Outstanding(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that is to be had, as of block time `now`."""

    now: int
    claims: tuple[Claim, ...]
    withdrawable: tuple[tuple[Address, BaseUnits], ...]
    """(token, what `withdraw` pays) of the host's account."""
    unstaking: BaseUnits
    stake_available_at: int
    """Unix seconds from which `unstaking` can leave, locks included; 0 where nothing is asked back."""
    elsewhere: int
    """Open jobs in the journal that are of another chain or market than the settings name."""


class Found(msgspec.Struct, frozen=True):
    """What the journal says."""

    open: tuple[HostLedger, ...]
    """Jobs of this market that are not over."""
    hosts: frozenset[Address]
    """Accounts that served in this market, for jobs that are over too: what they earned may still be there."""
    tokens: frozenset[Address]
    elsewhere: int


async def read_claims(config: Config) -> Outstanding:
    """Raises LocalFault (`journal_missing`, `journal_unreadable`), ChainFault."""
    info = chain_info(config)
    found = await asyncio.to_thread(read_journal, config.host.data_dir, info)
    rpc = JsonRpc(config.chain.rpc_urls, SystemClock())
    try:
        served = quantity(await ask(rpc, "eth_chainId"))
        if served != info.chain_id:
            raise error("chain_mismatch", f"wanted chain {info.chain_id}, the endpoint serves {served}")
        now = quantity((await ask(rpc, "eth_getBlockByNumber", "latest", False))["timestamp"])
        stakes = [await _stake(rpc, info, host) for host in sorted(found.hosts)]
        return Outstanding(
            now=now,
            claims=await _claims(rpc, info, found, now, settlement_rules(config).tail_above),
            withdrawable=await _withdrawable(rpc, info, found),
            unstaking=BaseUnits(sum(stake.unstaking for stake in stakes)),
            stake_available_at=max((_leaves_at(stake) for stake in stakes if stake.unstaking), default=0),
            elsewhere=found.elsewhere,
        )
    finally:
        await rpc.close()


def read_journal(data_dir: Path, info: ChainInfo) -> Found:
    """One job at a time, oldest first; only those that are not over stay in memory. Raises as `read_claims`."""
    ledgers: list[HostLedger] = []
    hosts: set[Address] = set()
    tokens = {info.usdc, ZERO_ADDRESS}
    elsewhere = 0
    with JournalReader(data_dir / JOURNAL_FILE) as journal:
        for stream in journal.streams():
            if not stream.startswith(STREAM_PREFIX):
                continue
            ledger = _ledger(journal, stream)
            if (ledger.market.chain_id, ledger.market.address) != (info.chain_id, info.market):
                elsewhere += ledger.closed is None
                continue
            hosts.add(ledger.terms.host)
            tokens.add(ledger.terms.token)
            if ledger.closed is None:
                ledgers.append(ledger)
    return Found(tuple(ledgers), frozenset(hosts), frozenset(tokens), elsewhere)


def _ledger(journal: JournalReader, stream: str) -> HostLedger:
    try:
        with contextlib.closing(journal.events(stream)) as events:
            return HostLedger.replay([decode_event(event) for event in events])
    except (msgspec.MsgspecError, ValueError) as unreadable:
        raise error("journal_unreadable", f"{journal.path}, {stream}: {unreadable}") from unreadable


async def _claims(rpc: JsonRpc, info: ChainInfo, found: Found, now: int, tail_above: TailAbove) -> tuple[Claim, ...]:
    stake = bindings.HostStake
    slash = await _call(rpc, info.stakes, stake.encode_slash_amount(), stake.decode_slash_amount)
    rows: list[Claim] = []
    staked = {host: (await _stake(rpc, info, host)).staked >= slash for host in found.hosts}
    for at in range(0, len(found.open), AT_ONCE):
        ledgers = found.open[at : at + AT_ONCE]
        states = await asyncio.gather(*(_job(rpc, info, ledger) for ledger in ledgers))
        for ledger, state in zip(ledgers, states, strict=True):
            terms = ledger.terms
            rows += claims_of(ledger, state, now, tail_above=tail_above(terms.token), staked=staked[terms.host])
    return tuple(rows)


async def _withdrawable(rpc: JsonRpc, info: ChainInfo, found: Found) -> tuple[tuple[Address, BaseUnits], ...]:
    amounts = [(token, await _earnings(rpc, info, found.hosts, token)) for token in sorted(found.tokens)]
    return tuple((token, amount) for token, amount in amounts if amount)


async def _job(rpc: JsonRpc, info: ChainInfo, ledger: HostLedger) -> JobState:
    market = bindings.JobMarketplace
    return job_state(await _call(rpc, info.market, market.encode_jobs(ledger.job), market.decode_jobs))


async def _earnings(rpc: JsonRpc, info: ChainInfo, hosts: frozenset[Address], token: Address) -> BaseUnits:
    market = bindings.JobMarketplace
    calls = [_call(rpc, info.market, market.encode_earnings(host, token), market.decode_earnings) for host in hosts]
    return BaseUnits(sum(await asyncio.gather(*calls)))


async def _stake(rpc: JsonRpc, info: ChainInfo, host: Address) -> bindings.StakeOfResult:
    stake = bindings.HostStake
    return await _call(rpc, info.stakes, stake.encode_stake_of(host), stake.decode_stake_of)


def _leaves_at(stake: bindings.StakeOfResult) -> int:
    return max(stake.available_at, stake.locked_until + 1)


async def _call(rpc: JsonRpc, to: Address, data: bytes, decode: Callable[[bytes], T]) -> T:
    answer = await ask(rpc, "eth_call", {"to": to_hex(to), "data": to_hex(data)}, "latest")
    return decode(bytes.fromhex(answer[2:]))
