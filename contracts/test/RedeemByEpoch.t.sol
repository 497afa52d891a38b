// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Earnings} from "../src/Earnings.sol";
import {JobLedger} from "../src/JobLedger.sol";
import {EpochClaim, Proof, Shared, Terms} from "../src/MarketTypes.sol";
import {Vouchers} from "../src/Vouchers.sol";
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

    function refused(bytes4 reason, EpochClaim[] memory claims, bytes32 root, bytes memory path) internal {
        vm.prank(host);
        vm.expectRevert(reason);
        market.redeemByEpoch(shared(five()[0].t), claims, root, path);
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

    /// What is written once for all is the sum of what each credit alone would be: every fee is rounded down for itself.
    function test_feesAreRoundedOneByOne() public {
        Member[] memory all = five();
        proveEpoch(all);
        redeemByEpoch(all, ALL);
        uint256 fees;
        uint256 sum;
        for (uint256 i; i < 5; ++i) {
            fees += uint256(cost(all[i].t, all[i].tokens)) * 500 / 10_000;
            sum += cost(all[i].t, all[i].tokens);
        }
        ok(fees != sum * 500 / 10_000, "a sum that would show it");
        eq(fees, market.earnings(TREASURY, NATIVE), "fees");
        eq(sum - fees, market.earnings(host, NATIVE), "due");
    }

    /// What the claims have in common is hashed into each job's id: of another token, policy or model nothing is open.
    function test_whatIsSharedBindsEveryClaim() public {
        Member[] memory all = five();
        proveEpoch(all);
        EpochClaim[] memory claims = claimsOf(all, ALL);
        (bytes32 root,) = epochOf(all);
        bytes memory path = packed(all, ALL);
        Shared[3] memory wrong;
        for (uint256 i; i < 3; ++i) {
            wrong[i] = shared(all[0].t);
        }
        (wrong[0].token, wrong[1].policy, wrong[2].modelId) = (address(usdc), 1, "another model");
        for (uint256 i; i < 3; ++i) {
            vm.prank(host);
            vm.expectRevert(JobLedger.NotOpen.selector);
            market.redeemByEpoch(wrong[i], claims, root, path);
        }
    }

    /// Any bit of a claim's own words changed, also one above the width of its type, and nothing is paid.
    function testFuzz_everyBitOfAClaimCounts(uint256 word, uint256 bit) public {
        Member[] memory all = five();
        proveEpoch(all);
        EpochClaim[] memory claims = claimsOf(all, 4);
        (bytes32 root,) = epochOf(all);
        Shared memory s = shared(all[2].t);
        bytes memory call = abi.encodeCall(market.redeemByEpoch, (s, claims, root, packed(all, 4)));
        uint256 at = 4 + 32 * (7 + bound(word, 0, 13)) + 31; // after three shared words, two offsets, the root and the length
        bit = bound(bit, 0, 255);
        call[at - bit / 8] ^= bytes1(uint8(1 << bit % 8));
        vm.prank(host);
        (bool done,) = address(market).call(call);
        ok(!done, "accepted");
        eq(0, owedOf(all[2].t), "paid");
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
        EpochClaim[] memory claims = claimsOf(all, ALL);
        (bytes32 root,) = epochOf(all);
        refused(Vouchers.NotCovered.selector, claims, root, packed(all, ALL));
        commitEpoch(all);
        refused(Vouchers.NotCovered.selector, claims, root, packed(all, ALL));
        eq(0, owedOf(all[0].t), "nothing is paid");
    }

    /// A right voucher for a session that the epoch holds with another count, head or tree is not paid by it.
    function test_onlyWhatTheEpochHolds() public {
        Member[] memory all = five();
        proveEpoch(all);
        (bytes32 root,) = epochOf(all);
        EpochClaim[] memory claims = claimsOf(all, 2);
        bytes memory path = packed(all, 2);
        claims[0] = epochClaim(all[1].t, 257, all[1].head);
        refused(Vouchers.NotCovered.selector, claims, root, path);
        claims[0] = epochClaim(all[1].t, 255, all[1].head);
        refused(Vouchers.NotCovered.selector, claims, root, path);
        claims[0] = epochClaim(all[1].t, 256, "another head");
        refused(Vouchers.NotCovered.selector, claims, root, path);
        claims[0] = epochClaim(all[1].t, 256, all[1].head);
        claims[0].treeRoot = "another tree";
        refused(Vouchers.NotCovered.selector, claims, root, path);
    }

    /// An epoch replaces the job's proof, never the renter's signature.
    function test_theVoucherMustBeSigned() public {
        Member[] memory all = five();
        proveEpoch(all);
        EpochClaim[] memory claims = claimsOf(all, ALL);
        claims[3] = epochClaim(HOST, all[3].t, 1, cost(all[3].t, 1), all[3].head);
        (bytes32 root,) = epochOf(all);
        refused(JobLedger.BadSignature.selector, claims, root, packed(all, ALL));
    }

    /// Of somebody else as host there is no such job.
    function test_onlyTheHost() public {
        Member[] memory all = five();
        proveEpoch(all);
        EpochClaim[] memory claims = claimsOf(all, ALL);
        (bytes32 root,) = epochOf(all);
        bytes memory path = packed(all, ALL);
        vm.prank(renter);
        vm.expectRevert(JobLedger.NotOpen.selector);
        market.redeemByEpoch(shared(all[0].t), claims, root, path);
    }

    function test_onceOnly() public {
        Member[] memory all = five();
        proveEpoch(all);
        redeemByEpoch(all, ALL);
        EpochClaim[] memory claims = claimsOf(all, 4);
        (bytes32 root,) = epochOf(all);
        refused(Vouchers.StaleVoucher.selector, claims, root, packed(all, 4));
    }

    function test_notOfAClosedJob() public {
        Member[] memory all = five();
        proveEpoch(all);
        vm.prank(host);
        market.closeByHost(unsigned(all[4].t));
        EpochClaim[] memory claims = claimsOf(all, ALL);
        (bytes32 root,) = epochOf(all);
        refused(JobLedger.NotOpen.selector, claims, root, packed(all, ALL));
        redeemByEpoch(all, 15);
        eq(cost(all[0].t, 3), owedOf(all[0].t), "the others are paid");
    }

    function test_noClaimsAtAll() public {
        Member[] memory all = five();
        proveEpoch(all);
        (bytes32 root,) = epochOf(all);
        refused(Vouchers.NotCovered.selector, new EpochClaim[](0), root, packed(all, 0));
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
