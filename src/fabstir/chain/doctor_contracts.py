"""Examines the contracts that are configured: is each one the compiled one, and do they know each other. Reads only."""

from __future__ import annotations

from typing import Final

from fabstir.chain import bindings
from fabstir.chain.calls import ask
from fabstir.chain.checklist import USDC_DECIMALS, USDC_SYMBOL, USDC_VERSION
from fabstir.chain.checks import Check, graded, judge
from fabstir.chain.code_check import examine_code
from fabstir.chain.deployer import read, unmet
from fabstir.chain.deployment import MERKLE, OWNED, Probe, selector, word
from fabstir.chain.networks import Network, network_of
from fabstir.chain.rpc import JsonRpc, quantity
from fabstir.chain.survey import TokenFacts, delay_of, domain_separator, token_facts
from fabstir.domain.ids import ZERO_ADDRESS, Address, Hash32, to_hex
from fabstir.ports.chain import ChainInfo

CONTRACTS: Final = {
    "market": "JobMarketplace",
    "registry": "NodeRegistry",
    "models": "ModelRegistry",
    "proofs": "ProofSystem",
    "stakes": "HostStake",
    "board": "PromptBoard",
    "delegation": "Delegation",
    "epochs": "EpochProofs",
}
"""Name in address book and configuration -> contract. The token is examined by what it says, not by its code: Circle's is a proxy."""
LINKS: Final = (
    ("market", "stakes()", "stakes"),
    ("market", "proofs()", "proofs"),
    ("market", "epochs()", "epochs"),
    ("epochs", "proofs()", "proofs"),
    ("registry", "stakes()", "stakes"),
    ("registry", "modelRegistry()", "models"),
    ("board", "market()", "market"),
    ("board", "registry()", "registry"),
    ("delegation", "market()", "market"),
    ("stakes", "token()", "usdc"),
)
"""(contract, getter, whose address it gives)."""
ANOTHER: Final = "Do not use it: compare the address book with the operator's, or install the version of this market."


async def examine_contracts(rpc: JsonRpc, info: ChainInfo) -> list[Check]:
    """Raises ChainFault where no endpoint answers."""
    checks = [_network(info)]
    for name, contract in CONTRACTS.items():
        place: Address = getattr(info, name)
        wrong = await examine_code(rpc, contract, place)
        why = "Its code is the artifact's of this package"
        checks.append(judge(f"{name} code", not wrong, f"{to_hex(place)}: {wrong or contract}", why, ANOTHER))
    if any(check.verdict == "fail" for check in checks):
        return [*checks, _skipped("links", "a contract is not what it should be")]
    checks += [await _links(rpc, info), await _authorized(rpc, info), await _token(rpc, info)]
    checks += [await _circuit(rpc, info, name, *known) for name, known in MERKLE.items()]
    return [*checks, *[await _ownership(rpc, info, name) for name in OWNED]]


def _network(info: ChainInfo) -> Check:
    known = network_of(info.chain_id)
    why = "Of a chain that is in no table, Circle's address is not known: the token is judged by what it says alone"
    measured = f"{known.name if known else 'unknown'}, chain {info.chain_id}"
    return graded(
        "network", "ok" if known else "warn", measured, why, "Compare chain.usdc with Circle's list yourself."
    )


def _skipped(name: str, why: str) -> Check:
    return Check(name=name, verdict="skipped", measured=why)


async def _links(rpc: JsonRpc, info: ChainInfo) -> Check:
    probes = tuple(
        Probe(what=f"{of}.{getter}", to=getattr(info, of), data=selector(getter), word=word(getattr(info, name)))
        for of, getter, name in LINKS
    )
    wrong = await unmet(rpc, probes)
    measured = "; ".join(wrong) or f"{len(probes)} immutables name each other"
    return judge("links", not wrong, measured, "One market, one registry, one stake", ANOTHER)


