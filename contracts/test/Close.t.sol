// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Earnings} from "../src/Earnings.sol";
import {JobMarketplace} from "../src/JobMarketplace.sol";
import {Claim, Terms} from "../src/MarketTypes.sol";
import {CallbackToken, MoodyToken, Receiver} from "./Doubles.sol";
import {Fixture} from "./Fixture.sol";

contract CloseTest is Fixture {
    /// An open job whose renter is a contract; `Receiver` says how it takes its refund.
    function openedBy(Receiver r) internal returns (Terms memory t) {
        t = terms(NATIVE, 1);
        t.renter = address(r);
        vm.deal(address(r), DEPOSIT);
        r.run(address(market), DEPOSIT, abi.encodeCall(market.open, (t, DEPOSIT)));
    }

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
        (uint96 deposit, uint96 owed, uint32 signed,, bool closed) = state(t);
        ok(closed, "closed");
        eq(DEPOSIT, deposit, "kept for the record");
        eq(1234, owed, "kept for the record");
        eq(0, signed, "the tombstone does not show");
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
        vm.expectRevert(JobMarketplace.BadSignature.selector);
        market.closeByHost(c);
    }

    function test_lastVoucherNeedsItsProof() public {
        Terms memory t = terms(NATIVE, 0);
        open(t, DEPOSIT);
        Claim memory c = voucher(t, 1000);
        vm.prank(host);
        vm.expectRevert(abi.encodeWithSelector(JobMarketplace.ProofMissing.selector, 0, 1000));
        market.closeByHost(c);
    }

    function test_onlyTheHostClosesAlone() public {
        Terms memory t = opened();
        vm.prank(renter);
        vm.expectRevert(JobMarketplace.NotParty.selector);
        market.closeByHost(unsigned(t));
        Claim memory c = voucher(t, 1000);
        vm.prank(address(0xBAD));
        vm.expectRevert(JobMarketplace.NotParty.selector);
        market.closeByHost(c);
    }

    function test_closedStaysClosed() public {
        Terms memory t = opened();
        Claim memory c = voucher(t, 1000);
        bytes memory closing = closeSig(HOST, t, 1000);
        closeByHost(unsigned(t));
        vm.prank(host);
        vm.expectRevert(JobMarketplace.NotOpen.selector);
        market.closeByHost(c);
        vm.prank(renter);
        vm.expectRevert(JobMarketplace.NotOpen.selector);
        market.closeCooperative(c, closing);
        vm.prank(renter);
        vm.expectRevert(JobMarketplace.NotOpen.selector);
        market.requestClose(t);
        vm.warp(START + 365 days);
        vm.expectRevert(JobMarketplace.NotOpen.selector);
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
        bytes memory bad = abi.encodePacked(JobMarketplace.BadSignature.selector);
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
        bytes memory bad = abi.encodePacked(JobMarketplace.BadSignature.selector);
        refusedTogether(bad, renter, voucher(t, 1000), closing);
    }

    function test_agreedAmountIsThePrice() public {
        Terms memory t = opened();
        bytes memory closing = sign(HOST, market.closeDigest(market.idOf(t), 1, 1000));
        bytes memory reason = abi.encodeWithSelector(JobMarketplace.AmountMismatch.selector, 1234, 1);
        refusedTogether(reason, renter, Claim(t, 1, 1000, 0, ""), closing);
    }

    function test_agreedAmountStopsAtTheDeposit() public {
        Terms memory t = opened();
        bytes memory reason = abi.encodeWithSelector(JobMarketplace.AboveDeposit.selector, DEPOSIT, 6172);
        refusedTogether(reason, renter, voucher(t, 5000), closeSig(HOST, t, 5000));
    }

    /// A host that redeemed more since it consented is not pushed back; one that redeemed exactly that is not stopped.
    function test_consentBelowWhatIsOwedIsStale() public {
        Terms memory t = opened();
        bytes memory closing = closeSig(HOST, t, 1000);
        bytes memory later = closeSig(HOST, t, 2000);
        redeem(voucher(t, 2000));
        bytes memory stale = abi.encodePacked(JobMarketplace.StaleVoucher.selector);
        refusedTogether(stale, renter, voucher(t, 1000), closing);
        Claim memory c = voucher(t, 2000);
        vm.prank(renter);
        market.closeCooperative(c, later);
        eq(2469, owedOf(t), "paid once");
    }

    function test_agreedAmountNeedsItsProof() public {
        Terms memory t = terms(NATIVE, 0);
        open(t, DEPOSIT);
        bytes memory reason = abi.encodeWithSelector(JobMarketplace.ProofMissing.selector, 0, 1000);
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
        vm.expectRevert(JobMarketplace.NotParty.selector);
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
        vm.expectRevert(JobMarketplace.NotOpen.selector);
        market.finalize(t);
    }

    // -- refunds that cannot be pushed

    function heldFor(Receiver r) internal {
        Terms memory t = openedBy(r);
        vm.expectEmit(true, true, true, true);
        emit JobMarketplace.RefundHeld(market.idOf(t), address(r), DEPOSIT - 1234);
        uint256 before = gasleft();
        closeByHost(voucher(t, 1000));
        ok(before - gasleft() < 300_000, "costs the host little");
        eq(DEPOSIT - 1234, market.earnings(address(r), NATIVE), "waits");
        r.set(Receiver.Mood.Takes);
        r.run(address(market), 0, abi.encodeCall(market.withdraw, (NATIVE, address(r))));
        eq(DEPOSIT - 1234, address(r).balance, "pulled");
    }

    function test_refusedRefundWaits() public {
        Receiver r = new Receiver();
        r.set(Receiver.Mood.Refuses);
        heldFor(r);
    }

    function test_refundThatBurnsGasWaits() public {
        Receiver r = new Receiver();
        r.set(Receiver.Mood.Burns);
        heldFor(r);
    }

    function test_returnBombIsNotCopied() public {
        Receiver r = new Receiver();
        r.set(Receiver.Mood.Bombs);
        heldFor(r);
    }

    function test_blacklistedRenterDoesNotBlockTheHost() public {
        MoodyToken moody = new MoodyToken();
        moody.mint(renter, DEPOSIT);
        Terms memory t = terms(address(moody), 1);
        open(t, DEPOSIT);
        moody.setBlocked(renter, true);
        closeByHost(voucher(t, 1000));
        eq(DEPOSIT - 1234, market.earnings(renter, address(moody)), "waits");
        vm.prank(renter);
        market.withdraw(address(moody), address(0xFEED));
        eq(DEPOSIT - 1234, moody.balanceOf(address(0xFEED)), "pulled to another account");
    }

    // -- reentrancy

    /// 30,000 gas do not even let a receiver record what it tried; withdraw forwards all, so it is the door to try.
    function test_noWayBackInDuringWithdraw() public {
        Receiver r = new Receiver();
        Terms memory t = openedBy(r);
        r.set(Receiver.Mood.Refuses);
        closeByHost(unsigned(t));
        bytes[8] memory doors = [
            abi.encodeCall(market.withdraw, (NATIVE, address(r))),
            abi.encodeCall(market.open, (t, 1)),
            abi.encodeCall(market.redeem, (one(unsigned(t)))),
            abi.encodeCall(market.commitProof, (t, 1, 0)),
            abi.encodeCall(market.claimProven, (t)),
            abi.encodeCall(market.closeByHost, (unsigned(t))),
            abi.encodeCall(market.requestClose, (t)),
            abi.encodeCall(market.finalize, (t))
        ];
        for (uint256 i; i < doors.length; ++i) {
            vm.store(
                address(market),
                keccak256(abi.encode(NATIVE, keccak256(abi.encode(address(r), 0)))),
                bytes32(uint256(7))
            );
            r.callWhenPaid(address(market), doors[i]);
            r.run(address(market), 0, abi.encodeCall(market.withdraw, (NATIVE, address(r))));
            ok(!r.succeeded(), "reentered");
            ok(bytes4(r.seen()) == Earnings.Reentered.selector, "named");
        }
    }

    function test_refundedTokenCannotReenter() public {
        CallbackToken token = new CallbackToken();
        token.mint(renter, DEPOSIT);
        vm.prank(renter);
        token.approve(address(market), DEPOSIT);
        Terms memory t = terms(address(token), 1);
        open(t, DEPOSIT);
        token.callWhenMoved(address(market), abi.encodeCall(market.finalize, (t)));
        closeByHost(voucher(t, 1000));
        ok(!token.succeeded(), "reentered");
        ok(bytes4(token.seen()) == Earnings.Reentered.selector, "named");
        eq(DEPOSIT - 1234, token.balanceOf(renter), "refunded once");
    }

    function test_renterThatCallsBackIsRefundedOnce() public {
        Receiver r = new Receiver();
        Terms memory t = openedBy(r);
        r.callWhenPaid(address(market), abi.encodeCall(market.finalize, (t)));
        closeByHost(voucher(t, 1000));
        ok(!r.succeeded(), "reentered");
        eq(DEPOSIT - 1234, address(r).balance + market.earnings(address(r), NATIVE), "refunded or held, once");
        eq(DEPOSIT, address(r).balance + address(market).balance, "nothing lost");
    }

    // -- withdrawing

    function test_earningsGoWhereTheHostSays() public {
        Terms memory t = opened();
        redeem(voucher(t, 1000));
        vm.expectEmit(true, true, true, true);
        emit Earnings.EarningsWithdrawn(host, NATIVE, address(0xFEED), 1173);
        vm.prank(host);
        eq(1173, market.withdraw(NATIVE, address(0xFEED)), "amount");
        eq(1173, address(0xFEED).balance, "paid out");
        vm.prank(TREASURY);
        market.withdraw(NATIVE, address(0xFEED));
        eq(1234, address(0xFEED).balance, "with the fee");
    }

    function test_tokenEarningsArePaidInTheToken() public {
        Terms memory t = terms(address(usdc), 1);
        open(t, DEPOSIT);
        redeem(voucher(t, 1000));
        vm.prank(host);
        market.withdraw(address(usdc), host);
        eq(1173, usdc.balanceOf(host), "paid out");
    }

    function test_nothingIsPaidTwice() public {
        Terms memory t = opened();
        redeem(voucher(t, 1000));
        vm.prank(host);
        market.withdraw(NATIVE, host);
        vm.prank(host);
        vm.expectRevert(Earnings.NothingToClaim.selector);
        market.withdraw(NATIVE, host);
    }

    function test_earningsOfOneTokenAreNotAnothers() public {
        Terms memory t = opened();
        redeem(voucher(t, 1000));
        vm.prank(host);
        vm.expectRevert(Earnings.NothingToClaim.selector);
        market.withdraw(address(usdc), host);
    }

    function test_recipientMustBeSomebodyElse() public {
        Terms memory t = opened();
        redeem(voucher(t, 1000));
        vm.prank(host);
        vm.expectRevert(Earnings.BadRecipient.selector);
        market.withdraw(NATIVE, address(0));
        vm.prank(host);
        vm.expectRevert(Earnings.BadRecipient.selector);
        market.withdraw(NATIVE, address(market));
    }

    function test_failedWithdrawalKeepsTheMoney() public {
        Terms memory t = opened();
        redeem(voucher(t, 1000));
        Receiver r = new Receiver();
        r.set(Receiver.Mood.Refuses);
        vm.prank(host);
        vm.expectRevert(Earnings.TransferFailed.selector);
        market.withdraw(NATIVE, address(r));
        eq(1173, market.earnings(host, NATIVE), "kept");
    }
}
