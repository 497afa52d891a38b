// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IProofVerifier} from "./IProofSystem.sol";
import {RecordTree} from "./RecordTree.sol";

/// What the adapters of the Merkle back end share: no SNARK, no reference string, nothing to trust but keccak-256 and SHA-256. A proof
/// opens the records at the positions that statement and seed pick, under the root that was committed before either was known:
///     proof = records u16 | opened records, by ascending position | siblings
/// An opened record is what the circuit says. Mirrored bit by bit by `fabstir.protocol.openings`.
abstract contract MerkleRecordVerifier is IProofVerifier {
    /// False, or reverts, for every proof but the one that there is for these records.
    function verify(bytes32 statement, bytes32 seed, bytes32 commitment, bytes calldata proof)
        external
        pure
        returns (bool)
    {
        uint256 records = uint16(bytes2(proof[:2]));
        if (records == 0 || records > RecordTree.MAX_RECORDS) return false;
        uint256[] memory positions = RecordTree.draw(statement, seed, records);
        (bytes32[] memory digests, uint256 length) = _open(positions, proof[2:]);
        if (digests.length == 0) return false;
        (bytes32 found, bool exact) = RecordTree.commitmentOf(records, positions, digests, proof[2 + length:]);
        return exact && found == commitment;
    }

    /// The digests of the opened records at `positions`, and how many bytes they took; no digests where a record is not as the
    /// circuit wants it.
    function _open(uint256[] memory positions, bytes calldata opened)
        internal
        pure
        virtual
        returns (bytes32[] memory digests, uint256 length);
}
