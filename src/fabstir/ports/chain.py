"""The market's contracts, as host and renter see them. Amounts and ids are domain types; no ABI leaks through.

Reads go to an RPC with failover. Writes go through the outbox: each takes a `key` that names the intent, is stored
before it is sent, is sent at most once per key also across restarts, and returns when mined.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Final, Protocol

import msgspec

from fabstir.domain.ids import Address, Hash32, JobId, ModelId, to_hex
from fabstir.domain.money import BaseUnits, PricePerMTok, Tokens
from fabstir.domain.terms import JobState, Terms
from fabstir.protocol.opening import Opening

NO_KEY: Final = Hash32(bytes(32))


class TxResult(msgspec.Struct, frozen=True, kw_only=True):
    """A mined, successful transaction."""

    hash: Hash32
    block: int
    gas_used: int


class TransactionEnd(StrEnum):
    """What became of a transaction, once it is certain."""

    MINED = "mined"
    """In a block that is buried."""
    REVERTED = "reverted"
    """The same, without effect; the gas is paid."""
    REFUSED = "refused"
    """Nothing was signed: it would revert, the account cannot pay for it, or nobody could be asked."""
    LOST = "lost"
    """A foreign transaction of the account took its nonce; it is planned again."""


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


class EpochState(msgspec.Struct, frozen=True, kw_only=True):
    """What `EpochProofs` keeps of a host's last epoch."""

    pending_block: int = 0
    """Of the commitment that waits for its proof; 0 where none does."""
    digest: int = 0
    """`epochs.commitment_digest` of it."""


class RegisteredOffer(msgspec.Struct, frozen=True):
    """One model in one currency, as `NodeRegistry` shows it."""

    model_id: ModelId
    token: Address
    price: PricePerMTok


class HostEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A host as `NodeRegistry` shows it."""

    address: Address
    url: str
    """Base URL of its API, http(s)://host:port."""
    encryption_key: Hash32 = NO_KEY
    """X25519 public key to which prompts are sealed; zeros where it has none."""
    offers: tuple[RegisteredOffer, ...]
    active: bool
    """Registered, and staked enough."""

    def price_of(self, model_id: ModelId, token: Address) -> PricePerMTok | None:
        """What it registered; None where it does not offer that model for that token."""
        wanted = (model_id, token)
        return next((offer.price for offer in self.offers if (offer.model_id, offer.token) == wanted), None)

    def serves(self, model_id: ModelId) -> bool:
        """In any currency."""
        return any(offer.model_id == model_id for offer in self.offers)


class StakeState(msgspec.Struct, frozen=True, kw_only=True):
    """What `HostStake` holds of one host, in units of the stake's token."""

    staked: BaseUnits = BaseUnits(0)
    unstaking: BaseUnits = BaseUnits(0)
    """Part of `staked` that is asked back."""
    available_at: int = 0
    """Unix seconds from which it can be withdrawn; 0 where nothing is asked back."""
    locked_until: int = 0
    """Claims of this host can be disputed until then; nothing leaves before."""


class StakeRules(msgspec.Struct, frozen=True, kw_only=True):
    """The constants of `HostStake`."""

    token: Address
    minimum: BaseUnits
    """What a registered host must have staked."""
    slash: BaseUnits
    """What one lost claim takes."""


class DelegateBudget(msgspec.Struct, frozen=True, kw_only=True):
    """What a delegate may still spend of a renter's token."""

    left: BaseUnits = BaseUnits(0)
    until: int = 0
    """Unix seconds from which nothing can be spent."""


class ChainInfo(msgspec.Struct, frozen=True, kw_only=True):
    """Where the money is."""

    chain_id: int
    market: Address
    registry: Address
    models: Address
    proofs: Address
    usdc: Address
    stakes: Address
    board: Address
    """PromptBoard."""
    delegation: Address
    epochs: Address
    """EpochProofs."""


def contract_addresses(info: ChainInfo) -> dict[str, str]:
    """Name of each contract -> its address in hexadecimal, as configuration and address book call them."""
    return {name: to_hex(getattr(info, name)) for name in info.__struct_fields__ if name != "chain_id"}


class JobNews(StrEnum):
    """What happened to a job that its parties must hear of."""

    CLOSE_REQUESTED = "close_requested"
    CLOSED = "closed"
    TOPPED_UP = "topped_up"
    CLAIMED = "claimed"
    DISPUTED = "disputed"
    ANSWERED = "answered"
    DECIDED = "decided"


class JobEvent(msgspec.Struct, frozen=True):
    """Seen on chain, or taken back by a reorganisation."""

    job: JobId
    news: JobNews
    block: int
    removed: bool = False


