"""Puts the contracts on a chain and does what their owner may do: approve models, and on the devnet mint test USDC.

For the devnet: anything but chain id 31337 is refused, because the verifier of the package was made with the development
reference string (`srs_development_only`); other chains go through `fabstir.bootstrap.deploy` and its checklist. Works once and waits
for each receipt; not for the path of a session. What is deployed is the plan of `deployment`.
"""

from __future__ import annotations

from typing import Any, Final

from fabstir.chain import bindings
from fabstir.chain.account import ChainAccount
from fabstir.chain.conversion import abi_head, approve_model, propose_model
from fabstir.chain.deployer import Progress, carry_out
from fabstir.chain.deployment import MINIMUM_STAKE, Parameters, plan, salt_of
from fabstir.chain.devnet import CHAIN_ID
from fabstir.chain.faults import translate
from fabstir.chain.rpc import JsonRpc, RpcError, quantity
from fabstir.chain.web3_provider import connect_web3
from fabstir.domain.errors import error
from fabstir.domain.ids import Address, Hash32, ModelId, to_hex
from fabstir.domain.money import BaseUnits
from fabstir.ports.chain import ChainInfo
from fabstir.protocol.model_identity import NO_HEAD, HeadCommitment, ModelIdentity
from fabstir.protocol.signing import SigningKey

__all__ = ["MINIMUM_STAKE", "Operator"]

POLL_SECONDS: Final = 0.02
"""The devnet mines at once."""


class Operator:
    """The account that deploys and owns the registries. One at a time per key: it takes nonces without a store."""

    def __init__(self, rpc: JsonRpc, key: bytes) -> None:
        self._rpc = rpc
        self._web3 = connect_web3(rpc, key)
        self.address: Final = SigningKey(key).address

    def __repr__(self) -> str:
        return f"<Operator {to_hex(self.address)}>"

    async def deploy(
        self,
        circuit_id: Hash32,
        *,
        spot: Hash32 | None = None,
        treasury: Address | None = None,
        progress: Progress = lambda _: None,
    ) -> ChainInfo:
        """All contracts, `circuit_id` registered with its verifier, and the circuit `spot` where it is named. `treasury` (default: this
        account) gets the fees. Deploying again on the same chain makes another market.
        """
        chain_id = quantity(await self._rpc.request("eth_chainId"))
        if chain_id != CHAIN_ID:
            raise error("srs_development_only", detail=f"chain {chain_id}")
        wanted = Parameters(
            chain_id=chain_id,
            deployer=self.address,
            owner=self.address,
            treasury=treasury or self.address,
            token=None,
            circuit=circuit_id,
            spot=spot,
        )
        made = plan(wanted, salt_of(await ChainAccount(self._rpc, self.address).next_nonce()))

        async def send(_: str, to: Address, data: bytes) -> None:
            await self._send(to, data)

        await carry_out(self._rpc, made, send, progress)
        return made.info

    async def approve_model(self, info: ChainInfo, model: ModelIdentity, head: HeadCommitment = NO_HEAD) -> ModelId:
        """Propose where unknown, approve where not approved; doing it again costs nothing. An approved model keeps its head, and gets one
        where it has none."""
        registry, model_id = bindings.ModelRegistry, model.model_id
        known = registry.decode_model(await self._read(info.models, registry.encode_model(model_id)))
        if registry.decode_is_approved(await self._read(info.models, registry.encode_is_approved(model_id))):
            if head.rows and not known.head.rows:
                await self._send(info.models, registry.encode_add_head(model_id, abi_head(head)))
            return model_id
        if not known.repository or known.head != abi_head(head):
            await self._send(info.models, propose_model(model, head))
        await self._send(info.models, approve_model(model_id, head))
        return model_id

    async def mint(self, info: ChainInfo, to: Address, amount: BaseUnits) -> None:
        """Test USDC out of nothing; the contract itself refuses off chain id 31337."""
        await self._send(info.usdc, bindings.TestUSDC.encode_mint(to, amount))

    async def _send(self, to: Address, data: bytes) -> None:
        await ChainAccount(self._rpc, self.address).estimate(to_hex(to), data, 0)  # names the revert, if there is one
        await self._mined({"to": self._web3.to_checksum_address(to), "data": to_hex(data)})

    async def _mined(self, transaction: Any) -> Any:
        sent = await self._web3.eth.send_transaction(transaction)
        receipt = await self._web3.eth.wait_for_transaction_receipt(sent, poll_latency=POLL_SECONDS)
        if receipt["status"] != 1:
            raise error("chain_failed", detail=f"transaction {receipt['transactionHash'].hex()} failed")
        return receipt

    async def _read(self, to: Address, data: bytes) -> bytes:
        try:
            return bytes.fromhex(
                (await self._rpc.request("eth_call", {"to": to_hex(to), "data": to_hex(data)}, "latest"))[2:]
            )
        except RpcError as fault:
            raise translate(fault) from fault
