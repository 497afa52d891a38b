// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Proof, SumNode} from "./MarketTypes.sol";

/// The Merkle-sum tree of checkpoints: a leaf holds a commitment and its token count, an inner node adds the counts. A count
/// that was misstated anywhere in the tree makes every leaf below it impossible to open, because the sums are hashed.
/// Mirrored bit by bit by `fabstir.protocol.commitments`.
library SumTree {
    uint256 internal constant MAX_CHECKPOINT_TOKENS = 256;
    uint256 internal constant MAX_PATH = 32;
    /// Bytes of a session's leaf as `covers` takes it: the hash, then the tokens.
    uint256 internal constant LEAF = 64;

    /// The checkpoint's size or the path's length is out of range.
    error PathMalformed();
    /// The path does not lead to the committed root, or its sums do not add up to the committed tokens.
    error PathMismatch();
    /// The opened checkpoint does not hold the challenged token.
    error WrongCheckpoint(uint256 position, uint256 tokensBefore);

    /// A node of an epoch's tree, in memory, at its place in its row.
    struct Place {
        bytes32 hash;
        uint256 tokens;
        uint256 index;
    }

    /// Checks that `p` opens the checkpoint that holds token `position`; returns the number of tokens before it.
    function locate(Proof calldata p, uint256 position) internal pure returns (uint256 tokensBefore) {
        uint256 own = p.checkpointTokens;
        if (own == 0 || own > MAX_CHECKPOINT_TOKENS) revert PathMalformed();
        bytes32 node = keccak256(abi.encode(uint8(0), p.commitment, own));
        uint256 sum;
        (node, sum, tokensBefore) = climb(node, own, p.path);
        if (node != p.treeRoot || sum != p.tokens) revert PathMismatch();
        if (position < tokensBefore || position >= tokensBefore + own) revert WrongCheckpoint(position, tokensBefore);
    }

    /// The root above `node`, its sum, and the tokens on the left of the node.
    function climb(bytes32 node, uint256 sum, SumNode[] calldata path)
        internal
        pure
        returns (bytes32, uint256, uint256 tokensBefore)
    {
        if (path.length > MAX_PATH) revert PathMalformed();
        for (uint256 i; i < path.length; ++i) {
            SumNode calldata sibling = path[i];
            uint256 below = sibling.tokens;
            if (sibling.left) {
                node = inner(sibling.hash, below, node, sum);
                tokensBefore += below;
            } else {
                node = inner(node, sum, sibling.hash, below);
            }
            sum += below;
        }
        return (node, sum, tokensBefore);
    }

    function inner(bytes32 left, uint256 leftTokens, bytes32 right, uint256 rightTokens)
        internal
        pure
        returns (bytes32)
    {
        return keccak256(abi.encode(uint8(1), left, leftTokens, right, rightTokens));
    }

    /// The leaf of a session in an epoch: which job, what was served in it, and how much.
    /// keccak256(abi.encode(uint8(2), id, keccak256(abi.encode(treeRoot, head)), tokens)), in memory that nobody else uses.
    function session(bytes32 id, bytes32 treeRoot, bytes32 head, uint32 tokens) internal pure returns (bytes32 leaf) {
        assembly ("memory-safe") {
            mstore(0, treeRoot)
            mstore(32, head)
            let free := mload(0x40)
            mstore(free, 2)
            mstore(add(free, 32), id)
            mstore(add(free, 64), keccak256(0, 64))
            mstore(add(free, 96), and(tokens, 0xffffffff))
            leaf := keccak256(free, 128)
        }
    }

    /// Writes leaf number `i`, in place: `leaves` has room for it.
    function put(bytes memory leaves, uint256 i, bytes32 leaf, uint32 tokens) internal pure {
        assembly ("memory-safe") {
            let here := add(leaves, add(32, mul(i, 64)))
            mstore(here, leaf)
            mstore(add(here, 32), and(tokens, 0xffffffff))
        }
    }
}