class MarketEvents(Protocol):
    """What happens in the market, as it happens."""

    async def watch(self, start: int, take: Callable[[JobEvent], None]) -> None:
        """Tell `take` of every event from block `start` on, until cancelled. An unreachable chain is waited out."""
        ...


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
    async def epoch(self, host: Address) -> EpochState: ...
    async def proven_epoch(self, host: Address, root: Hash32) -> Tokens:
        """Its tokens; 0 where it is not proven."""
        ...

    async def stake(self, host: Address) -> StakeState: ...
    async def stake_rules(self) -> StakeRules: ...
    async def delegate_budget(self, renter: Address, delegate: Address, token: Address) -> DelegateBudget: ...

    # -- writes
    async def approve(self, key: str, token: Address, amount: BaseUnits) -> TxResult: ...
    async def open(self, key: str, terms: Terms, deposit: BaseUnits) -> TxResult: ...
    async def open_with_authorization(
        self, key: str, terms: Terms, deposit: BaseUnits, valid_before: int, signature: bytes
    ) -> TxResult: ...
    async def open_as_delegate(self, key: str, terms: Terms, deposit: BaseUnits) -> TxResult:
        """Out of the budget that `terms.renter` set for this account. The salt begins with the address of `delegation`."""
        ...

    async def top_up_as_delegate(self, key: str, terms: Terms, amount: BaseUnits) -> TxResult:
        """Out of the same budget; the job may be the renter's own."""
        ...

    async def top_up(self, key: str, terms: Terms, amount: BaseUnits) -> TxResult: ...
    async def top_up_with_authorization(
        self, key: str, terms: Terms, amount: BaseUnits, valid_before: int, signature: bytes
    ) -> TxResult: ...
    async def commit_proof(self, key: str, terms: Terms, tokens: Tokens, root: Hash32) -> TxResult: ...
    async def submit_proof(self, key: str, terms: Terms, proof: ProofArgs) -> TxResult: ...
    async def redeem(self, key: str, claims: tuple[ClaimArgs, ...]) -> TxResult: ...
    async def commit_epoch(self, key: str, root: Hash32, tokens: Tokens) -> TxResult:
        """Fix many sessions at once."""
        ...

    async def prove_epoch(self, key: str, terms: Terms, path: tuple[SumNodeArgs, ...], proof: ProofArgs) -> TxResult:
        """Answer its challenge with the session that was drawn: `path` leads from it to the epoch's root."""
        ...

    async def redeem_by_epoch(
        self, key: str, claims: tuple[ClaimArgs, ...], tree_roots: tuple[Hash32, ...], root: Hash32, path: bytes
    ) -> TxResult:
        """As `redeem`, where the proven epoch `root` holds exactly these claims, all of one token, policy and model; `path` is
        `epochs.covering_path`. Raises ValueError on mixed ones."""
        ...

    async def claim_proven(self, key: str, terms: Terms) -> TxResult: ...
    async def settle_claim(self, key: str, terms: Terms) -> TxResult:
        """Once a stage of a claim is over: the outcome of its silence."""
        ...

    async def dispute(self, key: str, terms: Terms) -> TxResult:
        """Object to a claim, with the bond of the terms."""
        ...

    async def contradict(
        self, key: str, terms: Terms, amount: BaseUnits, tokens: Tokens, host_signature: bytes
    ) -> TxResult:
        """Show a `Close` that the host signed for fewer tokens than it claims."""
        ...

    async def answer_dispute(self, key: str, terms: Terms, opening: Opening) -> TxResult: ...
    async def rule(self, key: str, terms: Terms, for_host: bool) -> TxResult: ...
    async def close_by_host(self, key: str, claim: ClaimArgs) -> TxResult: ...
    async def close_cooperative(self, key: str, claim: ClaimArgs, host_signature: bytes) -> TxResult: ...
    async def request_close(self, key: str, terms: Terms) -> TxResult: ...
    async def finalize(self, key: str, terms: Terms) -> TxResult: ...
    async def withdraw(self, key: str, token: Address, to: Address) -> TxResult: ...
    async def register_host(
        self, key: str, url: str, encryption_key: Hash32, offers: tuple[RegisteredOffer, ...]
    ) -> TxResult:
        """Appear in the registry, or replace the entry. The stake must be there."""
        ...

    async def unregister_host(self, key: str) -> TxResult: ...
    async def approve_stake(self, key: str, amount: BaseUnits) -> TxResult:
        """Let `HostStake` take so much."""
        ...

    async def add_stake(self, key: str, amount: BaseUnits) -> TxResult: ...
    async def request_unstake(self, key: str, amount: BaseUnits) -> TxResult: ...
    async def withdraw_stake(self, key: str, to: Address) -> TxResult: ...
    async def set_delegate(
        self, key: str, delegate: Address, token: Address, budget: BaseUnits, until: int
    ) -> TxResult: ...
    async def approve_delegation(self, key: str, token: Address, amount: BaseUnits) -> TxResult:
        """Let `Delegation` take so much of this account's `token`, for all its delegates together."""
        ...
