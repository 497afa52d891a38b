// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// One circuit's verifier behind one shape. May revert or return false; both mean "not proven".
interface IProofVerifier {
    function verify(bytes32 statement, bytes32 seed, bytes32 commitment, bytes calldata proof)
        external
        view
        returns (bool);
}

/// Knows one pinned verifier for each circuit id.
interface IProofSystem {
    function verify(bytes32 circuitId, bytes32 statement, bytes32 seed, bytes32 commitment, bytes calldata proof)
        external
        view
        returns (bool);
}
