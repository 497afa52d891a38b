// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Ownable} from "@openzeppelin/contracts/access/Ownable.sol";
import {EzklBindVerifier} from "../src/EzklBindVerifier.sol";
import {IProofVerifier} from "../src/IProofSystem.sol";
import {ProofSystem} from "../src/ProofSystem.sol";
import {TestBase} from "./Base.sol";
import {HashVerifier} from "./HashVerifier.sol";
import {SettableVerifier} from "./Doubles.sol";

contract ProofSystemTest is TestBase {
    ProofSystem private _proofs = new ProofSystem(address(this));
    SettableVerifier private _verifier = new SettableVerifier();

    function setUp() public {
        _proofs.register("circuit", _verifier);
    }

    function verified() internal view returns (bool) {
        return _proofs.verify("circuit", "statement", "seed", "commitment", "proof");
    }

    function test_inputsReachTheVerifier() public {
        HashVerifier hash = new HashVerifier();
        _proofs.register("hash", hash);
        bytes memory proof = abi.encodePacked(hash.tag("statement", "seed", "commitment"));
        ok(_proofs.verify("hash", "statement", "seed", "commitment", proof), "right");
        ok(!_proofs.verify("hash", "other", "seed", "commitment", proof), "statement");
        ok(!_proofs.verify("hash", "statement", "other", "commitment", proof), "seed");
        ok(!_proofs.verify("hash", "statement", "seed", "other", proof), "commitment");
        ok(!_proofs.verify("hash", "statement", "seed", "commitment", "other"), "proof");
    }

    function test_registrationIsAnnouncedWithTheCode() public {
        SettableVerifier other = new SettableVerifier();
        vm.expectEmit(true, true, true, true);
        emit ProofSystem.VerifierRegistered("other", address(other), address(other).codehash);
        _proofs.register("other", other);
        (address adapter, bytes32 codeHash) = _proofs.verifierOf("other");
        ok(adapter == address(other) && codeHash == address(other).codehash, "kept");
    }

    function test_circuitIsBoundOnce() public {
        SettableVerifier other = new SettableVerifier();
        vm.expectRevert(ProofSystem.CircuitTaken.selector);
        _proofs.register("circuit", other);
    }

    function test_onlyTheOwnerRegisters() public {
        vm.prank(address(0xBAD));
        vm.expectRevert(abi.encodeWithSelector(Ownable.OwnableUnauthorizedAccount.selector, address(0xBAD)));
        _proofs.register("other", _verifier);
    }

    function test_verifierMustBeAContract() public {
        vm.expectRevert(ProofSystem.NoCode.selector);
        _proofs.register("other", IProofVerifier(address(0xE0A)));
    }

    function test_unknownCircuitIsFalse() public view {
        ok(!_proofs.verify("unknown", "statement", "seed", "commitment", "proof"), "unknown");
    }

    function test_changedCodeIsFalse() public {
        ok(verified(), "before");
        vm.etch(address(_verifier), hex"600160005260206000f3"); // says true to everything
        ok(!verified(), "after");
    }

    function test_onlyTheCanonicalTrueCounts() public {
        bytes[7] memory answers = [
            bytes(""),
            hex"01",
            abi.encode(false),
            abi.encode(2),
            abi.encode(type(uint256).max),
            abi.encode(true, true),
            new bytes(31)
        ];
        for (uint256 i; i < answers.length; ++i) {
            _verifier.answer(answers[i]);
            ok(!verified(), "garbage");
        }
        _verifier.answer(abi.encode(true));
        ok(verified(), "true");
    }

    function test_revertIsFalseWhateverItSays() public {
        _verifier.refuse("");
        ok(!verified(), "empty");
        _verifier.refuse(abi.encode(true));
        ok(!verified(), "a revert that says true");
        _verifier.bomb(200_000); // makes the verifier pay 95,000 gas; copying would cost the caller as much again
        uint256 before = gasleft();
        ok(!verified(), "a bomb");
        ok(before - gasleft() < 130_000, "is not copied");
    }

    function test_burningIsCapped() public {
        _verifier.burn();
        uint256 before = gasleft();
        ok(!verified(), "false");
        ok(before - gasleft() < 1_520_000, "at the cap");
    }
}

