"""A market in memory: real host nodes with scripted engines, the contract's model as the chain, connections that a test
can cut or falsify.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Callable
from typing import Any, Final, cast

import msgspec
from nacl.signing import SigningKey as NodeSecret

from fabstir.domain.errors import error
from fabstir.domain.ids import Address, Hash32, JobId, ModelId
from fabstir.domain.money import BaseUnits, PricePerMTok, Tokens
from fabstir.domain.terms import JobState, ProofPolicy, Terms
from fabstir.host.node import HostNode
from fabstir.host.settings import HostSettings
from fabstir.ops.metrics import Metrics
from fabstir.ports.chain import (
    NO_KEY,
    ChainCondition,
    ChainInfo,
    ClaimArgs,
    HostEntry,
    MarketChain,
    RegisteredOffer,
    StakeRules,
    StakeState,
    TxResult,
)
from fabstir.ports.transport import Transport
from fabstir.protocol import settlement
from fabstir.protocol.authorization import authorization_digest, top_up_nonce
from fabstir.protocol.host_log import HostLedger
from fabstir.protocol.messages import FromHost, decode_from_host, encode
from fabstir.protocol.offer import Offer
from fabstir.protocol.renter_log import RenterEvent, decode_event
from fabstir.protocol.settlement import Call, MarketState, Reverted
from fabstir.protocol.signing import Market as Contract
from fabstir.protocol.signing import SigningKey, job_id, recover
from fabstir.renter.market import Market
from fabstir.renter.relay import Relay
from fabstir.renter.settings import RenterSettings
from fabstir.testing.clock import ManualClock
from fabstir.testing.engine import ScriptedEngine
from fabstir.testing.fingerprints import ScriptedFingerprinter
from fabstir.testing.journal import MemoryJournal
from fabstir.testing.prover import HashProver
from fabstir.testing.transport import TransportEnd, transport_pair

WALLET, STRANGER = SigningKey(b"\x21" * 32), SigningKey(b"\x22" * 32)
TREASURY, USDC = Address(b"\x0b" * 20), Address(b"\x0a" * 20)
MODEL, OTHER_MODEL = ModelId(b"\x0d" * 32), ModelId(b"\x0e" * 32)
INFO = ChainInfo(
    chain_id=31337,
    market=Address(b"\x0c" * 20),
    registry=Address(b"\x0d" * 20),
    models=Address(b"\x0e" * 20),
    proofs=Address(b"\x0f" * 20),
    usdc=USDC,
    stakes=Address(b"\x10" * 20),
    board=Address(b"\x11" * 20),
    delegation=Address(b"\x12" * 20),
    epochs=Address(b"\x13" * 20),
)
CONTRACT = Contract(INFO.chain_id, INFO.market)
BUDGET = 1_000_000


class Chain:
    """One contract, moved by the model that the real one is tested against."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.state = MarketState(TREASURY)
        self.allowances: dict[Address, int] = {}
        self.entries: dict[Address, HostEntry] = {}
        self.mined: dict[str, TxResult] = {}
        self.on_transaction: Callable[[str, str], None] = lambda key, phase: None
        """Called with the key of each transaction `before` it is mined and `after`."""

    def view(self, account: Address) -> MarketChain:
        """As `account` sees it."""
        return cast(MarketChain, _View(self, account))

    def job(self, job: JobId) -> JobState:
        account = self.state.jobs.get(job)
        return account.state if account else JobState()

    def send(self, key: str, call: Call | None, then: Callable[[], None] = lambda: None) -> TxResult:
        """Mine one transaction, once for each key."""
        self.on_transaction(key, "before")
        if key not in self.mined:
            if call is not None:
                try:
                    self.state = settlement.apply(self.state, call, int(self.clock.now()), len(self.mined))
                except Reverted as refused:
                    raise error("chain_reverted", refused.name) from refused
            then()
            self.mined[key] = TxResult(hash=Hash32(bytes(32)), block=len(self.mined), gas_used=50_000)
        self.on_transaction(key, "after")
        return self.mined[key]


