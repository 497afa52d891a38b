"""Examines one account: can it pay for settlements, does a transaction hang, and, for a host, is it staked and listed.

Reads only; needs the address, never the key.
"""

from __future__ import annotations

from typing import Final

from fabstir.chain import bindings
from fabstir.chain.account import ChainAccount
from fabstir.chain.calls import ask
from fabstir.chain.checks import Check, Verdict, graded, judge
from fabstir.chain.deployer import read
from fabstir.chain.rpc import JsonRpc, quantity
from fabstir.domain.ids import Address, ModelId, to_hex
from fabstir.domain.money import BaseUnits, format_units
from fabstir.ports.chain import ChainInfo

SETTLEMENT_GAS: Final = 800_000
"""commitProof, submitProof (486,000, docs/explanation/proofs.md) and closeByHost with the last voucher, rounded up."""
SETTLEMENTS: Final = (100, 5)
"""Fewer warn; fewer than the second, and the next busy hour leaves jobs unsettled."""


async def examine_account(rpc: JsonRpc, account: Address) -> list[Check]:
    """Coins and nonces."""
    chain = ChainAccount(rpc, account)
    balance, base_fee = await chain.balance(), await chain.base_fee()
    mined = quantity(await ask(rpc, "eth_getTransactionCount", to_hex(account), "latest"))
    waiting = await chain.next_nonce() - mined
    return [
        judge_gas(balance, base_fee),
        graded(
            "transactions",
            "warn" if waiting else "ok",
            f"nonce {mined}, {waiting} waiting",
            "None waits for long",
            "If it does not end: raise chain.max_fee_gwei; the outbox bumps the fee when the node runs.",
        ),
    ]


def judge_gas(balance: int, base_fee: int) -> Check:
    """How far the coins go at today's fee. Pure."""
    left = balance // max(1, SETTLEMENT_GAS * base_fee)
    verdict: Verdict = "ok" if left >= SETTLEMENTS[0] else "warn" if left >= SETTLEMENTS[1] else "fail"
    measured = f"{format_units(BaseUnits(balance), 18, 'ETH')}: {left} settlements at {base_fee:,} wei"
    why = f"{SETTLEMENTS[0]} settlements of {SETTLEMENT_GAS:,} gas; below {SETTLEMENTS[1]} it fails"
    return graded("gas", verdict, measured, why, "Send the account ETH.")


async def examine_host(rpc: JsonRpc, info: ChainInfo, account: Address, model: ModelId) -> list[Check]:
    """Stake, registration and model."""
    registry, models = bindings.NodeRegistry, bindings.ModelRegistry
    node = registry.decode_node(await read(rpc, info.registry, registry.encode_node(account)))
    approved = models.decode_is_approved(await read(rpc, info.models, models.encode_is_approved(model)))
    registered, offers = bool(node.url), {offer.model_id for offer in node.offers}
    measured = f"{node.url}, {'active' if node.active else 'not active'}" if registered else "not registered"
    return [
        await _stake(rpc, info, account),
        judge("registered", registered and node.active, measured, "Renters find active hosts only", "Stake, then `fabstir host start`."),
        judge("model approved", approved, to_hex(model), "Hosts may offer approved models only", "Ask the operator, or set engine.model."),
        graded(
            "model offered",
            "ok" if model in offers else "warn",
            f"{len(offers)} models",
            "The registry shows the configured model",
            "`fabstir host start` registers it.",
        ),
    ]  # fmt: skip


async def _stake(rpc: JsonRpc, info: ChainInfo, account: Address) -> Check:
    stake = bindings.HostStake
    held = stake.decode_stake_of(await read(rpc, info.stakes, stake.encode_stake_of(account)))
    minimum = BaseUnits(stake.decode_minimum(await read(rpc, info.stakes, stake.encode_minimum())))
    kept = BaseUnits(held.staked - held.unstaking)
    measured = f"{format_units(kept)} kept, {format_units(BaseUnits(held.unstaking))} asked back"
    return judge("stake", kept >= minimum, measured, f"at least {format_units(minimum)}", "Run `fabstir host stake`.")
