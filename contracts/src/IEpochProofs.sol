// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// What the market asks about a host's epochs.
interface IEpochProofs {
    /// Whether all these sessions, given in the order of the tree, are in the proven epoch `root` of `host`. `leaves`: for each
    /// `SumTree.session` and its tokens, a word each; who asks has hashed them itself. `path` is packed: the number of the epoch's sessions
    /// and the place of each given one (4 bytes each), then the missing siblings (32 and 4 bytes each).
    function covers(address host, bytes32 root, bytes calldata leaves, bytes calldata path) external view returns (bool);
}
