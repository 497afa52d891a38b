// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Exponential} from "../src/Exponential.sol";
import {MerkleBindVerifier} from "../src/MerkleBindVerifier.sol";
import {MerkleSampleVerifier} from "../src/MerkleSampleVerifier.sol";
import {ProofSystem} from "../src/ProofSystem.sol";
import {RecordTree} from "../src/RecordTree.sol";
import {SamplingRule} from "../src/SamplingRule.sol";
import {TestBase} from "./Base.sol";

/// The libraries, as somebody outside calls them.
contract Rules {
    function holds(bytes calldata record) external pure returns (bool) {
        return SamplingRule.holds(record);
    }

    function ofMinus(uint256 microNats) external pure returns (uint256) {
        return Exponential.ofMinus(microNats);
    }

    function draw(bytes32 statement, bytes32 seed, uint256 records) external pure returns (uint256[] memory) {
        return RecordTree.draw(statement, seed, records);
    }
}

/// Builds the whole tree, which the verifiers never do, and takes proofs from it.
abstract contract MerkleFixture is TestBase {
    bytes32 internal constant STATEMENT = keccak256("statement");
    bytes32 internal constant SEED = keccak256("seed");
    uint256 internal constant TOKEN = 7;

    MerkleBindVerifier internal bindVerifier = new MerkleBindVerifier();
    MerkleSampleVerifier internal sampleVerifier = new MerkleSampleVerifier();
    Rules internal rules = new Rules();

    /// What record `i` of a job is hashed from, without the tag: drawn at 0.8 and 0.95 from a list of two.
    function record(uint256 i) internal pure returns (bytes memory) {
        return record(i, TOKEN, -693_147, 800, 950_000, hex"00000007fff56c6500000003ffead8ca");
    }

    function record(uint256 i, uint256 token, int32 logprob, uint16 temperature, uint32 topP, bytes memory top)
        internal
        pure
        returns (bytes memory)
    {
        bytes memory head = abi.encodePacked(keccak256(abi.encode("salt", i)), uint32(i), uint32(token), logprob);
        return abi.encodePacked(head, temperature, topP, uint8(top.length / 8), top);
    }

    function pair(uint32 token, int32 logprob) internal pure returns (bytes memory) {
        return abi.encodePacked(token, logprob);
    }

    function digest(bytes memory opened) internal pure returns (bytes32) {
        return sha256(abi.encodePacked("fabstir/record/2", opened));
    }

    /// All levels of the tree over `records` records, one after the other, and the number of its leaves.
    function levels(uint256 records, bytes[] memory opened)
        internal
        pure
        returns (bytes32[] memory nodes, uint256 width)
    {
        width = 1;
        while (width < records) width *= 2;
        nodes = new bytes32[](2 * width);
        for (uint256 i; i < width; ++i) {
            nodes[i] = i < records ? keccak256(abi.encode(2, digest(opened[i]))) : keccak256(abi.encode(4));
        }
        for (uint256 i; i + 1 < 2 * width - 1; i += 2) {
            nodes[width + i / 2] = keccak256(abi.encode(3, nodes[i], nodes[i + 1]));
        }
    }

    function commitmentOf(bytes[] memory opened) internal pure returns (bytes32) {
        (bytes32[] memory nodes, uint256 width) = levels(opened.length, opened);
        return keccak256(abi.encode(5, opened.length, nodes[2 * width - 2]));
    }

    function job(uint256 records) internal pure returns (bytes[] memory opened) {
        opened = new bytes[](records);
        for (uint256 i; i < records; ++i) {
            opened[i] = record(i);
        }
    }

    /// The proof for `opened` at `STATEMENT` and `seed`; `sampled` opens records, else their digests.
    function proofOf(bytes[] memory opened, bytes32 seed, bool sampled) internal view returns (bytes memory proof) {
        uint256[] memory positions = rules.draw(STATEMENT, seed, opened.length);
        proof = abi.encodePacked(uint16(opened.length));
        bool[512] memory known;
        for (uint256 i; i < positions.length; ++i) {
            bytes memory one = opened[positions[i]];
            proof = bytes.concat(proof, sampled ? one : abi.encodePacked(digest(one)));
            known[positions[i]] = true;
        }
        (bytes32[] memory nodes, uint256 width) = levels(opened.length, opened);
        uint256 start;
        for (uint256 span = 1; width > 1; span *= 2) {
            for (uint256 i; i < width; ++i) {
                if (!known[start + i]) continue;
                known[start + width + i / 2] = true;
                uint256 sibling = i ^ 1;
                if (!known[start + sibling] && sibling * span < opened.length) {
                    proof = abi.encodePacked(proof, nodes[start + sibling]);
                }
            }
            start += width;
            width /= 2;
        }
    }

    function accepted(bool sampled, bytes32 seed, bytes32 commitment, bytes memory proof) internal view returns (bool) {
        return accepted(sampled, STATEMENT, seed, commitment, proof);
    }

    /// False where it reverts.
    function accepted(bool sampled, bytes32 statement, bytes32 seed, bytes32 commitment, bytes memory proof)
        internal
        view
        returns (bool)
    {
        address verifier = sampled ? address(sampleVerifier) : address(bindVerifier);
        bytes memory data = abi.encodeCall(bindVerifier.verify, (statement, seed, commitment, proof));
        (bool success, bytes memory said) = verifier.staticcall(data);
        return success && abi.decode(said, (bool));
    }
}

