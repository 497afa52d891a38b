// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {MerkleRecordVerifier} from "./MerkleRecordVerifier.sol";

/// Circuit `merkle-bind/1`: records were committed before the challenge, and their digests are known. Opens the 32-byte digests and
/// does not look inside; what was said stays hidden behind each record's salt.
contract MerkleBindVerifier is MerkleRecordVerifier {
    function _open(uint256[] memory positions, bytes calldata opened)
        internal
        pure
        override
        returns (bytes32[] memory digests, uint256 length)
    {
        digests = new bytes32[](positions.length);
        for (uint256 i; i < positions.length; ++i) {
            digests[i] = bytes32(opened[32 * i:32 * i + 32]);
        }
        return (digests, 32 * positions.length);
    }
}
