// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {JobLedger} from "../src/JobLedger.sol";
import {JobMarketplace} from "../src/JobMarketplace.sol";
import {Terms} from "../src/MarketTypes.sol";
import {TestUSDC} from "../src/TestUSDC.sol";
import {CallbackToken, FeeToken} from "./Doubles.sol";
import {Fixture} from "./Fixture.sol";

/// Money that joins a deposit later.
contract TopUpTest is Fixture {
    address private constant STRANGER = address(0x5A);

    function authorization(uint256 key, Terms memory t, uint96 amount, bytes32 nonce)
        internal
        view
        returns (bytes memory)
    {
        bytes memory what = abi.encode(t.renter, address(market), uint256(amount), uint256(0), START + 60, nonce);
        bytes32 hash = keccak256(bytes.concat(usdc.RECEIVE_WITH_AUTHORIZATION_TYPEHASH(), what));
        return sign(key, keccak256(abi.encodePacked("\x19\x01", usdc.DOMAIN_SEPARATOR(), hash)));
    }

    function openedInUsdc() internal returns (Terms memory t) {
        t = terms(address(usdc), 1);
        open(t, DEPOSIT);
    }

    function topUp(Terms memory t, uint96 amount) internal {
        vm.prank(renter);
        market.topUp{value: t.token == NATIVE ? amount : 0}(t, amount);
    }

    function refused(bytes memory reason, Terms memory t, uint96 amount) internal {
        vm.prank(renter);
        vm.expectRevert(reason);
        market.topUp{value: t.token == NATIVE ? amount : 0}(t, amount);
    }

    function refused(bytes4 selector, Terms memory t, uint96 amount) internal {
        refused(abi.encodePacked(selector), t, amount);
    }

    // -- by anyone

    function test_coinJoinsTheDeposit() public {
        Terms memory t = opened();
        vm.deal(STRANGER, 300);
        vm.expectEmit(true, true, true, true);
        emit JobMarketplace.JobToppedUp(market.idOf(t), 300, DEPOSIT + 300);
        vm.prank(STRANGER);
        market.topUp{value: 300}(t, 300);
        eq(DEPOSIT + 300, state(t).deposit, "deposit");
        eq(DEPOSIT + 300, address(market).balance, "held");
        uint256 before = renter.balance;
        vm.prank(host);
        market.closeByHost(unsigned(t));
        eq(before + DEPOSIT + 300, renter.balance, "all of it is the renter's");
    }

    function test_tokensJoinTheDeposit() public {
        Terms memory t = openedInUsdc();
        usdc.mint(STRANGER, 300);
        vm.prank(STRANGER);
        usdc.approve(address(market), 300);
        vm.prank(STRANGER);
        market.topUp(t, 300);
        eq(DEPOSIT + 300, state(t).deposit, "deposit");
        eq(DEPOSIT + 300, usdc.balanceOf(address(market)), "held");
        eq(0, usdc.balanceOf(STRANGER), "paid by who called");
    }

    function test_vouchersReachIntoWhatWasAdded() public {
        Terms memory t = opened();
        redeem(voucher(t, 1000));
        topUp(t, DEPOSIT);
        redeem(voucher(t, 8000));
        eq(9876, owedOf(t), "above the first deposit");
        eq(8000, state(t).signed, "what was signed stays");
    }

    function test_valueIsTheAmount() public {
        Terms memory t = opened();
        vm.prank(renter);
        vm.expectRevert(abi.encodeWithSelector(JobLedger.BadValue.selector, 300, 299));
        market.topUp{value: 299}(t, 300);
        t = openedInUsdc();
        vm.prank(renter);
        vm.expectRevert(abi.encodeWithSelector(JobLedger.BadValue.selector, 0, 300));
        market.topUp{value: 300}(t, 300);
        eq(DEPOSIT, state(t).deposit, "unchanged");
    }

    function test_theSumFitsItsSlot() public {
        Terms memory t = opened();
        vm.deal(renter, type(uint96).max);
        bytes memory reason = abi.encodeWithSelector(JobMarketplace.BadTerms.selector, JobMarketplace.Term.Deposit);
        refused(reason, t, 0);
        refused(reason, t, type(uint88).max - DEPOSIT + 1);
        refused(reason, t, type(uint96).max);
        topUp(t, type(uint88).max - DEPOSIT);
        eq(type(uint88).max, state(t).deposit, "to the last unit");
        refused(reason, t, 1);
    }

    function test_onlyOpenJobsAreToppedUp() public {
        refused(JobLedger.NotOpen.selector, terms(NATIVE, 1), 300);
        Terms memory t = opened();
        vm.prank(host);
        market.closeByHost(unsigned(t));
        refused(JobLedger.NotOpen.selector, t, 300);
        eq(0, address(market).balance, "nothing taken");
    }

    function test_feeOnTransferTokenIsRefused() public {
        FeeToken fee = new FeeToken();
        fee.mint(renter, 1000);
        vm.prank(renter);
        fee.approve(address(market), 1000);
        Terms memory t = terms(address(fee), 0);
        open(t, 99); // a fee of a hundredth takes nothing of 99
        bytes memory reason = abi.encodeWithSelector(JobLedger.BadValue.selector, 200, 198);
        refused(reason, t, 200);
        vm.expectRevert(reason);
        market.topUpWithAuthorization(t, 200, START + 60, "");
        eq(99, state(t).deposit, "unchanged");
    }

    function test_tokenThatCallsBackFindsTheDoorShut() public {
        CallbackToken token = new CallbackToken();
        token.mint(renter, 2 * DEPOSIT);
        vm.prank(renter);
        token.approve(address(market), 2 * DEPOSIT);
        Terms memory t = terms(address(token), 1);
        open(t, DEPOSIT);
        token.callWhenMoved(address(market), abi.encodeCall(market.finalize, (t)));
        topUp(t, DEPOSIT);
        ok(!token.succeeded(), "reentered");
        eq(2 * DEPOSIT, token.balanceOf(address(market)), "held");
    }

    // -- by a signature of the renter

    function test_anyoneRelaysASignedTopUp() public {
        Terms memory t = openedInUsdc();
        bytes memory sig = authorization(RENTER, t, 300, market.topUpNonce(market.idOf(t)));
        uint256 before = usdc.balanceOf(renter);
        vm.expectEmit(true, true, true, true);
        emit JobMarketplace.JobToppedUp(market.idOf(t), 300, DEPOSIT + 300);
        vm.prank(STRANGER);
        market.topUpWithAuthorization(t, 300, START + 60, sig);
        eq(DEPOSIT + 300, state(t).deposit, "deposit");
        eq(before - 300, usdc.balanceOf(renter), "paid by the renter");
    }

    /// The nonce names the deposit that the renter saw: after any top-up, signatures for the one before are worth nothing.
    function test_aSignedTopUpIsForOneDeposit() public {
        Terms memory t = openedInUsdc();
        bytes memory sig = authorization(RENTER, t, 300, market.topUpNonce(market.idOf(t)));
        market.topUpWithAuthorization(t, 300, START + 60, sig);
        vm.expectRevert(TestUSDC.SignatureInvalid.selector);
        market.topUpWithAuthorization(t, 300, START + 60, sig);
        sig = authorization(RENTER, t, 300, market.topUpNonce(market.idOf(t)));
        topUp(t, 1);
        vm.expectRevert(TestUSDC.SignatureInvalid.selector);
        market.topUpWithAuthorization(t, 300, START + 60, sig);
        sig = authorization(RENTER, t, 300, market.topUpNonce(market.idOf(t)));
        market.topUpWithAuthorization(t, 300, START + 60, sig);
        eq(DEPOSIT + 601, state(t).deposit, "deposit");
    }

    function test_aSignedTopUpIsForOneJobAndOneAmount() public {
        Terms memory t = openedInUsdc();
        Terms memory twin = terms(address(usdc), 1);
        twin.salt = "twin";
        open(twin, DEPOSIT);
        bytes memory sig = authorization(RENTER, t, 300, market.topUpNonce(market.idOf(t)));
        vm.expectRevert(TestUSDC.SignatureInvalid.selector);
        market.topUpWithAuthorization(twin, 300, START + 60, sig);
        vm.expectRevert(TestUSDC.SignatureInvalid.selector);
        market.topUpWithAuthorization(t, 301, START + 60, sig);
        sig = authorization(SIGNER, t, 300, market.topUpNonce(market.idOf(t)));
        vm.expectRevert(TestUSDC.SignatureInvalid.selector);
        market.topUpWithAuthorization(t, 300, START + 60, sig);
    }

    /// The signature that opened the job has the job's id as its nonce, which no top-up has.
    function test_theSignatureThatOpenedTopsUpNothing() public {
        Terms memory t = terms(address(usdc), 1);
        bytes memory sig = authorization(RENTER, t, DEPOSIT, market.idOf(t));
        market.openWithAuthorization(t, DEPOSIT, START + 60, sig);
        vm.expectRevert(TestUSDC.SignatureInvalid.selector);
        market.topUpWithAuthorization(t, DEPOSIT, START + 60, sig);
    }

    function test_coinHasNoSignedTopUp() public {
        Terms memory t = opened();
        vm.expectRevert(abi.encodeWithSelector(JobMarketplace.BadTerms.selector, JobMarketplace.Term.Token));
        market.topUpWithAuthorization(t, 300, START + 60, "");
    }

    function test_aSignedTopUpNeedsAnOpenJob() public {
        Terms memory t = terms(address(usdc), 1);
        bytes memory sig = authorization(RENTER, t, 300, market.topUpNonce(market.idOf(t)));
        vm.expectRevert(JobLedger.NotOpen.selector);
        market.topUpWithAuthorization(t, 300, START + 60, sig);
    }
}
