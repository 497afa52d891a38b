"""The truth about each part of a host, as `/health` shows it.

Asks the parts themselves; remembers an answer for two seconds so that asking often costs the RPC nothing. A part that
cannot be asked, or does not answer, is down, with the reason. Never repairs anything.
"""

from __future__ import annotations

import asyncio
from typing import Final

import msgspec

from fabstir.domain.errors import FabstirError
from fabstir.domain.ids import ZERO_ADDRESS, Address, to_hex
from fabstir.domain.money import BaseUnits
from fabstir.host.shelf import ModelPart, Shelf
from fabstir.ports.chain import EndpointState, MarketChain
from fabstir.ports.clock import Clock
from fabstir.ports.machine import Gpu, MachineState
from fabstir.ports.prover import Prover

_MIB: Final = 1 << 20
LEAST_MEMORY: Final = 0.02
"""Part of the memory; with less the kernel soon ends a process, mostly the engine."""
LEAST_DISK: Final = 256 * _MIB
"""Journals grow by kilobytes; other programs fill disks."""
FRESH_SECONDS: Final = 2.0
PATIENCE_SECONDS: Final = 3.0
"""An RPC endpoint that takes longer is down for whoever waits for `/health`."""


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """One part. `status` is `ok`, or the part's own word for what it is (`starting`, `restarting`, `down`, `off`)."""

    status: str
    reason: str = ""

    @property
    def works(self) -> bool:
        """Ready for use."""
        return self.status == "ok"


class EnginePart(Part, frozen=True, kw_only=True):
    """The inference engines together; `models` has each. `partly` where some models can be served and others cannot."""

    model: str = ""
    """Names of the loaded models."""
    restarts: int = 0
    """How often a process of theirs was started again."""

    @property
    def works(self) -> bool:
        """Something can be served."""
        return self.status in ("ok", "partly")


def engine_part(models: tuple[ModelPart, ...]) -> EnginePart:
    """The sum of `models`. One that the operator unloaded is no fault."""
    wanted = [model for model in models if model.status != "unloaded"]
    bad = [model for model in wanted if model.status != "ok"]
    first = bad[0].reason or bad[0].status if bad else "" if wanted else "no model is loaded"
    restarts = sum(engine.restarts for model in models for engine in model.engines)
    return EnginePart(
        status=_status(models, wanted, bad),
        reason=first if len(models) == 1 or not bad else f"{bad[0].name or bad[0].model_id}: {first}",
        model=", ".join(model.name for model in wanted if model.name),
        restarts=restarts,
    )


def _status(models: tuple[ModelPart, ...], wanted: list[ModelPart], bad: list[ModelPart]) -> str:
    if wanted and not bad:
        return "ok"
    if any(model.serves for model in models):
        return "partly"
    if len(bad) == 1 and len(bad[0].engines) == 1:
        return bad[0].engines[0].status  # the engine's own word
    return "down"


class ChainPart(Part, frozen=True, kw_only=True):
    """The RPC endpoint and how old the newest block is. An old block is no fault here: a devnet makes blocks only when needed."""

    chain_id: int = 0
    block: int = 0
    """Newest block."""
    block_age_s: int = 0
    """By this host's clock."""
    endpoints: tuple[EndpointState, ...] = ()
    """Of `chain.rpc_urls`, in their order."""


class ProverPart(Part, frozen=True, kw_only=True):
    """Commitments and proofs."""

    circuit: str = ""
    """Back end and circuit: `ezkl/bind`, `ezkl/spot`, `merkle/bind`, `merkle/sample`."""
    circuit_id: str = ""
    """Under which ProofSystem knows the verifier."""
    weaker: int = 0
    """Jobs that this process proved by a weaker circuit, `bind`, or committed for it, at least in part, since there was nothing to open."""


class SendingPart(Part, frozen=True, kw_only=True):
    """This host's own transactions. `status`: `ok`, `fee_too_high` (they wait) or `key_in_use` (nothing is sent any more)."""

    waiting: int = 0
    """In no block yet."""

    @property
    def stopped(self) -> bool:
        """Nothing can be collected before somebody acts."""
        return self.status == "key_in_use"


