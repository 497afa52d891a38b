"""Deployment on the devnet: eleven contracts that know each other, in the places that the plan named before."""

from __future__ import annotations

import pytest
from eth_typing import HexStr
from tests.chain.support import HOST, OPERATOR, RENTER, Chain, rpc_to
from web3.exceptions import ContractLogicError
from web3.types import Wei

from fabstir.chain import bindings
from fabstir.chain.conversion import abi_head, propose_model
from fabstir.chain.deploy import MINIMUM_STAKE, Operator
from fabstir.chain.deployer import is_done
from fabstir.chain.deployment import Parameters, plan, salt_of
from fabstir.chain.devnet import DEV_KEYS
from fabstir.chain.rpc import JsonRpc, quantity
from fabstir.chain.web3_provider import connect_web3
from fabstir.domain.errors import ChainFault, LocalFault
from fabstir.domain.ids import Address, Hash32, to_hex
from fabstir.ops.clock import SystemClock
from fabstir.protocol.model_identity import NO_HEAD, HeadCommitment, ModelIdentity
from fabstir.testing.chain import COMPENSATION, MIN_STAKE, SLASH

pytestmark = pytest.mark.real
CIRCUIT = Hash32(bytes([1]) * 32)


async def _read(rpc: JsonRpc, to: Address, data: bytes) -> bytes:
    return bytes.fromhex((await rpc.request("eth_call", {"to": to_hex(to), "data": to_hex(data)}, "latest"))[2:])


async def test_the_contracts_know_each_other(chain: Chain, rpc: JsonRpc) -> None:
    """Market and proof system, registry and models, circuit and adapter and verifier, treasury. Deployed again, it is another market."""
    told: list[str] = []
    info = await Operator(rpc, DEV_KEYS[0]).deploy(CIRCUIT, treasury=HOST.address, progress=told.append)
    market, registry, proofs = bindings.JobMarketplace, bindings.NodeRegistry, bindings.ProofSystem
    assert market.decode_proofs(await _read(rpc, info.market, market.encode_proofs())) == info.proofs
    assert market.decode_epochs(await _read(rpc, info.market, market.encode_epochs())) == info.epochs
    epochs = bindings.EpochProofs
    assert epochs.decode_proofs(await _read(rpc, info.epochs, epochs.encode_proofs())) == info.proofs
    assert market.decode_treasury(await _read(rpc, info.market, market.encode_treasury())) == HOST.address
    models = registry.decode_model_registry(await _read(rpc, info.registry, registry.encode_model_registry()))
    assert models == info.models
    verifier = proofs.decode_verifier_of(await _read(rpc, info.proofs, proofs.encode_verifier_of(CIRCUIT)))
    adapter = bindings.EzklBindVerifier
    halo2 = adapter.decode_halo2_verifier(await _read(rpc, verifier.adapter, adapter.encode_halo2_verifier()))
    assert await rpc.request("eth_getCode", to_hex(halo2), "latest") != "0x"
    names = ("HostStake", "PromptBoard", "Delegation", "JobMarketplace", "NodeRegistry", "TestUSDC")
    assert all(any(line.startswith(f"{name} is at 0x") for line in told) for name in names)


async def test_the_money_behind_the_market_is_where_it_should_be(chain: Chain, rpc: JsonRpc) -> None:
    """Market and registry ask the same stake, which obeys this market; board and delegation pay into it. The constants are those of
    the chain in memory."""
    info = await Operator(rpc, DEV_KEYS[0]).deploy(CIRCUIT, treasury=HOST.address)
    market, registry, stakes = bindings.JobMarketplace, bindings.NodeRegistry, bindings.HostStake
    assert market.decode_stakes(await _read(rpc, info.market, market.encode_stakes())) == info.stakes
    assert registry.decode_stakes(await _read(rpc, info.registry, registry.encode_stakes())) == info.stakes
    assert stakes.decode_token(await _read(rpc, info.stakes, stakes.encode_token())) == info.usdc
    assert stakes.decode_treasury(await _read(rpc, info.stakes, stakes.encode_treasury())) == HOST.address
    since = stakes.decode_authorized_from(await _read(rpc, info.stakes, stakes.encode_authorized_from(info.market)))
    newest = await rpc.request("eth_getBlockByNumber", "latest", False)
    assert 0 < since <= quantity(newest["timestamp"])
    amounts = (
        stakes.decode_minimum(await _read(rpc, info.stakes, stakes.encode_minimum())),
        stakes.decode_slash_amount(await _read(rpc, info.stakes, stakes.encode_slash_amount())),
        stakes.decode_compensation(await _read(rpc, info.stakes, stakes.encode_compensation())),
    )
    assert amounts == (MIN_STAKE, SLASH, COMPENSATION)
    assert MIN_STAKE == MINIMUM_STAKE
    board, delegation = bindings.PromptBoard, bindings.Delegation
    assert board.decode_market(await _read(rpc, info.board, board.encode_market())) == info.market
    assert delegation.decode_market(await _read(rpc, info.delegation, delegation.encode_market())) == info.market
    every = [getattr(info, name) for name in info.__struct_fields__ if name != "chain_id"]
    assert len(set(every)) == len(every) == 9


