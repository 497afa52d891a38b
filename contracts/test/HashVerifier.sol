// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IProofVerifier} from "../src/IProofSystem.sol";

/// The verifier of `fabstir.testing.prover.HashProver`: accepts one byte string for each (statement, seed, commitment), so a market
/// that computes a public input wrongly is found out. Worth nothing as a proof; never part of a deployment.
contract HashVerifier is IProofVerifier {
    function verify(bytes32 statement, bytes32 seed, bytes32 commitment, bytes calldata proof)
        external
        pure
        returns (bool)
    {
        return keccak256(proof) == keccak256(abi.encodePacked(tag(statement, seed, commitment)));
    }

    function tag(bytes32 statement, bytes32 seed, bytes32 commitment) public pure returns (bytes32) {
        return keccak256(abi.encodePacked("HashProver", statement, seed, commitment));
    }
}