class _View:
    """Of `MarketChain` what renter and host use in these tests."""

    def __init__(self, chain: Chain, account: Address) -> None:
        self._chain = chain
        self.account: Final = account
        self.info: Final = INFO

    def condition(self) -> ChainCondition:
        return ChainCondition()

    async def job(self, job: JobId) -> JobState:
        return self._chain.job(job)

    async def timestamp(self) -> int:
        return int(self._chain.clock.now())

    async def block_number(self) -> int:
        return len(self._chain.mined)

    async def hosts(self, model_id: ModelId | None = None) -> list[HostEntry]:
        entries = self._chain.entries.values()
        return [entry for entry in entries if model_id is None or entry.serves(model_id)]

    async def stake(self, host: Address) -> StakeState:
        return StakeState()

    async def stake_rules(self) -> StakeRules:
        return StakeRules(token=USDC, minimum=BaseUnits(0), slash=BaseUnits(0))

    async def register_host(
        self, key: str, url: str, encryption_key: Hash32, offers: tuple[RegisteredOffer, ...]
    ) -> TxResult:
        entry = HostEntry(address=self.account, url=url, encryption_key=encryption_key, offers=offers, active=True)
        return self._chain.send(key, None, lambda: self._chain.entries.__setitem__(self.account, entry))

    async def approve(self, key: str, token: Address, amount: BaseUnits) -> TxResult:
        await asyncio.sleep(0)  # a transaction takes its time
        return self._chain.send(key, None, lambda: self._chain.allowances.__setitem__(self.account, amount))

    async def open(self, key: str, terms: Terms, deposit: BaseUnits) -> TxResult:
        chain = self._chain
        await asyncio.sleep(0)
        if key not in chain.mined and chain.allowances.get(self.account, 0) < deposit:
            raise error("chain_reverted", "ERC20InsufficientAllowance")
        spend = lambda: chain.allowances.__setitem__(self.account, chain.allowances[self.account] - deposit)  # noqa: E731
        return chain.send(key, settlement.Open(self.account, terms, deposit), spend)

    async def open_with_authorization(
        self, key: str, terms: Terms, deposit: BaseUnits, valid_before: int, signature: bytes
    ) -> TxResult:
        digest = authorization_digest(
            INFO.chain_id, USDC, terms.renter, INFO.market, deposit, valid_before, Hash32(job_id(terms))
        )
        if recover(digest, signature) != terms.renter:
            raise error("chain_reverted", "InvalidSignature")
        return self._chain.send(key, settlement.Open(self.account, terms, deposit, authorized=True))

    async def top_up(self, key: str, terms: Terms, amount: BaseUnits) -> TxResult:
        chain = self._chain
        await asyncio.sleep(0)
        if key not in chain.mined and chain.allowances.get(self.account, 0) < amount:
            raise error("chain_reverted", "ERC20InsufficientAllowance")
        spend = lambda: chain.allowances.__setitem__(self.account, chain.allowances[self.account] - amount)  # noqa: E731
        return chain.send(key, settlement.TopUp(job_id(terms), amount), spend)

    async def top_up_with_authorization(
        self, key: str, terms: Terms, amount: BaseUnits, valid_before: int, signature: bytes
    ) -> TxResult:
        nonce = top_up_nonce(job_id(terms), self._chain.job(job_id(terms)).deposit)
        digest = authorization_digest(INFO.chain_id, USDC, terms.renter, INFO.market, amount, valid_before, nonce)
        if recover(digest, signature) != terms.renter:
            raise error("chain_reverted", "InvalidSignature")
        return self._chain.send(key, settlement.TopUp(job_id(terms), amount))

    async def close_cooperative(self, key: str, claim: ClaimArgs, host_signature: bytes) -> TxResult:
        job = job_id(claim.terms)
        host = recover(CONTRACT.close_digest(job, claim.amount, claim.tokens), host_signature)
        return self._chain.send(key, settlement.CloseCooperative(self.account, job, claim.amount, claim.tokens, host))

    async def request_close(self, key: str, terms: Terms) -> TxResult:
        return self._chain.send(key, settlement.RequestClose(self.account, job_id(terms)))

    async def finalize(self, key: str, terms: Terms) -> TxResult:
        return self._chain.send(key, settlement.Finalize(self.account, job_id(terms)))


