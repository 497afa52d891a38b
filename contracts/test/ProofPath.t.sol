// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Disputes} from "../src/Disputes.sol";
import {Earnings} from "../src/Earnings.sol";
import {JobLedger} from "../src/JobLedger.sol";
import {JobMarketplace} from "../src/JobMarketplace.sol";
import {Proof, SumNode, Terms} from "../src/MarketTypes.sol";
import {SumTree} from "../src/SumTree.sol";
import {SettableVerifier} from "./Doubles.sol";
import {Fixture} from "./Fixture.sol";

contract ProofPathTest is Fixture {
    Terms private _t;
    uint256 private constant AT = 1_000;

    function setUp() public override {
        super.setUp();
        _t = terms(NATIVE, 0);
        open(_t, DEPOSIT);
    }

    function challenged(uint32 tokens) internal returns (Proof memory) {
        commit(_t, tokens);
        vm.roll(AT + 3);
        return answer(_t, tokens, AT);
    }

    function refused(bytes memory reason, Proof memory p) internal {
        vm.expectRevert(reason);
        market.submitProof(_t, p);
    }

    function refused(bytes4 selector, Proof memory p) internal {
        refused(abi.encodePacked(selector), p);
    }

    function proven() internal view returns (uint32) {
        return state(_t).proven;
    }

    // -- commitments

    function test_commitmentIsKept() public {
        vm.expectEmit(true, true, true, true);
        emit JobMarketplace.ProofCommitted(market.idOf(_t), 600, rootOf(600), AT);
        commit(_t, 600);
        eq(AT, state(_t).pendingBlock, "block");
    }

    function test_onlyTheHostCommits() public {
        vm.prank(renter);
        vm.expectRevert(JobLedger.NotParty.selector);
        market.commitProof(_t, 600, rootOf(600));
    }

    function test_nothingToCommit() public {
        vm.prank(host);
        vm.expectRevert(JobMarketplace.NothingToProve.selector);
        market.commitProof(_t, 0, rootOf(1));
    }

    function test_provenTokensAreNotProvenAgain() public {
        prove(_t, 600);
        vm.prank(host);
        vm.expectRevert(JobMarketplace.NothingToProve.selector);
        market.commitProof(_t, 600, rootOf(600));
    }

    function test_unknownJobHasNoProofs() public {
        Terms memory t = terms(address(usdc), 0);
        vm.prank(host);
        vm.expectRevert(JobLedger.NotOpen.selector);
        market.commitProof(t, 600, rootOf(600));
        Proof memory p;
        vm.expectRevert(JobLedger.NotOpen.selector);
        market.submitProof(t, p);
        vm.prank(host);
        vm.expectRevert(JobLedger.NotOpen.selector);
        market.claimProven(t);
    }

    /// A host that dislikes its challenge cannot commit again to get another one, in any block in which it could still answer.
    function test_diceAreThrownOnce() public {
        commit(_t, 600);
        bytes memory reason = abi.encodeWithSelector(JobMarketplace.CommitmentPending.selector, AT + 2 + 256 + 1);
        uint256[4] memory blocks = [AT, AT + 2, AT + 3, AT + 2 + 256];
        for (uint256 i; i < blocks.length; ++i) {
            vm.roll(blocks[i]);
            vm.prank(host);
            vm.expectRevert(reason);
            market.commitProof(_t, 599, rootOf(599));
        }
        vm.roll(AT + 2 + 256 + 1);
        commit(_t, 599);
    }

    // -- the challenge

    function test_rightAnswerIsAccepted() public {
        Proof memory p = challenged(600);
        uint32 before = uint32(uint256(seedOf(_t, rootOf(600), AT)) % 600 / 256 * 256);
        vm.expectEmit(true, true, true, true);
        emit JobMarketplace.ProofAccepted(market.idOf(_t), 600, CIRCUIT, statement(_t, p, before));
        vm.prank(address(0x4E1A));
        market.submitProof(_t, p);
        eq(600, proven(), "proven");
        eq(0, market.earnings(address(0x4E1A), NATIVE) + market.earnings(host, NATIVE), "a proof moves no money");
        eq(0, state(_t).pendingBlock, "nothing pending");
    }

    function testFuzz_anySizeIsProvable(uint32 tokens) public {
        tokens = uint32(bound(tokens, 1, 3_000));
        prove(_t, tokens);
        eq(tokens, proven(), "proven");
    }

    function test_aProofIsUsedOnce() public {
        Proof memory p = challenged(600);
        market.submitProof(_t, p);
        refused(JobLedger.NoCommitment.selector, p);
    }

    function test_noCommitmentNoProof() public {
        Proof memory p = challenged(600);
        _t.salt = "twin";
        open(_t, DEPOSIT);
        refused(JobLedger.NoCommitment.selector, p);
    }

    function test_answerToAnotherCommitment() public {
        Proof memory p = challenged(600);
        p.head = "another head";
        refused(JobLedger.NoCommitment.selector, p);
        p.head = HEAD;
        p.tokens = 601;
        refused(JobLedger.NoCommitment.selector, p);
    }

    function test_seedIsNotReadyInItsOwnBlock() public {
        commit(_t, 600);
        Proof memory p = answer(_t, 600, AT - 3);
        refused(abi.encodeWithSelector(JobMarketplace.SeedNotReady.selector, AT + 3), p);
        vm.roll(AT + 2);
        refused(abi.encodeWithSelector(JobMarketplace.SeedNotReady.selector, AT + 3), p);
        vm.roll(AT + 3);
        market.submitProof(_t, answer(_t, 600, AT));
    }

    function test_seedExpires() public {
        Proof memory p = challenged(600);
        vm.roll(AT + 2 + 257);
        refused(JobMarketplace.SeedExpired.selector, p);
        vm.roll(AT + 2 + 256);
        market.submitProof(_t, p);
    }

    /// The same work committed for another job has another challenge and another statement.
    function test_proofOfAnotherJobIsRefused() public {
        Proof memory p = challenged(200);
        Terms memory twin = _t;
        twin.salt = "twin";
        open(twin, DEPOSIT);
        vm.roll(AT);
        commit(twin, 200);
        vm.roll(AT + 3);
        vm.expectRevert(JobMarketplace.ProofInvalid.selector);
        market.submitProof(twin, p);
    }

    function test_proofForAnotherMarketIsRefused() public {
        Proof memory p = challenged(200);
        market = new JobMarketplace(TREASURY, proofs, stakes, epochs);
        open(_t, DEPOSIT);
        vm.roll(AT);
        commit(_t, 200);
        vm.roll(AT + 3);
        refused(JobMarketplace.ProofInvalid.selector, p);
    }

    /// On a chain with another number the same contract, job, commitment and blocks make another statement.
    function test_proofForAnotherChainIsRefused() public {
        Proof memory p = challenged(200);
        vm.chainId(8453);
        refused(JobMarketplace.ProofInvalid.selector, p);
        vm.chainId(31337);
        market.submitProof(_t, p);
        eq(200, state(_t).proven, "on its own chain");
    }

    // -- the path

    function test_wrongCheckpointIsRefused() public {
        Proof memory p = challenged(600);
        uint256 position = uint256(seedOf(_t, rootOf(600), AT)) % 600;
        uint256 other = position < 256 ? 256 : 0;
        (p.treeRoot, p.commitment, p.checkpointTokens, p.path) = tree(600, other);
        refused(abi.encodeWithSelector(SumTree.WrongCheckpoint.selector, position, other), p);
    }

    function test_checkpointSizeIsBounded() public {
        Proof memory p = challenged(600);
        p.checkpointTokens = 0;
        refused(SumTree.PathMalformed.selector, p);
        p.checkpointTokens = 257;
        refused(SumTree.PathMalformed.selector, p);
    }

    function test_pathLengthIsBounded() public {
        Proof memory p = challenged(600);
        p.path = new SumNode[](33);
        refused(SumTree.PathMalformed.selector, p);
        p.path = new SumNode[](32);
        refused(SumTree.PathMismatch.selector, p);
    }

    function test_eachPartOfThePathIsBound() public {
        Proof memory p = challenged(600);
        p.commitment = "other";
        refused(SumTree.PathMismatch.selector, p);
        p = answer(_t, 600, AT);
        p.checkpointTokens -= 1;
        refused(SumTree.PathMismatch.selector, p);
        p = answer(_t, 600, AT);
        p.path[0].left = !p.path[0].left;
        refused(SumTree.PathMismatch.selector, p);
        p = answer(_t, 600, AT);
        p.path[0].tokens += 1;
        refused(SumTree.PathMismatch.selector, p);
        p = answer(_t, 600, AT);
        p.path = new SumNode[](0);
        refused(SumTree.PathMismatch.selector, p);
    }

    /// A root that claims more tokens than its leaves hold cannot be opened, wherever the challenge falls.
    function test_sumsMustReachTheCommittedTokens() public {
        (bytes32 treeRoot, bytes32 commitment, uint32 own, SumNode[] memory path) = tree(600, 0);
        bytes32 root = keccak256(abi.encode(treeRoot, HEAD));
        vm.prank(host);
        market.commitProof(_t, 601, root);
        vm.roll(AT + 3);
        refused(SumTree.PathMismatch.selector, Proof(CIRCUIT, treeRoot, HEAD, 601, own, commitment, path, ""));
    }

    /// A leaf cannot pass for an inner node nor the other way round: their hashes have different tags and lengths.
    function test_innerNodeIsNoLeaf() public {
        Proof memory p = challenged(600);
        p.path = new SumNode[](0);
        p.commitment = p.treeRoot;
        p.checkpointTokens = 256;
        refused(SumTree.PathMismatch.selector, p);
    }

    // -- the verifier

    function test_unknownCircuitIsInvalid() public {
        Proof memory p = challenged(600);
        p.circuitId = "nobody";
        refused(JobMarketplace.ProofInvalid.selector, p);
    }

    function test_wrongProofIsInvalidAndChangesNothing() public {
        Proof memory p = challenged(600);
        bytes memory good = p.proof;
        p.proof = new bytes(32);
        refused(JobMarketplace.ProofInvalid.selector, p);
        eq(0, proven(), "not proven");
        p.proof = good;
        market.submitProof(_t, p);
    }

    function test_verifierThatBurnsItsGasIsInvalid() public {
        SettableVerifier burner = new SettableVerifier();
        burner.burn();
        proofs.register("burner", burner);
        Proof memory p = challenged(600);
        p.circuitId = "burner";
        uint256 before = gasleft();
        refused(JobMarketplace.ProofInvalid.selector, p);
        ok(before - gasleft() < 1_700_000, "capped");
    }

    // -- what is paid without a signature

    function test_unsignedTokensArePaidUpToTheExposure() public {
        prove(_t, 600);
        vm.expectEmit(true, true, true, true);
        emit Disputes.ClaimHeld(market.idOf(_t), cost(_t, 64), 64, uint40(START + 1 hours));
        claimAndSettle(_t);
        eq(cost(_t, 64), owedOf(_t), "W tokens");
        vm.prank(host);
        vm.expectRevert(Earnings.NothingToClaim.selector);
        market.claimProven(_t);
        redeem(voucher(_t, 600));
        eq(cost(_t, 600), owedOf(_t), "the voucher pays the rest, once");
    }

    function test_unsignedTokensMustBeProven() public {
        prove(_t, 10);
        claimAndSettle(_t);
        eq(cost(_t, 10), owedOf(_t), "no more than proven");
    }

    function test_unsignedTokensStopAtTheDeposit() public {
        _t.salt = "small";
        open(_t, 50);
        prove(_t, 600);
        claimAndSettle(_t);
        eq(50, owedOf(_t), "deposit");
    }

    function test_onlyTheHostClaims() public {
        prove(_t, 600);
        vm.prank(renter);
        vm.expectRevert(JobLedger.NotParty.selector);
        market.claimProven(_t);
    }

    function test_boundMovesWithTheVoucher() public {
        prove(_t, 600);
        redeem(voucher(_t, 100));
        claimAndSettle(_t);
        eq(cost(_t, 164), owedOf(_t), "signed + W");
        redeem(voucher(_t, 130));
        eq(cost(_t, 164), owedOf(_t), "a voucher below what was claimed pays nothing more");
        eq(130, state(_t).signed, "but counts");
        claimAndSettle(_t);
        eq(cost(_t, 194), owedOf(_t), "and moves the bound");
        uint256 paid = market.earnings(host, NATIVE) + market.earnings(TREASURY, NATIVE);
        eq(cost(_t, 194), paid, "each token is paid once");
    }

    function test_closedJobTakesNoProof() public {
        Proof memory p = challenged(600);
        vm.prank(host);
        market.closeByHost(unsigned(_t));
        refused(JobLedger.NotOpen.selector, p);
        vm.prank(host);
        vm.expectRevert(JobLedger.NotOpen.selector);
        market.commitProof(_t, 600, rootOf(600));
        vm.prank(host);
        vm.expectRevert(JobLedger.NotOpen.selector);
        market.claimProven(_t);
        eq(0, state(_t).pendingBlock, "reads 0");
    }
}
