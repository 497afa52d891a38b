"""Disputes by hand, from the settings: the events of the market read, and one call sent with the journal of the role's account.

An arbiter whose `arbiter.panel` is set acts for that panel where the terms name it: its ruling is a vote.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import msgspec

from fabstir.bootstrap.keys import key_file, read_key
from fabstir.bootstrap.parts import chain_info, connect_chain, open_journal
from fabstir.bootstrap.staking import refuse_waiting
from fabstir.chain.claim_history import claim_history
from fabstir.chain.keys import held
from fabstir.chain.market import MarketClient
from fabstir.chain.rpc import JsonRpc
from fabstir.domain.errors import FabstirError, error
from fabstir.domain.ids import ZERO_ADDRESS, ZERO_HASH, Address, Hash32, JobId, address
from fabstir.domain.terms import ClaimStage, JobState, Terms
from fabstir.ops.clock import SystemClock
from fabstir.ops.config import Config, Role
from fabstir.ports.chain import TxResult
from fabstir.ports.journal import OutboxStore
from fabstir.protocol.dispute_view import Act, History, Row, concerning, find, fold, refusal, row_of, rows
from fabstir.protocol.panel import Panel, Vote
from fabstir.protocol.signing import job_id

LAST_BLOCKS: Final = 302_400
"""A week of Base: three stages of a day and what comes before them."""
AT_ONCE: Final = 16
"""Questions that an endpoint is asked at a time."""
_ID_BYTES: Final = 8


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """Undecided claims, as of block time `now`."""

    account: Address
    now: int
    since_block: int
    rows: tuple[Row, ...]
    without_terms: int
    """Jobs with a claim that were opened before `since_block`: whom they name is not known."""
    panel: Panel | None = None
    """That the account acts for."""


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """What was sent."""

    row: Row
    """The claim as it was before."""
    sent: TxResult
    vote: Vote | None = None
    """Where the account acted for its panel."""


async def look(config: Config, role: Role, since: int | None, store: OutboxStore) -> Found:
    """Claims that name the role's account. Also while a host or a gateway runs; `store` refuses to be filled."""
    async with _reader(config, role, store) as chain:
        start, told = await _history(config, chain, since)
        panel = await _panel(config, role, chain)
        jobs = concerning(told, chain.account, panel)
        states: dict[JobId, JobState] = {}
        for at in range(0, len(jobs), AT_ONCE):
            part = jobs[at : at + AT_ONCE]
            states |= dict(zip(part, await asyncio.gather(*map(chain.job, part)), strict=True))
        return Found(
            account=chain.account,
            now=await chain.timestamp(),
            since_block=start,
            rows=tuple([await _with_votes(chain, row, panel) for row in rows(told, states)]),
            without_terms=told.without_terms,
            panel=panel,
        )


async def look_at(config: Config, role: Role, since: int | None, job: str, store: OutboxStore) -> Found:
    """One job's claim, whoever its parties are; no row where none is undecided. Raises Refused (`dispute_unknown`)."""
    async with _reader(config, role, store) as chain:
        start, told = await _history(config, chain, since)
        panel = await _panel(config, role, chain)
        row = await _row(chain, told.terms[find(told, job)], panel)
        return Found(
            account=chain.account,
            now=await chain.timestamp(),
            since_block=start,
            rows=(row,) if row else (),
            without_terms=told.without_terms,
            panel=panel,
        )


async def act(
    config: Config,
    role: Role,
    since: int | None,
    job: str,
    what: Act,
    *,
    for_host: bool = False,
    evidence: Hash32 | None = None,
) -> Done:
    """Do it, once nothing stands against it. What an earlier process left is finished first. `evidence` goes with a vote only.

    Raises Refused (`dispute_*`), LocalFault (`journal_locked` while a host or a gateway runs), ChainFault.
    """
    async with sender(config, role) as chain:
        _, told = await _history(config, chain, since)
        panel = await _panel(config, role, chain) if what is Act.RULE else None
        row = await _row(chain, told.terms[find(told, job)], panel)
        refused = refusal(what, row, chain.account, await chain.timestamp(), panel)
        if refused is not None or row is None:
            raise refused or error("dispute_stage")
        key = intent(f"dispute:{what}")
        if what is Act.RULE:
            return await _rule(chain, key, row, panel, for_host, evidence)
        if what is Act.SETTLE:
            return Done(row=row, sent=await chain.settle_claim(key, row.terms))
        return Done(row=row, sent=await _raise(chain, key, row.terms))


