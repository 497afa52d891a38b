"""The part of the tree of settings (`fabstir.ops.config`) that a renter's money goes by. Reads nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from fabstir.domain.terms import DEFAULT_BOND, DEFAULT_BOND_NATIVE, MAX_CHALLENGE_SECONDS
from fabstir.ops import paths
from fabstir.ops.config_types import USDC, Amount, ContractAddress, Count, Currency, Port, Section, about

LadderRung = Annotated[int, Meta(ge=0, le=4)]


class RenterSection(Section, frozen=True, kw_only=True):
    """What a renter spends and where its gateway listens."""

    data_dir: Annotated[Path, about("Where the renter's journal lives. One renter per directory.")] = msgspec.field(
        default_factory=lambda: paths.data_dir() / "renter"
    )
    key_file: Annotated[Path, about("The renter's key: pays deposits and gets refunds. Mode 0600.")] = msgspec.field(
        default_factory=lambda: paths.config_dir() / "renter.key"
    )
    token: Annotated[
        Currency,
        about("What is paid with: `usdc`, `eth`, or the address of another token with prices in the registry."),
    ] = USDC
    budget: Annotated[
        Count, about("What one session may cost, in base units of USDC or another token. What is not used comes back.")
    ] = 1_000_000
    budget_native: Annotated[Amount, about("The same in wei, where `renter.token` is `eth`.")] = 400_000_000_000_000
    max_price_per_mtok: Annotated[
        Amount,
        about("Hosts that ask more for 1,000,000 tokens are not taken; in base units of `renter.token`. 0: any price."),
    ] = 0
    policy: Annotated[
        Literal["required", "fallback"],
        about("`required`: nothing is redeemed without a proof. `fallback`: your signature is enough."),
    ] = "required"
    rung: Annotated[
        LadderRung | None,
        about(
            "Rung of the ladder of verification for sessions: 0 receipt, 1 scores of other hosts, 2 fingerprints (all three with policy"
            " `fallback`), 3 proof on chain (`required`), 4 attestation, verified before you pay."
            " Unset: what `renter.policy` implies, 3 or 0."
        ),
    ] = None
    attestation_policy: Annotated[
        Path | None, about("For rung 4: what you demand of a host's machine, as of `fabstir verify attestation`.")
    ] = None
    attestation_collateral: Annotated[
        Path | None, about("For rung 4: Intel's TCB info, QE identity, revocation lists and their chains, as JSON.")
    ] = None
    exposure: Annotated[
        int, Meta(ge=1, le=4096), about("W: tokens that a host may send before you have signed for them.")
    ] = 64
    challenge_s: Annotated[
        int,
        Meta(ge=900, le=MAX_CHALLENGE_SECONDS),
        about("Shortest challenge window of a job; a host may ask for more."),
    ] = 900
    lifetime_s: Annotated[int, Meta(ge=3_600), about("From opening a job to its expiry.")] = 86_400
    top_up: Annotated[
        bool,
        about("Add to a job's deposit where it runs out in an answer, as far as the budget goes; else open another."),
    ] = True
    arbiter: Annotated[
        ContractAddress | None,
        about("Who is to rule in a dispute; hosts that do not accept it are not taken. Unset: nobody."),
    ] = None
    bond: Annotated[
        Count, about("What a dispute costs you where you were wrong, in base units; a host may ask for more.")
    ] = DEFAULT_BOND
    bond_native: Annotated[Amount, about("The same in wei, where `renter.token` is `eth`. At least 1.")] = (
        DEFAULT_BOND_NATIVE
    )
    bond_max: Annotated[Count, about("Hosts that ask for a larger bond are not taken.")] = 10 * DEFAULT_BOND
    bond_max_native: Annotated[Amount, about("The same in wei, where `renter.token` is `eth`.")] = (
        10 * DEFAULT_BOND_NATIVE
    )
    dispute_above: Annotated[
        Count, about("Dispute a claim of tokens that never arrived where they are worth so many base units.")
    ] = 100_000
    dispute_above_native: Annotated[Amount, about("The same in wei, where `renter.token` is `eth`.")] = (
        DEFAULT_BOND_NATIVE
    )
    require_encryption: Annotated[
        bool, about("Take only hosts with an encrypted channel. `false`: it is used wherever a host offers it.")
    ] = False
    authorize: Annotated[
        bool, about("Pay by a signed transfer (EIP-3009): one transaction instead of two. Not with `eth`.")
    ] = False
    relay: Annotated[
        bool,
        about("Let the host send that transfer to the contract: needs no ETH. Only hosts that do so are taken."),
    ] = False
    principal: Annotated[
        ContractAddress | None,
        about("Whose money is spent, within the budget that it set with `fabstir wallet delegate`. Unset: your own."),
    ] = None
    blob_quota_mb: Annotated[Count, about("Most MiB of sealed prompts and results that are kept.")] = 1024
    blob_days: Annotated[Count, about("Days that they are kept. An order is read again with them.")] = 365
    audit_per_1000: Annotated[
        int,
        Meta(ge=0, le=1_000),
        about(
            "Of 1,000 answers, so many are checked by other hosts, chosen by chance; you pay for it like for answers."
        ),
    ] = 0
    audit_budget: Annotated[Count, about("What one check may cost, in base units of `renter.token`.")] = 100_000
    tolerance_dir: Annotated[
        Path | None,
        about("Folder with files of `fabstir verify calibrate`, for models that do not ship with the package."),
    ] = None
    keep_words: Annotated[
        bool,
        about("Keep what is said on this machine, unencrypted, to have answers checked (`fabstir verify session`)."),
    ] = False
    context_strategy: Annotated[
        Literal["refuse", "truncate", "summarise", "retrieve"],
        about(
            "What may be left out where a conversation does not fit the model: `refuse` nothing, `truncate` the oldest turns, `summarise`"
            " has the host sum up the older half (you pay for it), `retrieve` keeps of the oldest turns those that fit the question"
            " (needs `renter.embeddings`). Each answer says what was."
        ),
    ] = "refuse"
    context_max_tokens: Annotated[
        int, Meta(ge=0), about("Window: the model is given at most so many tokens. 0: as many as it takes.")
    ] = 0
    context_max_messages: Annotated[int, Meta(ge=0), about("Window: at most so many messages. 0: any number.")] = 0
    embeddings: Annotated[
        bool,
        about("Load all-MiniLM-L6-v2 on this machine: for `/v1/embeddings` of the gateway, and for `retrieve`."),
    ] = False
    embedder_dir: Annotated[
        Path | None, about("Folder with its weights and tokenizer. Unset: those of the pinned package.")
    ] = None
    gateway_host: Annotated[str, about("Address of the OpenAI gateway. It spends your money: this machine only.")] = (
        "127.0.0.1"
    )
    gateway_port: Annotated[Port, about("Port of the OpenAI gateway; 0 takes a free one.")] = 8090
    gateway_parallel: Annotated[Count, about("Requests that the gateway answers at the same time; more wait.")] = 16
    gateway_key: Annotated[
        str | None, about("What clients of the gateway must send as their API key. Unset: anything.", secret=True)
    ] = None