/// Sees what ezkl's generated verifier would see.
contract Halo2Probe {
    bytes32 private immutable _expected;
    uint256 public mood;

    constructor(bytes32 expected) {
        _expected = expected;
    }

    function setMood(uint256 mood_) external {
        mood = mood_;
    }

    function verifyProof(bytes calldata proof, uint256[] calldata instances) external view returns (bool) {
        if (mood == 1) revert();
        if (mood == 2) {
            assembly {
                return(0, 0)
            }
        }
        if (mood == 3) {
            assembly {
                mstore(0, 1)
                return(0, 64)
            }
        }
        return keccak256(abi.encode(proof, instances)) == _expected;
    }
}

contract EzklBindVerifierTest is TestBase {
    bytes32 private constant STATEMENT = 0x00112233445566778899aabbccddeeff102132435465768798a9bacbdcedfe0f;
    bytes32 private constant SEED = 0xfedcba98765432100123456789abcdef0f1e2d3c4b5a69788796a5b4c3d2e1f0;
    uint256 private constant SUM = 12_345;
    bytes private _halo2Proof;
    bytes32 private _commitment;
    Halo2Probe private _halo2;
    EzklBindVerifier private _adapter;

    function setUp() public {
        _halo2Proof = bytes.concat(new bytes(64), keccak256("x"), keccak256("y"), "the rest");
        _commitment = keccak256(abi.encodePacked(keccak256("x"), keccak256("y"), SUM));
        uint256[] memory instances = new uint256[](5);
        instances[0] = 0x00112233445566778899aabbccddeeff;
        instances[1] = 0x102132435465768798a9bacbdcedfe0f;
        instances[2] = 0xfedcba98765432100123456789abcdef;
        instances[3] = 0x0f1e2d3c4b5a69788796a5b4c3d2e1f0;
        instances[4] = SUM;
        _halo2 = new Halo2Probe(keccak256(abi.encode(_halo2Proof, instances)));
        _adapter = new EzklBindVerifier(address(_halo2));
    }

    function verified(bytes32 statement, bytes32 seed, bytes32 commitment, uint256 sum) internal view returns (bool) {
        return _adapter.verify(statement, seed, commitment, abi.encode(sum, _halo2Proof));
    }

    function test_statementSeedAndSumAreTheInstances() public view {
        ok(verified(STATEMENT, SEED, _commitment, SUM), "all right");
        ok(!verified(bytes32(uint256(STATEMENT) ^ 1), SEED, _commitment, SUM), "low half of the statement");
        ok(!verified(bytes32(uint256(STATEMENT) ^ 1 << 255), SEED, _commitment, SUM), "high half of the statement");
        ok(!verified(STATEMENT, bytes32(uint256(SEED) ^ 1), _commitment, SUM), "low half of the seed");
        ok(!verified(STATEMENT, bytes32(uint256(SEED) ^ 1 << 255), _commitment, SUM), "high half of the seed");
    }

    function test_pointAndSumAreTheCommitment() public {
        ok(!verified(STATEMENT, SEED, "other", SUM), "commitment");
        ok(!verified(STATEMENT, SEED, _commitment, SUM + 1), "sum");
        _halo2Proof[64] ^= 0x01;
        ok(!verified(STATEMENT, SEED, _commitment, SUM), "x");
        _halo2Proof[64] ^= 0x01;
        _halo2Proof[127] ^= 0x01;
        ok(!verified(STATEMENT, SEED, _commitment, SUM), "y");
    }

    function test_shortProofIsFalse() public view {
        ok(!_adapter.verify(STATEMENT, SEED, _commitment, abi.encode(SUM, new bytes(127))), "short");
        ok(!_adapter.verify(STATEMENT, SEED, _commitment, abi.encode(SUM, "")), "empty");
    }

    function test_undecodableProofReverts() public {
        vm.expectRevert();
        _adapter.verify(STATEMENT, SEED, _commitment, "");
        vm.expectRevert();
        _adapter.verify(STATEMENT, SEED, _commitment, abi.encode(SUM, uint256(1 << 200)));
    }

    function test_onlyThirtyTwoBytesOfTrueCount() public {
        for (uint256 mood = 1; mood < 4; ++mood) {
            _halo2.setMood(mood);
            ok(!verified(STATEMENT, SEED, _commitment, SUM), "refused, silent or garbage");
        }
    }

    function test_changedVerifierIsFalse() public {
        vm.etch(address(_halo2), hex"600160005260206000f3");
        ok(!verified(STATEMENT, SEED, _commitment, SUM), "says yes to all, is not the pinned one");
    }

    function test_verifierMustBeAContract() public {
        vm.expectRevert(EzklBindVerifier.NoCode.selector);
        new EzklBindVerifier(address(0xE0A));
    }
}
