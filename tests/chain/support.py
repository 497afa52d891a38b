"""What the tests of the chain shell share: a chain with our contracts, jobs and a verifier that believes everything."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import Any

import msgspec

from fabstir.chain import bindings, transactions
from fabstir.chain.deploy import MINIMUM_STAKE, Operator
from fabstir.chain.devnet import DEV_KEYS, DevnetControl
from fabstir.chain.fees import GWEI, Fee
from fabstir.chain.outbox import Outbox, OutboxSettings
from fabstir.chain.rpc import JsonRpc, quantity
from fabstir.chain.transactions import Signed, Transaction
from fabstir.chain.web3_provider import connect_web3
from fabstir.domain.ids import Address, Hash32, ModelId, to_hex
from fabstir.domain.money import BaseUnits, PricePerMTok, Tokens
from fabstir.domain.terms import ProofPolicy, Terms
from fabstir.ops.clock import SystemClock
from fabstir.ports.chain import ChainInfo, RegisteredOffer
from fabstir.protocol.model_identity import ModelIdentity
from fabstir.protocol.signing import SigningKey, keccak
from fabstir.testing.journal import WritePhase

CIRCUIT_ID = Hash32(b"TEST: believes every proof".ljust(32))
BELIEVER_CODE = bytes.fromhex("60088060093d393df360015f5260205ff3")
"""Creation code of an adapter whose `verify` answers true: PUSH1 1, PUSH0, MSTORE, PUSH1 32, PUSH0, RETURN."""

OPERATOR, RENTER, HOST, OTHER = (SigningKey(key) for key in DEV_KEYS[:4])
SESSION_KEY = SigningKey(bytes.fromhex("11" * 32))
TARGET = Address(bytes.fromhex("00000000000000000000000000000000000ca11e"))
QUICK = OutboxSettings(first_poll=0.005, longest_poll=0.02, bump_after=0.05, patience=60.0, watch_every=0.02)
"""The same rules at another scale; nothing here asserts a time."""
Make = Callable[..., Outbox]
_salts = itertools.count(1)


class Chain(msgspec.Struct, frozen=True):
    """A running devnet with our contracts."""

    url: str
    info: ChainInfo
    model: ModelId


def rpc_to(*urls: str) -> JsonRpc:
    return JsonRpc(urls, SystemClock())


async def set_up(url: str) -> Chain:
    """Deploy, approve one model, fund the renter, stake for both hosts, and register the believing verifier beside the real one."""
    rpc = rpc_to(url)
    try:
        operator = Operator(rpc, DEV_KEYS[0])
        info = await operator.deploy(Hash32(bytes([1]) * 32))
        await _register_believer(rpc, info)
        model = await operator.approve_model(
            info, ModelIdentity(repository="fabstir/tests", file="model.gguf", sha256=Hash32(bytes([2]) * 32))
        )
        await operator.mint(info, RENTER.address, BaseUnits(1_000_000_000))
        await operator.mint(info, OPERATOR.address, BaseUnits(2 * MINIMUM_STAKE))
        await _stake(rpc, info)
    finally:
        await rpc.close()
    return Chain(url, info, model)


async def _stake(rpc: JsonRpc, info: ChainInfo) -> None:
    """The operator pays, so that the hosts have sent nothing yet and own no USDC."""
    stakes = bindings.HostStake
    web3 = connect_web3(rpc, DEV_KEYS[0])
    calls = [(info.usdc, bindings.TestUSDC.encode_approve(info.stakes, 2 * MINIMUM_STAKE))]
    calls += [(info.stakes, stakes.encode_stake_for(host.address, MINIMUM_STAKE)) for host in (HOST, OTHER)]
    for to, data in calls:
        sent = await web3.eth.send_transaction({"to": web3.to_checksum_address(to), "data": data})
        assert (await web3.eth.wait_for_transaction_receipt(sent))["status"] == 1


async def _register_believer(rpc: JsonRpc, info: ChainInfo) -> None:
    web3 = connect_web3(rpc, DEV_KEYS[0])
    created = await web3.eth.wait_for_transaction_receipt(await web3.eth.send_transaction({"data": BELIEVER_CODE}))
    adapter = Address(bytes.fromhex(str(created["contractAddress"])[2:]))
    data = bindings.ProofSystem.encode_register(CIRCUIT_ID, adapter)
    sent = await web3.eth.send_transaction({"to": web3.to_checksum_address(info.proofs), "data": data})
    assert (await web3.eth.wait_for_transaction_receipt(sent))["status"] == 1


def terms_for(chain: Chain, now: int, **changes: Any) -> Terms:
    """One job of the renter with the host."""
    fields: dict[str, Any] = {
        "renter": RENTER.address,
        "signer": SESSION_KEY.address,
        "host": HOST.address,
        "token": chain.info.usdc,
        "price": PricePerMTok(200_000),
        "expires_at": now + 86_400,
        "challenge": 900,
        "exposure": Tokens(64),
        "policy": ProofPolicy.REQUIRED,
        "model_id": chain.model,
        "salt": keccak(next(_salts).to_bytes(8, "big")),
    }
    return Terms(**(fields | changes))


def offers_of(chain: Chain, price: int = 7) -> tuple[RegisteredOffer, ...]:
    """The chain's model in USDC."""
    return (RegisteredOffer(chain.model, chain.info.usdc, PricePerMTok(price)),)


async def coins(rpc: JsonRpc, owner: Address) -> int:
    return quantity(await rpc.request("eth_getBalance", to_hex(owner), "latest"))


async def nonce(rpc: JsonRpc, owner: Address) -> int:
    return quantity(await rpc.request("eth_getTransactionCount", to_hex(owner), "latest"))


async def mine_until(control: DevnetControl, rpc: JsonRpc, block: int) -> None:
    while quantity(await rpc.request("eth_blockNumber")) < block:
        await control.mine()


async def mine_until_done(control: DevnetControl, task: asyncio.Task[Any]) -> None:
    """Make blocks until a task that waits for its transaction has ended, well or not. Not automine: anvil would also make one
    of its own for what is in the pool, at a time of its choosing."""
    while not task.done():
        await control.mine()


def foreign_transfer(nonce_: int, to: Address, key: SigningKey = RENTER) -> Signed:
    """What another program with `key` sends: one wei, with a fee that replaces ours."""
    transaction = Transaction(
        chain_id=31337, nonce=nonce_, fee=Fee(90 * GWEI, 50 * GWEI), gas=21_000, to=to, value=1, data=b""
    )
    return transactions.sign(transaction, key)


class WriteCounter:
    """Lets a test wait for a number of writes."""

    def __init__(self) -> None:
        self._events: dict[int, asyncio.Event] = {}

    def __call__(self, number: int, phase: WritePhase) -> None:
        if phase == "after":
            self._event(number).set()

    def _event(self, number: int) -> asyncio.Event:
        return self._events.setdefault(number, asyncio.Event())

    async def reached(self, number: int) -> None:
        await self._event(number).wait()
