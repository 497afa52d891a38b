"""The models that a host serves, from its settings: which engines belong to which model, and what each model costs.

Engines of the same model (by its id: repository, file, hashes) form one pool. What is still of one engine alone (a circuit that traces
answers, fingerprints, attestation of a machine with one model) is refused here where there are several, rather than served by half.
"""

from __future__ import annotations

import msgspec

from fabstir.bootstrap.parts import engine_of, model_of
from fabstir.chain.market import MarketClient
from fabstir.domain.errors import error
from fabstir.domain.ids import ModelId
from fabstir.domain.money import PricePerMTok
from fabstir.host.settings import ModelTerms
from fabstir.ops.config import Config, EngineSection, FurtherEngine, units
from fabstir.ports.engine import Engine
from fabstir.protocol.model_identity import ModelIdentity


class Served(msgspec.Struct, frozen=True):
    """One model of a host."""

    model: ModelIdentity
    terms: ModelTerms
    engines: dict[str, Engine]
    """By their place in the settings, not started."""
    sections: tuple[EngineSection, ...]
    """What the engines were made of, without prices: the same ones make the same engines."""


async def served_models(config: Config) -> tuple[Served, ...]:
    """Every model, that of `[engine]` first. Raises LocalFault (`config_invalid`, `model_invalid`)."""
    _check(config)
    found: dict[ModelId, Served] = {}
    for place, section in _places(config):
        model = await model_of(section, place)
        one = Served(
            model=model,
            terms=_terms(config, section, model.model_id),
            engines={place: engine_of(config, section, place)},
            sections=(_priceless(section),),
        )
        known = found.get(model.model_id)
        found[model.model_id] = one if known is None else _together(known, one)
    return tuple(found.values())


async def require_approved(chain: MarketClient, model: ModelId) -> None:
    """Raises LocalFault (`model_invalid`) where ModelRegistry has not approved it, ChainFault."""
    if not await chain.model_approved(model):
        raise error(
            "model_invalid", f"model 0x{model.hex()} is not approved in ModelRegistry", "See docs/how-to/host.md."
        )


async def identities(config: Config) -> tuple[ModelIdentity, ...]:
    """Who the models are, each once, the first one first. Raises as `served_models`, of files alone."""
    found = [await model_of(section, place) for place, section in _places(config)]
    return tuple({model.model_id: model for model in found}.values())


def _places(config: Config) -> list[tuple[str, EngineSection]]:
    return [("engine", config.engine), *((f"engines[{n}]", each) for n, each in enumerate(config.engines))]


def _terms(config: Config, section: EngineSection, model_id: ModelId) -> ModelTerms:
    price, native = config.host.price_per_mtok, config.host.price_native_per_mtok
    if isinstance(section, FurtherEngine):
        price = price if section.price_per_mtok is None else section.price_per_mtok
        native = native if section.price_native_per_mtok is None else section.price_native_per_mtok
    return ModelTerms(
        model_id=model_id,
        price=PricePerMTok(price),
        price_native=PricePerMTok(units(native)),
        scores=section.scoring,
    )


def _together(known: Served, one: Served) -> Served:
    """One more engine of a model. Raises LocalFault (`config_invalid`) where they are not sold for the same."""
    first, second = known.terms, one.terms
    if (first.price, first.price_native) != (second.price, second.price_native):
        names = " and ".join((next(iter(one.engines)), next(iter(known.engines))))
        raise error("config_invalid", f"{names} are engines of one model and have different prices")
    return Served(
        model=known.model,
        terms=msgspec.structs.replace(first, scores=first.scores and second.scores),
        engines={**known.engines, **one.engines},
        sections=(*known.sections, *one.sections),
    )


def _priceless(section: EngineSection) -> EngineSection:
    if isinstance(section, FurtherEngine):
        return msgspec.structs.replace(section, price_per_mtok=None, price_native_per_mtok=None)
    return section


def _check(config: Config) -> None:
    if not config.engines:
        return
    alone = {
        "proofs.circuit 'spot' traces the answers of one engine": config.proofs.circuit == "spot",
        "engine.fingerprints are made by one engine": any(each.fingerprints for _, each in _places(config)),
        "attestation.provider attests a machine with one model": config.attestation.provider is not None,
    }
    for why, asked in alone.items():
        if asked:
            raise error("config_invalid", f"{why}; there are {1 + len(config.engines)} engines in the settings")
    if config.proofs.circuit == "sample" and any(each.top_logprobs == 0 for _, each in _places(config)):
        raise error("config_invalid", "proofs.circuit is 'sample': each engine's top_logprobs must be at least 1")