contract MerkleVerifiersTest is MerkleFixture {
    function test_circuitsAreVerifiedWithinTheGasOfProofSystem() public {
        ProofSystem proofs = new ProofSystem(address(this));
        proofs.register("bind", bindVerifier);
        proofs.register("sample", sampleVerifier);
        bytes[] memory opened = job(256);
        for (uint256 i; i < 256; ++i) {
            bytes memory top; // 20 listed tokens, all equal, the drawn one last: the dearest record there is
            for (uint256 j; j < 20; ++j) {
                top = bytes.concat(top, pair(uint32(100 - j), -16_777_215));
            }
            opened[i] = record(i, 81, -16_777_215, 800, 950_000, top);
        }
        bytes32 commitment = commitmentOf(opened);
        ok(proofs.verify("bind", STATEMENT, SEED, commitment, proofOf(opened, SEED, false)), "bind");
        bytes memory proof = proofOf(opened, SEED, true);
        uint256 before = gasleft();
        ok(proofs.verify("sample", STATEMENT, SEED, commitment, proof), "sample");
        ok(before - gasleft() < 1_200_000, "four fifths of it at most");
    }

    function testFuzz_everySizeAndChallenge(uint256 records, bytes32 seed) public view {
        bytes[] memory opened = job(bound(records, 1, 256));
        bytes32 commitment = commitmentOf(opened);
        ok(accepted(false, seed, commitment, proofOf(opened, seed, false)), "bind");
        ok(accepted(true, seed, commitment, proofOf(opened, seed, true)), "sample");
    }

    function testFuzz_noOtherBytes(uint256 records, uint256 place, uint8 bit, bool sampled) public view {
        bytes[] memory opened = job(bound(records, 1, 256));
        bytes32 commitment = commitmentOf(opened);
        bytes memory proof = proofOf(opened, SEED, sampled);
        place = bound(place, 0, proof.length - 1);
        proof[place] ^= bytes1(uint8(1) << (bit % 8));
        ok(!accepted(sampled, SEED, commitment, proof), "a bit");
        proof[place] ^= bytes1(uint8(1) << (bit % 8));
        ok(!accepted(sampled, SEED, commitment, bytes.concat(proof, hex"00")), "a byte more");
        ok(!accepted(sampled, SEED, commitment, abi.encodePacked(proof, bytes32(0))), "a word more");
        assembly {
            mstore(proof, place)
        }
        ok(!accepted(sampled, SEED, commitment, proof), "cut");
    }

    function testFuzz_whateverItIs(bytes calldata proof, bytes32 commitment) public view {
        ok(!accepted(false, SEED, commitment, proof), "bind");
        ok(!accepted(true, SEED, commitment, proof), "sample");
    }

    function testFuzz_positions(bytes32 statement, bytes32 seed, uint256 records) public view {
        records = bound(records, 1, 256);
        uint256[] memory positions = rules.draw(statement, seed, records);
        eq(records < 16 ? records : 16, positions.length, "so many");
        for (uint256 i; i < positions.length; ++i) {
            ok(positions[i] < records && (i == 0 || positions[i] > positions[i - 1]), "different ones, ascending");
        }
    }

    function test_otherWordsAreRefused() public view {
        bytes[] memory opened = job(100);
        bytes32 commitment = commitmentOf(opened);
        bytes memory proof = proofOf(opened, SEED, true);
        ok(accepted(true, SEED, commitment, proof), "right");
        ok(!accepted(true, "other", commitment, proof), "seed");
        ok(!accepted(true, SEED, "other", proof), "commitment");
        ok(!accepted(true, SEED, commitmentOf(job(99)), proof), "one record less");
        ok(!accepted(false, SEED, commitment, proof), "circuit");
        ok(!accepted(true, "other", SEED, commitment, proof), "statement");
    }

    function test_zeroAndTooManyRecordsAreRefused() public view {
        ok(!accepted(false, SEED, keccak256(abi.encode(5, 0, bytes32(0))), hex"0000"), "none");
        ok(!accepted(false, SEED, keccak256(abi.encode(5, 257, bytes32(0))), hex"0101"), "too many");
    }

    function test_recordsFollowEachOther() public view {
        bytes[] memory opened = job(20);
        (opened[3], opened[4]) = (opened[4], opened[3]);
        ok(!accepted(true, SEED, commitmentOf(opened), proofOf(opened, SEED, true)), "swapped");
        opened = job(5);
        for (uint256 i; i < 5; ++i) {
            opened[i] = record(i + 256);
        }
        ok(accepted(true, SEED, commitmentOf(opened), proofOf(opened, SEED, true)), "of a later checkpoint");
        opened[0] = record(0);
        ok(!accepted(true, SEED, commitmentOf(opened), proofOf(opened, SEED, true)), "from elsewhere");
    }

    function test_aLieIsCommittedAndNotOpened() public view {
        bytes[] memory opened = job(16);
        opened[9] = record(9, 3, -1_386_294, 0, 1_000_000, hex"00000007fff56c6500000003ffead8ca"); // greedy, and the second
        bytes32 commitment = commitmentOf(opened);
        ok(!accepted(true, SEED, commitment, proofOf(opened, SEED, true)), "sample looks inside");
        ok(accepted(false, SEED, commitment, proofOf(opened, SEED, false)), "bind does not");
    }

    function test_wrongSaltIsAnotherRecord() public view {
        bytes[] memory opened = job(3);
        bytes32 commitment = commitmentOf(opened);
        opened[1][0] ^= 0x01;
        ok(!accepted(true, SEED, commitment, proofOf(opened, SEED, true)), "salt");
    }
}

