// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ArbiterPanel} from "../src/ArbiterPanel.sol";
import {Disputes} from "../src/Disputes.sol";
import {JobLedger} from "../src/JobLedger.sol";
import {Opening, Stage, Terms} from "../src/MarketTypes.sol";
import {DisputeFixture} from "./DisputeFixture.sol";

/// Five members of whom three rule, in the market itself: what they agree on happens, once, and nothing else.
contract ArbiterPanelTest is DisputeFixture {
    ArbiterPanel internal panel;

    function token() internal view override returns (address) {
        return address(usdc);
    }

    function setUp() public override {
        super.setUp();
        panel = new ArbiterPanel(Disputes(address(market)), five(), 3);
    }

    function member(uint256 n) internal pure returns (address) {
        return address(uint160(0xA0 + n));
    }

    function five() internal pure returns (address[] memory all) {
        all = new address[](5);
        for (uint256 i; i < 5; ++i) {
            all[i] = member(i);
        }
    }

    function paneled(bytes32 salt) internal view returns (Terms memory t) {
        t = agreed();
        (t.arbiter, t.salt) = (address(panel), salt);
    }

    function answered(bytes32 salt) internal returns (Terms memory t) {
        t = claimed(paneled(salt));
        advance(t, Stage.Answered);
    }

    function vote(Terms memory t, uint256 n, bool forHost) internal {
        vm.prank(member(n));
        panel.vote(t, forHost, keccak256("evidence"));
    }

    function test_theThirdVoteRules() public {
        for (uint256 side; side < 2; ++side) {
            Terms memory t = answered(bytes32(side));
            vote(t, 0, side == 0);
            vote(t, 1, side != 0);
            vote(t, 2, side == 0);
            stands(t, Stage.Answered);
            vote(t, 4, side == 0);
            stands(t, side == 0 ? Stage.None : Stage.Lost);
        }
    }

    function test_whatTheyAgreeOnMovesTheMoney() public {
        Terms memory t = answered(0);
        Books memory b = books();
        for (uint256 i; i < 3; ++i) {
            vote(t, i, false);
        }
        moved(b, BOND, 0, 0, true);
        eq(0, balance(address(panel)), "nothing for the panel");
    }

    function test_votesAreCounted() public {
        Terms memory t = answered(0);
        vote(t, 0, true);
        vote(t, 1, true);
        vote(t, 2, false);
        (uint256 forHost, uint256 forRenter) = panel.votesOf(market.idOf(t));
        eq(2, forHost, "for the host");
        eq(1, forRenter, "for the renter");
    }

    function test_whoHasVotedIsTold() public {
        Terms memory t = answered(0);
        bytes32 id = market.idOf(t);
        vote(t, 1, true);
        for (uint256 i; i < 5; ++i) {
            eq(i == 1 ? 1 : 0, panel.hasVoted(id, member(i)) ? 1 : 0, "member");
        }
        eq(0, panel.hasVoted(id, address(this)) ? 1 : 0, "no member");
        vote(t, 0, true);
        vote(t, 2, true);
        eq(0, panel.hasVoted(id, member(1)) ? 1 : 0, "in no dispute");
    }

    function test_nobodyVotesTwice() public {
        Terms memory t = answered(0);
        vote(t, 0, true);
        vote(t, 1, false);
        for (uint256 side; side < 2; ++side) {
            vm.prank(member(0));
            vm.expectRevert(ArbiterPanel.AlreadyVoted.selector);
            panel.vote(t, side == 0, 0);
        }
    }

    function test_strangersDoNotVote(address stranger) public {
        for (uint256 i; i < 5; ++i) {
            if (stranger == member(i)) return;
        }
        Terms memory t = answered(0);
        vm.prank(stranger);
        vm.expectRevert(ArbiterPanel.NotMember.selector);
        panel.vote(t, true, 0);
    }

    function test_thereIsNothingToVoteOnInOtherStages() public {
        Terms memory t = claimed(paneled(0));
        for (uint256 i; i < 2; ++i) {
            vm.prank(member(0));
            vm.expectRevert(
                abi.encodeWithSelector(ArbiterPanel.WrongStage.selector, i == 0 ? Stage.Claimed : Stage.Disputed)
            );
            panel.vote(t, true, 0);
            if (i == 0) dispute(t);
        }
    }

    function test_aVoteAfterTheEndIsRefused() public {
        Terms memory t = answered(0);
        for (uint256 i; i < 3; ++i) {
            vote(t, i, true);
        }
        vm.prank(member(3));
        vm.expectRevert(abi.encodeWithSelector(ArbiterPanel.WrongStage.selector, Stage.None));
        panel.vote(t, false, 0);
    }

    function test_aLateVoteChangesNothing() public {
        Terms memory t = answered(0);
        vote(t, 0, false);
        vote(t, 1, false);
        wait_(t);
        vm.prank(member(2));
        vm.expectRevert(abi.encodeWithSelector(Disputes.TooLate.selector, block.timestamp));
        panel.vote(t, false, 0);
        market.settleClaim(t); // silence: the host is paid
        stands(t, Stage.None);
    }

    function test_votesDoNotCountForAnotherJob() public {
        Terms memory one = answered(0);
        Terms memory other = answered(bytes32(uint256(1)));
        vote(one, 0, false);
        vote(one, 1, false);
        vote(other, 2, false);
        stands(one, Stage.Answered);
        stands(other, Stage.Answered);
    }

    function test_votesDoNotCountForTheNextClaim() public {
        Terms memory t = answered(0);
        vote(t, 3, false);
        for (uint256 i; i < 3; ++i) {
            vote(t, i, true);
        }
        prove(t, 2 * SERVED, headOf(t, 2 * SERVED));
        claim(t);
        dispute(t);
        Opening memory o = opening(t, SIGNED, 2 * SERVED);
        vm.prank(host);
        market.answerDispute(t, o);
        vote(t, 0, true);
        (uint256 forHost, uint256 forRenter) = panel.votesOf(market.idOf(t));
        eq(1, forHost, "for the host");
        eq(0, forRenter, "for the renter");
        stands(t, Stage.Answered);
    }

    function test_termsThatNameAnotherArbiterAreNotRuledOn() public {
        Terms memory t = inStage(Stage.Answered);
        vote(t, 0, true);
        vote(t, 1, true);
        vm.prank(member(2));
        vm.expectRevert(JobLedger.NotParty.selector);
        panel.vote(t, true, 0);
    }

    function test_panelsThatCouldNotBeTrusted() public {
        Disputes d = Disputes(address(market));
        address[] memory twice = five();
        twice[4] = twice[0];
        address[] memory nobody = five();
        nobody[2] = address(0);
        refused(d, five(), 2);
        refused(d, five(), 6);
        refused(d, five(), 0);
        refused(d, twice, 3);
        refused(d, nobody, 3);
        refused(d, new address[](0), 0);
        refused(Disputes(address(0xBEEF)), five(), 3);
    }

    function test_anyMajorityWithinTheBounds(uint8 count, uint8 threshold) public {
        address[] memory all = new address[](count);
        for (uint256 i; i < count; ++i) {
            all[i] = member(i);
        }
        bool good = count > 0 && count <= 64 && threshold <= count && uint256(threshold) * 2 > count;
        if (!good) vm.expectRevert(ArbiterPanel.BadPanel.selector);
        ArbiterPanel made = new ArbiterPanel(Disputes(address(market)), all, threshold);
        if (good) eq(count, made.members().length, "members");
    }

    function refused(Disputes d, address[] memory all, uint256 threshold) internal {
        vm.expectRevert(ArbiterPanel.BadPanel.selector);
        new ArbiterPanel(d, all, threshold);
    }
}