Tamper = Callable[[FromHost], FromHost | bytes | None]
"""What arrives in the place of a message; None: nothing."""


class Tampered:
    """The renter's end of a connection to a host that lies."""

    def __init__(self, end: TransportEnd, tamper: Tamper, sent: list[bytes]) -> None:
        self._end = end
        self._tamper = tamper
        self._sent = sent
        self.repeats: Callable[[FromHost], bool] = lambda message: False
        self._again: FromHost | None = None

    async def send(self, message: bytes) -> None:
        self._sent.append(message)
        await self._end.send(message)

    async def receive(self) -> bytes | str:
        if self._again is not None:
            repeated, self._again = self._again, None
            return encode(repeated)
        while True:
            message = decode_from_host(await self._end.receive())
            self._again = message if self.repeats(message) else None
            changed = self._tamper(message)
            if changed is not None:
                return changed if isinstance(changed, bytes) else encode(changed)

    async def close(self, code: str) -> None:
        await self._end.close(code)

    def abort(self) -> None:
        self._end.abort()


class Host:
    """One host of the world."""

    def __init__(self, world: World, number: int, price: int, engine: ScriptedEngine, **settings: Any) -> None:
        self.world = world
        self.key = SigningKey(bytes([number]) * 32)
        self.url = f"http://host-{number}.example"
        self.engine = engine
        self.journal = MemoryJournal()
        self.fingerprinter = ScriptedFingerprinter()
        self.settings = msgspec.structs.replace(
            HostSettings(model_id=MODEL, price=PricePerMTok(price), url=self.url), **settings
        )
        self.tamper: Tamper = lambda message: message
        self.repeats: Callable[[FromHost], bool] = lambda message: False
        """Messages that arrive twice, on connections that are made later."""
        self.sent: list[bytes] = []
        """What renters sent here."""
        self.up = True
        self.dialled = 0
        self.latency = 0.0
        self.ends: list[TransportEnd] = []
        """The renter's end of each connection so far."""
        self._tasks: list[asyncio.Task[None]] = []
        self.node = self._new_node()

    def _new_node(self) -> HostNode:
        node = HostNode(
            engines={self.settings.model_id: {"engine": self.engine}},
            chain=self.world.chain.view(self.key.address),
            prover=HashProver(),
            journal=self.journal,
            clock=self.world.clock,
            keys=(self.key, NodeSecret(bytes(self.key.address) + bytes(12))),
            settings=self.settings,
            metrics=Metrics(),
        )
        node.fingerprinter = self.fingerprinter if self.settings.fingerprints else None
        return node

    async def start(self) -> None:
        await self.node.start()
        await self.register()

    async def register(self) -> None:
        """Where it is now, for what it takes."""
        chain = self.world.chain.view(self.key.address)
        await chain.register_host(f"register:{self.url}", self.url, NO_KEY, self.settings.registered(chain.info.usdc))

    async def dial(self) -> Transport:
        self.dialled += 1
        if not self.up:
            raise error("host_unreachable", f"{self.url}: connection refused")
        host, renter = transport_pair()
        self.ends.append(renter)
        self._tasks.append(asyncio.create_task(self.node.connect(host)))
        wire = Tampered(renter, self._tampered, self.sent)
        wire.repeats = self.repeats
        return wire

    def _tampered(self, message: FromHost) -> FromHost | bytes | None:
        return self.tamper(message)

    def cut(self) -> None:
        """The network between, for a moment."""
        for end in self.ends:
            end.abort()

    async def kill(self) -> None:
        """The process is gone, and its port."""
        self.up = False
        self.cut()
        await self.stop()

    async def restart(self) -> None:
        """The process is back; all it knows is its journal."""
        self.journal = self.journal.reopen()
        self.node = self._new_node()
        await self.node.start()
        self.up = True

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.node.stop()

    @property
    def ledgers(self) -> tuple[HostLedger, ...]:
        return self.node.book.ledgers()


