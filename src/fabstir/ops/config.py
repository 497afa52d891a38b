"""The one frozen tree of settings. Decides what a setting is called, what it may be and what it is when nobody says.

Never reads anything: `fabstir.ops.settings` does, and `docs/reference/configuration.md` is generated from the
descriptions here and in `config_renter`. Amounts of money are base units (1e-6 USDC, 1 wei where the name says `native`),
durations are seconds.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from fabstir.domain.terms import DEFAULT_BOND, DEFAULT_BOND_NATIVE
from fabstir.ops import paths
from fabstir.ops.config_api import ApiSection
from fabstir.ops.config_p2p import P2PSection
from fabstir.ops.config_renter import RenterSection
from fabstir.ops.config_telemetry import TelemetrySection
from fabstir.ops.config_types import (
    ETH,
    USDC,
    Amount,
    ContractAddress,
    Count,
    Role,
    Section,
    Url,
    about,
    units,
)

__all__ = ["ETH", "USDC", "Config", "Role", "units"]


class ChainSection(Section, frozen=True, kw_only=True):
    """Where the money is."""

    rpc_urls: Annotated[
        tuple[Url, ...],
        Meta(min_length=1),
        about("JSON-RPC endpoints, best first; the next takes over when one fails.", secret=True),
    ] = ("http://127.0.0.1:8545",)
    chain_id: Annotated[Count, about("The chain that the endpoints must serve. 31337 is the local devnet.")] = 31337
    market: Annotated[ContractAddress | None, about("JobMarketplace. Unset: from this chain's address book.")] = None
    registry: Annotated[ContractAddress | None, about("NodeRegistry. Unset: from this chain's address book.")] = None
    models: Annotated[ContractAddress | None, about("ModelRegistry. Unset: from this chain's address book.")] = None
    proofs: Annotated[ContractAddress | None, about("ProofSystem. Unset: from this chain's address book.")] = None
    usdc: Annotated[ContractAddress | None, about("The USDC token. Unset: from this chain's address book.")] = None
    stakes: Annotated[ContractAddress | None, about("HostStake. Unset: from this chain's address book.")] = None
    board: Annotated[ContractAddress | None, about("PromptBoard. Unset: from this chain's address book.")] = None
    delegation: Annotated[ContractAddress | None, about("Delegation. Unset: from this chain's address book.")] = None
    epochs: Annotated[ContractAddress | None, about("EpochProofs. Unset: from this chain's address book.")] = None
    max_fee_gwei: Annotated[Count, about("Never pay more for one unit of gas; transactions wait instead.")] = 10


class HostSection(Section, frozen=True, kw_only=True):
    """What a host offers and what it accepts."""

    data_dir: Annotated[Path, about("Where the host's journal lives. One host per directory.")] = msgspec.field(
        default_factory=lambda: paths.data_dir() / "host"
    )
    key_file: Annotated[Path, about("The host's key: is paid and signs receipts. Mode 0600.")] = msgspec.field(
        default_factory=lambda: paths.config_dir() / "host.key"
    )
    price_per_mtok: Annotated[
        Count, about("Base units for 1,000,000 generated tokens. 200000 is 0.20 USDC.", live=True)
    ] = 200_000
    price_native_per_mtok: Annotated[
        Amount, about("The same in wei, for renters who pay in ETH. 0: ETH is not taken.", live=True)
    ] = 0
    proof_surcharge_percent: Annotated[
        int,
        Meta(ge=0, le=1_000),
        about(
            "Percent that a job with the proof policy `required` costs more: you pay the gas of its proofs.", live=True
        ),
    ] = 0
    fingerprint_surcharge_percent: Annotated[
        int,
        Meta(ge=0, le=1_000),
        about(
            "Percent that a session on rung 2 of the ladder costs more, where `engine.fingerprints` is set.", live=True
        ),
    ] = 0
    stake: Annotated[
        int,
        Meta(ge=0),
        about(
            "Stake that the node tops up to at its start, base units of USDC. 0: only what `fabstir host stake` put there."
        ),
    ] = 0
    min_deposit: Annotated[Count, about("Jobs with a smaller deposit are refused. 10000 is 0.01 USDC.", live=True)] = (
        10_000
    )
    min_deposit_native: Annotated[
        Amount, about("The same in wei, for jobs in ETH. 4000000000000 is 0.000004 ETH.", live=True)
    ] = 4_000_000_000_000
    bond_min: Annotated[
        Count, about("Terms with a smaller bond are refused: what a dispute costs a renter that was wrong.", live=True)
    ] = DEFAULT_BOND
    bond_min_native: Annotated[Amount, about("The same in wei, for jobs in ETH. At least 1.", live=True)] = (
        DEFAULT_BOND_NATIVE
    )
    arbiters: Annotated[
        tuple[ContractAddress, ...],
        Meta(max_length=64),
        about(
            "Who may rule in a dispute, where the terms name somebody. Terms that name nobody are always accepted.",
            live=True,
        ),
    ] = ()
    relay_openings: Annotated[
        bool,
        about(
            "Send the signed deposits (EIP-3009) of renters without ETH to the contract, and pay the gas for it.",
            live=True,
        ),
    ] = False
    relay_min_deposit: Annotated[
        Count, about("Smallest deposit that is worth the gas of sending it. 100000 is 0.10 USDC.", live=True)
    ] = 100_000
    relay_per_hour: Annotated[
        Count, about("Transactions sent for renters in an hour; more are `rate_limited`.", live=True)
    ] = 60
    max_sessions: Annotated[Count, about("Sessions at the same time; more are refused with `capacity`.", live=True)] = (
        64
    )
    queue_max: Annotated[
        Count,
        about(
            "Requests that may wait for each model; more are refused with `capacity`, and what each would wait.",
            live=True,
        ),
    ] = 256
    queue_patience_s: Annotated[
        Count, about("A request that waits so long for a place is refused with `capacity`.", live=True)
    ] = 60
    renter_max_running: Annotated[
        Count,
        about("Answers of one renter that each model makes at the same time; its further requests wait.", live=True),
    ] = 16
    context_memory_mb: Annotated[
        Count,
        about("MiB of memory for the conversations of all sessions; beyond it the oldest idle ones are given up."),
    ] = 512
    context_rest_s: Annotated[Count, about("A conversation that nobody asks about for so long is compressed.")] = 60
    memory_reserve_mb: Annotated[
        Count, about("MiB of the machine's memory that stay free; below it idle conversations are given up.")
    ] = 256
    context_max_messages: Annotated[
        Count,
        about("Messages that one session holds; longer conversations are refused with `context_too_large`.", live=True),
    ] = 4096
    context_max_characters: Annotated[
        Count, about("Characters that one session holds; beyond it the same.", live=True)
    ] = 8_388_608
    require_encryption: Annotated[bool, about("Refuse sessions in plain text (`channel_required`).", live=True)] = False
    ack_timeout_s: Annotated[
        Count, about("How long an answer waits at the exposure bound for a receipt_ack.", live=True)
    ] = 30
    exposure_max: Annotated[
        int,
        Meta(ge=1, le=4096),
        about("Largest W that is accepted: tokens served but not yet acknowledged.", live=True),
    ] = 256
    challenge_min_s: Annotated[
        int,
        Meta(ge=900),
        about("Shortest challenge window that is accepted: time to redeem once a renter asks to close.", live=True),
    ] = 900
    advertise_url: Annotated[
        Url | None, about("Base URL for the on-chain registry. Unset: made from `api.host` and `api.port`.")
    ] = None
    settle_interval_s: Annotated[
        Count, about("How often jobs are looked through for what can be redeemed, proven or closed.")
    ] = 30
    redeem_above: Annotated[
        Count, about("Redeem a running job once so many base units are signed and not redeemed.", live=True)
    ] = 1_000_000
    redeem_above_native: Annotated[
        Amount, about("The same in wei, for jobs in ETH. At least 1; 400000000000000 is 0.0004 ETH.", live=True)
    ] = 400_000_000_000_000
    claim_tail_above: Annotated[
        Count,
        about("Claim served but unsigned tokens (at most W) only where they are worth so many base units.", live=True),
    ] = 2_000
    claim_tail_above_native: Annotated[Amount, about("The same in wei, for jobs in ETH. At least 1.", live=True)] = (
        800_000_000_000
    )
    expiry_margin_s: Annotated[Count, about("So long before its expiry a job is settled and closed.", live=True)] = (
        3_600
    )
    idle_close_s: Annotated[
        Count, about("A job whose renter is away for so long is settled and closed.", live=True)
    ] = 3_600
    auto_register: Annotated[bool, about("Register in NodeRegistry at the start when URL, model or price changed.")] = (
        True
    )
    prompt_slots: Annotated[
        int,
        Meta(ge=0, le=256),
        about("Prompt jobs that this host works on at the same time. 0: none, and the board is not followed."),
    ] = 0
    prompt_queue: Annotated[Count, about("Prompt jobs that wait to be claimed; beyond it the worst are dropped.")] = (
        10_000
    )
    prompt_unpaid_max: Annotated[
        Count, about("Base units of prompt jobs that are claimed or answered and not paid yet; more are not claimed.")
    ] = 50_000_000
    prompt_history_s: Annotated[
        Count, about("Prompt jobs that were posted so long before the start are looked for on the board.")
    ] = 86_400
    blob_quota_mb: Annotated[
        Count, about("Most MiB of sealed prompts that others uploaded, and as much again for results.")
    ] = 1024
    blob_days: Annotated[Count, about("Days that sealed prompts and results are kept.")] = 31


class EngineSection(Section, frozen=True, kw_only=True):
    """What computes the answers."""

    kind: Annotated[
        Literal["llama", "openai"],
        about("`llama`: llama.cpp in a supervised process. `openai`: a server that speaks the OpenAI dialect."),
    ] = "llama"
    model: Annotated[Path | None, about("A GGUF file. Unset: the tiny model that comes with the package.")] = None
    repository: Annotated[
        str | None, about("Repository under which the model is approved in ModelRegistry. Unset: `fabstir/tiny-chat`.")
    ] = None
    binary: Annotated[Path | None, about("A llama-server of your own. Unset: the one that comes with the package.")] = (
        None
    )
    base_url: Annotated[Url | None, about("For `openai`: the server's base URL, /v1 included.")] = None
    api_key: Annotated[str | None, about("For `openai`: the server's key.", secret=True)] = None
    context_size: Annotated[int, Meta(ge=64), about("Tokens of prompt and answer together, for one session.")] = 4096
    parallel: Annotated[int, Meta(ge=1, le=512), about("Answers that are computed at the same time.")] = 4
    spill_mb: Annotated[
        Annotated[int, Meta(ge=0)] | None,
        about(
            "For `llama`: MiB of /dev/shm for what was computed for sessions that lost their place; their next prompt then costs only what"
            " is new. Refused on a machine that swaps, since it holds what was said. Unset: an eighth of /dev/shm, where that is safe."
        ),
    ] = None
    threads: Annotated[Count | None, about("CPU threads. Unset: the number of cores.")] = None
    gpu_layers: Annotated[int, Meta(ge=0), about("Layers of the model on the GPU; 999 is all of them.")] = 0
    adapters: Annotated[
        tuple[Path, ...],
        about(
            "With `llama`: LoRA adapters (GGUF files) that a renter may have laid over the model for an answer, each by its file's name"
            " without the ending."
        ),
    ] = ()
    scoring: Annotated[
        bool,
        about(
            "With `llama`: also say how likely the tokens of other hosts' answers are, for renters who have them checked. Loads the"
            " weights a second time."
        ),
    ] = False
    fingerprints: Annotated[
        bool,
        about(
            "With `llama`: for sessions on rung 2 also sign fingerprints of the activations behind each answer. Each answer goes through"
            " the weights once more after its end, behind everything else; the weights are loaded a second time, once for this and"
            " `engine.scoring`."
        ),
    ] = False
    top_logprobs: Annotated[
        int,
        Meta(ge=0, le=20),
        about("Most likely tokens per position that are committed with their log-probabilities."),
    ] = 5


class FurtherEngine(EngineSection, frozen=True, kw_only=True):
    """Further engines of a host, one table each, with the settings of `[engine]`: of another model, or one more of a model that is there.
    Engines of one model share its requests."""

    price_per_mtok: Annotated[Count | None, about("As `host.price_per_mtok`, for this model. Unset: that.")] = None
    price_native_per_mtok: Annotated[
        Amount | None, about("As `host.price_native_per_mtok`, for this model. Unset: that.")
    ] = None


class ProofsSection(Section, frozen=True, kw_only=True):
    """What a host agrees to show before it is paid."""

    accepted: Annotated[
        tuple[Literal["required", "fallback"], ...],
        Meta(min_length=1),
        about("Proof policies that this host accepts in the terms of a job."),
    ] = ("required", "fallback")
    backend: Annotated[
        Literal["ezkl", "merkle", "noir"],
        about(
            "`ezkl`: a SNARK over the records, in a process of its own. `merkle`: some records opened, without a SNARK and without"
            " a reference string. `noir`: needs tools that do not come with the package; refused."
        ),
    ] = "ezkl"
    circuit: Annotated[
        Literal["bind", "sample", "spot"],
        about(
            "`bind`: records were committed before the challenge. `sample` (of `merkle`): and 16 of them agree with their sampler;"
            " their tokens become public, and what was served before a restart is proven by `bind`, since nothing of it can be opened."
            " `spot` (of `ezkl`, for `llama` and a model whose head is registered): what one record lists is what the model makes of a"
            " hidden state; each answer goes through the weights once more, its words stay in memory until its job is closed, and what"
            " has no traces is proven by `bind`."
        ),
    ] = "bind"
    circuit_folder: Annotated[
        Path | None, about("For `ezkl`: a circuit made with another reference string. Unset: the one of the package.")
    ] = None


class AttestationSection(Section, frozen=True, kw_only=True):
    """What a host can show of the machine that it runs in."""

    provider: Annotated[
        Literal["tdx-configfs"] | None,
        about(
            "`tdx-configfs`: quotes of a TDX virtual machine, from its Linux kernel. Unset: no attestation is offered."
        ),
    ] = None
    surcharge_percent: Annotated[
        int,
        Meta(ge=0, le=1_000),
        about("Percent that a session on rung 4 of the ladder costs more, where a provider is set."),
    ] = 0


class ArbiterSection(Section, frozen=True, kw_only=True):
    """Whoever rules in disputes, with `fabstir dispute`."""

    data_dir: Annotated[Path, about("Where the arbiter's journal lives. One arbiter per directory.")] = msgspec.field(
        default_factory=lambda: paths.data_dir() / "arbiter"
    )
    key_file: Annotated[Path, about("The arbiter's key: rules, and pays the gas of it. Mode 0600.")] = msgspec.field(
        default_factory=lambda: paths.config_dir() / "arbiter.key"
    )
    panel: Annotated[
        ContractAddress | None,
        about(
            "The panel that this account is a member of (`fabstir dispute panel`): it votes where terms name the panel."
        ),
    ] = None


class LogSection(Section, frozen=True, kw_only=True):
    """What is written to stderr. Never what was said in a conversation, at no level."""

    level: Annotated[
        Literal["debug", "info", "warning", "error"], about("The least important lines written.", live=True)
    ] = "info"
    format: Annotated[
        Literal["auto", "console", "json"],
        about("`auto`: for a person on a terminal, one JSON object per line elsewhere.", live=True),
    ] = "auto"


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that can be set."""

    chain: ChainSection = ChainSection()
    host: HostSection = msgspec.field(default_factory=HostSection)
    engine: EngineSection = EngineSection()
    engines: tuple[FurtherEngine, ...] = ()
    proofs: ProofsSection = ProofsSection()
    attestation: AttestationSection = AttestationSection()
    api: ApiSection = ApiSection()
    p2p: P2PSection = P2PSection()
    renter: RenterSection = msgspec.field(default_factory=RenterSection)
    arbiter: ArbiterSection = msgspec.field(default_factory=ArbiterSection)
    log: LogSection = LogSection()
    telemetry: TelemetrySection = TelemetrySection()
