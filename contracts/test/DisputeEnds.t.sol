// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Disputes} from "../src/Disputes.sol";
import {Earnings} from "../src/Earnings.sol";
import {JobLedger} from "../src/JobLedger.sol";
import {JobMarketplace} from "../src/JobMarketplace.sol";
import {Claim, Opening, Stage, Terms} from "../src/MarketTypes.sol";
import {Vouchers} from "../src/Vouchers.sol";
import {MoodyToken, Receiver} from "./Doubles.sol";
import {DisputeFixture} from "./DisputeFixture.sol";

/// What ends a claim before its windows do: contradictions, vouchers, agreements; and the job that is closed meanwhile.
abstract contract DisputeEndsTests is DisputeFixture {
    /// What a claim's bond costs its loser, which is nothing before there is a dispute.
    function bondIn(Stage stage) internal pure returns (uint256) {
        return stage == Stage.Claimed ? 0 : BOND;
    }

    function contradictRefused(bytes memory reason, Terms memory t, uint32 tokens, bytes memory sig) internal {
        uint96 amount = cost(t, tokens);
        vm.expectRevert(reason);
        market.contradict(t, amount, tokens, sig);
    }

    function closeByHost(Claim memory c) internal {
        vm.prank(host);
        market.closeByHost(c);
    }

    // -- the host contradicts itself

    function test_aCloseForFewerTokensDecidesAtEveryStage() public {
        Stage[3] memory all = stages();
        for (uint256 i; i < 3; ++i) {
            Terms memory t = inStage(all[i], bytes32(i));
            bytes memory closing = closeSig(HOST, t, SERVED - 1);
            Books memory b = books();
            vm.prank(address(0x4E1A)); // anyone
            market.contradict(t, cost(t, SERVED - 1), SERVED - 1, closing);
            moved(b, bondIn(all[i]), 0, 0, true);
            stands(t, Stage.Lost);
            eq(123, owedOf(t), "only what was signed");
        }
    }

    function test_aContradictionCountsUntilTheClaimIsDecided() public {
        Terms memory t = claimed(agreed());
        vm.warp(START + 30 days);
        bytes memory closing = closeSig(HOST, t, 0);
        market.contradict(t, 0, 0, closing);
        stands(t, Stage.Lost);
    }

    function test_aCloseForAllTokensIsNoContradiction() public {
        Terms memory t = inStage(Stage.Disputed);
        bytes memory reason = abi.encodePacked(Disputes.NoContradiction.selector);
        contradictRefused(reason, t, SERVED, closeSig(HOST, t, SERVED));
        contradictRefused(reason, t, SERVED + 1, closeSig(HOST, t, SERVED + 1));
        stands(t, Stage.Disputed);
    }

    /// The claim was for fewer tokens than are proven: what counts is what was claimed.
    function test_whatCountsIsTheClaimNotTheProof() public {
        Terms memory t = agreed();
        t.exposure = 50;
        claimed(t);
        bytes memory reason = abi.encodePacked(Disputes.NoContradiction.selector);
        contradictRefused(reason, t, 150, closeSig(HOST, t, 150));
        bytes memory closing = closeSig(HOST, t, 149);
        market.contradict(t, cost(t, 149), 149, closing);
        stands(t, Stage.Lost);
    }

    function test_onlyTheHostContradictsItself() public {
        Terms memory t = claimed(agreed());
        Terms memory twin = agreed();
        twin.salt = "twin";
        bytes memory reason = abi.encodePacked(JobLedger.BadSignature.selector);
        contradictRefused(reason, t, SIGNED, closeSig(SIGNER, t, SIGNED));
        contradictRefused(reason, t, SIGNED, closeSig(RENTER, t, SIGNED));
        contradictRefused(reason, t, SIGNED, closeSig(HOST, twin, SIGNED));
        contradictRefused(reason, t, SIGNED, closeSig(HOST, t, SIGNED - 1));
        contradictRefused(reason, t, SIGNED, "");
        Claim memory voucherOfHost = voucherOf(HOST, t, SIGNED, cost(t, SIGNED));
        contradictRefused(reason, t, SIGNED, voucherOfHost.sig);
    }

    function test_aContradictionNeedsAClaim() public {
        Terms memory t = agreed();
        open(t, DEPOSIT);
        contradictRefused(wrongStage(Stage.None), t, 0, closeSig(HOST, t, 0));
    }

    // -- vouchers

    function test_aVoucherTakesOverAPartAtEveryStage() public {
        Stage[3] memory all = stages();
        for (uint256 i; i < 3; ++i) {
            Terms memory t = inStage(all[i], bytes32(i));
            Books memory b = books();
            sign(t, 200);
            moved(b, 0, 0, 246 - 123, false);
            stands(t, all[i]);
            eq(370 - 246, state(t).held, "the rest is held");
            eq(SERVED, state(t).heldTokens, "and claimed");
            eq(370, owedOf(t), "owed");
            b = books();
            wait_(t);
            market.settleClaim(t);
            if (all[i] == Stage.Disputed) moved(b, BOND, 0, 0, true);
            else moved(b, bondIn(all[i]), 0, 370 - 246, false);
            eq(all[i] == Stage.Disputed ? 246 : 370, owedOf(t), "owed afterwards");
        }
    }

    function test_aVoucherForAllEndsTheClaimAtEveryStage() public {
        Stage[3] memory all = stages();
        for (uint256 i; i < 3; ++i) {
            Terms memory t = inStage(all[i], bytes32(i));
            Books memory b = books();
            sign(t, SERVED);
            moved(b, 0, bondIn(all[i]), HELD, false);
            stands(t, Stage.None);
            eq(370, owedOf(t), "owed");
            eq(0, uint256(state(t).held) + state(t).heldTokens, "nothing held");
            commit(t, SERVED + 1); // is undecided no more
        }
    }

    function test_aVoucherForMoreEndsTheClaimAtEveryStage() public {
        Stage[3] memory all = stages();
        for (uint256 i; i < 3; ++i) {
            Terms memory t = inStage(all[i], bytes32(i));
            Books memory b = books();
            vm.expectEmit(true, true, true, true);
            emit Vouchers.VoucherRedeemed(market.idOf(t), 493, 400, headOf(t, 400));
            sign(t, 400);
            moved(b, 0, bondIn(all[i]), 493 - 123, false);
            stands(t, Stage.None);
            eq(493, owedOf(t), "owed");
        }
    }

    function test_theBondOfAWonDisputeIsAnnounced() public {
        Terms memory t = inStage(Stage.Disputed);
        Claim memory c = voucherOf(SIGNER, t, SERVED, 370, headOf(t, SERVED));
        vm.expectEmit(true, true, true, true);
        emit Disputes.BondPaid(market.idOf(t), host, BOND);
        redeem(c);
        solvent(t);
    }

    function test_theNextClaimIsAboveTheVoucher() public {
        Terms memory t = inStage(Stage.Disputed);
        sign(t, SERVED);
        prove(t, SERVED + 100, headOf(t, SERVED + 100));
        claim(t);
        eq(493 - 370, state(t).held, "only what is new");
        stands(t, Stage.Claimed);
        solvent(t);
    }

    // -- agreements

    function test_anAgreementVoidsTheClaimAtEveryStage() public {
        Stage[3] memory all = stages();
        for (uint256 i; i < 3; ++i) {
            Terms memory t = inStage(all[i], bytes32(i));
            Claim memory c = Claim(t, 246, 200, 0, "");
            bytes memory closing = closeSig(HOST, t, 200);
            Books memory b = books();
            vm.expectEmit(true, true, true, true);
            emit JobMarketplace.JobClosed(market.idOf(t), 246, DEPOSIT - 246, 200, SERVED);
            vm.prank(renter);
            market.closeCooperative(c, closing);
            moved(b, bondIn(all[i]) + DEPOSIT - 246, 0, 246 - 123, false);
            stands(t, Stage.None);
            eq(246, owedOf(t), "owed");
            vm.expectRevert(wrongStage(Stage.None));
            market.settleClaim(t);
        }
    }

    function test_anAgreementMayBeOnWhatIsSigned() public {
        Terms memory t = inStage(Stage.Answered);
        Claim memory c = Claim(t, 123, SIGNED, 0, "");
        bytes memory closing = closeSig(HOST, t, SIGNED);
        Books memory b = books();
        vm.prank(renter);
        market.closeCooperative(c, closing);
        moved(b, BOND + DEPOSIT - 123, 0, 0, false);
        solvent(t);
    }

    function test_anAgreementCannotTakeBackWhatWasSigned() public {
        Terms memory t = claimed(agreed());
        Claim memory c = Claim(t, 122, 99, 0, "");
        bytes memory closing = closeSig(HOST, t, 99);
        vm.prank(renter);
        vm.expectRevert(Vouchers.StaleVoucher.selector);
        market.closeCooperative(c, closing);
    }

    // -- a job that is closed meanwhile

    function test_theHostClosesWhileItsClaimIsHeld() public {
        Terms memory t = claimed(agreed());
        Books memory b = books();
        closeByHost(unsigned(t));
        moved(b, DEPOSIT - 370, 0, 0, false);
        solvent(t);
        wait_(t);
        market.settleClaim(t);
        moved(b, DEPOSIT - 370, 0, HELD, false);
        eq(370, owedOf(t), "owed");
        solvent(t);
    }

    function test_theLastVoucherTakesOverBeforeTheClose() public {
        Terms memory t = inStage(Stage.Disputed);
        Claim memory c = voucherOf(SIGNER, t, 200, 246, headOf(t, 200));
        Books memory b = books();
        closeByHost(c);
        moved(b, DEPOSIT - 370, 0, 246 - 123, false);
        wait_(t);
        market.settleClaim(t);
        moved(b, BOND + DEPOSIT - 246, 0, 246 - 123, true);
        eq(246, owedOf(t), "owed");
        solvent(t);
    }

    function test_aClaimIsDisputedAfterTheClose() public {
        Terms memory t = claimed(agreed());
        closeByHost(unsigned(t));
        Books memory b = books();
        dispute(t);
        answerDispute(t);
        vm.prank(ARBITER);
        market.rule(t, true);
        eq(b.credited + HELD, books().credited, "paid");
        eq(b.host + BOND, books().host, "with the bond");
        eq(b.renter - BOND, books().renter, "of the renter");
        solvent(t);
    }

    function test_whatIsLostAfterTheCloseIsTheRenters() public {
        Stage[3] memory all = stages();
        for (uint256 i; i < 3; ++i) {
            Terms memory t = inStage(all[i], bytes32(i));
            closeByHost(unsigned(t));
            Books memory b = books();
            bytes memory closing = closeSig(HOST, t, SIGNED);
            market.contradict(t, 123, SIGNED, closing);
            moved(b, HELD + bondIn(all[i]), 0, 0, true);
            eq(123, owedOf(t), "owed");
            stands(t, Stage.Lost);
        }
    }

    function test_aFinalizedJobKeepsItsClaim() public {
        Terms memory t = agreed();
        t.expiresAt = uint40(START + 1);
        claimed(t);
        vm.warp(START + 1 hours - 1);
        dispute(t);
        vm.warp(START + 1 hours + 1);
        Books memory b = books();
        market.finalize(t);
        moved(b, DEPOSIT - 370, 0, 0, false);
        stands(t, Stage.Disputed);
        solvent(t);
        vm.warp(START + 2 hours - 1);
        market.settleClaim(t);
        moved(b, DEPOSIT - 370 + HELD + BOND, 0, 0, true);
        solvent(t);
    }

    function test_aClosedJobIsNotClaimedFromAgain() public {
        Terms memory t = claimed(agreed());
        closeByHost(unsigned(t));
        wait_(t);
        market.settleClaim(t);
        vm.prank(host);
        vm.expectRevert(JobLedger.NotOpen.selector);
        market.claimProven(t);
    }
}

