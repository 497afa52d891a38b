// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {MerkleRecordVerifier} from "./MerkleRecordVerifier.sol";
import {SamplingRule} from "./SamplingRule.sol";

/// Circuit `merkle-sample/1`: as `merkle-bind/1`, and each opened record holds a token that its own sampler can have drawn from its own
/// log-probabilities (`SamplingRule`). Opens what the digest is the SHA-256 of, but for the tag:
///     salt 32 | index u32 | token u32 | logprob i32 | temperature u16 | top_p u32 | k u8 | (token u32 | logprob i32) * k
/// Whoever reads the chain reads these tokens; the other records stay closed.
contract MerkleSampleVerifier is MerkleRecordVerifier {
    function _open(uint256[] memory positions, bytes calldata opened)
        internal
        pure
        override
        returns (bytes32[] memory digests, uint256 length)
    {
        digests = new bytes32[](positions.length);
        uint256 first = 0; // index of the checkpoint's first record in the job: the records of a checkpoint follow each other
        for (uint256 i; i < positions.length; ++i) {
            uint256 k = uint8(opened[length + SamplingRule.FIXED - 1]);
            bytes calldata record = opened[length:length + SamplingRule.FIXED + SamplingRule.PAIR * k];
            length += record.length;
            uint256 index = uint32(bytes4(record[32:36]));
            if (i == 0) first = index - positions[0];
            if (index != first + positions[i] || !SamplingRule.holds(record)) return (new bytes32[](0), 0);
            digests[i] = sha256(abi.encodePacked("fabstir/record/2", record));
        }
    }
}
