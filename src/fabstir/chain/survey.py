"""Measures what a deployment's checklist asks about. Reads only; judges nothing (`checklist`).

What cannot be read because a contract does not answer is told as missing; an endpoint that does not answer raises.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

import msgspec

from fabstir.chain import bindings
from fabstir.chain.account import ChainAccount
from fabstir.chain.calls import ask
from fabstir.chain.code_check import code_at
from fabstir.chain.deployer import is_done, read
from fabstir.chain.deployment import FACTORY, Plan, selector, word
from fabstir.chain.rpc import JsonRpc, quantity
from fabstir.domain.errors import ChainFault
from fabstir.domain.ids import Address, address, to_hex
from fabstir.protocol.signing import keccak

T = TypeVar("T")

GAS_PRICE_ORACLE: Final = address("0x420000000000000000000000000000000000000f")
"""Where an OP-stack chain tells what the bytes of a transaction cost on L1."""
GET_L1_FEE: Final = selector("getL1Fee(bytes)")


_DOMAIN: Final = keccak(b"EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)")


class TokenFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What the token says of itself; None where it does not answer."""

    has_code: bool
    name: str | None = None
    symbol: str | None = None
    decimals: int | None = None
    version: str | None = None
    domain_separator: bytes | None = None


class Survey(msgspec.Struct, frozen=True, kw_only=True):
    """One reading of everything."""

    chain_ids: frozenset[int]
    """Of all endpoints that answer."""
    factory_code: bytes
    owner_code: int
    """Bytes of code at the owner."""
    owner_delay: int | None
    """Seconds that the owner's `getMinDelay` gives; None where it does not answer."""
    token: TokenFacts | None
    """None: a test token is deployed."""
    waiting: int
    """Transactions of the deployer that are sent and not mined."""
    balance: int
    base_fee: int
    gas: int
    """Upper estimate of all steps that are left."""
    l1_fee: int
    """Wei; 0 where the chain has no oracle."""
    left: tuple[str, ...]
    """Names of the steps that are left."""


async def survey(rpc: JsonRpc, made: Plan) -> Survey:
    """Raises ChainFault (`chain_unreachable`; `chain_mismatch` where something else stands in the plan's place)."""
    account, wanted = ChainAccount(rpc, made.parameters.deployer), made.parameters
    left = [step for step in made.steps if not await is_done(rpc, step)]
    oracle = bool(await code_at(rpc, GAS_PRICE_ORACLE))
    mined = quantity(await ask(rpc, "eth_getTransactionCount", to_hex(wanted.deployer), "latest"))
    return Survey(
        chain_ids=frozenset(await chain_ids(rpc)),
        factory_code=await code_at(rpc, FACTORY),
        owner_code=len(await code_at(rpc, wanted.owner)),
        owner_delay=await delay_of(rpc, wanted.owner),
        token=await token_facts(rpc, wanted.token) if wanted.token else None,
        waiting=await account.next_nonce() - mined,
        balance=await account.balance(),
        base_fee=await account.base_fee(),
        gas=sum(step.gas for step in left),
        l1_fee=sum([await _l1_fee(rpc, step.data) for step in left]) if oracle else 0,
        left=tuple(step.name for step in left),
    )


async def chain_ids(rpc: JsonRpc) -> set[int]:
    """Of every endpoint that answers; raises `chain_unreachable` where none does."""
    return {
        quantity(await ask(rpc, "eth_chainId")),
        *(quantity(answer) for answer in await rpc.everywhere("eth_chainId")),
    }


async def delay_of(rpc: JsonRpc, owner: Address) -> int | None:
    """Seconds that a timelock makes its callers wait; None where there is no such contract."""
    answer = await _answer(rpc, owner, selector("getMinDelay()"))
    return int.from_bytes(answer, "big") if len(answer) == 32 else None


def domain_separator(name: str, version: str, chain_id: int, token: Address) -> bytes:
    """EIP-712, as a token with this name and version must have it."""
    return keccak(_DOMAIN + keccak(name.encode()) + keccak(version.encode()) + word(chain_id) + word(token))


async def token_facts(rpc: JsonRpc, token: Address) -> TokenFacts:
    """What an ERC-20 with EIP-712 says of itself."""
    usdc = bindings.TestUSDC

    async def said(data: bytes, decode: Callable[[bytes], T]) -> T | None:
        try:
            return decode(await _answer(rpc, token, data))
        except ChainFault as fault:
            if fault.code == "chain_mismatch":  # it answers something else
                return None
            raise

    return TokenFacts(
        has_code=bool(await code_at(rpc, token)),
        name=await said(usdc.encode_name(), usdc.decode_name),
        symbol=await said(usdc.encode_symbol(), usdc.decode_symbol),
        decimals=await said(usdc.encode_decimals(), usdc.decode_decimals),
        version=await said(usdc.encode_version(), usdc.decode_version),
        domain_separator=await said(usdc.encode_domain_separator(), usdc.decode_domain_separator),
    )


async def _answer(rpc: JsonRpc, to: Address, data: bytes) -> bytes:
    """Empty where the contract refuses."""
    try:
        return await read(rpc, to, data)
    except ChainFault as fault:
        if fault.code == "chain_reverted":
            return b""
        raise


async def _l1_fee(rpc: JsonRpc, data: bytes) -> int:
    padded = data + bytes(-len(data) % 32)
    answer = await read(rpc, GAS_PRICE_ORACLE, GET_L1_FEE + word(32) + word(len(data)) + padded)
    return int.from_bytes(answer[:32], "big")