contract SamplingRuleTest is MerkleFixture {
    int32 private constant HALF = -693_147;
    int32 private constant QUARTER = -1_386_294;
    bytes private _top = bytes.concat(pair(7, HALF), pair(3, QUARTER), pair(9, -2_079_442));

    function holds(uint256 token, int32 logprob, uint16 temperature, uint32 topP, bytes memory top)
        internal
        view
        returns (bool)
    {
        return rules.holds(record(0, token, logprob, temperature, topP, top));
    }

    function test_greedyTakesTheFirst() public view {
        ok(holds(7, HALF, 0, 1_000_000, _top), "first");
        ok(holds(4, HALF, 0, 1_000_000, pair(7, HALF)), "as likely as the first");
        ok(!holds(3, QUARTER, 0, 1_000_000, _top), "second");
        ok(!holds(7, HALF, 0, 1_000_000, ""), "nothing listed");
    }

    function test_listedAsItIs() public view {
        ok(!holds(3, HALF, 800, 950_000, _top), "another value");
        bytes memory low = bytes.concat(pair(7, HALF), pair(3, QUARTER), pair(9, -2_302_585));
        ok(!holds(4, -2_040_221, 800, 950_000, low), "likelier than the last listed");
        ok(holds(4, -2_302_585, 800, 950_000, low), "as likely as the last listed");
        ok(!holds(7, HALF, 800, 950_000, bytes.concat(pair(3, QUARTER), pair(7, HALF))), "not sorted");
        ok(!holds(7, HALF, 800, 950_000, bytes.concat(pair(7, HALF), pair(7, HALF))), "twice");
        ok(!holds(7, HALF, 800, 950_000, pair(8, 1)), "above 0");
        ok(!holds(7, 1, 800, 950_000, ""), "itself above 0");
    }

    function test_nucleus() public view {
        ok(holds(3, QUARTER, 1_000, 500_001, _top), "inside");
        ok(holds(3, QUARTER, 1_000, 499_001, _top), "at the edge of the tolerance");
        ok(!holds(3, QUARTER, 1_000, 498_000, _top), "outside");
        ok(!holds(5, -2_302_585, 500, 870_000, _top), "not listed, outside");
        ok(holds(5, -2_302_585, 1_001, 1, _top), "above temperature 1 it says nothing");
        ok(!holds(7, HALF, 800, 0, _top), "of 0");
        ok(!holds(7, HALF, 800, 1_000_001, _top), "above 1");
    }

    function test_probabilitiesAddUp() public view {
        ok(holds(7, HALF, 800, 950_000, bytes.concat(pair(7, HALF), pair(8, HALF))), "to 1");
        ok(!holds(5, HALF, 800, 950_000, bytes.concat(pair(7, HALF), pair(8, HALF))), "to more with the drawn one");
        ok(!holds(7, -100, 800, 950_000, bytes.concat(pair(7, -100), pair(8, -200))), "to more");
    }

    function test_atMostTwentyAreListed() public view {
        bytes memory top;
        for (uint32 i; i < 20; ++i) {
            top = bytes.concat(top, pair(i, -9_000_000));
        }
        ok(holds(1, -9_000_000, 800, 950_000, top), "20");
        ok(!holds(1, -9_000_000, 800, 950_000, bytes.concat(top, pair(20, -9_000_000))), "21");
    }

    function testFuzz_exponentialTurnsSumsIntoProducts(uint256 a, uint256 b) public view {
        (a, b) = (bound(a, 0, 2 ** 24), bound(b, 0, 2 ** 24 - 1));
        uint256 product = (rules.ofMinus(a) * rules.ofMinus(b)) >> 128;
        uint256 sum = rules.ofMinus(a + b);
        ok((product > sum ? product - sum : sum - product) < 128, "to 2^-121");
    }

    /// Values that Python computes from decimal fractions: each bit in one of the last two, all in the first.
    function test_exponentialBitByBit() public view {
        eq(0xc0d495eb4c3c53bfe494, rules.ofMinus(0x1ffffff), "bits 1ffffff");
        eq(0xd3eea205e2cd647a90dabe90, rules.ofMinus(0x1555555), "bits 1555555");
        eq(0xe8ed25a4da9503c6f3a60695d541, rules.ofMinus(0xaaaaaa), "bits aaaaaa");
    }

    function test_exponentialAtItsEnds() public view {
        eq(1 << 128, rules.ofMinus(0), "certain");
        ok(rules.ofMinus(2 ** 25 - 1) > 0, "hardly anything");
        eq(0, rules.ofMinus(2 ** 25), "nothing");
        eq(0, rules.ofMinus(type(uint256).max), "nothing, wherever");
    }
}
