"""The parts that hosts and renters are made of, each from the configuration."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Final

import structlog

from fabstir.chain import addresses
from fabstir.chain.market import MarketClient
from fabstir.chain.outbox import OutboxSettings
from fabstir.domain.errors import FabstirError, error
from fabstir.domain.ids import Address, Hash32, address
from fabstir.engines.llama import LlamaEngine
from fabstir.engines.model_file import default_model
from fabstir.engines.openai import OpenAIEngine
from fabstir.engines.reexecution.reexecutor import Reexecutor
from fabstir.engines.reexecution.tracer import NICE
from fabstir.engines.scoring import ScoringEngine
from fabstir.models.identity import identify
from fabstir.ops import paths
from fabstir.ops.clock import SystemClock
from fabstir.ops.config import Config, EngineSection
from fabstir.ports.chain import ChainInfo
from fabstir.ports.engine import Engine
from fabstir.ports.fingerprints import Fingerprinter
from fabstir.ports.prover import Prover
from fabstir.proofs.circuit import SPOT_V1, Circuit, load_circuit
from fabstir.proofs.merkle import MerkleProver
from fabstir.proofs.process import EzklProver
from fabstir.protocol.held_records import HeldRecords
from fabstir.protocol.model_identity import ModelIdentity
from fabstir.protocol.spot import ROWS
from fabstir.storage.journal import JOURNAL_FILE, SqliteJournal, WritePhase

log = structlog.get_logger()

TINY_REPOSITORY: Final = "fabstir/tiny-chat"
"""Repository of the model that ships with the package."""
FAULT_VARIABLE: Final = "FABSTIR_FAULT_JOURNAL"
"""`N:before` or `N:after`: the process kills itself at journal write N. On the devnet only; for the crash test."""
ADDRESS_BOOK: Final = "addresses.json"
NOIR_TOOLS: Final = ("nargo", "bb")
"""What a back end for Noir would need: its compiler, and barretenberg."""


def address_book() -> Path:
    """Where contract addresses are kept, by chain id."""
    return paths.data_dir() / ADDRESS_BOOK


def chain_info(config: Config) -> ChainInfo:
    """The contracts to use: from the configuration, else from the address book. Raises LocalFault (`config_missing`)."""
    chain = config.chain
    known = addresses.load(address_book(), chain.chain_id)

    def pick(name: str) -> Address:
        configured: str | None = getattr(chain, name)
        if configured is not None:
            return address(configured.lower())
        if known is None:
            raise _no_address(chain.chain_id, name)
        found: Address = getattr(known, name)
        return found

    names = [name for name in ChainInfo.__struct_fields__ if name != "chain_id"]
    return ChainInfo(chain_id=chain.chain_id, **{name: pick(name) for name in names})


def _no_address(chain_id: int, name: str) -> FabstirError:
    if chain_id == 31337:
        return error("devnet_missing", f"no address of `{name}` for chain {chain_id} in {address_book()}")
    return error("config_invalid", f"chain.{name} is not set and {address_book()} does not know chain {chain_id}")


def open_journal(directory: Path, chain_id: int) -> SqliteJournal:
    """The journal in `directory`, made where it is missing. Raises LocalFault (`journal_locked`, `journal_failed`)."""
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as refused:
        raise error("journal_failed", f"{directory}: {refused.strerror}") from refused
    return SqliteJournal(directory / JOURNAL_FILE, _fault_hook(chain_id))


def _fault_hook(chain_id: int) -> Callable[[int, WritePhase], None] | None:
    wanted = os.environ.get(FAULT_VARIABLE)
    if not wanted or chain_id != 31337:
        return None
    number, _, phase = wanted.partition(":")
    log.warning("fault_injected", code="journal", count=int(number))

    def die(write: int, now: WritePhase) -> None:
        if write == int(number) and now == (phase or "after"):
            os.kill(os.getpid(), signal.SIGKILL)

    return die


async def connect_chain(config: Config, key: bytes, journal: SqliteJournal) -> MarketClient:
    """The market's contracts, as the account of `key` sees them. Raises ChainFault."""
    settings = OutboxSettings(max_fee=config.chain.max_fee_gwei * 10**9)
    return await MarketClient.connect(config.chain.rpc_urls, key, chain_info(config), journal, SystemClock(), settings)


def model_file(config: Config) -> Path:
    """The weights that a llama.cpp host serves first."""
    return config.engine.model or default_model()


async def served_model(config: Config) -> ModelIdentity:
    """Who the first model is that this host serves. Raises as `model_of`."""
    return await model_of(config.engine, "engine")


async def model_of(section: EngineSection, place: str) -> ModelIdentity:
    """Who the model of an engine is, from the file itself; `place` is where the settings name it. Raises LocalFault (`model_invalid`,
    `config_invalid`)."""
    repository = section.repository or TINY_REPOSITORY
    if (section.model is None) != (section.repository is None):
        raise error("config_invalid", f"{place}.model and {place}.repository go together: the model's id needs both")
    if section.kind == "openai" and section.model is None:
        raise error(
            "config_invalid", f"{place}.kind is 'openai': {place}.model must name the weights that the server loaded"
        )
    return await asyncio.to_thread(identify, section.model or default_model(), repository)


def make_engine(config: Config) -> Engine:
    """The first engine, not started. Raises LocalFault (`config_invalid`)."""
    return engine_of(config, config.engine, "engine")


