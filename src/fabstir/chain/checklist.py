"""Whether a deployment may begin. Every item is measured, compared and explained; one that fails stops all of it.

Pure: what was measured comes from `survey`, what was begun before from `deployment_record`. On the devnet, where nothing is worth
anything, owner and treasury are free; everywhere else a market without a timelock, with somebody's own key as its treasury, with
forgeable proofs or with another dollar than Circle's is refused.
"""

from __future__ import annotations

from typing import Final

import msgspec

from fabstir.chain.checks import Check, Verdict, graded, judge
from fabstir.chain.deployment import FACTORY, FACTORY_CODE
from fabstir.chain.deployment_record import Record, differences
from fabstir.chain.networks import Network
from fabstir.chain.survey import Survey, TokenFacts, domain_separator
from fabstir.domain.ids import Address, to_hex
from fabstir.domain.money import BaseUnits, format_units

MIN_DELAY: Final = 48 * 3600
"""Seconds in which hosts and renters see what the owner is about to add."""
PRICE_MARGIN_PERCENT: Final = 150
"""The base fee may rise while some twenty transactions are sent."""
USDC_SYMBOL: Final = "USDC"
USDC_DECIMALS: Final = 6
USDC_VERSION: Final = "2"


class Wishes(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked for; None where it was left out."""

    deployer: Address
    owner: Address | None
    treasury: Address | None
    token: Address | None
    without_circuit: bool
    stale: str
    """Contracts whose artifacts are not of the sources here; empty where all are."""


def checklist(
    network: Network, wishes: Wishes, found: Survey, begun: Record | None, wanted: Record
) -> tuple[Check, ...]:
    """All items, the failed ones too."""
    return (
        _chain(network, found),
        _artifacts(network, wishes),
        _earlier(begun, wanted, network),
        _circuit(network, wishes),
        _owner(network, wishes, found),
        _treasury(network, wishes),
        *_token(network, wishes, found),
        _factory(found),
        _waiting(found, begun),
        _balance(found),
    )


def _chain(network: Network, found: Survey) -> Check:
    served = ", ".join(map(str, sorted(found.chain_ids)))
    why = f"{network.name} is chain {network.chain_id}; every endpoint must serve it"
    next_step = "Set chain.rpc_urls to endpoints of this network, or name another one with --network."
    return judge("chain", found.chain_ids == {network.chain_id}, f"chain {served}", why, next_step)


def _artifacts(network: Network, wishes: Wishes) -> Check:
    """Who works on the contracts deploys the last build on a devnet, knowingly."""
    verdict: Verdict = "ok" if not wishes.stale else "warn" if network.play_money else "fail"
    why = "What is deployed must be what the sources say"
    return graded("artifacts", verdict, wishes.stale or "current", why, "Run `make contracts`, review, commit.")


def _earlier(begun: Record | None, wanted: Record, network: Network) -> Check:
    name, why = (
        "earlier deployment",
        "One market for each network; an interrupted deployment goes on with what it was begun with",
    )
    if begun is None or (begun.finished and network.play_money):
        return judge(name, True, "none", why, "")
    file = f"deployment-{network.name}.json"
    if begun.finished:
        return judge(
            name, False, "finished", why, f"Move {file} beside the address book away to deploy another market."
        )
    other = differences(begun, wanted)
    if other:
        next_step = f"Use the same arguments and package again, or move {file} away to begin anew."
        return judge(name, False, f"begun with another {', '.join(other)}", why, next_step)
    return judge(name, True, "unfinished; it is resumed", why, "")


def _circuit(network: Network, wishes: Wishes) -> Check:
    why = "Anybody can forge proofs for the development reference string (srs_development_only)"
    if network.play_money or wishes.without_circuit:
        said = "none of ezkl; `merkle` alone" if wishes.without_circuit else "development reference string"
        return judge("circuit", True, said, why, "")
    next_step = (
        "Deploy --without-circuit: hosts prove with `merkle`; the owner can register a ceremony's circuit later."
    )
    return judge("circuit", False, "development reference string", why, next_step)


def _owner(network: Network, wishes: Wishes, found: Survey) -> Check:
    why = f"The owner approves models and announces markets: a timelock of at least {MIN_DELAY // 3600} hours"
    next_step = "Deploy a timelock (OpenZeppelin TimelockController) and give its address as --owner."
    if wishes.owner is None:
        return judge("owner", network.play_money, "not given: the deployer's key", why, next_step)
    shown = to_hex(wishes.owner)
    if network.play_money:
        return judge("owner", True, shown, why, "")
    if not found.owner_code:
        return judge("owner", False, f"{shown}: no code, somebody's key", why, next_step)
    if found.owner_delay is None:
        return judge("owner", False, f"{shown}: does not answer getMinDelay()", why, next_step)
    measured = f"{shown}: delay {found.owner_delay} s"
    return judge("owner", found.owner_delay >= MIN_DELAY, measured, why, next_step)


def _treasury(network: Network, wishes: Wishes) -> Check:
    why = "Gets 5 % of everything for ever and cannot be changed; not a key that lies on this machine"
    next_step = "Give the address of a multisignature wallet as --treasury."
    if wishes.treasury is None:
        return judge("treasury", network.play_money, "not given: the deployer's key", why, next_step)
    shown, safe = to_hex(wishes.treasury), any(wishes.treasury) and wishes.treasury != wishes.deployer
    measured = shown if safe else f"{shown}: {'the deployer' if any(wishes.treasury) else 'nobody'}"
    return judge("treasury", network.play_money or safe, measured, why, next_step)


def _token(network: Network, wishes: Wishes, found: Survey) -> tuple[Check, ...]:
    token, why = wishes.token, "Hosts stake in it and renters pay in it; it cannot be changed"
    if token is None:
        return (judge("USDC address", True, "a test token is deployed", why, ""),)
    next_step = f"Leave --stake-token out, or give {to_hex(network.usdc) if network.usdc else 'a token with code'}."
    right = token == network.usdc if network.usdc else bool(found.token and found.token.has_code)
    address = judge("USDC address", right, to_hex(token), why, next_step)
    return (address, _domain(network, token, found.token or TokenFacts(has_code=False)))


def _domain(network: Network, token: Address, said: TokenFacts) -> Check:
    name = network.usdc_name
    wanted = (
        f"{USDC_SYMBOL}, {USDC_DECIMALS} decimals, domain {name!r} version {USDC_VERSION!r} of chain {network.chain_id}"
    )
    separator = domain_separator(name, USDC_VERSION, network.chain_id, token)
    good = said == TokenFacts(
        has_code=True,
        name=name,
        symbol=USDC_SYMBOL,
        decimals=USDC_DECIMALS,
        version=USDC_VERSION,
        domain_separator=separator,
    )
    domain = "as computed" if said.domain_separator == separator else "another"
    measured = f"{said.symbol}, {said.decimals} decimals, {said.name!r} version {said.version!r}, separator {domain}"
    if not said.has_code:
        measured = "no code"
    why = f"Renters sign deposits for this EIP-712 domain (EIP-3009): {wanted}"
    return judge("USDC domain", good, measured, why, "Check --network and chain.rpc_urls: this is another token.")


def _factory(found: Survey) -> Check:
    measured = "as known" if found.factory_code == FACTORY_CODE else f"{len(found.factory_code)} bytes of other code"
    why = f"The contracts are made by the CREATE2 factory at {to_hex(FACTORY)}"
    next_step = "This chain has none; deploy it first (github.com/Arachnid/deterministic-deployment-proxy)."
    return judge("factory", found.factory_code == FACTORY_CODE, measured, why, next_step)


def _waiting(found: Survey, begun: Record | None) -> Check:
    """Those of an interrupted deployment are the outbox's, which follows them and raises their fee."""
    why = "Transactions of the deployer that wait could change what is there after it was looked at"
    next_step = "Wait until they are mined, then run the same command again."
    own = begun is not None and not begun.finished
    return judge("waiting transactions", own or found.waiting == 0, found.waiting, why, next_step)


def cost(found: Survey) -> BaseUnits:
    """Wei that must be there: gas at the base fee with its margin, and the L1 fee."""
    return BaseUnits((found.gas * found.base_fee + found.l1_fee) * PRICE_MARGIN_PERCENT // 100)


def _balance(found: Survey) -> Check:
    needed = cost(found)
    parts = f"{found.gas:,} gas at {found.base_fee:,} wei, L1 fee {found.l1_fee:,} wei, times 1.5"
    why = f"{_eth(needed)} for {len(found.left)} transactions: {parts}"
    next_step = "Send the deployer what is missing."
    return judge("deployer balance", found.balance >= needed, _eth(BaseUnits(found.balance)), why, next_step)


def _eth(wei: BaseUnits) -> str:
    return format_units(wei, 18, "ETH")
