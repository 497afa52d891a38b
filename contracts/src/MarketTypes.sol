// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// What renter and host agreed, fixed when the deposit is made. `id = keccak256(abi.encode(terms))` names the job; the
/// terms themselves travel in calldata and are never stored.
struct Terms {
    address renter; // pays the deposit, gets the refund
    address signer; // the renter's session key: its plain ECDSA signature alone makes a voucher valid
    address host; // serves, is paid, signs `Close`
    address token; // ERC-20, or 0 for the native coin
    uint96 pricePerMTok; // base units for 1,000,000 generated tokens
    uint40 expiresAt; // Unix seconds; after expiresAt + challenge anyone may finalize
    uint32 challenge; // seconds between requestClose and finalize
    uint32 exposure; // W: proven tokens payable beyond what the renter signed
    uint8 policy; // 0: no redemption without a proof; 1: the renter's voucher pays alone
    bytes32 modelId;
    bytes32 salt;
}

/// A cumulative voucher: `amount` for `tokens` since the job began, `transcript` says which ones they were.
struct Claim {
    Terms terms;
    uint96 amount;
    uint32 tokens;
    bytes32 transcript;
    bytes sig;
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
