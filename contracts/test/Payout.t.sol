// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Earnings} from "../src/Earnings.sol";
import {Claim, Opening, Terms} from "../src/MarketTypes.sol";
import {CallbackToken, MoodyToken, Receiver} from "./Doubles.sol";
import {Fixture} from "./Fixture.sol";

/// How money leaves the market: refunds that are pushed, earnings that are pulled, and who tries to come back in meanwhile.
contract PayoutTest is Fixture {
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

    // -- refunds that cannot be pushed

    function heldFor(Receiver r) internal {
        Terms memory t = openedBy(r);
        vm.expectEmit(true, true, true, true);
        emit Earnings.RepaymentHeld(address(r), NATIVE, DEPOSIT - 1234);
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
        Opening memory nothing;
        bytes[14] memory doors = [
            abi.encodeCall(market.withdraw, (NATIVE, address(r))),
            abi.encodeCall(market.open, (t, 1)),
            abi.encodeCall(market.redeem, (one(unsigned(t)))),
            abi.encodeCall(market.commitProof, (t, 1, 0)),
            abi.encodeCall(market.claimProven, (t)),
            abi.encodeCall(market.closeByHost, (unsigned(t))),
            abi.encodeCall(market.requestClose, (t)),
            abi.encodeCall(market.finalize, (t)),
            abi.encodeCall(market.topUp, (t, 1)),
            abi.encodeCall(market.dispute, (t)),
            abi.encodeCall(market.contradict, (t, 0, 0, "")),
            abi.encodeCall(market.answerDispute, (t, nothing)),
            abi.encodeCall(market.rule, (t, true)),
            abi.encodeCall(market.settleClaim, (t))
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
