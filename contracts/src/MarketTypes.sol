// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// What renter and host agreed, fixed when the deposit is made. `id = keccak256(abi.encode(terms))` names the job; the
/// terms themselves travel in calldata and are never stored.
struct Terms {
    address renter; // gets the refund; pays the deposit unless somebody else does
    address signer; // the renter's session key: its plain ECDSA signature alone makes a voucher valid
    address host; // serves, is paid, signs `Close`
    address token; // ERC-20, or 0 for the native coin
    address arbiter; // rules where an answered dispute needs judgement; 0: nobody, the answer decides for the host
    uint96 pricePerMTok; // base units for 1,000,000 generated tokens
    uint96 bond; // base units that a dispute costs whoever was wrong to raise it
    uint40 expiresAt; // Unix seconds; after expiresAt + challenge anyone may finalize
    uint32 challenge; // seconds between requestClose and finalize, and of each stage of a claim
    uint32 exposure; // W: proven tokens payable beyond what the renter signed
    uint8 policy; // 0: no redemption without a proof; 1: the renter's voucher pays alone
    bytes32 modelId;
    bytes32 salt; // random; or opener (20 bytes), 0xffffffff, 8 bytes: then only that account may open
}

/// A cumulative voucher: `amount` for `tokens` since the job began, `transcript` says which ones they were.
struct Claim {
    Terms terms;
    uint96 amount;
    uint32 tokens;
    bytes32 transcript;
    bytes sig;
}

/// What the claims of one redemption by epoch have in common; their host is the caller.
struct Shared {
    address token;
    uint8 policy;
    bytes32 modelId;
}

/// A cumulative voucher over exactly what an epoch holds of a session: the rest of its terms, in their order, then the leaf, then the
/// signature in two words (EIP-2098). Its amount is what the tokens cost.
struct EpochClaim {
    address renter;
    address signer;
    address arbiter;
    uint96 pricePerMTok;
    uint96 bond;
    uint40 expiresAt;
    uint32 challenge;
    uint32 exposure;
    bytes32 salt;
    uint32 tokens;
    bytes32 treeRoot;
    bytes32 transcript;
    bytes32 r;
    bytes32 vs;
}

/// A sibling on the path of a Merkle-sum tree, with the tokens below it.
struct SumNode {
    bytes32 hash;
    uint32 tokens;
    bool left;
}

/// The answer to a challenge: the checkpoint that holds the challenged token, its path, and the circuit's proof about it.
struct Proof {
    bytes32 circuitId;
    bytes32 treeRoot;
    bytes32 head;
    uint32 tokens;
    uint32 checkpointTokens;
    bytes32 commitment;
    SumNode[] path;
    bytes proof;
}

/// The beginning of an answer within a stream: `tokens` had been served in the job by then.
struct Turn {
    uint32 tokens;
    uint32 messageIndex;
    bytes32 request;
}

/// How the committed head follows from what the renter signed last: the records between, and the answers that began there.
/// `voucher` is the renter's signature over (`from`, `amount`, `transcript`); empty where it never signed.
struct Opening {
    bytes32 treeRoot;
    bytes32 head;
    uint32 tokens;
    uint32 from;
    bytes32 transcript;
    bytes voucher;
    bytes32[] records;
    Turn[] turns;
}

/// Where a claim of unsigned tokens stands.
enum Stage {
    None,
    Claimed,
    Disputed,
    Answered,
    Lost
}

/// Everything that is kept about a job.
struct JobView {
    uint96 deposit;
    uint96 owed; // credited and held together
    uint32 signed;
    uint32 proven;
    bool closed;
    uint40 closingAt; // 0 while no close is requested
    uint40 pendingBlock; // block of the commitment that waits for its challenge; 0 where none does
    uint96 held; // what a claim holds back, part of `owed`
    uint32 heldTokens; // cumulative tokens of that claim
    uint40 heldUntil; // Unix seconds at which its stage ends
    Stage stage;
}
