// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// The binary Merkle tree over one checkpoint's 1 to 256 record digests, filled up to a power of two with empty leaves, and how some of
/// its leaves are opened together. Mirrored bit by bit by `fabstir.protocol.openings`. (`SumTree` is the tree above, over checkpoints.)
///     leaf       = keccak256(2 | digest)                 each tag and number a word of 32 bytes
///     node       = keccak256(3 | left | right)
///     empty leaf = keccak256(4)
///     commitment = keccak256(5 | records | root)         so the number of records, and with it the shape, is committed too
library RecordTree {
    uint256 internal constant MAX_RECORDS = 256;
    /// How many records a proof opens; all where there are not more.
    uint256 internal constant OPENED = 16;

    uint256 private constant LEAF = 2; // 0 and 1 are those of SumTree
    uint256 private constant NODE = 3;
    uint256 private constant EMPTY = 4;
    uint256 private constant COMMITMENT = 5;
    uint256 private constant DRAW = 6;

    /// The positions that statement and seed pick, ascending: OPENED different ones of `records`, every such choice as likely as every
    /// other (Floyd's algorithm: the j-th draw takes one of 0..j, or j itself where that one is taken).
    function draw(bytes32 statement, bytes32 seed, uint256 records) internal pure returns (uint256[] memory positions) {
        uint256 chosen = type(uint256).max; // bit i: position i
        if (records > OPENED) {
            chosen = 0;
            for (uint256 j = records - OPENED; j < records; ++j) {
                uint256 pick = uint256(keccak256(abi.encode(DRAW, statement, seed, j))) % (j + 1);
                chosen |= 1 << ((chosen >> pick) & 1 == 0 ? pick : j);
            }
        }
        positions = new uint256[](records < OPENED ? records : OPENED);
        uint256 count = 0;
        for (uint256 position; count < positions.length; ++position) {
            if ((chosen >> position) & 1 == 1) positions[count++] = position;
        }
    }

    /// The commitment that the opened `digests` at `positions` and their siblings lead to. `siblings` are 32 bytes each, level by level
    /// from the leaves and from left to right; none for a node that is opened itself or that has only empty leaves below it. Uses
    /// `positions` and `digests` up. Reverts where a sibling is missing; `exact` is false where bytes are left over.
    function commitmentOf(
        uint256 records,
        uint256[] memory positions,
        bytes32[] memory digests,
        bytes calldata siblings
    ) internal pure returns (bytes32 commitment, bool exact) {
        uint256 count = positions.length;
        for (uint256 i; i < count; ++i) {
            digests[i] = _hash(LEAF, digests[i]);
        }
        bytes32 empty = keccak256(abi.encode(EMPTY));
        uint256 used = 0;
        for (uint256 level; 1 << level < records; ++level) {
            uint256 kept = 0;
            for (uint256 i; i < count; ++i) {
                (uint256 position, bytes32 node) = (positions[i], digests[i]);
                if (position & 1 == 1) {
                    node = _hash(NODE, bytes32(siblings[used:used + 32]), node);
                    used += 32;
                } else if (i + 1 < count && positions[i + 1] == position + 1) {
                    node = _hash(NODE, node, digests[++i]);
                } else if ((position + 1) << level >= records) {
                    node = _hash(NODE, node, empty);
                } else {
                    node = _hash(NODE, node, bytes32(siblings[used:used + 32]));
                    used += 32;
                }
                (positions[kept], digests[kept]) = (position >> 1, node);
                ++kept;
            }
            count = kept;
            empty = _hash(NODE, empty, empty);
        }
        return (_hash(COMMITMENT, bytes32(records), digests[0]), used == siblings.length);
    }

    function _hash(uint256 tag, bytes32 a) private pure returns (bytes32 digest) {
        assembly ("memory-safe") {
            mstore(0, tag)
            mstore(32, a)
            digest := keccak256(0, 64)
        }
    }

    function _hash(uint256 tag, bytes32 a, bytes32 b) private pure returns (bytes32 digest) {
        assembly ("memory-safe") {
            let end := mload(0x40)
            mstore(end, tag)
            mstore(add(end, 32), a)
            mstore(add(end, 64), b)
            digest := keccak256(end, 96)
        }
    }
}