async def _authorized(rpc: JsonRpc, info: ChainInfo) -> Check:
    answer = await read(rpc, info.stakes, selector("authorizedFrom(address)") + word(info.market))
    since = int.from_bytes(answer[:32], "big")
    now = quantity((await ask(rpc, "eth_getBlockByNumber", "latest", False))["timestamp"])
    why = "The market may lock stakes only from authorizedFrom on; before that no claim can be made"
    next_step = "The owner announces the market in HostStake." if not since else f"Wait {since - now} s."
    return judge("market announced", 0 < since <= now, since or "never", why, next_step)


async def _token(rpc: JsonRpc, info: ChainInfo) -> Check:
    known = network_of(info.chain_id) or Network(name="this chain", chain_id=info.chain_id)
    said = await token_facts(rpc, info.usdc)
    name = said.name if said.name is not None and known.usdc is None else known.usdc_name
    wanted = TokenFacts(
        has_code=True,
        name=name,
        symbol=USDC_SYMBOL,
        decimals=USDC_DECIMALS,
        version=USDC_VERSION,
        domain_separator=domain_separator(name, USDC_VERSION, info.chain_id, info.usdc),
    )
    measured = f"{said.symbol}, {said.decimals} decimals, {said.name!r} version {said.version!r}"
    if said.domain_separator != wanted.domain_separator:
        measured += ", another EIP-712 domain"
    right = said == wanted and known.usdc in (None, info.usdc)
    why = "Renters sign deposits for this domain; on public networks the address is Circle's"
    return judge("USDC", right, f"{to_hex(info.usdc)}: {measured}", why, ANOTHER)


async def examine_circuit(rpc: JsonRpc, info: ChainInfo, name: str, circuit: Hash32) -> list[Check]:
    """Whether this market knows the circuit that a host proves with."""
    adapter, why = (
        await _adapter_of(rpc, info, circuit),
        "A proof of a circuit that ProofSystem does not know is refused",
    )
    next_step = "Set proofs.backend and proofs.circuit to one of this market's, or ask its owner to register it."
    measured = f"{name} {to_hex(circuit)}: {to_hex(adapter)}"
    return [judge("proofs", adapter != ZERO_ADDRESS, measured, why, next_step)]


async def _adapter_of(rpc: JsonRpc, info: ChainInfo, circuit: Hash32) -> Address:
    """Who verifies `circuit` for this market; zeros where nobody does."""
    system = bindings.ProofSystem
    return system.decode_verifier_of(await read(rpc, info.proofs, system.encode_verifier_of(circuit))).adapter


async def _circuit(rpc: JsonRpc, info: ChainInfo, name: str, circuit: Hash32, contract: str) -> Check:
    adapter, why = await _adapter_of(rpc, info, circuit), "Hosts can prove with it, and its verifier is the artifact's"
    if adapter == ZERO_ADDRESS:
        next_step = "Hosts of this market set another proofs.backend or proofs.circuit; its owner can register it."
        return graded(f"circuit {name}", "warn", "not registered", why, next_step)
    wrong = await examine_code(rpc, contract, adapter)
    return judge(f"circuit {name}", not wrong, f"{to_hex(adapter)}: {wrong or contract}", why, ANOTHER)


async def _ownership(rpc: JsonRpc, info: ChainInfo, contract: str) -> Check:
    place: Address = getattr(info, next(name for name, known in CONTRACTS.items() if known == contract))
    owner = Address((await read(rpc, place, selector("owner()")))[12:32])
    offered = Address((await read(rpc, place, selector("pendingOwner()")))[12:32])
    measured, why = to_hex(owner), "Off the devnet a timelock owns the registries, and has accepted them"
    if offered != ZERO_ADDRESS:
        next_step = f"{to_hex(offered)} calls acceptOwnership()."
        return graded(f"{contract} owner", "warn", f"{measured}, offered to {to_hex(offered)}", why, next_step)
    known = network_of(info.chain_id)
    free = known is not None and known.play_money
    delay = None if free else await delay_of(rpc, owner)
    shown = measured if free else f"{measured}, delay {delay} s" if delay is not None else f"{measured}, no timelock"
    return graded(
        f"{contract} owner", "ok" if free or delay else "warn", shown, why, "Ask the operator for a timelock."
    )
