// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {EpochClaim, Proof, SumNode, Terms} from "../src/MarketTypes.sol";
import {Handler} from "./DisputeHandler.sol";
import {DisputeFixture} from "./DisputeFixture.sol";
import {EpochFixture} from "./EpochFixture.sol";
import {MarketHandler} from "./MarketHandler.sol";

/// The same, and epochs over all jobs: some proven, some with a wrong proof or with none, redeemed with right and wrong vouchers.
contract EpochHandler is Handler, EpochFixture {
    function token() internal pure override(DisputeFixture, MarketHandler) returns (address) {
        return NATIVE;
    }

    function recordOf(uint256 index) internal pure override(DisputeFixture, MarketHandler) returns (bytes32) {
        return MarketHandler.recordOf(index);
    }

    function epoch(uint256 seed, uint256 tweak) external {
        if (jobs.length == 0) return;
        Member[] memory all = new Member[](jobs.length);
        for (uint256 i; i < all.length; ++i) {
            uint32 tokens = boundary(jobs[i], seed >> 4 * i & 0xffff);
            if (tokens == 0) tokens = 1;
            all[i] = Member(jobs[i], tokens, headOf(jobs[i], tokens));
        }
        uint256 at = block.number;
        commitEpoch(all);
        vm.roll(at + 3);
        bool proven = tweak % 4 != 3 && proved(all, at, tweak / 4);
        for (uint256 i; i < all.length; ++i) {
            if (seed >> 64 + i & 1 == 1) redeemOne(all, i, tweak / 4, proven);
        }
    }

    /// Answers; now and then with a proof that is wrong.
    function proved(Member[] memory all, uint256 at, uint256 tweak) internal returns (bool) {
        (Terms memory t, SumNode[] memory path, Proof memory p) = epochAnswer(all, at);
        bool wrong = tweak % 5 == 4;
        if (wrong) p.proof[0] ^= 0x01;
        try epochs.proveEpoch(t, path, p) {
            if (wrong) breaks("an epoch was proven by a wrong proof");
            return true;
        } catch {
            return false;
        }
    }

    /// One claim at a time, so that what each did can be judged.
    function redeemOne(Member[] memory all, uint256 i, uint256 tweak, bool proven) internal {
        Member memory m = all[i];
        EpochClaim[] memory claims = new EpochClaim[](1);
        uint96 amount = cost(m.t, m.tokens);
        if (tweak % 11 == 7) amount += 1;
        if (tweak % 11 == 8) amount = amount == 0 ? 1 : amount - 1;
        bytes32 head = tweak % 13 == 12 ? bytes32("another head") : m.head;
        claims[0] = epochClaim(tweak % 11 == 9 ? HOST : SIGNER, m.t, m.tokens, amount, head);
        (bytes32 root,) = epochOf(all);
        bytes memory path = packed(all, 1 << i);
        Seen memory before = see(m.t);
        vm.prank(tweak % 11 == 10 ? renter : host);
        try market.redeemByEpoch(shared(m.t), claims, root, path) {
            if (tweak % 11 == 10) breaks("redeemByEpoch: somebody but the host");
            if (!proven) breaks("redeemed by an epoch that is not proven");
            if (tweak % 13 == 12) breaks("redeemed what the epoch does not hold");
            if (state(m.t).signed != m.tokens || state(m.t).proven < m.tokens) breaks("redeemed another count");
            signed(m.t, voucherOf(SIGNER, m.t, m.tokens, amount, head), before, tweak);
        } catch {
            credited(m.t, before, before.credited, 0);
        }
    }
}
