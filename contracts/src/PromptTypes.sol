// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// A prompt and what its answer may cost. `id = keccak256(abi.encode(terms))` names it; the terms themselves travel in calldata and
/// are never stored. What the job in the market needs is here from the start, all but the host and its price.
struct PromptTerms {
    address renter; // gets what is not spent
    address signer; // the session key of the job that `complete` opens
    address token; // ERC-20, or 0 for the native coin
    address assigner; // may choose the host as the renter may; 0: only the renter
    address arbiter; // of the job; the same account may not answer the prompt
    uint96 pricePerMTok; // the most that a host may ask: base units for 1,000,000 generated tokens
    uint96 bond; // of the job
    uint32 maxTokens; // the longest answer that is paid
    uint40 deadline; // Unix seconds from which the money goes back
    uint32 executeSeconds; // how long a claim, or a reservation, lasts
    uint32 challenge; // of the job
    uint8 policy; // of the job
    bytes32 modelId;
    bytes32 promptCid; // where the prompt lies
    bytes32 salt; // random
}

/// The answer, as its host states it.
struct Completion {
    uint32 tokens;
    bytes32 resultCid; // where the answer lies
    bytes32 resultHash;
}

/// A reservation and a claim count only while their time runs; then the prompt is as free as one that was just posted.
enum State {
    None,
    Posted,
    Reserved,
    Claimed,
    Completed,
    Cancelled,
    Refunded
}

/// Everything that is kept about a prompt.
struct PromptView {
    State state;
    address host; // who claimed it last, or has it reserved, or answered it
    uint40 until; // Unix seconds at which claim or reservation is over
    uint96 price; // of the claim
    uint88 escrow; // base units that lie here for it; 0 once it ended
}
