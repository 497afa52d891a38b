// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// What a claim says of its session: this job, so many tokens, and what they were (their tree and the head of the transcript).
struct Session {
    bytes32 id;
    bytes32 treeRoot;
    bytes32 head;
    uint32 tokens;
}

/// What the market asks about a host's epochs.
interface IEpochProofs {
    /// Whether all these sessions, given in the order of the tree, are in the proven epoch `root` of `host`. `path` is packed: the number
    /// of the epoch's sessions and the place of each given one (4 bytes each), then the missing siblings (32 and 4 bytes each).
    function covers(address host, bytes32 root, Session[] calldata sessions, bytes calldata path)
        external
        view
        returns (bool);
}
