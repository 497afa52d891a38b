"""Registry, stake and delegation, as one account uses them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from fabstir.chain import bindings
from fabstir.chain.calls import Calls
from fabstir.chain.conversion import abi_offer, abi_terms, approve_model, host_entry, propose_model
from fabstir.domain.ids import Address, Hash32, ModelId
from fabstir.domain.money import BaseUnits
from fabstir.domain.terms import Terms
from fabstir.ports.chain import DelegateBudget, HostEntry, RegisteredOffer, StakeRules, StakeState, TxResult
from fabstir.protocol.model_identity import HeadCommitment, ModelIdentity

_REGISTRY: Final = bindings.NodeRegistry
_STAKE: Final = bindings.HostStake
_DELEGATION: Final = bindings.Delegation

PAGE: Final = 50
"""Hosts in one call: about 300,000 gas of storage reads with one model each, far below any node's eth_call bound."""


class RegistryCalls(Calls):
    """Part of `MarketClient`."""

    async def hosts(self, model_id: ModelId | None = None) -> list[HostEntry]:
        """Active hosts, of one model where given."""
        entries: dict[Address, HostEntry] = {}
        cursor = 0
        while True:
            page, cursor = await self._hosts_page(model_id, cursor)
            entries |= {node.account: host_entry(node) for node in page if node.active}
            if cursor == 0:
                return list(entries.values())

    async def _hosts_page(self, model_id: ModelId | None, cursor: int) -> tuple[Sequence[bindings.Node], int]:
        if model_id is None:
            every = await self._call(self._info.registry, _REGISTRY.encode_nodes(cursor, PAGE), _REGISTRY.decode_nodes)
            return every.page, every.next
        data = _REGISTRY.encode_nodes_for_model(model_id, cursor, PAGE)
        serving = await self._call(self._info.registry, data, _REGISTRY.decode_nodes_for_model)
        return serving.page, serving.next

    async def model_approved(self, model_id: ModelId) -> bool:
        """Whether hosts may offer it."""
        models = bindings.ModelRegistry
        return await self._call(self._info.models, models.encode_is_approved(model_id), models.decode_is_approved)

    async def registered_model(self, model_id: ModelId) -> bindings.Model | None:
        """What the registry says of it; None where nobody proposed it."""
        models = bindings.ModelRegistry
        found = await self._call(self._info.models, models.encode_model(model_id), models.decode_model)
        return found if found.repository else None

    async def propose_model(self, key: str, model: ModelIdentity, head: HeadCommitment) -> TxResult:
        """Propose it, or replace the head of a proposal that is not approved yet; anyone may."""
        return await self._send(key, self._info.models, propose_model(model, head))

    async def approve_model(self, key: str, model_id: ModelId, head: HeadCommitment) -> TxResult:
        """Let hosts offer it, with the head that was looked at; the registry's owner may."""
        return await self._send(key, self._info.models, approve_model(model_id, head))

    async def stake(self, host: Address) -> StakeState:
        """Zeros where nothing was staked."""
        found = await self._call(self._info.stakes, _STAKE.encode_stake_of(host), _STAKE.decode_stake_of)
        return StakeState(
            staked=BaseUnits(found.staked),
            unstaking=BaseUnits(found.unstaking),
            available_at=found.available_at,
            locked_until=found.locked_until,
        )

    async def stake_rules(self) -> StakeRules:
        """Immutable, but read from the contract that is used."""
        at = self._info.stakes
        return StakeRules(
            token=await self._call(at, _STAKE.encode_token(), _STAKE.decode_token),
            minimum=BaseUnits(await self._call(at, _STAKE.encode_minimum(), _STAKE.decode_minimum)),
            slash=BaseUnits(await self._call(at, _STAKE.encode_slash_amount(), _STAKE.decode_slash_amount)),
        )

    async def register_host(
        self, key: str, url: str, encryption_key: Hash32, offers: tuple[RegisteredOffer, ...]
    ) -> TxResult:
        """Appear in the registry, or replace the entry."""
        data = _REGISTRY.encode_register(url, encryption_key, [abi_offer(offer) for offer in offers])
        return await self._send(key, self._info.registry, data)

    async def unregister_host(self, key: str) -> TxResult:
        """Leave the registry."""
        return await self._send(key, self._info.registry, _REGISTRY.encode_unregister())

    async def approve_stake(self, key: str, amount: BaseUnits) -> TxResult:
        """Let `HostStake` take so much of its token."""
        token = (await self.stake_rules()).token
        return await self._send(key, token, bindings.TestUSDC.encode_approve(self._info.stakes, amount))

    async def add_stake(self, key: str, amount: BaseUnits) -> TxResult:
        """Stake, or stake more."""
        return await self._send(key, self._info.stakes, _STAKE.encode_stake(amount))

    async def request_unstake(self, key: str, amount: BaseUnits) -> TxResult:
        """Ask for a part back; replaces what was asked before, 0 takes it back."""
        return await self._send(key, self._info.stakes, _STAKE.encode_request_unstake(amount))

    async def withdraw_stake(self, key: str, to: Address) -> TxResult:
        """Once the delay has passed and nothing is locked."""
        return await self._send(key, self._info.stakes, _STAKE.encode_withdraw(to))

    async def open_as_delegate(self, key: str, terms: Terms, deposit: BaseUnits) -> TxResult:
        """Open for `terms.renter`, which set a budget for this account."""
        data = _DELEGATION.encode_open_job(abi_terms(terms), deposit)
        return await self._send(key, self._info.delegation, data)

    async def top_up_as_delegate(self, key: str, terms: Terms, amount: BaseUnits) -> TxResult:
        """Add to the deposit for `terms.renter`, out of that budget."""
        data = _DELEGATION.encode_top_up_job(abi_terms(terms), amount)
        return await self._outbox.send(key, self._info.delegation, data)

    async def delegate_budget(self, renter: Address, delegate: Address, token: Address) -> DelegateBudget:
        """Zeros where `renter` never named `delegate`."""
        data = _DELEGATION.encode_budget_of(renter, delegate, token)
        found = await self._call(self._info.delegation, data, _DELEGATION.decode_budget_of)
        return DelegateBudget(left=BaseUnits(found.left), until=found.until)

    async def approve_delegation(self, key: str, token: Address, amount: BaseUnits) -> TxResult:
        """Let `Delegation` take so much of this account's `token`."""
        data = bindings.TestUSDC.encode_approve(self._info.delegation, amount)
        return await self._outbox.send(key, token, data)

    async def set_delegate(
        self, key: str, delegate: Address, token: Address, budget: BaseUnits, until: int
    ) -> TxResult:
        """Let `delegate` spend up to `budget` of this account's `token` on jobs."""
        data = _DELEGATION.encode_set_delegate(delegate, token, budget, until)
        return await self._send(key, self._info.delegation, data)