def engine_of(config: Config, engine: EngineSection, place: str) -> Engine:
    """An engine, not started; `place` is where the settings name it. Raises LocalFault (`config_invalid`)."""
    if engine.kind == "openai":
        return _server_of(engine, place)
    model = engine.model or default_model()
    llama = LlamaEngine(
        model,
        context_size=engine.context_size,
        parallel=engine.parallel,
        threads=engine.threads,
        gpu_layers=engine.gpu_layers,
        top_logprobs=engine.top_logprobs,
        binary=engine.binary,
        spill=None if engine.spill_mb is None else engine.spill_mb << 20,
    ).adapting(engine.adapters)
    if not engine.scoring and not engine.fingerprints:
        return llama
    _require_fallback(config)
    # What is paid for by the token stands in line with the engine, fingerprints stand behind it.
    nice = 0 if engine.scoring else NICE
    reexecutor = Reexecutor(model, threads=engine.threads, gpu_layers=engine.gpu_layers, nice=nice)
    return ScoringEngine(llama, reexecutor, top=engine.top_logprobs)


def _server_of(engine: EngineSection, place: str) -> Engine:
    if engine.scoring:
        raise error(
            "config_invalid",
            f"{place}.scoring is for `llama`: another server does not say how likely given tokens are",
        )
    if engine.fingerprints:
        raise error(
            "config_invalid", f"{place}.fingerprints is for `llama`: another server's activations are not known"
        )
    if engine.adapters:
        raise error("config_invalid", f"{place}.adapters is for `llama`: give the files to the server itself")
    return OpenAIEngine(
        engine.base_url or "",
        api_key=engine.api_key or "",
        parallel=engine.parallel,
        top_logprobs=engine.top_logprobs,
    )


def make_fingerprinter(config: Config, engine: Engine) -> Fingerprinter | None:
    """The engine, where it is to make fingerprints."""
    return engine if config.engine.fingerprints and isinstance(engine, ScoringEngine) else None


def _require_fallback(config: Config) -> None:
    if config.engine.fingerprints and "fallback" not in config.proofs.accepted:
        raise error("config_invalid", "engine.fingerprints: rung 2 needs `fallback` in proofs.accepted")


def make_held(config: Config) -> HeldRecords | None:
    """Where records are kept for a circuit that opens them, for `spot` with the words; None where none does."""
    circuit = config.proofs.circuit
    return None if circuit == "bind" else HeldRecords(words=circuit == "spot")


def make_prover(config: Config, held: HeldRecords | None = None) -> Prover:
    """The configured back end, not started; with its circuit, but for `spot`, which needs more (`bootstrap.spot`) and proves by `bind` what
    it has no traces of. Raises LocalFault (`srs_development_only` for `ezkl` off the devnet, `circuit_mismatch`, `tool_missing`,
    `config_invalid`)."""
    proofs = config.proofs
    if proofs.backend == "noir":
        raise _no_noir()
    if proofs.backend == "merkle":
        if proofs.circuit_folder is not None:
            raise error("config_invalid", "proofs.circuit_folder is for `ezkl`; `merkle` has no files")
        if proofs.circuit == "sample" and config.engine.top_logprobs == 0:
            raise error("config_invalid", "proofs.circuit is 'sample': engine.top_logprobs must be at least 1")
        if proofs.circuit == "spot":
            raise error("config_invalid", "proofs.circuit is 'spot', which only `ezkl` has")
        return MerkleProver(proofs.circuit, held)
    if proofs.circuit == "sample":
        raise error("config_invalid", "proofs.circuit is 'sample', which only `merkle` has")
    if proofs.circuit == "spot":
        _require_spot(config)
    return EzklProver(chain_id=config.chain.chain_id, cache=paths.cache_dir(), circuit=_circuit(config))


def _require_spot(config: Config) -> None:
    engine = config.engine
    if engine.kind != "llama":
        raise error(
            "config_invalid", "proofs.circuit is 'spot': engine.kind must be `llama`, whose answers can be traced"
        )
    if engine.top_logprobs < ROWS:
        raise error("config_invalid", f"proofs.circuit is 'spot': engine.top_logprobs must be at least {ROWS}")


def circuit_to_prove(config: Config) -> Hash32:
    """Id of the configured circuit. Raises as `make_prover`."""
    prover = make_prover(config)
    return deployed_spot() if config.proofs.circuit == "spot" else prover.circuit_id


def deployed_circuit(config: Config) -> Hash32:
    """Id of the `ezkl` circuit whose verifier is in the package, whatever this host proves with. Raises LocalFault
    (`srs_development_only`) off the devnet."""
    return EzklProver(chain_id=config.chain.chain_id, cache=paths.cache_dir()).circuit_id


def deployed_spot() -> Hash32:
    """Id of the circuit `spot` whose verifier is in the package; where `deployed_circuit` may go, so may it."""
    return load_circuit(SPOT_V1).circuit_id


def _no_noir() -> FabstirError:
    next_step = "Set proofs.backend to `merkle` or `ezkl`."
    missing = [name for name in NOIR_TOOLS if shutil.which(name) is None]
    if missing:
        return error("tool_missing", f"{' and '.join(missing)}, for proofs.backend 'noir'", next_step)
    return error("config_invalid", "proofs.backend 'noir': this version has no prover for it", next_step)


def _circuit(config: Config) -> Circuit | None:
    folder = config.proofs.circuit_folder
    return load_circuit(folder) if folder is not None else None
