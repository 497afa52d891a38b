// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Delegates} from "../src/Delegates.sol";
import {PromptBoard} from "../src/PromptBoard.sol";
import {PromptTerms, State} from "../src/PromptTypes.sol";
import {PromptFixture} from "./PromptFixture.sol";

/// How a prompt finds its host: claims, lapses, reservations.
contract PromptBoardTest is PromptFixture {
    address private constant HOT_KEY = address(0x407);

    function refusedClaim(PromptTerms memory t, address by, bytes memory why) private {
        vm.expectRevert(why);
        claim(t, by);
    }

    function taken() private view returns (bytes memory) {
        return abi.encodeWithSelector(PromptBoard.AlreadyClaimed.selector, host, uint40(START + EXECUTE));
    }

    /// A claim lasts executeSeconds and fixes the price that the registry names.
    function test_aHostClaims() public {
        PromptTerms memory t = posted(NATIVE);
        vm.expectEmit(true, true, true, true);
        emit PromptBoard.PromptClaimed(board.idOf(t), host, PRICE, uint40(START + EXECUTE));
        claim(t, host);
        stands(t, State.Claimed, host, START + EXECUTE, "claimed");
        eq(PRICE, kept(t).price, "price");
        registry.set(host, "model", NATIVE, PRICE + 1);
        eq(PRICE, kept(t).price, "the price stays");
    }

    /// While a claim runs nobody claims, not even its host; at its last second it is over.
    function test_aClaimLapses() public {
        PromptTerms memory t = claimed(NATIVE);
        vm.warp(START + EXECUTE - 1);
        refusedClaim(t, other, taken());
        refusedClaim(t, host, taken());
        vm.warp(START + EXECUTE);
        claim(t, other);
        stands(t, State.Claimed, other, START + 2 * EXECUTE, "the next");
        eq(PRICE / 2, kept(t).price, "its price");
    }

    /// No claim outlives the deadline, and none begins at it.
    function test_theDeadlineEndsClaims() public {
        PromptTerms memory t = posted(NATIVE);
        vm.warp(t.deadline - 1);
        claim(t, host);
        stands(t, State.Claimed, host, t.deadline, "cut short");
        t = terms(address(usdc));
        post(t);
        vm.warp(t.deadline);
        refusedClaim(t, host, abi.encodeWithSelector(PromptBoard.PastDeadline.selector));
        vm.expectRevert(PromptBoard.PastDeadline.selector);
        assign(t, renter, host);
    }

    function test_onlyActiveHostsClaim() public {
        PromptTerms memory t = posted(NATIVE);
        registry.setActive(host, false);
        refusedClaim(t, host, abi.encodeWithSelector(PromptBoard.HostNotActive.selector, host));
    }

    /// The model, for the token of the prompt, at most at the ceiling.
    function test_thePriceMustFit() public {
        PromptTerms memory t = posted(NATIVE);
        registry.set(host, "model", NATIVE, CEILING + 1);
        refusedClaim(t, host, abi.encodeWithSelector(PromptBoard.PriceAboveCeiling.selector, CEILING, CEILING + 1));
        registry.set(host, "model", NATIVE, 0);
        refusedClaim(t, host, abi.encodeWithSelector(PromptBoard.ModelNotOffered.selector, host));
        registry.set(host, "model", NATIVE, CEILING);
        claim(t, host);
        eq(CEILING, kept(t).price, "the ceiling itself");
    }

    function test_theArbiterDoesNotAnswer() public {
        PromptTerms memory t = posted(NATIVE);
        registry.set(ARBITER, "model", NATIVE, PRICE);
        refusedClaim(t, ARBITER, abi.encodeWithSelector(PromptBoard.HostIsArbiter.selector));
    }

    /// What was not posted, or ended, cannot be claimed, assigned or released.
    function test_onlyPostedPromptsFindHosts() public {
        PromptTerms memory t = terms(NATIVE);
        for (uint256 i; i < 2; ++i) {
            refusedClaim(t, host, abi.encodeWithSelector(PromptBoard.NotPosted.selector));
            vm.expectRevert(PromptBoard.NotPosted.selector);
            assign(t, renter, host);
            vm.expectRevert(PromptBoard.NotPosted.selector);
            vm.prank(host);
            board.release(t);
            if (i == 0) {
                post(t);
                cancel(t);
            }
        }
    }

    /// A stranger does not claim for a host; the key that the host named does, until then and no longer.
    function test_aClaimDelegateClaimsForItsHost() public {
        PromptTerms memory t = posted(NATIVE);
        vm.expectRevert(abi.encodeWithSelector(PromptBoard.NotHost.selector, host));
        vm.prank(HOT_KEY);
        board.claim(t, host);
        vm.expectEmit(true, true, true, true);
        emit PromptBoard.ClaimDelegateSet(host, HOT_KEY, uint40(START + 1));
        vm.prank(host);
        board.setClaimDelegate(HOT_KEY, uint40(START + 1));
        eq(START + 1, board.claimDelegates(host, HOT_KEY), "until");
        vm.prank(HOT_KEY);
        board.claim(t, host);
        stands(t, State.Claimed, host, START + EXECUTE, "for the host");
        vm.prank(HOT_KEY);
        board.release(t);
        vm.warp(START + 1);
        vm.expectRevert(abi.encodeWithSelector(PromptBoard.NotHost.selector, host));
        vm.prank(HOT_KEY);
        board.claim(t, host);
    }

    /// It claims for the host that named it, not for another.
    function test_aClaimDelegateHasOneHost() public {
        PromptTerms memory t = posted(NATIVE);
        vm.prank(host);
        board.setClaimDelegate(HOT_KEY, uint40(START + 1 days));
        vm.expectRevert(abi.encodeWithSelector(PromptBoard.NotHost.selector, other));
        vm.prank(HOT_KEY);
        board.claim(t, other);
        vm.expectRevert(Delegates.BadDelegate.selector);
        board.setClaimDelegate(address(0), 1);
        vm.expectRevert(Delegates.BadDelegate.selector);
        board.setClaimDelegate(address(this), 1);
    }

    /// A released prompt is free at once; only the claiming host releases, and only a running claim.
    function test_aHostReleases() public {
        PromptTerms memory t = claimed(NATIVE);
        vm.expectRevert(abi.encodeWithSelector(PromptBoard.NotHost.selector, host));
        vm.prank(other);
        board.release(t);
        vm.expectEmit(true, true, true, true);
        emit PromptBoard.PromptReleased(board.idOf(t), host);
        vm.prank(host);
        board.release(t);
        stands(t, State.Posted, address(0), 0, "free");
        eq(0, kept(t).price, "no price");
        vm.expectRevert(PromptBoard.NotClaimed.selector);
        vm.prank(host);
        board.release(t);
        claim(t, other);
        vm.warp(START + EXECUTE);
        vm.expectRevert(PromptBoard.NotClaimed.selector);
        vm.prank(other);
        board.release(t);
    }

    // -- reservations

    /// For its time, a reserved prompt is that host's to claim and nobody else's.
    function test_aReservedPromptIsForThatHost() public {
        PromptTerms memory t = posted(NATIVE);
        vm.expectEmit(true, true, true, true);
        emit PromptBoard.PromptAssigned(board.idOf(t), host, uint40(START + EXECUTE));
        assign(t, renter, host);
        stands(t, State.Reserved, host, START + EXECUTE, "reserved");
        vm.warp(START + EXECUTE - 1);
        refusedClaim(t, other, abi.encodeWithSelector(PromptBoard.Reserved.selector, host));
        claim(t, host);
        stands(t, State.Claimed, host, START + 2 * EXECUTE - 1, "a whole claim");
    }

    /// Then it is anybody's.
    function test_aReservationLapses() public {
        PromptTerms memory t = posted(NATIVE);
        assign(t, renter, host);
        vm.warp(START + EXECUTE);
        claim(t, other);
        stands(t, State.Claimed, other, START + 2 * EXECUTE, "claimed");
    }

    /// A reservation is no claim: nothing to release or to complete.
    function test_aReservationIsNoClaim() public {
        PromptTerms memory t = posted(NATIVE);
        assign(t, renter, host);
        vm.expectRevert(PromptBoard.NotClaimed.selector);
        vm.prank(host);
        board.release(t);
        vm.expectRevert(PromptBoard.NotClaimed.selector);
        complete(t, host, 1);
    }

    /// The assigner chooses like the renter; nobody else does, and a prompt without an assigner is the renter's alone.
    function test_renterOrAssignerChooses() public {
        PromptTerms memory t = posted(NATIVE);
        assign(t, ASSIGNER, host);
        vm.expectRevert(PromptBoard.NotAssigner.selector);
        assign(t, host, host);
        t.assigner = address(0);
        post(t);
        vm.expectRevert(PromptBoard.NotAssigner.selector);
        assign(t, ASSIGNER, host);
        assign(t, renter, host);
    }

    /// Minds change: before, during and after a reservation, and after a claim that lapsed; not during a claim.
    function test_reassignment() public {
        PromptTerms memory t = posted(NATIVE);
        assign(t, renter, host);
        assign(t, ASSIGNER, other);
        stands(t, State.Reserved, other, START + EXECUTE, "reassigned");
        refusedClaim(t, host, abi.encodeWithSelector(PromptBoard.Reserved.selector, other));
        assign(t, renter, host);
        claim(t, host);
        vm.expectRevert(taken());
        assign(t, renter, other);
        vm.warp(START + EXECUTE);
        assign(t, renter, other);
        stands(t, State.Reserved, other, START + 2 * EXECUTE, "after the lapse");
        eq(0, kept(t).price, "no price");
    }

    /// Nothing is reserved for a host that could not claim it.
    function test_onlyHostsThatCouldClaimAreAssigned() public {
        PromptTerms memory t = posted(NATIVE);
        vm.expectRevert(abi.encodeWithSelector(PromptBoard.HostNotActive.selector, STRANGER));
        assign(t, renter, STRANGER);
        registry.set(host, "model", NATIVE, CEILING + 1);
        vm.expectRevert(abi.encodeWithSelector(PromptBoard.PriceAboveCeiling.selector, CEILING, CEILING + 1));
        assign(t, renter, host);
    }

    function batch() private returns (PromptTerms[] memory ts, address[] memory hosts) {
        ts = new PromptTerms[](2);
        (ts[0], ts[1]) = (posted(NATIVE), posted(address(usdc)));
        hosts = new address[](2);
        (hosts[0], hosts[1]) = (host, other);
    }

    function test_aBatchAssignsEach() public {
        (PromptTerms[] memory ts, address[] memory hosts) = batch();
        vm.prank(ASSIGNER);
        board.assignJobsToHosts(ts, hosts);
        stands(ts[0], State.Reserved, host, START + EXECUTE, "first");
        stands(ts[1], State.Reserved, other, START + EXECUTE, "second");
    }

    /// One bad assignment undoes all; one host for each prompt.
    function test_aBatchIsWholeOrNothing() public {
        (PromptTerms[] memory ts, address[] memory hosts) = batch();
        hosts[1] = STRANGER;
        vm.expectRevert(abi.encodeWithSelector(PromptBoard.HostNotActive.selector, STRANGER));
        vm.prank(renter);
        board.assignJobsToHosts(ts, hosts);
        stands(ts[0], State.Posted, address(0), 0, "first");
        vm.expectRevert(PromptBoard.LengthMismatch.selector);
        vm.prank(renter);
        board.assignJobsToHosts(ts, new address[](1));
        vm.expectRevert(PromptBoard.LengthMismatch.selector);
        vm.prank(renter);
        board.assignJobsToHosts(ts, new address[](3));
        stands(ts[0], State.Posted, address(0), 0, "nothing happened");
    }
}