class SessionsPart(msgspec.Struct, frozen=True, kw_only=True):
    """Who is being served."""

    open: int
    """With a connection."""
    generating: int
    """An answer is being made, or waits for an acknowledgement."""
    max: int
    """`host.max_sessions`."""


class PromptsPart(Part, frozen=True, kw_only=True):
    """Prompt jobs; `off` where `host.prompt_slots` is 0."""

    queued: int = 0
    """Jobs that this host would claim."""
    working: int = 0
    """Jobs that it claimed, or is about to."""
    slots: int = 0
    """`host.prompt_slots`."""
    unpaid: str = "0"
    """Base units of jobs that are claimed or answered and not paid yet."""
    tokens_per_s: float = 0.0
    """Of one answer, as measured."""


class ClaimsPart(Part, frozen=True, kw_only=True):
    """What the host can still collect, as of the settler's last look; `degraded` where a deadline is near or has passed, or a claim is
    disputed. `fabstir claims` lists it; `off` where nothing settles here."""

    held: int = 0
    """Claims that wait for the end of their time."""
    disputed: int = 0
    """Claims that must be answered."""
    expiring: int = 0
    """Things to collect whose deadline is near or has passed."""
    problems: int = 0
    """Jobs whose settlement is delayed; the log says why."""


class NetworkPart(Part, frozen=True, kw_only=True):
    """The network of peers; `off` where `p2p.enabled` is false, `alone` while no peer is connected. The registry lists a host anyway."""

    node: str = ""
    """Ed25519 public key under which peers know this host."""
    addresses: tuple[str, ...] = ()
    """Where it listens, with its peer id: what others write into `p2p.bootstrap`."""
    peers: int = 0
    """Connected now."""
    known: int = 0
    """In the routing table."""
    providing: int = 0
    """Keys under which this host is announced; one for each model and each feature."""
    restarts: int = 0
    """How often its process was started again."""
    announced_s: int | None = None
    """Seconds since others last took an announcement of a key; null: never."""


class HostStanding(msgspec.Struct, frozen=True, kw_only=True):
    """What everybody may know."""

    status: str
    """As of HostHealth."""


class MachinePart(Part, frozen=True, kw_only=True):
    """The machine: `strained` where memory or disk are nearly used up, which is `degraded`; `off` where nobody looks."""

    cpu: float = 0.0
    """0 to 1, over all cores."""
    memory_available_mb: int = 0
    resident_mb: int = 0
    """Of this process and those that it started."""
    disk_free_mb: int = 0
    """Of the disk of `host.data_dir`."""
    gpus: tuple[Gpu, ...] = ()
    no_gpus: str = ""
    """Why none is shown."""

    @classmethod
    def of(cls, seen: MachineState) -> MachinePart:
        """What one look means."""
        short = []
        if seen.memory_available < LEAST_MEMORY * seen.memory_total:
            short.append(f"{seen.memory_available // _MIB} MiB of memory left")
        if seen.disk_free < LEAST_DISK:
            short.append(f"{seen.disk_free // _MIB} MiB of disk left under host.data_dir")
        return cls(
            status="strained" if short else "ok",
            reason=", ".join(short),
            cpu=round(seen.cpu, 3),
            memory_available_mb=seen.memory_available // _MIB,
            resident_mb=(seen.resident_node + seen.resident_children) // _MIB,
            disk_free_mb=seen.disk_free // _MIB,
            gpus=seen.gpus,
            no_gpus=seen.no_gpus,
        )


