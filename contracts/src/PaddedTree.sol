// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// A plain Merkle tree: node = keccak256(left | right), and 32 zero bytes stand where there is no right one. Its leaves are hashes of
/// more than 64 bytes, so that no node passes for a leaf. Mirrored by `fabstir.protocol.padded_tree`.
library PaddedTree {
    /// The root that `path`, 32 bytes for each level from below, leads to from the leaf at `place`.
    function climb(uint256 place, bytes32 leaf, bytes calldata path) internal pure returns (bytes32 node) {
        node = leaf;
        // slither-disable-start incorrect-exp -- left and right differ in one bit
        assembly ("memory-safe") {
            let end := add(path.offset, and(path.length, not(31)))
            for { let level := path.offset } lt(level, end) { level := add(level, 32) } {
                let right := shl(5, and(place, 1)) // where the node goes: 0 on the left, 32 on the right
                mstore(right, node)
                mstore(xor(right, 32), calldataload(level))
                node := keccak256(0, 64)
                place := shr(1, place)
            }
        }
        // slither-disable-end incorrect-exp
    }
}
