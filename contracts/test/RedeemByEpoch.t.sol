// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Earnings} from "../src/Earnings.sol";
import {JobLedger} from "../src/JobLedger.sol";
import {JobMarketplace} from "../src/JobMarketplace.sol";
import {Claim, Proof, Terms} from "../src/MarketTypes.sol";
import {EpochFixture} from "./EpochFixture.sol";

/// Vouchers that are paid because a proven epoch holds their sessions.
contract RedeemByEpochTest is EpochFixture {
    uint256 private constant AT = 1_000;
    uint256 private constant ALL = 31;

    function setUp() public override {
        super.setUp();
        Member[] memory all = five();
        for (uint256 i; i < 5; ++i) {
            open(all[i].t, DEPOSIT);
        }
    }

    function token() internal pure override returns (address) {
        return NATIVE;
    }

    /// Sessions under the policy `required`.
    function five() internal view returns (Member[] memory all) {
        uint32[5] memory sizes = [uint32(3), 256, 700, 1, 40];
        all = new Member[](5);
        for (uint256 i; i < 5; ++i) {
            Terms memory t = terms(NATIVE, 0);
            t.salt = bytes32(i + 1);
            all[i] = Member(t, sizes[i], keccak256(abi.encode("head", i)));
        }
    }

    function refused(bytes4 reason, Claim[] memory claims, bytes32[] memory roots, bytes32 root, bytes memory path)
        internal
    {
        vm.prank(host);
        vm.expectRevert(reason);
        market.redeemByEpoch(claims, roots, root, path);
    }

    /// Each session is paid what it is signed for, and counts as proven so far and not a token further.
    function test_onePaysAll() public {
        Member[] memory all = five();
        proveEpoch(all);
        redeemByEpoch(all, ALL);
        uint256 sum;
        for (uint256 i; i < 5; ++i) {
            eq(all[i].tokens, state(all[i].t).signed, "signed");
            eq(all[i].tokens, state(all[i].t).proven, "proven");
            eq(cost(all[i].t, all[i].tokens), owedOf(all[i].t), "owed");
            sum += owedOf(all[i].t);
        }
        eq(sum, market.earnings(host, NATIVE) + market.earnings(TREASURY, NATIVE), "credited");
    }

    /// In any two parts, in either order, the same money.
    function testFuzz_inParts(uint256 chosen) public {
        Member[] memory all = five();
        proveEpoch(all);
        chosen = bound(chosen, 1, 30);
        redeemByEpoch(all, chosen);
        for (uint256 i; i < 5; ++i) {
            eq(chosen >> i & 1 == 1 ? all[i].tokens : 0, state(all[i].t).signed, "only the chosen");
        }
        redeemByEpoch(all, ALL ^ chosen);
        for (uint256 i; i < 5; ++i) {
            eq(cost(all[i].t, all[i].tokens), owedOf(all[i].t), "owed");
        }
    }

    /// A session that goes on comes into the next epoch with all of its tokens.
    function test_partialSessionsGoOn() public {
        Member[] memory all = five();
        proveEpoch(all);
        redeemByEpoch(all, ALL);
        (all[0].tokens, all[0].head) = (900, "later head");
        proveEpoch(all);
        redeemByEpoch(all, 1);
        eq(cost(all[0].t, 900), owedOf(all[0].t), "owed");
    }

    function test_notBeforeTheProof() public {
        Member[] memory all = five();
        (Claim[] memory claims, bytes32[] memory roots) = claimsOf(all, ALL);
        (bytes32 root,) = epochOf(all);
        refused(JobMarketplace.NotCovered.selector, claims, roots, root, packed(all, ALL));
        commitEpoch(all);
        refused(JobMarketplace.NotCovered.selector, claims, roots, root, packed(all, ALL));
        eq(0, owedOf(all[0].t), "nothing is paid");
    }

    /// A right voucher for a session that the epoch holds with another count, head or tree is not paid by it.
    function test_onlyWhatTheEpochHolds() public {
        Member[] memory all = five();
        proveEpoch(all);
        (bytes32 root,) = epochOf(all);
        (Claim[] memory claims, bytes32[] memory roots) = claimsOf(all, 2);
        bytes memory path = packed(all, 2);
        claims[0] = voucherOf(SIGNER, all[1].t, 257, cost(all[1].t, 257), all[1].head);
        refused(JobMarketplace.NotCovered.selector, claims, roots, root, path);
        claims[0] = voucherOf(SIGNER, all[1].t, 255, cost(all[1].t, 255), all[1].head);
        refused(JobMarketplace.NotCovered.selector, claims, roots, root, path);
        claims[0] = voucherOf(SIGNER, all[1].t, 256, cost(all[1].t, 256), "another head");
        refused(JobMarketplace.NotCovered.selector, claims, roots, root, path);
        claims[0] = voucherOf(SIGNER, all[1].t, 256, cost(all[1].t, 256), all[1].head);
        roots[0] = "another tree";
        refused(JobMarketplace.NotCovered.selector, claims, roots, root, path);
    }

    /// An epoch replaces the job's proof, never the renter's signature.
    function test_theVoucherMustBeSigned() public {
        Member[] memory all = five();
        proveEpoch(all);
        (Claim[] memory claims, bytes32[] memory roots) = claimsOf(all, ALL);
        claims[3] = voucherOf(HOST, all[3].t, 1, cost(all[3].t, 1), all[3].head);
        (bytes32 root,) = epochOf(all);
        refused(JobLedger.BadSignature.selector, claims, roots, root, packed(all, ALL));
    }

    function test_onlyTheHost() public {
        Member[] memory all = five();
        proveEpoch(all);
        (Claim[] memory claims, bytes32[] memory roots) = claimsOf(all, ALL);
        (bytes32 root,) = epochOf(all);
        bytes memory path = packed(all, ALL);
        vm.prank(renter);
        vm.expectRevert(JobLedger.NotParty.selector);
        market.redeemByEpoch(claims, roots, root, path);
    }

    function test_onceOnly() public {
        Member[] memory all = five();
        proveEpoch(all);
        redeemByEpoch(all, ALL);
        (Claim[] memory claims, bytes32[] memory roots) = claimsOf(all, 4);
        (bytes32 root,) = epochOf(all);
        refused(JobMarketplace.StaleVoucher.selector, claims, roots, root, packed(all, 4));
    }

    function test_notOfAClosedJob() public {
        Member[] memory all = five();
        proveEpoch(all);
        vm.prank(host);
        market.closeByHost(unsigned(all[4].t));
        (Claim[] memory claims, bytes32[] memory roots) = claimsOf(all, ALL);
        (bytes32 root,) = epochOf(all);
        refused(JobLedger.NotOpen.selector, claims, roots, root, packed(all, ALL));
        redeemByEpoch(all, 15);
        eq(cost(all[0].t, 3), owedOf(all[0].t), "the others are paid");
    }

    function test_noClaimsAtAll() public {
        Member[] memory all = five();
        proveEpoch(all);
        (bytes32 root,) = epochOf(all);
        refused(JobMarketplace.NotCovered.selector, new Claim[](0), new bytes32[](0), root, packed(all, 0));
    }

    /// What an epoch proves is signed: it opens no way to tokens that the renter did not sign for.
    function test_noTailByAnEpoch() public {
        Member[] memory all = five();
        proveEpoch(all);
        redeemByEpoch(all, ALL);
        vm.prank(host);
        vm.expectRevert(Earnings.NothingToClaim.selector);
        market.claimProven(all[1].t);
    }

    /// A job's own commitment that an epoch overtook is answered without taking anything back.
    function test_anOvertakenCommitmentLowersNothing() public {
        Member[] memory all = five();
        (all[0].tokens, all[0].head) = (600, HEAD);
        commit(all[0].t, 500);
        commitEpoch(all);
        vm.roll(AT + 3);
        (Terms memory t,, Proof memory p) = epochAnswer(all, AT);
        epochs.proveEpoch(t, siblingsOf(all, memberOf(all, t)), p);
        redeemByEpoch(all, 1);
        market.submitProof(all[0].t, answer(all[0].t, 500, AT));
        eq(600, state(all[0].t).proven, "proven");
        eq(600, state(all[0].t).signed, "signed");
        vm.prank(host);
        vm.expectRevert(Earnings.NothingToClaim.selector);
        market.claimProven(all[0].t);
    }

    /// A smaller epoch takes back nothing of what a job's own proof reached.
    function test_anEpochLowersNothing() public {
        Member[] memory all = five();
        prove(all[1].t, 300);
        proveEpoch(all);
        redeemByEpoch(all, 2);
        eq(300, state(all[1].t).proven, "proven");
        eq(256, state(all[1].t).signed, "signed");
    }

    function memberOf(Member[] memory all, Terms memory t) internal pure returns (uint256 i) {
        while (all[i].t.salt != t.salt) {
            ++i;
        }
    }
}
