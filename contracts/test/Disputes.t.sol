// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Disputes} from "../src/Disputes.sol";
import {HostStake} from "../src/HostStake.sol";
import {JobLedger} from "../src/JobLedger.sol";
import {JobView, Stage, Terms} from "../src/MarketTypes.sol";
import {DisputeFixture} from "./DisputeFixture.sol";

/// Claims, disputes, and the host that stays silent.
abstract contract DisputesTests is DisputeFixture {
    // -- a claim

    function test_aClaimHoldsTheMoneyBack() public {
        Terms memory t = agreed();
        open(t, DEPOSIT);
        sign(t, SIGNED);
        prove(t, SERVED, headOf(t, SERVED));
        Books memory b = books();
        vm.expectEmit(true, true, true, true);
        emit Disputes.ClaimHeld(market.idOf(t), HELD, SERVED, uint40(START + 1 hours));
        claim(t);
        JobView memory job = state(t);
        eq(370, job.owed, "owed counts it");
        eq(HELD, job.held, "held");
        eq(SERVED, job.heldTokens, "tokens");
        eq(START + 1 hours, job.heldUntil, "until");
        stands(t, Stage.Claimed);
        moved(b, 0, 0, 0, false);
        solvent(t);
    }

    function test_anUndisputedClaimIsPaidAfterItsWindow() public {
        Terms memory t = claimed(agreed());
        Books memory b = books();
        vm.warp(START + 1 hours - 1);
        vm.expectRevert(abi.encodeWithSelector(Disputes.StageRuns.selector, START + 1 hours));
        market.settleClaim(t);
        vm.warp(START + 1 hours);
        vm.expectEmit(true, true, true, true);
        emit Disputes.ClaimPaid(market.idOf(t), HELD);
        vm.prank(address(0x4E1A)); // anyone
        market.settleClaim(t);
        moved(b, 0, 0, HELD, false);
        JobView memory job = state(t);
        eq(370, job.owed, "owed");
        eq(0, uint256(job.held) + job.heldTokens + job.heldUntil, "no claim any more");
        stands(t, Stage.None);
        solvent(t);
        vm.expectRevert(wrongStage(Stage.None));
        market.settleClaim(t);
    }

    function test_thereIsNothingToSettle() public {
        Terms memory t = agreed();
        open(t, DEPOSIT);
        vm.expectRevert(wrongStage(Stage.None));
        market.settleClaim(t);
    }

    function test_aClaimLocksTheStakeForThreeWindows() public {
        claimed(agreed());
        (,,, uint40 lockedUntil) = stakes.stakeOf(host);
        eq(START + 4 hours, lockedUntil, "as long as a dispute can last, and be settled");
    }

    function test_aClaimNeedsAStake() public {
        Terms memory t = agreed();
        t.host = address(0xB0B2);
        open(t, DEPOSIT);
        prove(t, SERVED);
        vm.prank(t.host);
        vm.expectRevert(abi.encodeWithSelector(HostStake.StakeTooLow.selector, SLASH, 0));
        market.claimProven(t);
    }

    function test_oneClaimAtATime() public {
        Stage[3] memory all = stages();
        for (uint256 i; i < 3; ++i) {
            Terms memory t = inStage(all[i], bytes32(i));
            vm.prank(host);
            vm.expectRevert(abi.encodeWithSelector(Disputes.ClaimPending.selector, all[i]));
            market.claimProven(t);
        }
    }

    /// A dispute about it could not be answered: only a proven commitment can be opened.
    function test_noClaimWhileAProofIsMissing() public {
        Terms memory t = agreed();
        open(t, DEPOSIT);
        prove(t, SERVED);
        commit(t, SERVED + 1);
        vm.prank(host);
        vm.expectRevert(Disputes.ProofPending.selector);
        market.claimProven(t);
    }

    /// A new commitment would replace the one that a dispute must open.
    function test_noCommitmentWhileAClaimIsUndecided() public {
        Stage[3] memory all = stages();
        for (uint256 i; i < 3; ++i) {
            Terms memory t = inStage(all[i], bytes32(i));
            vm.prank(host);
            vm.expectRevert(abi.encodeWithSelector(Disputes.ClaimPending.selector, all[i]));
            market.commitProof(t, SERVED + 1, rootOf(SERVED + 1));
            wait_(t);
            market.settleClaim(t);
            commit(t, SERVED + 1);
            eq(block.number, state(t).pendingBlock, "afterwards it may");
        }
    }

    // -- a dispute

    function test_aDisputeCostsTheBondAndStartsAWindow() public {
        Terms memory t = claimed(agreed());
        vm.warp(START + 10 minutes);
        uint256 before = balance(renter);
        vm.expectEmit(true, true, true, true);
        emit Disputes.ClaimDisputed(market.idOf(t), uint40(START + 10 minutes + 1 hours));
        dispute(t);
        eq(before - BOND, balance(renter), "bond");
        stands(t, Stage.Disputed);
        eq(START + 10 minutes + 1 hours, state(t).heldUntil, "until");
        eq(HELD, state(t).held, "nothing moved");
        solvent(t);
    }

    function test_theBondIsExact() public {
        Terms memory t = claimed(agreed());
        bool native = token() == NATIVE;
        uint256[2] memory wrong = native ? [uint256(BOND) - 1, BOND + 1] : [uint256(1), BOND];
        for (uint256 i; i < 2; ++i) {
            vm.prank(renter);
            vm.expectRevert(abi.encodeWithSelector(JobLedger.BadValue.selector, native ? BOND : 0, wrong[i]));
            market.dispute{value: wrong[i]}(t);
        }
        stands(t, Stage.Claimed);
    }

    function test_onlyTheRenterDisputes() public {
        Terms memory t = claimed(agreed());
        address[3] memory others = [host, vm.addr(SIGNER), ARBITER];
        for (uint256 i; i < 3; ++i) {
            vm.prank(others[i]);
            vm.expectRevert(JobLedger.NotParty.selector);
            market.dispute(t);
        }
    }

    function test_aDisputeComesWithinTheWindow() public {
        Terms memory t = claimed(agreed());
        vm.warp(START + 1 hours);
        vm.prank(renter);
        vm.expectRevert(abi.encodeWithSelector(Disputes.TooLate.selector, START + 1 hours));
        market.dispute(t);
        vm.warp(START + 1 hours - 1);
        dispute(t);
        eq(START + 2 hours - 1, state(t).heldUntil, "the host has a whole window");
    }

    function test_aClaimIsDisputedOnce() public {
        Terms memory t = inStage(Stage.Disputed);
        vm.prank(renter);
        vm.expectRevert(wrongStage(Stage.Disputed));
        market.dispute(t);
        answerDispute(t);
        vm.prank(renter);
        vm.expectRevert(wrongStage(Stage.Answered));
        market.dispute(t);
    }

    function test_aDisputeNeedsAClaim() public {
        Terms memory t = agreed();
        open(t, DEPOSIT);
        vm.prank(renter);
        vm.expectRevert(wrongStage(Stage.None));
        market.dispute(t);
    }

    // -- the host that does not answer

    function test_aSilentHostLoses() public {
        Terms memory t = inStage(Stage.Disputed);
        Books memory b = books();
        vm.warp(START + 1 hours - 1);
        vm.expectRevert(abi.encodeWithSelector(Disputes.StageRuns.selector, START + 1 hours));
        market.settleClaim(t);
        vm.warp(START + 1 hours);
        uint256 compensated = usdc.balanceOf(renter);
        vm.expectEmit(true, true, true, true);
        emit Disputes.ClaimLost(market.idOf(t), HELD, SLASH, COMPENSATION);
        vm.expectEmit(true, true, true, true);
        emit Disputes.BondPaid(market.idOf(t), renter, BOND);
        vm.prank(address(0x4E1A));
        market.settleClaim(t);
        moved(b, BOND, 0, 0, true);
        eq(compensated + COMPENSATION + (token() == NATIVE ? 0 : BOND), usdc.balanceOf(renter), "compensated");
        eq(SLASH - COMPENSATION, stakes.owed(TREASURY), "the rest of the slash");
        eq(123, owedOf(t), "only what was signed");
        eq(0, uint256(state(t).held) + state(t).heldTokens + state(t).heldUntil, "nothing held");
        stands(t, Stage.Lost);
        solvent(t);
    }

    function test_aLostClaimIsTheLast() public {
        Terms memory t = claimed(agreed());
        lost(t);
        vm.prank(host);
        vm.expectRevert(abi.encodeWithSelector(Disputes.ClaimPending.selector, Stage.Lost));
        market.claimProven(t);
        vm.expectRevert(wrongStage(Stage.Lost));
        market.settleClaim(t);
        vm.prank(renter);
        vm.expectRevert(wrongStage(Stage.Lost));
        market.dispute(t);
        bytes memory closing = closeSig(HOST, t, SIGNED);
        vm.expectRevert(wrongStage(Stage.Lost));
        market.contradict(t, cost(t, SIGNED), SIGNED, closing);
    }

    function test_vouchersStillPayAfterALostClaim() public {
        Terms memory t = claimed(agreed());
        lost(t);
        Books memory b = books();
        sign(t, SERVED);
        moved(b, 0, 0, HELD, false);
        eq(370, owedOf(t), "signed, so paid");
        prove(t, SERVED + 1, headOf(t, SERVED + 1));
        stands(t, Stage.Lost);
        b = books();
        vm.prank(host);
        market.closeByHost(unsigned(t));
        moved(b, DEPOSIT - 370, 0, 0, false);
        solvent(t);
    }

    /// Three claims stand on one stake of 170 units: a slash takes what is left, and the renter is paid out of it first.
    function test_aSlashTakesWhatIsLeft() public {
        Terms memory t = agreed();
        t.host = address(0xB0B2);
        usdc.mint(address(this), 170e6);
        usdc.approve(address(stakes), 170e6);
        stakes.stakeFor(t.host, 170e6);
        uint96[3] memory slashed = [SLASH, 70e6, 0];
        for (uint256 i; i < 3; ++i) {
            t.salt = bytes32(i);
            open(t, DEPOSIT);
            prove(t, SIGNED);
            claim(t);
            dispute(t);
        }
        wait_(t);
        for (uint256 i; i < 3; ++i) {
            t.salt = bytes32(i);
            vm.expectEmit(true, true, true, true);
            emit Disputes.ClaimLost(market.idOf(t), 123, slashed[i], i == 2 ? 0 : COMPENSATION);
            market.settleClaim(t);
        }
    }
}

contract DisputesInCoinTest is DisputesTests {
    function token() internal pure override returns (address) {
        return NATIVE;
    }
}

contract DisputesInTokenTest is DisputesTests {
    function token() internal view override returns (address) {
        return address(usdc);
    }
}
