"""Puts the contracts on a chain and does what their owner may do: approve models, and on the devnet mint test USDC.

Works once and waits for each receipt; not for the path of a session. The verifier that ships with the package was made
with the development reference string, so anything but chain id 31337 is refused (`srs_development_only`).
Specification: contracts/src.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from fabstir.chain import artifacts, bindings
from fabstir.chain.account import ChainAccount
from fabstir.chain.devnet import CHAIN_ID
from fabstir.chain.faults import translate
from fabstir.chain.rpc import JsonRpc, RpcError, quantity
from fabstir.chain.web3_provider import connect_web3
from fabstir.domain.errors import error
from fabstir.domain.ids import Address, Hash32, ModelId, to_hex
from fabstir.domain.money import BaseUnits
from fabstir.ports.chain import ChainInfo
from fabstir.protocol.signing import SigningKey

POLL_SECONDS: Final = 0.02
"""The devnet mines at once."""

MINIMUM_STAKE: Final = BaseUnits(100_000_000)
"""What a host must have staked to be in the registry: 100 USDC."""
SLASH: Final = BaseUnits(10_000_000)
"""What a lost claim takes of it."""
COMPENSATION: Final = BaseUnits(5_000_000)
"""What the renter gets of that, first."""

Progress = Callable[[str], None]


class Operator:
    """The account that deploys and owns the registries. One at a time per key: it takes nonces without a store."""

    def __init__(self, rpc: JsonRpc, key: bytes) -> None:
        self._rpc = rpc
        self._web3 = connect_web3(rpc, key)
        self.address: Final = SigningKey(key).address

    def __repr__(self) -> str:
        return f"<Operator {to_hex(self.address)}>"

    async def deploy(
        self, circuit_id: Hash32, *, treasury: Address | None = None, progress: Progress = lambda _: None
    ) -> ChainInfo:
        """All ten contracts, `circuit_id` registered with its verifier. `treasury` (default: this account) gets the fees."""
        chain_id = quantity(await self._rpc.request("eth_chainId"))
        if chain_id != CHAIN_ID:
            raise error("srs_development_only", detail=f"chain {chain_id}")
        gets_fees = treasury or self.address
        usdc = await self._create("TestUSDC", progress)
        models = await self._create("ModelRegistry", progress, self.address)
        stakes = await self._create(
            "HostStake", progress, self.address, usdc, gets_fees, MINIMUM_STAKE, SLASH, COMPENSATION
        )
        registry = await self._create("NodeRegistry", progress, models, stakes)
        proofs = await self._create("ProofSystem", progress, self.address)
        halo2 = await self._create("Halo2BindVerifier", progress)
        adapter = await self._create("EzklBindVerifier", progress, halo2)
        market = await self._create("JobMarketplace", progress, gets_fees, proofs, stakes)
        board = await self._create("PromptBoard", progress, market, registry)
        delegation = await self._create("Delegation", progress, market)
        await self._send(stakes, bindings.HostStake.encode_announce(market))
        await self._send(proofs, bindings.ProofSystem.encode_register(circuit_id, adapter))
        progress(f"circuit {to_hex(circuit_id)[:10]} is registered")
        return ChainInfo(
            chain_id=chain_id,
            market=market,
            registry=registry,
            models=models,
            proofs=proofs,
            usdc=usdc,
            stakes=stakes,
            board=board,
            delegation=delegation,
        )

    async def approve_model(self, info: ChainInfo, repository: str, file: str, sha256: Hash32) -> ModelId:
        """Propose where unknown, approve where not approved; doing it again costs nothing."""
        registry = bindings.ModelRegistry
        model_id = ModelId(
            registry.decode_id_of(await self._read(info.models, registry.encode_id_of(repository, file, sha256)))
        )
        if registry.decode_is_approved(await self._read(info.models, registry.encode_is_approved(model_id))):
            return model_id
        known = registry.decode_model(await self._read(info.models, registry.encode_model(model_id)))
        if not known.repository:
            await self._send(info.models, registry.encode_propose(repository, file, sha256))
        await self._send(info.models, registry.encode_approve(model_id))
        return model_id

    async def mint(self, info: ChainInfo, to: Address, amount: BaseUnits) -> None:
        """Test USDC out of nothing; the contract itself refuses off chain id 31337."""
        await self._send(info.usdc, bindings.TestUSDC.encode_mint(to, amount))

    async def _create(self, name: str, progress: Progress, *arguments: Address | int) -> Address:
        artifact = artifacts.load(name)
        factory = self._web3.eth.contract(abi=artifact.abi, bytecode=artifact.bytecode)
        transaction = await factory.constructor(
            *(a if isinstance(a, int) else self._web3.to_checksum_address(a) for a in arguments)
        ).build_transaction()
        receipt = await self._mined(transaction)
        created = Address(bytes.fromhex(receipt["contractAddress"][2:]))
        progress(f"{name} is at {to_hex(created)}")
        return created

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
