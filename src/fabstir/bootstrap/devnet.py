"""A whole devnet: the chain, the contracts, an approved model, play money."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import structlog

from fabstir.bootstrap.model_heads import known_head
from fabstir.bootstrap.models import identities
from fabstir.bootstrap.parts import address_book, deployed_circuit, deployed_spot, model_file
from fabstir.chain import addresses, bindings
from fabstir.chain.anvil import find_anvil
from fabstir.chain.deploy import Operator
from fabstir.chain.deployer import read
from fabstir.chain.devnet import DEV_KEYS, Devnet, DevnetControl, dev_key
from fabstir.chain.rpc import JsonRpc
from fabstir.domain.errors import FabstirError, error
from fabstir.domain.ids import Address, JobId
from fabstir.domain.money import BaseUnits, Tokens
from fabstir.ops import paths
from fabstir.ops.clock import SystemClock
from fabstir.ops.config import Config
from fabstir.ports.chain import ChainInfo
from fabstir.protocol.model_identity import NO_HEAD, HeadCommitment, ModelIdentity
from fabstir.protocol.signing import SigningKey

log = structlog.get_logger()

DEPLOYER: Final = 0
"""Index of the development key that deploys, owns the registries and mints."""
TREASURY: Final = 9
"""Index of the development key that gets the market's fees."""
FUND_ETH: Final = BaseUnits(10 * 10**18)
FUND_USDC: Final = BaseUnits(100 * 10**6)


class RunningDevnet:
    """A devnet that answers, with the contracts on it."""

    def __init__(self, net: Devnet, rpc: JsonRpc, operator: Operator, info: ChainInfo) -> None:
        self.url: Final = net.url
        self.info: Final = info
        self.treasury: Final = SigningKey(DEV_KEYS[TREASURY]).address
        self._net = net
        self._rpc = rpc
        self._operator = operator

    def __repr__(self) -> str:
        return f"<RunningDevnet {self.url}>"

    async def fund(self, account: Address, usdc: BaseUnits = FUND_USDC) -> None:
        """Play money: ETH for gas, and `usdc` base units of test USDC."""
        await DevnetControl(self._rpc).set_balance(account, FUND_ETH)
        if usdc:
            await self._operator.mint(self.info, account, usdc)

    async def advance(self, seconds: int) -> None:
        """Move the chain's time on."""
        await DevnetControl(self._rpc).advance(seconds)

    async def approve_model(self, config: Config) -> None:
        """Let hosts offer the models that `config` serves; the first one with its output head, where its rows were committed before, so
        that they can prove with `spot`."""
        (first, *further) = await identities(config)
        await self._operator.approve_model(self.info, first, await _head_of(config, first))
        for each in further:
            await self._operator.approve_model(self.info, each, NO_HEAD)

    async def mine(self) -> None:
        """One block now."""
        await DevnetControl(self._rpc).mine()

    async def usdc_of(self, account: Address) -> BaseUnits:
        """What `account` holds of the test USDC."""
        token = bindings.TestUSDC
        return BaseUnits(
            token.decode_balance_of(await read(self._rpc, self.info.usdc, token.encode_balance_of(account)))
        )

    async def proven(self, job: JobId) -> Tokens:
        """Tokens of `job` that the market has a proof of."""
        market = bindings.JobMarketplace
        return Tokens(market.decode_jobs(await read(self._rpc, self.info.market, market.encode_jobs(job))).proven)

    async def wait(self) -> int:
        """Return when the chain's process ends."""
        return await self._net.wait()


async def _head_of(config: Config, model: ModelIdentity) -> HeadCommitment:
    """Computes none: for the model of the package it is there, for another after `fabstir model commit`."""
    try:
        head = await known_head(model_file(config), model)
    except FabstirError as unfit:
        log.info("model_without_head", model=model.file, code=unfit.code, detail=unfit.detail)
        return NO_HEAD
    return NO_HEAD if head is None else head.commitment


@asynccontextmanager
async def devnet(
    config: Config,
    *,
    port: int = 0,
    state: Path | None = None,
    book: Path | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> AsyncIterator[RunningDevnet]:
    """Start a chain, deploy, approve the configured model, write the address book; stop all of it at the end.

    `book` is another address book than the user's. With a `state` file that holds a chain already, nothing is deployed
    again. Raises LocalFault, ChainFault.
    """
    anvil = await find_anvil(paths.cache_dir(), progress)
    book = book or address_book()
    goes_on = state is not None and await asyncio.to_thread(state.exists)
    known = addresses.load(book, config.chain.chain_id) if goes_on else None
    async with Devnet(anvil, port=port, state=state) as net:
        progress(f"chain {config.chain.chain_id} answers at {net.url}")
        rpc = JsonRpc([net.url], SystemClock())
        try:
            operator = Operator(rpc, dev_key(DEPLOYER, config.chain.chain_id))
            if known is None:
                treasury = SigningKey(DEV_KEYS[TREASURY]).address
                circuit = deployed_circuit(config)
                known = await operator.deploy(circuit, spot=deployed_spot(), treasury=treasury, progress=progress)
            running = RunningDevnet(net, rpc, operator, known)
            await running.approve_model(config)
            addresses.save(book, known)
            yield running
        finally:
            await rpc.close()


async def fund_on_devnet(config: Config, account: Address, usdc: BaseUnits = FUND_USDC) -> None:
    """Play money on a devnet that runs elsewhere. Raises ChainFault; LocalFault (`devnet_missing`)."""
    async with _operator(config) as (rpc, operator, known):
        await DevnetControl(rpc).set_balance(account, FUND_ETH)
        await operator.mint(known, account, usdc)


async def fund_stake_on_devnet(config: Config, account: Address) -> None:
    """Coins for gas, and as much test USDC as the stake of the settings lacks. Raises ChainFault; LocalFault (`devnet_missing`)."""
    token, stake = bindings.TestUSDC, bindings.HostStake
    async with _operator(config) as (rpc, operator, known):
        await DevnetControl(rpc).set_balance(account, FUND_ETH)
        holds = token.decode_balance_of(await read(rpc, known.usdc, token.encode_balance_of(account)))
        staked = stake.decode_stake_of(await read(rpc, known.stakes, stake.encode_stake_of(account))).staked
        missing = config.host.stake - holds - staked
        if missing > 0:
            await operator.mint(known, account, BaseUnits(missing))


@asynccontextmanager
async def _operator(config: Config) -> AsyncIterator[tuple[JsonRpc, Operator, ChainInfo]]:
    key = dev_key(DEPLOYER, config.chain.chain_id)
    known = addresses.load(address_book(), config.chain.chain_id)
    if known is None:
        raise error("devnet_missing")
    rpc = JsonRpc(config.chain.rpc_urls, SystemClock())
    try:
        yield rpc, Operator(rpc, key), known
    finally:
        await rpc.close()
