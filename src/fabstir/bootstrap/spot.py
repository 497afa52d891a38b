"""What a host needs that proves with the circuit `spot`: an engine of its own, the head of its model as it is registered, and a tracer.

Decides what must be there before such a host starts; nothing is chosen in its place.
"""

from __future__ import annotations

from typing import Final

from fabstir.bootstrap.model_heads import known_head, same_head
from fabstir.bootstrap.parts import make_prover, model_file
from fabstir.chain.market import MarketClient
from fabstir.domain.errors import error
from fabstir.engines.llama import LlamaEngine
from fabstir.engines.reexecution.tracer import AnswerTracer
from fabstir.engines.scoring import ScoringEngine
from fabstir.models.head import CommittedHead
from fabstir.ops.config import Config
from fabstir.ports.clock import Clock
from fabstir.ports.engine import Engine
from fabstir.ports.prover import Prover
from fabstir.proofs.host_spot import HostSpot
from fabstir.proofs.process import EzklProver
from fabstir.proofs.spot_prover import SpotProver
from fabstir.protocol.held_records import HeldRecords
from fabstir.protocol.model_identity import ModelIdentity

COMMIT: Final = "Run `fabstir model commit` for this file, then `fabstir model register`; see docs/how-to/host.md."


async def make_host_prover(
    config: Config, model: ModelIdentity, engine: Engine, chain: MarketClient, held: HeldRecords | None, clock: Clock
) -> Prover:
    """The configured back end and circuit, not started. Raises as `make_prover`; for `spot` also LocalFault (`model_invalid`) where the
    model's head is not registered as this file has it, ChainFault."""
    prover = make_prover(config, held)
    if config.proofs.circuit != "spot":
        return prover
    if held is None or not isinstance(prover, EzklProver) or not isinstance(engine, LlamaEngine | ScoringEngine):
        raise AssertionError("`make_prover` lets no other configuration through")
    spot = SpotProver(prover, chain_id=config.chain.chain_id)
    head = await _registered_head(config, model, chain)
    section = config.engine
    tracer = AnswerTracer(
        model_file(config),
        engine,
        threads=section.threads,
        gpu_layers=section.gpu_layers,
        shared=engine.reexecutor if isinstance(engine, ScoringEngine) else None,
    )
    return HostSpot(prover, spot, tracer, head, held, clock)


async def _registered_head(config: Config, model: ModelIdentity, chain: MarketClient) -> CommittedHead:
    head = await known_head(model_file(config), model)
    if head is None:
        raise error("model_invalid", f"{model.file}: the rows of its head are not committed on this machine", COMMIT)
    known = await chain.registered_model(model.model_id)
    if known is None or not same_head(known.head, head.commitment):
        raise error(
            "model_invalid", f"0x{model.model_id.hex()} is not registered with the head of {model.file}", COMMIT
        )
    return head
