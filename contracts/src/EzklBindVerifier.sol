// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IProofVerifier} from "./IProofSystem.sol";

/// Adapter for the ezkl circuit `bind`: the proof was made for this statement and seed, and over the records whose KZG point and
/// sum were committed before. The generated verifier checks neither; it only sees five field elements.
contract EzklBindVerifier is IProofVerifier {
    /// The second 64 bytes of an ezkl proof: the KZG point of the circuit's second input tensor, the records.
    uint256 private constant POINT = 64;
    uint256 private constant POINT_END = 128;

    address public immutable halo2Verifier;
    bytes32 public immutable halo2CodeHash;

    error NoCode();

    constructor(address halo2Verifier_) {
        if (halo2Verifier_.code.length == 0) revert NoCode();
        halo2Verifier = halo2Verifier_;
        halo2CodeHash = halo2Verifier_.codehash;
    }

    /// `proof` = abi.encode(uint256 checksum, bytes halo2Proof). Reverts where it does not decode.
    function verify(bytes32 statement, bytes32 seed, bytes32 commitment, bytes calldata proof)
        external
        view
        returns (bool valid)
    {
        (uint256 checksum, bytes memory halo2Proof) = abi.decode(proof, (uint256, bytes));
        if (halo2Proof.length < POINT_END || halo2Verifier.codehash != halo2CodeHash) return false;
        if (_commitment(halo2Proof, checksum) != commitment) return false;
        uint256[] memory instances = new uint256[](5);
        (instances[0], instances[1]) = _halves(statement);
        (instances[2], instances[3]) = _halves(seed);
        instances[4] = checksum;
        bytes memory data = abi.encodeWithSignature("verifyProof(bytes,uint256[])", halo2Proof, instances);
        address target = halo2Verifier;
        // The generated verifier reverts on a bad proof, so success alone is not enough and failure is no error.
        assembly ("memory-safe") {
            mstore(0, 0)
            let success := staticcall(gas(), target, add(data, 32), mload(data), 0, 32)
            valid := and(and(success, eq(returndatasize(), 32)), eq(mload(0), 1))
        }
    }

    /// keccak256(point || checksum).
    function _commitment(bytes memory halo2Proof, uint256 checksum) private pure returns (bytes32 digest) {
        assembly ("memory-safe") {
            let point := add(add(halo2Proof, 32), POINT)
            let end := mload(0x40)
            mcopy(end, point, 64)
            mstore(add(end, 64), checksum)
            digest := keccak256(end, 96)
        }
    }

    /// A 32-byte value does not fit the field; two halves of 128 bits do.
    function _halves(bytes32 word) private pure returns (uint256 high, uint256 low) {
        return (uint256(word) >> 128, uint128(uint256(word)));
    }
}
