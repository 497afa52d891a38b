// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Ownable, Ownable2Step} from "@openzeppelin/contracts/access/Ownable2Step.sol";
import {IProofSystem, IProofVerifier} from "./IProofSystem.sol";

/// Which contract verifies which circuit. A circuit id (the hash of its verification key) is bound once and for ever; a change of
/// the adapter's code makes it worthless. The owner can add circuits, never change one.
contract ProofSystem is IProofSystem, Ownable2Step {
    struct Verifier {
        IProofVerifier adapter;
        bytes32 codeHash;
    }

    /// Bounds what a verifier can burn: the ezkl `bind` verifier needs 0.47 M, an optimised Honk verifier eats all it is given.
    uint256 public constant VERIFY_GAS = 1_500_000;

    mapping(bytes32 circuitId => Verifier) private _verifiers;

    event VerifierRegistered(bytes32 indexed circuitId, address indexed adapter, bytes32 codeHash);

    error CircuitTaken();
    error NoCode();

    constructor(address owner) Ownable(owner) {}

    function register(bytes32 circuitId, IProofVerifier adapter) external onlyOwner {
        if (address(_verifiers[circuitId].adapter) != address(0)) revert CircuitTaken();
        if (address(adapter).code.length == 0) revert NoCode();
        bytes32 codeHash = address(adapter).codehash;
        _verifiers[circuitId] = Verifier(adapter, codeHash);
        emit VerifierRegistered(circuitId, address(adapter), codeHash);
    }

    /// The adapter of a circuit and the code it had when it was registered; zeros where the circuit is unknown.
    function verifierOf(bytes32 circuitId) external view returns (address adapter, bytes32 codeHash) {
        Verifier memory v = _verifiers[circuitId];
        return (address(v.adapter), v.codeHash);
    }

    /// True only where the pinned verifier says so in 32 bytes and within its gas. Never reverts by what a verifier does.
    function verify(bytes32 circuitId, bytes32 statement, bytes32 seed, bytes32 commitment, bytes calldata proof)
        external
        view
        returns (bool valid)
    {
        Verifier memory v = _verifiers[circuitId];
        address adapter = address(v.adapter);
        if (adapter == address(0) || adapter.codehash != v.codeHash) return false;
        bytes memory data = abi.encodeCall(IProofVerifier.verify, (statement, seed, commitment, proof));
        uint256 gasLimit = VERIFY_GAS;
        assembly ("memory-safe") {
            mstore(0, 0)
            let success := staticcall(gasLimit, adapter, add(data, 32), mload(data), 0, 32)
            valid := and(and(success, eq(returndatasize(), 32)), eq(mload(0), 1))
        }
    }
}
