// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {JobLedger} from "../src/JobLedger.sol";
import {JobMarketplace} from "../src/JobMarketplace.sol";
import {Claim, Terms} from "../src/MarketTypes.sol";
import {Vouchers} from "../src/Vouchers.sol";
import {Fixture} from "./Fixture.sol";

contract VoucherTest is Fixture {
    function refused(bytes memory reason, Claim memory c) internal {
        vm.prank(host);
        vm.expectRevert(reason);
        market.redeem(one(c));
    }

    function refused(bytes4 selector, Claim memory c) internal {
        refused(abi.encodePacked(selector), c);
    }

    function test_voucherPaysHostAndTreasury() public {
        Terms memory t = opened();
        vm.expectEmit(true, true, true, true);
        emit Vouchers.VoucherRedeemed(market.idOf(t), 1234, 1000, HEAD);
        redeem(voucher(t, 1000));
        eq(1234, owedOf(t), "floor(1000 * 1.234567)");
        eq(1000, state(t).signed, "signed");
        eq(61, market.earnings(TREASURY, NATIVE), "floor of 5 %");
        eq(1234 - 61, market.earnings(host, NATIVE), "the rest");
    }

    function test_secondVoucherPaysTheDifference() public {
        Terms memory t = opened();
        redeem(voucher(t, 1000));
        redeem(voucher(t, 2000));
        eq(2469, owedOf(t), "cumulative");
        eq(2469, market.earnings(host, NATIVE) + market.earnings(TREASURY, NATIVE), "credited once");
    }

    function test_batchPaysSeveralJobs() public {
        Terms memory a = opened();
        Terms memory b = terms(address(usdc), 1);
        open(b, DEPOSIT);
        Claim[] memory claims = new Claim[](2);
        (claims[0], claims[1]) = (voucher(a, 100), voucher(b, 200));
        vm.prank(host);
        market.redeem(claims);
        eq(123, owedOf(a), "first");
        eq(246, owedOf(b), "second");
        eq(246, market.earnings(host, address(usdc)) + market.earnings(TREASURY, address(usdc)), "in its own token");
    }

    function test_oneBadClaimRevertsTheBatch() public {
        Terms memory t = opened();
        Claim[] memory claims = new Claim[](2);
        (claims[0], claims[1]) = (voucher(t, 100), voucher(t, 100));
        vm.prank(host);
        vm.expectRevert(Vouchers.StaleVoucher.selector);
        market.redeem(claims);
        eq(0, owedOf(t), "nothing happened");
    }

    function test_onlyTheHostRedeems() public {
        Claim memory c = voucher(opened(), 100);
        vm.prank(renter);
        vm.expectRevert(JobLedger.NotParty.selector);
        market.redeem(one(c));
    }

    function test_anotherHostCannotRedeem() public {
        Claim[] memory claims = one(voucher(opened(), 100));
        vm.prank(address(0xBAD));
        vm.expectRevert(JobLedger.NotParty.selector);
        market.redeem(claims);
    }

    function test_unknownJobIsRefused() public {
        refused(JobLedger.NotOpen.selector, voucher(terms(NATIVE, 1), 100));
    }

    function test_amountIsTheFloorOfTheProduct() public {
        Terms memory t = opened();
        refused(abi.encodeWithSelector(JobLedger.AmountMismatch.selector, 1, 2), voucherOf(SIGNER, t, 1, 2));
        refused(abi.encodeWithSelector(JobLedger.AmountMismatch.selector, 1, 0), voucherOf(SIGNER, t, 1, 0));
        redeem(voucherOf(SIGNER, t, 1, 1));
    }

    function test_amountStopsAtTheDeposit() public {
        Terms memory t = terms(NATIVE, 1);
        t.pricePerMTok = 1e6;
        open(t, 100);
        refused(abi.encodeWithSelector(JobLedger.AboveDeposit.selector, 100, 101), voucher(t, 101));
        redeem(voucher(t, 100));
        eq(100, owedOf(t), "to the last unit");
    }

    function test_voucherMustGrow() public {
        Terms memory t = opened();
        redeem(voucher(t, 100));
        refused(Vouchers.StaleVoucher.selector, voucher(t, 100));
        refused(Vouchers.StaleVoucher.selector, voucher(t, 99));
        refused(Vouchers.StaleVoucher.selector, voucher(t, 0));
        redeem(voucher(t, 101));
    }

    /// No count is reserved to mark something else.
    function test_theHighestCountIsANumberLikeOthers() public {
        Terms memory t = terms(NATIVE, 1);
        t.pricePerMTok = 1;
        open(t, DEPOSIT);
        redeem(voucher(t, type(uint32).max));
        eq(4_294, owedOf(t), "paid");
        eq(type(uint32).max, state(t).signed, "signed");
        ok(!isClosed(t), "still open");
        refused(Vouchers.StaleVoucher.selector, voucher(t, type(uint32).max));
    }

    function test_onlyTheSessionKeySigns() public {
        Terms memory t = opened();
        refused(JobLedger.BadSignature.selector, voucherOf(RENTER, t, 100, 123));
        refused(JobLedger.BadSignature.selector, voucherOf(HOST, t, 100, 123));
    }

    function test_eachSignedFieldIsBound() public {
        Terms memory t = opened();
        Claim memory c = voucher(t, 100);
        (c.tokens, c.amount) = (101, cost(t, 101));
        refused(JobLedger.BadSignature.selector, c);
        c = voucher(t, 100);
        c.transcript = "another";
        refused(JobLedger.BadSignature.selector, c);
    }

    function test_signatureOfAnotherJobIsRefused() public {
        Claim memory c = voucher(opened(), 100);
        c.terms.salt = "twin";
        open(c.terms, DEPOSIT);
        refused(JobLedger.BadSignature.selector, c);
    }

    function test_signatureForAnotherContractIsRefused() public {
        Claim memory c = voucher(opened(), 100);
        market = new JobMarketplace(TREASURY, proofs, stakes, epochs);
        open(c.terms, DEPOSIT);
        refused(JobLedger.BadSignature.selector, c);
    }

    function test_signatureForAnotherChainIsRefused() public {
        Claim memory c = voucher(opened(), 100);
        vm.chainId(8453);
        refused(JobLedger.BadSignature.selector, c);
    }

    function test_malformedSignaturesAreRefused() public {
        Terms memory t = opened();
        Claim memory c = voucher(t, 100);
        bytes memory good = c.sig;
        c.sig = "";
        refused(JobLedger.BadSignature.selector, c);
        c.sig = new bytes(65);
        refused(JobLedger.BadSignature.selector, c);
        c.sig = bytes.concat(good, hex"00");
        refused(JobLedger.BadSignature.selector, c);
        good[64] = bytes1(uint8(good[64]) - 27);
        c.sig = good;
        refused(JobLedger.BadSignature.selector, c);
    }

    /// (r, n - s, flipped v) verifies in plain ecrecover; accepting it would make signatures malleable.
    function test_highSIsRefused() public {
        Terms memory t = opened();
        Claim memory c = voucher(t, 100);
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(SIGNER, market.voucherDigest(market.idOf(t), c.amount, 100, HEAD));
        uint256 order = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141;
        c.sig = abi.encodePacked(r, order - uint256(s), v == 27 ? uint8(28) : uint8(27));
        refused(JobLedger.BadSignature.selector, c);
    }

    /// EIP-7702: an account that signed vouchers gets code afterwards. With ERC-1271 each voucher would become worthless.
    function test_voucherOutlivesCodeOnTheSignersAccount() public {
        Terms memory t = terms(NATIVE, 1);
        t.signer = renter;
        open(t, DEPOSIT);
        Claim memory c = voucherOf(RENTER, t, 1000, cost(t, 1000));
        bytes memory refuser = hex"60006000fd";
        vm.etch(renter, refuser);
        redeem(c);
        eq(1234, owedOf(t), "paid");
    }

    function test_hostThatGainsCodeStaysAParty() public {
        Terms memory t = opened();
        Claim memory c = voucher(t, 100);
        bytes memory closing = closeSig(HOST, t, 100);
        vm.etch(host, hex"60006000fd");
        vm.prank(renter);
        market.closeCooperative(c, closing);
        ok(isClosed(t), "the host's consent still counts");
    }

    function test_requiredPolicyPaysOnlyProvenTokens() public {
        Terms memory t = terms(NATIVE, 0);
        open(t, DEPOSIT);
        refused(abi.encodeWithSelector(Vouchers.ProofMissing.selector, 0, 1), voucher(t, 1));
        prove(t, 600);
        refused(abi.encodeWithSelector(Vouchers.ProofMissing.selector, 600, 601), voucher(t, 601));
        redeem(voucher(t, 600));
        eq(740, owedOf(t), "paid");
    }

    function test_vouchersAreRedeemedUntilTheJobIsClosed() public {
        Terms memory t = opened();
        vm.prank(renter);
        market.requestClose(t);
        vm.warp(START + 30 days);
        redeem(voucher(t, 100));
        vm.prank(host);
        market.closeByHost(unsigned(t));
        refused(JobLedger.NotOpen.selector, voucher(t, 200));
    }

    function testFuzz_roundingNeverExceedsTheExactPrice(uint96 price, uint32 first, uint32 second) public {
        Terms memory t = terms(NATIVE, 1);
        t.pricePerMTok = uint96(bound(price, 1, 1e13));
        first = uint32(bound(first, 1, type(uint32).max - 1));
        second = uint32(bound(second, uint256(first) + 1, type(uint32).max));
        open(t, uint96(uint256(second) * t.pricePerMTok / 1e6 + 1));
        redeem(voucher(t, first));
        redeem(voucher(t, second));
        uint256 exact = uint256(second) * t.pricePerMTok;
        ok(uint256(owedOf(t)) * 1e6 <= exact && exact - uint256(owedOf(t)) * 1e6 < 1e6, "one floor, not two");
    }

    function testFuzz_feePlusShareIsTheCredit(uint96 price, uint32 tokens) public {
        Terms memory t = terms(NATIVE, 1);
        t.pricePerMTok = uint96(bound(price, 1, 1e13));
        tokens = uint32(bound(tokens, 1, type(uint32).max));
        uint96 amount = cost(t, tokens);
        open(t, amount + 1);
        redeem(voucher(t, tokens));
        eq(uint256(amount) * 500 / 10_000, market.earnings(TREASURY, NATIVE), "fee");
        eq(amount, market.earnings(TREASURY, NATIVE) + market.earnings(host, NATIVE), "nothing lost");
    }
}
