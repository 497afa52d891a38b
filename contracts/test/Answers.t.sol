// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Disputes} from "../src/Disputes.sol";
import {JobLedger} from "../src/JobLedger.sol";
import {Opening, Stage, Terms, Turn} from "../src/MarketTypes.sol";
import {Transcript} from "../src/Transcript.sol";
import {DisputeFixture} from "./DisputeFixture.sol";

/// The host's answer to a dispute, and the arbiter's ruling about it.
abstract contract AnswersTests is DisputeFixture {
    function refused(bytes memory reason, Terms memory t, Opening memory o) internal {
        vm.prank(host);
        vm.expectRevert(reason);
        market.answerDispute(t, o);
    }

    function refused(bytes4 selector, Terms memory t, Opening memory o) internal {
        refused(abi.encodePacked(selector), t, o);
    }

    // -- openings

    /// Computed by `fabstir.protocol.transcript`: turn 1, three tokens, turn 2, a token, from a head of zeros.
    function test_theTranscriptIsTheOneOfThePythonSide() public pure {
        bytes32 head;
        head = afterTurn(head, Turn(0, 1, sha256("request 1")));
        for (uint256 i; i < 3; ++i) {
            head = afterToken(head, recordOf(i));
        }
        head = afterToken(afterTurn(head, Turn(3, 2, sha256("request 2"))), recordOf(3));
        ok(head == 0xaefb260d80d2289697e96927bfd3c2df4665daa4422281dc4b8a7d0c740ea2e0, "head");
    }

    function test_theRightOpeningStartsTheArbitersWindow() public {
        Terms memory t = inStage(Stage.Disputed);
        Books memory b = books();
        vm.warp(START + 20 minutes);
        Opening memory o = opening(t, SIGNED, SERVED);
        eq(2, o.turns.length, "with an answer that begins at the voucher and one after it");
        vm.expectEmit(true, true, true, true);
        emit Disputes.ClaimAnswered(market.idOf(t), uint40(START + 20 minutes + 1 hours));
        vm.prank(host);
        market.answerDispute(t, o);
        stands(t, Stage.Answered);
        eq(START + 20 minutes + 1 hours, state(t).heldUntil, "until");
        moved(b, 0, 0, 0, false);
        solvent(t);
    }

    function answersUnsigned(uint32 tokens) internal {
        Terms memory t = agreed();
        t.salt = bytes32(uint256(tokens));
        open(t, DEPOSIT);
        prove(t, tokens, headOf(t, tokens));
        claim(t);
        dispute(t);
        Opening memory o = opening(t, 0, tokens);
        vm.prank(host);
        market.answerDispute(t, o);
        stands(t, Stage.Answered);
    }

    function test_aStreamIsOpenedFromItsStart() public {
        answersUnsigned(1);
        answersUnsigned(SIGNED);
        answersUnsigned(600);
    }

    function test_anOpeningEndsWithATurnWhereTheStreamDoes() public {
        Terms memory t = agreed();
        open(t, DEPOSIT);
        bytes32 head = afterTurn(headOf(t, SIGNED), turnAt(SIGNED));
        prove(t, SIGNED, head);
        claim(t);
        dispute(t);
        Opening memory o = opening(t, 0, SIGNED);
        o.head = head;
        refused(Disputes.OpeningMismatch.selector, t, o);
        o.turns = turnsOf(0, SIGNED + 1);
        vm.prank(host);
        market.answerDispute(t, o);
        stands(t, Stage.Answered);
    }

    function test_twoAnswersMayBeginAtOneCount() public {
        Terms memory t = agreed();
        open(t, DEPOSIT);
        Turn[] memory turns = new Turn[](2);
        (turns[0], turns[1]) = (turnAt(0), Turn(0, 2, "again"));
        bytes32 head = headOf(t, 0);
        head = afterToken(afterTurn(afterTurn(head, turns[0]), turns[1]), recordOf(0));
        prove(t, 1, head);
        claim(t);
        dispute(t);
        Opening memory o = opening(t, 0, 1);
        (o.head, o.turns) = (head, turns);
        (turns[0], turns[1]) = (turns[1], turns[0]);
        refused(Disputes.OpeningMismatch.selector, t, o);
        (turns[0], turns[1]) = (turns[1], turns[0]);
        vm.prank(host);
        market.answerDispute(t, o);
        stands(t, Stage.Answered);
    }

    function test_whatIsOpenedIsWhatWasProven() public {
        Terms memory t = inStage(Stage.Disputed);
        bytes4 reason = JobLedger.NoCommitment.selector;
        Opening memory o = opening(t, SIGNED, SERVED);
        o.treeRoot = "another tree";
        refused(reason, t, o);
        o = opening(t, SIGNED, SERVED);
        o.head = "another head";
        refused(reason, t, o);
        o = opening(t, SIGNED, SERVED);
        o.tokens += 1;
        refused(reason, t, o);
        refused(reason, t, opening(t, SIGNED, SERVED - 1));
        stands(t, Stage.Disputed);
    }

    function test_anOpeningBeginsAtTheBestVoucher() public {
        Terms memory t = inStage(Stage.Disputed);
        refused(Disputes.OpeningMismatch.selector, t, opening(t, SIGNED - 1, SERVED));
        refused(Disputes.OpeningMismatch.selector, t, opening(t, SIGNED + 1, SERVED));
        refused(Disputes.OpeningMismatch.selector, t, opening(t, 0, SERVED));
        sign(t, 200);
        refused(Disputes.OpeningMismatch.selector, t, opening(t, SIGNED, SERVED));
        Opening memory o = opening(t, 200, SERVED);
        vm.prank(host);
        market.answerDispute(t, o);
        stands(t, Stage.Answered);
    }

    function test_theVoucherOfAnOpeningIsTheRenters() public {
        Terms memory t = inStage(Stage.Disputed);
        bytes4 reason = JobLedger.BadSignature.selector;
        Opening memory o = opening(t, SIGNED, SERVED);
        o.transcript = "another transcript";
        refused(reason, t, o);
        o = opening(t, SIGNED, SERVED);
        o.voucher = voucherOf(HOST, t, SIGNED, cost(t, SIGNED), o.transcript).sig;
        refused(reason, t, o);
        o.voucher = voucherOf(SIGNER, t, SIGNED, cost(t, SIGNED) + 1, o.transcript).sig;
        refused(reason, t, o);
        o.voucher = voucherOf(SIGNER, t, SIGNED - 1, cost(t, SIGNED), o.transcript).sig;
        refused(reason, t, o);
        o.voucher = "";
        refused(reason, t, o);
    }

    /// The renter signed another past: from there the host's records lead elsewhere.
    function test_anotherSignedTranscriptDoesNotFit() public {
        Terms memory t = inStage(Stage.Disputed);
        Opening memory o = opening(t, SIGNED, SERVED);
        o.transcript = "another transcript";
        o.voucher = voucherOf(SIGNER, t, SIGNED, cost(t, SIGNED), o.transcript).sig;
        refused(Disputes.OpeningMismatch.selector, t, o);
    }

    function test_eachRecordCounts() public {
        Terms memory t = inStage(Stage.Disputed);
        uint256[3] memory positions = [uint256(0), 77, SERVED - SIGNED - 1];
        for (uint256 i; i < 3; ++i) {
            Opening memory o = opening(t, SIGNED, SERVED);
            o.records[positions[i]] = "another record";
            refused(Disputes.OpeningMismatch.selector, t, o);
        }
        Opening memory swapped = opening(t, SIGNED, SERVED);
        (swapped.records[3], swapped.records[4]) = (swapped.records[4], swapped.records[3]);
        refused(Disputes.OpeningMismatch.selector, t, swapped);
    }

    function test_thereIsARecordForEachToken() public {
        Terms memory t = inStage(Stage.Disputed);
        Opening memory o = opening(t, SIGNED, SERVED);
        o.records = recordsOf(SIGNED, SERVED - 1);
        refused(Transcript.OpeningMalformed.selector, t, o);
        o.records = recordsOf(SIGNED, SERVED + 1);
        refused(Transcript.OpeningMalformed.selector, t, o);
        o.records = new bytes32[](0);
        refused(Transcript.OpeningMalformed.selector, t, o);
    }

    function test_eachTurnCounts() public {
        Terms memory t = inStage(Stage.Disputed);
        Opening memory o = opening(t, SIGNED, SERVED);
        o.turns[1].messageIndex += 1;
        refused(Disputes.OpeningMismatch.selector, t, o);
        o = opening(t, SIGNED, SERVED);
        o.turns[1].request = "another request";
        refused(Disputes.OpeningMismatch.selector, t, o);
        o = opening(t, SIGNED, SERVED);
        o.turns[1].tokens += 1;
        refused(Disputes.OpeningMismatch.selector, t, o);
        o = opening(t, SIGNED, SERVED);
        o.turns = new Turn[](0);
        refused(Disputes.OpeningMismatch.selector, t, o);
    }

    function test_turnsAreInOrderAndWithinTheOpening() public {
        Terms memory t = inStage(Stage.Disputed);
        bytes4 reason = Transcript.OpeningMalformed.selector;
        Opening memory o = opening(t, SIGNED, SERVED);
        (o.turns[0], o.turns[1]) = (o.turns[1], o.turns[0]);
        refused(reason, t, o);
        o = opening(t, SIGNED, SERVED);
        o.turns[0].tokens = SIGNED - 1;
        refused(reason, t, o);
        o = opening(t, SIGNED, SERVED);
        o.turns[1].tokens = SERVED + 1;
        refused(reason, t, o);
    }

    function test_anOpeningOfAnotherJobDoesNotFit() public {
        Terms memory t = inStage(Stage.Disputed, "one");
        Terms memory twin = inStage(Stage.Disputed, "two");
        refused(JobLedger.NoCommitment.selector, t, opening(twin, SIGNED, SERVED));
    }

    // -- who answers when

    function test_onlyTheHostAnswers() public {
        Terms memory t = inStage(Stage.Disputed);
        Opening memory o = opening(t, SIGNED, SERVED);
        vm.prank(renter);
        vm.expectRevert(JobLedger.NotParty.selector);
        market.answerDispute(t, o);
    }

    function test_anAnswerComesWithinTheWindow() public {
        Terms memory t = inStage(Stage.Disputed);
        Opening memory o = opening(t, SIGNED, SERVED);
        vm.warp(START + 1 hours);
        refused(abi.encodeWithSelector(Disputes.TooLate.selector, START + 1 hours), t, o);
        vm.warp(START + 1 hours - 1);
        vm.prank(host);
        market.answerDispute(t, o);
        stands(t, Stage.Answered);
    }

    function test_anAnswerNeedsADisputeAndIsGivenOnce() public {
        Terms memory t = claimed(agreed());
        Opening memory o = opening(t, SIGNED, SERVED);
        refused(wrongStage(Stage.Claimed), t, o);
        dispute(t);
        answerDispute(t);
        refused(wrongStage(Stage.Answered), t, o);
    }

    function test_withoutAnArbiterTheAnswerDecides() public {
        Terms memory t = agreed();
        t.arbiter = address(0);
        claimed(t);
        dispute(t);
        Books memory b = books();
        Opening memory o = opening(t, SIGNED, SERVED);
        vm.expectEmit(true, true, true, true);
        emit Disputes.ClaimPaid(market.idOf(t), HELD);
        vm.expectEmit(true, true, true, true);
        emit Disputes.BondPaid(market.idOf(t), host, BOND);
        vm.prank(host);
        market.answerDispute(t, o);
        moved(b, 0, BOND, HELD, false);
        stands(t, Stage.None);
        eq(370, owedOf(t), "owed");
        solvent(t);
    }

    // -- rulings

    function test_theArbiterRulesForTheHost() public {
        Terms memory t = inStage(Stage.Answered);
        Books memory b = books();
        vm.warp(START + 1 hours - 1);
        vm.prank(ARBITER);
        market.rule(t, true);
        moved(b, 0, BOND, HELD, false);
        stands(t, Stage.None);
        solvent(t);
    }

    function test_theArbiterRulesForTheRenter() public {
        Terms memory t = inStage(Stage.Answered);
        Books memory b = books();
        vm.prank(ARBITER);
        market.rule(t, false);
        moved(b, BOND, 0, 0, true);
        stands(t, Stage.Lost);
        eq(123, owedOf(t), "only what was signed");
        eq(0, balance(ARBITER), "the arbiter has nothing of it");
        solvent(t);
    }

    function test_aSilentArbiterCostsNobodyAnything() public {
        Terms memory t = inStage(Stage.Answered);
        Books memory b = books();
        vm.warp(START + 1 hours - 1);
        vm.expectRevert(abi.encodeWithSelector(Disputes.StageRuns.selector, START + 1 hours));
        market.settleClaim(t);
        vm.warp(START + 1 hours);
        vm.prank(ARBITER);
        vm.expectRevert(abi.encodeWithSelector(Disputes.TooLate.selector, START + 1 hours));
        market.rule(t, false);
        market.settleClaim(t);
        moved(b, BOND, 0, HELD, false);
        stands(t, Stage.None);
        solvent(t);
    }

    function test_onlyTheArbiterRules() public {
        Terms memory t = inStage(Stage.Answered);
        address[4] memory others = [host, renter, address(0), address(this)];
        for (uint256 i; i < 4; ++i) {
            vm.prank(others[i]);
            vm.expectRevert(JobLedger.NotParty.selector);
            market.rule(t, true);
        }
    }

    function test_rulingsNeedAnAnswer() public {
        Terms memory t = claimed(agreed());
        vm.prank(ARBITER);
        vm.expectRevert(wrongStage(Stage.Claimed));
        market.rule(t, true);
        dispute(t);
        vm.prank(ARBITER);
        vm.expectRevert(wrongStage(Stage.Disputed));
        market.rule(t, false);
        answerDispute(t);
        vm.prank(ARBITER);
        market.rule(t, true);
        vm.prank(ARBITER);
        vm.expectRevert(wrongStage(Stage.None));
        market.rule(t, false);
    }
}

contract AnswersInCoinTest is AnswersTests {
    function token() internal pure override returns (address) {
        return NATIVE;
    }
}

contract AnswersInTokenTest is AnswersTests {
    function token() internal view override returns (address) {
        return address(usdc);
    }
}
