"""The market's contracts, as host and renter see them. Amounts and ids are domain types; no ABI leaks through.

Reads go to an RPC with failover. Writes go through the outbox: each takes a `key` that names the intent, is stored
before it is sent, is sent at most once per key also across restarts, and returns when mined.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from fabstir.domain.ids import Address, Hash32, JobId, ModelId
from fabstir.domain.money import BaseUnits, PricePerMTok, Tokens
from fabstir.domain.terms import JobState, Terms


class TxResult(msgspec.Struct, frozen=True, kw_only=True):
    """A mined, successful transaction."""

    hash: Hash32
    block: int
    gas_used: int


class ClaimArgs(msgspec.Struct, frozen=True, kw_only=True):
    """A voucher, ready for the contract."""

    terms: Terms
    amount: BaseUnits
    tokens: Tokens
    transcript: Hash32
    signature: bytes
    """65 bytes r, s, v (27/28) of `terms.signer`; empty in closeByHost where nothing is left to redeem."""


class SumNodeArgs(msgspec.Struct, frozen=True):
    """One sibling on the path of a Merkle-sum tree."""

    hash: Hash32
    tokens: Tokens
    left: bool
    """The sibling stands to the left."""


class ProofArgs(msgspec.Struct, frozen=True, kw_only=True):
    """An answer to the challenge, ready for the contract."""

    circuit_id: Hash32
    tree_root: Hash32
    head: Hash32
    """Transcript head at `tokens`."""
    tokens: Tokens
    checkpoint_tokens: Tokens
    commitment: Hash32
    path: tuple[SumNodeArgs, ...]
    proof: bytes


class HostEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A host as `NodeRegistry` shows it."""

    address: Address
    url: str
    """Base URL of its API, http(s)://host:port."""
    models: tuple[tuple[ModelId, PricePerMTok], ...]
    active: bool


class ChainInfo(msgspec.Struct, frozen=True, kw_only=True):
    """Where the money is."""

    chain_id: int
    market: Address
    registry: Address
    models: Address
    proofs: Address
    usdc: Address


class EndpointState(msgspec.Struct, frozen=True, kw_only=True):
    """One RPC endpoint."""

    name: str
    """Place in `chain.rpc_urls` (from 0) and origin; never a path or credentials."""
    state: str
    """`ready`; `resting`, `rate_limited`, `wrong_chain` (not used); `lagging`, `untrue` (used last); `unproven` (asked again next)."""
    reason: str = ""
    block: int = 0
    """Newest block that it named."""


class ChainCondition(msgspec.Struct, frozen=True, kw_only=True):
    """How the way to the chain is, from what happened lately."""

    endpoints: tuple[EndpointState, ...] = ()
    sending: str = "ok"
    """`ok`, `fee_too_high` (transactions wait), `key_in_use` (nothing is sent any more)."""
    reason: str = ""
    waiting: int = 0
    """Transactions that are in no block yet."""


class MarketChain(Protocol):
    """One account's view of the market. Raises ChainFault."""

    @property
    def info(self) -> ChainInfo:
        """Checked against the endpoint at connect."""
        ...

    @property
    def account(self) -> Address:
        """Whose key signs."""
        ...

    def condition(self) -> ChainCondition:
        """Asks nobody."""
        ...

    # -- reads
    async def job(self, job_id: JobId) -> JobState: ...
    async def block_number(self) -> int: ...
    async def block_hash(self, number: int) -> Hash32 | None:
        """None where the block does not exist yet."""
        ...

    async def timestamp(self) -> int:
        """Of the newest block, Unix seconds."""
        ...

    async def balance(self, token: Address, owner: Address) -> BaseUnits: ...
    async def earnings(self, token: Address, owner: Address) -> BaseUnits: ...
    async def hosts(self, model_id: ModelId | None = None) -> list[HostEntry]:
        """Active hosts, of one model where given."""
        ...

    async def model_approved(self, model_id: ModelId) -> bool: ...

    # -- writes
    async def approve(self, key: str, token: Address, amount: BaseUnits) -> TxResult: ...
    async def open(self, key: str, terms: Terms, deposit: BaseUnits) -> TxResult: ...
    async def open_with_authorization(
        self, key: str, terms: Terms, deposit: BaseUnits, valid_before: int, signature: bytes
    ) -> TxResult: ...
    async def commit_proof(self, key: str, terms: Terms, tokens: Tokens, root: Hash32) -> TxResult: ...
    async def submit_proof(self, key: str, terms: Terms, proof: ProofArgs) -> TxResult: ...
    async def redeem(self, key: str, claims: tuple[ClaimArgs, ...]) -> TxResult: ...
    async def claim_proven(self, key: str, terms: Terms) -> TxResult: ...
    async def close_by_host(self, key: str, claim: ClaimArgs) -> TxResult: ...
    async def close_cooperative(self, key: str, claim: ClaimArgs, host_signature: bytes) -> TxResult: ...
    async def request_close(self, key: str, terms: Terms) -> TxResult: ...
    async def finalize(self, key: str, terms: Terms) -> TxResult: ...
    async def withdraw(self, key: str, token: Address, to: Address) -> TxResult: ...
    async def register_host(self, key: str, url: str, models: tuple[tuple[ModelId, PricePerMTok], ...]) -> TxResult: ...
    async def unregister_host(self, key: str) -> TxResult: ...