async def _rule(
    chain: MarketClient, key: str, row: Row, panel: Panel | None, for_host: bool, evidence: Hash32 | None
) -> Done:
    """By a vote where the terms name the panel, else as the arbiter itself."""
    if panel is not None and row.terms.arbiter == panel.address:
        sent, vote = await chain.vote(key, panel.address, row.terms, for_host, evidence or ZERO_HASH)
        return Done(row=row, sent=sent, vote=vote)
    if evidence is not None:
        detail = "evidence goes with a vote, and the terms name the account itself"
        raise error("request_invalid", detail, "Leave it out.")
    return Done(row=row, sent=await chain.rule(key, row.terms, for_host))


def intent(what: str) -> str:
    """A name in the outbox that nothing had before."""
    return f"{what}:{secrets.token_hex(_ID_BYTES)}"


async def _raise(chain: MarketClient, key: str, terms: Terms) -> TxResult:
    holds = await chain.balance(terms.token, chain.account)
    if holds < terms.bond:
        raise error("funds_insufficient", f"the bond is {terms.bond} base units, the account holds {holds}")
    if terms.token != ZERO_ADDRESS:
        await chain.approve(f"{key}:approve", terms.token, terms.bond)
    return await chain.dispute(key, terms)


async def _panel(config: Config, role: Role, chain: MarketClient) -> Panel | None:
    """Whom the arbiter acts for beside itself."""
    named = config.arbiter.panel if role == "arbiter" else None
    return await chain.panel(address(named.lower())) if named else None


async def _row(chain: MarketClient, terms: Terms, panel: Panel | None) -> Row | None:
    row = row_of(terms, await chain.job(job_id(terms)))
    return await _with_votes(chain, row, panel) if row else None


async def _with_votes(chain: MarketClient, row: Row, panel: Panel | None) -> Row:
    if panel is None or row.terms.arbiter != panel.address or row.stage is not ClaimStage.ANSWERED:
        return row
    return msgspec.structs.replace(row, votes=await chain.votes(panel.address, row.job))


async def _history(config: Config, chain: MarketClient, since: int | None) -> tuple[int, History]:
    start = max(0, await chain.block_number() - LAST_BLOCKS) if since is None else since
    clock = SystemClock()
    rpc = JsonRpc(config.chain.rpc_urls, clock, chain_id=config.chain.chain_id)
    try:
        return start, fold(await claim_history(rpc, clock, chain.info.market, start))
    finally:
        await rpc.close()


@asynccontextmanager
async def _reader(config: Config, role: Role, store: OutboxStore) -> AsyncIterator[MarketClient]:
    key, info = await asyncio.to_thread(read_key, config, role), chain_info(config)
    chain = await MarketClient.connect(config.chain.rpc_urls, key, info, store, SystemClock())
    try:
        yield chain
    finally:
        await chain.close()


@asynccontextmanager
async def sender(config: Config, role: Role) -> AsyncIterator[MarketClient]:
    """The chain as the role's account that sends by hand. What an earlier process left is finished first.

    Raises LocalFault (`journal_locked` while a host or a gateway runs), ChainFault.
    """
    key = await asyncio.to_thread(read_key, config, role)
    try:
        journal = open_journal(_directory(config, role), config.chain.chain_id)
    except FabstirError as refused:
        if refused.code == "journal_locked":
            raise error(
                "journal_locked", refused.detail, "Stop the host or the gateway of this role first."
            ) from refused
        raise
    try:
        with held(key_file(config, role)):
            chain = await connect_chain(config, key, journal)
            try:
                await chain.reconcile()
                await refuse_waiting(config, journal)
                yield chain
            finally:
                await chain.close()
    finally:
        await journal.close()


def _directory(config: Config, role: Role) -> Path:
    directories = {"host": config.host.data_dir, "renter": config.renter.data_dir, "arbiter": config.arbiter.data_dir}
    return directories[role]