contract DisputeEndsInCoinTest is DisputeEndsTests {
    function token() internal pure override returns (address) {
        return NATIVE;
    }

    /// A renter that refuses coin stops nobody: bond and lost claim wait for it in the ledger.
    function test_aRenterThatRefusesCoinIsPaidByTheLedger() public {
        Receiver r = new Receiver();
        Terms memory t = agreed();
        t.renter = address(r);
        vm.deal(address(r), DEPOSIT + BOND);
        r.run(address(market), DEPOSIT, abi.encodeCall(market.open, (t, DEPOSIT)));
        sign(t, SIGNED);
        prove(t, SERVED, headOf(t, SERVED));
        claim(t);
        r.run(address(market), BOND, abi.encodeCall(market.dispute, (t)));
        r.set(Receiver.Mood.Refuses);
        closeByHost(unsigned(t));
        eq(DEPOSIT - 370, market.earnings(address(r), NATIVE), "refund");
        wait_(t);
        vm.expectEmit(true, true, true, true);
        emit Earnings.RepaymentHeld(address(r), NATIVE, HELD);
        vm.expectEmit(true, true, true, true);
        emit Earnings.RepaymentHeld(address(r), NATIVE, BOND);
        market.settleClaim(t);
        eq(DEPOSIT - 123 + BOND, market.earnings(address(r), NATIVE), "all of it");
        eq(COMPENSATION, usdc.balanceOf(address(r)), "compensated");
        solvent(t);
    }

    function test_aHostThatRefusesCoinGetsTheBondByTheLedger() public {
        Terms memory t = inStage(Stage.Answered);
        vm.etch(host, hex"60006000fd");
        vm.prank(ARBITER);
        market.rule(t, true);
        eq(370 - 6 - 12 + BOND, market.earnings(host, NATIVE), "what is left of 123 and 247, and the bond");
        solvent(t);
    }
}

contract DisputeEndsInTokenTest is DisputeEndsTests {
    function token() internal view override returns (address) {
        return address(usdc);
    }

    function test_aBlacklistedRenterIsPaidByTheLedger() public {
        MoodyToken moody = new MoodyToken();
        moody.mint(renter, DEPOSIT + BOND);
        Terms memory t = agreed();
        t.token = address(moody);
        claimed(t);
        vm.prank(renter);
        market.dispute(t);
        closeByHost(unsigned(t));
        eq(DEPOSIT - 370, moody.balanceOf(renter), "refund");
        moody.setBlocked(renter, true);
        wait_(t);
        market.settleClaim(t);
        eq(HELD + BOND, market.earnings(renter, address(moody)), "waits");
        vm.prank(renter);
        market.withdraw(address(moody), address(0xFEED));
        eq(HELD + BOND, moody.balanceOf(address(0xFEED)), "pulled");
    }
}