class World:
    """Hosts, chain, clock, and renters in it."""

    def __init__(self, chain: Any = None, clock: ManualClock | None = None) -> None:
        """`chain`: another one than this module's, on the same `clock`."""
        self.clock = clock or ManualClock()
        self.chain: Any = chain or Chain(self.clock)
        self.hosts: list[Host] = []
        self.journal = MemoryJournal()
        self._numbers = itertools.count(1)
        self.channel: tuple[int, ...] = ()
        """What offers say of the encrypted channel; without one the wire can be tampered with message by message."""

    async def host(self, price: int = 200_000, engine: ScriptedEngine | None = None, **settings: Any) -> Host:
        """One more host, running and registered."""
        host = Host(self, next(self._numbers), price, engine or ScriptedEngine(), **settings)
        await host.start()
        self.hosts.append(host)
        return host

    def market(
        self,
        journal: MemoryJournal | None = None,
        wallet: SigningKey = WALLET,
        relays: Relay | None = None,
        **settings: Any,
    ) -> Market:
        """A renter. Not entered yet."""
        return Market(
            self.chain.view(wallet.address),
            journal or self.journal,
            self.clock,
            settings=RenterSettings(**{"policy": ProofPolicy.FALLBACK, **settings}),
            dial=self.dial,
            offers=self,
            wallet=wallet,
            relay=relays,
        )

    async def dial(self, url: str) -> Transport:
        return await self._at(url).dial()

    async def fetch(self, url: str) -> Offer:
        host = self._at(url)
        if not host.up:
            raise error("host_unreachable", "GET /v1/offer: ClientConnectorError")
        if host.latency:
            self.clock._elapsed += host.latency
        return msgspec.structs.replace(host.node.offer, channel=self.channel)

    def _at(self, url: str) -> Host:
        return next(host for host in self.hosts if host.url == url)

    async def log(self, job: JobId) -> list[RenterEvent]:
        """What the renter's journal says about a job."""
        return [decode_event(data) for data in await self.journal.read("rent:" + job.hex())]

    def close_by_host(self, host: Host) -> None:
        """The host settles every job with what the renter signed."""
        for ledger in host.ledgers:
            voucher = ledger.voucher
            claim = (
                settlement.Redeem(self.key_of(ledger), ledger.job, voucher.amount, voucher.tokens, ledger.terms.signer)
                if voucher
                else None
            )
            self.chain.send(f"close:{ledger.job.hex()}", settlement.CloseByHost(self.key_of(ledger), ledger.job, claim))

    @staticmethod
    def key_of(ledger: HostLedger) -> Address:
        return ledger.terms.host


@contextlib.asynccontextmanager
async def world_of(*prices: int, **settings: Any) -> AsyncIterator[World]:
    """A world with one host for each price."""
    world = World()
    for price in prices:
        await world.host(price, **settings)
    try:
        yield world
    finally:
        for host in world.hosts:
            await host.stop()


async def eventually(condition: Callable[[], bool]) -> None:
    """Return once `condition` holds; the test's own time limit bounds it."""
    while not condition():  # noqa: ASYNC110 - there is nothing to wait on but the condition
        await asyncio.sleep(0)


def counting(n: int) -> str:
    """What a host answers to `count n`."""
    return " ".join(map(str, range(1, n + 1)))


def paid(*ledgers: HostLedger) -> Tokens:
    """Tokens that the renter signed for, over several jobs."""
    return Tokens(sum(ledger.acknowledged for ledger in ledgers))