async def test_an_immutable_that_reads_back_otherwise_is_found(chain: Chain, rpc: JsonRpc) -> None:
    """Code that is the artifact's, with another treasury in it, is not taken for the contract that was planned."""
    nonce = int(await rpc.request("eth_getTransactionCount", to_hex(OPERATOR.address), "latest"), 16)
    info = await Operator(rpc, DEV_KEYS[0]).deploy(CIRCUIT, treasury=HOST.address)
    me = OPERATOR.address
    wanted = Parameters(chain_id=31337, deployer=me, owner=me, treasury=HOST.address, token=None, circuit=CIRCUIT)
    step = next(step for step in plan(wanted, salt_of(nonce)).creates if step.name == "HostStake")
    assert step.address == info.stakes and await is_done(rpc, step)
    code = await rpc.request("eth_getCode", to_hex(step.address), "latest")
    await rpc.request("anvil_setCode", to_hex(step.address), code.replace(HOST.address.hex(), RENTER.address.hex()))
    with pytest.raises(ChainFault, match="chain_mismatch.*HostStake.treasury is 0x0+70997970"):
        await is_done(rpc, step)


async def test_approving_a_model_again_changes_nothing(chain: Chain, rpc: JsonRpc) -> None:
    """Proposed by somebody or not, approved or not: afterwards it is approved, under the same id."""
    operator = Operator(rpc, DEV_KEYS[0])
    again = await operator.approve_model(
        chain.info, ModelIdentity(repository="fabstir/tests", file="model.gguf", sha256=Hash32(bytes([2]) * 32))
    )
    assert again == chain.model
    before = await rpc.request("eth_getTransactionCount", to_hex(OPERATOR.address), "latest")
    await operator.approve_model(
        chain.info, ModelIdentity(repository="fabstir/tests", file="model.gguf", sha256=Hash32(bytes([2]) * 32))
    )
    assert await rpc.request("eth_getTransactionCount", to_hex(OPERATOR.address), "latest") == before
    registry = bindings.ModelRegistry
    proposal = propose_model(
        ModelIdentity(repository="theirs", file="model.gguf", sha256=Hash32(bytes([3]) * 32)), NO_HEAD
    )
    web3 = connect_web3(rpc, DEV_KEYS[1])
    await web3.eth.send_transaction({"to": web3.to_checksum_address(chain.info.models), "data": proposal})
    theirs = await operator.approve_model(
        chain.info, ModelIdentity(repository="theirs", file="model.gguf", sha256=Hash32(bytes([3]) * 32))
    )
    assert registry.decode_is_approved(await _read(rpc, chain.info.models, registry.encode_is_approved(theirs)))


async def test_an_approved_model_gets_its_head_once(chain: Chain, rpc: JsonRpc) -> None:
    """Approved without one, it gets the one that is named; another one afterwards changes nothing."""
    operator, registry = Operator(rpc, DEV_KEYS[0]), bindings.ModelRegistry
    model = ModelIdentity(repository="headless", file="model.gguf", sha256=Hash32(bytes([5]) * 32))
    await operator.approve_model(chain.info, model)
    for root in (1, 2):
        head = HeadCommitment(root=Hash32(bytes([root]) * 32), rows=768, width=128, scale=15)
        await operator.approve_model(chain.info, model, head)
        known = registry.decode_model(await _read(rpc, chain.info.models, registry.encode_model(model.model_id)))
        assert known.head == abi_head(HeadCommitment(root=Hash32(bytes([1]) * 32), rows=768, width=128, scale=15))


async def test_a_stranger_may_not_approve(chain: Chain, rpc: JsonRpc) -> None:
    """The contract's own error, by name."""
    with pytest.raises(ChainFault) as refused:
        await Operator(rpc, DEV_KEYS[1]).approve_model(
            chain.info, ModelIdentity(repository="a", file="b", sha256=Hash32(bytes([4]) * 32))
        )
    assert refused.value.detail == f"OwnableUnauthorizedAccount({to_hex(RENTER.address)})"


async def test_only_the_devnet_gets_the_development_verifier(chain: Chain, rpc: JsonRpc) -> None:
    """Anybody can forge proofs for a development reference string, so no other chain gets it."""

    class ElsewhereRpc(JsonRpc):
        async def request(self, method: str, *params: object) -> object:
            return hex(8453) if method == "eth_chainId" else await super().request(method, *params)

    elsewhere = ElsewhereRpc([chain.url], SystemClock())
    with pytest.raises(LocalFault, match="srs_development_only"):
        await Operator(elsewhere, DEV_KEYS[0]).deploy(CIRCUIT)
    await elsewhere.close()


async def test_web3_runs_over_the_failover(chain: Chain) -> None:
    """With the first endpoint dead, web3.py reads and sends through the second; errors of the chain stay web3's own."""
    rpc = rpc_to("http://127.0.0.1:1", chain.url)
    web3 = connect_web3(rpc, DEV_KEYS[1])
    assert await web3.eth.chain_id == 31337
    assert await web3.is_connected()
    receipt = await web3.eth.wait_for_transaction_receipt(
        await web3.eth.send_transaction({"to": web3.to_checksum_address(HOST.address), "value": Wei(1)})
    )
    assert receipt["status"] == 1
    with pytest.raises(ContractLogicError):
        await web3.eth.call({"to": web3.to_checksum_address(chain.info.market), "data": HexStr("0xdeadbeef")})
    await rpc.close()
