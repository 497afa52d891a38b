// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {JobLedger} from "../src/JobLedger.sol";
import {JobMarketplace} from "../src/JobMarketplace.sol";
import {Claim, JobView, Terms} from "../src/MarketTypes.sol";
import {Vouchers} from "../src/Vouchers.sol";
import {Fixture} from "./Fixture.sol";

contract CloseTest is Fixture {
    function closeByHost(Claim memory c) internal {
        vm.prank(host);
        market.closeByHost(c);
    }

    // -- by the host

    function test_hostClosesWithItsLastVoucher() public {
        Terms memory t = opened();
        uint256 before = renter.balance;
        vm.expectEmit(true, true, true, true);
        emit JobMarketplace.JobClosed(market.idOf(t), 1234, DEPOSIT - 1234, 1000, 0);
        closeByHost(voucher(t, 1000));
        eq(before + DEPOSIT - 1234, renter.balance, "refund");
        eq(1234, market.earnings(host, NATIVE) + market.earnings(TREASURY, NATIVE), "paid");
        JobView memory job = state(t);
        ok(job.closed, "closed");
        eq(DEPOSIT, job.deposit, "kept for the record");
        eq(1234, job.owed, "kept for the record");
        eq(1000, job.signed, "kept for the record");
    }

    function test_hostClosesWithNothing() public {
        Terms memory t = opened();
        uint256 before = renter.balance;
        closeByHost(unsigned(t));
        eq(before + DEPOSIT, renter.balance, "all back");
    }

    function test_voucherRedeemedBeforeIsNoObstacle() public {
        Terms memory t = opened();
        redeem(voucher(t, 1000));
        closeByHost(voucher(t, 1000));
        ok(isClosed(t), "closed");
        eq(1234, owedOf(t), "paid once");
    }

    function test_badLastVoucherDoesNotClose() public {
        Terms memory t = opened();
        Claim memory c = voucherOf(HOST, t, 1000, 1234);
        vm.prank(host);
        vm.expectRevert(JobLedger.BadSignature.selector);
        market.closeByHost(c);
    }

    function test_lastVoucherNeedsItsProof() public {
        Terms memory t = terms(NATIVE, 0);
        open(t, DEPOSIT);
        Claim memory c = voucher(t, 1000);
        vm.prank(host);
        vm.expectRevert(abi.encodeWithSelector(Vouchers.ProofMissing.selector, 0, 1000));
        market.closeByHost(c);
    }

    function test_onlyTheHostClosesAlone() public {
        Terms memory t = opened();
        vm.prank(renter);
        vm.expectRevert(JobLedger.NotParty.selector);
        market.closeByHost(unsigned(t));
        Claim memory c = voucher(t, 1000);
        vm.prank(address(0xBAD));
        vm.expectRevert(JobLedger.NotParty.selector);
        market.closeByHost(c);
    }

    function test_closedStaysClosed() public {
        Terms memory t = opened();
        Claim memory c = voucher(t, 1000);
        bytes memory closing = closeSig(HOST, t, 1000);
        closeByHost(unsigned(t));
        vm.prank(host);
        vm.expectRevert(JobLedger.NotOpen.selector);
        market.closeByHost(c);
        vm.prank(renter);
        vm.expectRevert(JobLedger.NotOpen.selector);
        market.closeCooperative(c, closing);
        vm.prank(renter);
        vm.expectRevert(JobLedger.NotOpen.selector);
        market.requestClose(t);
        vm.warp(START + 365 days);
        vm.expectRevert(JobLedger.NotOpen.selector);
        market.finalize(t);
        vm.warp(START);
        vm.expectRevert(JobMarketplace.JobExists.selector);
        open(t, DEPOSIT);
    }

    // -- by both

    function test_renterClosesWithTheHostsConsent() public {
        Terms memory t = opened();
        Claim memory c = Claim(t, 1234, 1000, 0, "");
        bytes memory closing = closeSig(HOST, t, 1000);
        uint256 before = renter.balance;
        vm.expectEmit(true, true, true, true);
        emit JobMarketplace.JobClosed(market.idOf(t), 1234, DEPOSIT - 1234, 1000, 0);
        vm.prank(renter);
        market.closeCooperative(c, closing);
        eq(before + DEPOSIT - 1234, renter.balance, "refund");
        eq(1234, market.earnings(host, NATIVE) + market.earnings(TREASURY, NATIVE), "paid");
    }

    function test_anyoneClosesWithBothSignatures() public {
        Terms memory t = opened();
        Claim memory c = voucher(t, 1000);
        bytes memory closing = closeSig(HOST, t, 1000);
        vm.prank(address(0x4E1A));
        market.closeCooperative(c, closing);
        eq(1234, owedOf(t), "paid");
    }

    function refusedTogether(bytes memory reason, address sender, Claim memory c, bytes memory hostSig) internal {
        vm.prank(sender);
        vm.expectRevert(reason);
        market.closeCooperative(c, hostSig);
    }

    function test_bothMustConsent() public {
        Terms memory t = opened();
        bytes memory bad = abi.encodePacked(JobLedger.BadSignature.selector);
        Claim memory c = voucher(t, 1000);
        bytes memory closing = closeSig(HOST, t, 1000);
        refusedTogether(bad, renter, c, closeSig(SIGNER, t, 1000));
        refusedTogether(bad, renter, c, closeSig(HOST, t, 999));
        refusedTogether(bad, renter, c, c.sig);
        refusedTogether(bad, renter, c, "");
        c.sig = "";
        refusedTogether(bad, address(0xBAD), c, closing);
        refusedTogether(bad, host, c, closing);
        c.sig = closing;
        refusedTogether(bad, host, c, closing);
    }

    function test_consentIsForOneJob() public {
        Terms memory t = opened();
        bytes memory closing = closeSig(HOST, t, 1000);
        t.salt = "twin";
        open(t, DEPOSIT);
        bytes memory bad = abi.encodePacked(JobLedger.BadSignature.selector);
        refusedTogether(bad, renter, voucher(t, 1000), closing);
    }

    function test_agreedAmountIsThePrice() public {
        Terms memory t = opened();
        bytes memory closing = sign(HOST, market.closeDigest(market.idOf(t), 1, 1000));
        bytes memory reason = abi.encodeWithSelector(JobLedger.AmountMismatch.selector, 1234, 1);
        refusedTogether(reason, renter, Claim(t, 1, 1000, 0, ""), closing);
    }

    function test_agreedAmountStopsAtTheDeposit() public {
        Terms memory t = opened();
        bytes memory reason = abi.encodeWithSelector(JobLedger.AboveDeposit.selector, DEPOSIT, 6172);
        refusedTogether(reason, renter, voucher(t, 5000), closeSig(HOST, t, 5000));
    }

    /// A host that redeemed more since it consented is not pushed back; one that redeemed exactly that is not stopped.
    function test_consentBelowWhatIsOwedIsStale() public {
        Terms memory t = opened();
        bytes memory closing = closeSig(HOST, t, 1000);
        bytes memory later = closeSig(HOST, t, 2000);
        redeem(voucher(t, 2000));
        bytes memory stale = abi.encodePacked(Vouchers.StaleVoucher.selector);
        refusedTogether(stale, renter, voucher(t, 1000), closing);
        Claim memory c = voucher(t, 2000);
        vm.prank(renter);
        market.closeCooperative(c, later);
        eq(2469, owedOf(t), "paid once");
    }

    function test_agreedAmountNeedsItsProof() public {
        Terms memory t = terms(NATIVE, 0);
        open(t, DEPOSIT);
        bytes memory reason = abi.encodeWithSelector(Vouchers.ProofMissing.selector, 0, 1000);
        refusedTogether(reason, renter, voucher(t, 1000), closeSig(HOST, t, 1000));
        Claim memory c = Claim(t, 0, 0, 0, "");
        bytes memory closing = closeSig(HOST, t, 0);
        vm.prank(renter);
        market.closeCooperative(c, closing);
        ok(isClosed(t), "nothing owed, no proof needed");
    }

    // -- by the renter alone

    function test_renterLeavesAfterTheChallengeWindow() public {
        Terms memory t = opened();
        redeem(voucher(t, 1000));
        vm.expectEmit(true, true, true, true);
        emit JobMarketplace.CloseRequested(market.idOf(t), uint40(START + 1 hours));
        vm.prank(renter);
        market.requestClose(t);
        vm.warp(START + 1 hours - 1);
        vm.expectRevert(abi.encodeWithSelector(JobMarketplace.TooEarly.selector, START + 1 hours));
        market.finalize(t);
        vm.warp(START + 1 hours);
        uint256 before = renter.balance;
        vm.prank(address(0x4E1A));
        market.finalize(t);
        eq(before + DEPOSIT - 1234, renter.balance, "refund");
    }

    function test_onlyTheRenterRequests() public {
        Terms memory t = opened();
        vm.prank(host);
        vm.expectRevert(JobLedger.NotParty.selector);
        market.requestClose(t);
    }

    function test_requestIsMadeOnce() public {
        Terms memory t = opened();
        vm.prank(renter);
        market.requestClose(t);
        vm.prank(renter);
        vm.expectRevert(JobMarketplace.AlreadyClosing.selector);
        market.requestClose(t);
    }

    function test_expiredJobIsFinalizedByAnyone() public {
        Terms memory t = opened();
        uint256 allowed = START + 1 days + 1 hours;
        vm.warp(allowed - 1);
        vm.expectRevert(abi.encodeWithSelector(JobMarketplace.TooEarly.selector, allowed));
        market.finalize(t);
        vm.warp(allowed);
        market.finalize(t);
        ok(isClosed(t), "closed");
    }

    /// A request just before the deadline cannot push the deadline back.
    function test_lateRequestDelaysNothing() public {
        Terms memory t = opened();
        vm.warp(START + 1 days + 1 hours - 1);
        vm.prank(renter);
        market.requestClose(t);
        vm.warp(START + 1 days + 1 hours);
        market.finalize(t);
        ok(isClosed(t), "closed");
    }

    function test_unknownJobIsNotFinalized() public {
        Terms memory t = terms(NATIVE, 1);
        vm.warp(START + 365 days);
        vm.expectRevert(JobLedger.NotOpen.selector);
        market.finalize(t);
    }
}