class HostHealth(msgspec.Struct, frozen=True, kw_only=True):
    """`status`: `ok`, `degraded` (serves, but something needs care), `draining` or `failing` (a new session would be refused)."""

    status: str
    """200 for `ok` and `degraded`, else 503."""
    version: str
    uptime_s: int
    engine: EnginePart
    """Needed to serve; where it is `partly` the status is `degraded`."""
    models: tuple[ModelPart, ...]
    """Each model, in the order of the settings."""
    chain: ChainPart
    """Needed to admit."""
    sending: SendingPart
    """Needed to be paid: while fees are too high the status is `degraded`, with `key_in_use` it is `failing`."""
    journal: Part
    """Needed to serve."""
    prover: ProverPart
    """Needed to be paid; without it the status is `degraded`."""
    registration: Part
    """The entry in NodeRegistry; `off` where the host does not register itself."""
    settings: Part
    """The file of settings: `refused` where what it says now is not valid and the host goes by what was before, which is `degraded`. The
    reason also names what takes effect at the next start; `off` where no file is followed."""
    machine: MachinePart
    """Where it is `strained` the status is `degraded`."""
    sessions: SessionsPart
    prompts: PromptsPart
    """The desk of prompt jobs; where it is down the status is `degraded`."""
    claims: ClaimsPart
    """What is still to be collected; where it needs care the status is `degraded`."""
    p2p: NetworkPart
    """Where it does not work the status is `degraded`."""

    @property
    def serves(self) -> bool:
        """A new session would be taken."""
        return self.status in ("ok", "degraded")


def overall(draining: bool, needed: tuple[Part, ...], wanted: tuple[Part, ...]) -> str:
    """The status of the whole: without a `needed` part nothing is served; without a `wanted` one somebody should look."""
    if draining:
        return "draining"
    if not all(part.works for part in needed):
        return "failing"
    return "ok" if all(part.works or part.status == "off" for part in wanted) else "degraded"


class Probe:
    """Asks models, chain and prover. Memory: the last answers."""

    def __init__(self, shelf: Shelf, chain: MarketChain, prover: Prover, clock: Clock) -> None:
        self._shelf = shelf
        self._chain = chain
        self._prover = prover
        self._clock = clock
        self._asking = asyncio.Lock()
        self._last: tuple[float, tuple[ModelPart, ...], ChainPart, ProverPart] | None = None

    async def parts(self) -> tuple[tuple[ModelPart, ...], ChainPart, ProverPart]:
        """Models, chain, prover."""
        async with self._asking:
            now = self._clock.monotonic()
            if self._last is None or now - self._last[0] >= FRESH_SECONDS:
                models, chain, prover = await asyncio.gather(self._ask_models(), self._ask_chain(), self._ask_prover())
                self._last = (now, models, chain, prover)
            return self._last[1:]

    async def _ask_models(self) -> tuple[ModelPart, ...]:
        return tuple(await asyncio.gather(*(model.part() for model in self._shelf.models)))

    async def _ask_prover(self) -> ProverPart:
        said = await self._prover.health()
        status, reason = ("ok", "") if said == "ok" else ("down", said)
        circuit_id = to_hex(self._prover.circuit_id)
        return ProverPart(status=status, reason=reason, circuit=self._prover.circuit, circuit_id=circuit_id)

    async def _ask_chain(self) -> ChainPart:
        chain_id = self._chain.info.chain_id
        block = stamp = 0
        reason = ""
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                block, stamp = await asyncio.gather(self._chain.block_number(), self._chain.timestamp())
        except FabstirError as fault:
            reason = str(fault)
        except TimeoutError:
            reason = f"no answer in {PATIENCE_SECONDS:g} s"
        return ChainPart(
            status="down" if reason else "ok",
            reason=reason,
            chain_id=chain_id,
            block=block,
            block_age_s=0 if reason else max(0, int(self._clock.now()) - stamp),
            endpoints=self._chain.condition().endpoints,
        )

    async def earnings(self) -> dict[Address, BaseUnits] | None:
        """What the contract holds for this host, by token; None where the chain does not say."""
        tokens = (self._chain.info.usdc, ZERO_ADDRESS)
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                held = await asyncio.gather(*(self._chain.earnings(token, self._chain.account) for token in tokens))
        except (FabstirError, TimeoutError):
            return None
        return dict(zip(tokens, held, strict=True))

    def sending(self) -> SendingPart:
        """How the host's own transactions fare; costs nothing to ask."""
        condition = self._chain.condition()
        return SendingPart(status=condition.sending, reason=condition.reason, waiting=condition.waiting)
