// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Opening, Stage, Terms} from "../src/MarketTypes.sol";
import {MarketHandler} from "./MarketHandler.sol";

/// Claims and what comes of them, by those who may and now and then by those who may not.
contract Handler is MarketHandler {
    function proveTokens(uint256 which, uint256 tokens) external {
        if (jobs.length == 0) return;
        proveFor(jobs[which % jobs.length], tokens);
    }

    function proveAndClaim(uint256 which, uint256 tokens) external {
        if (jobs.length == 0) return;
        Terms memory t = jobs[which % jobs.length];
        uint32 more = boundary(t, tokens);
        if (more > state(t).proven) prove(t, more, headOf(t, more));
        claimFor(t);
    }

    function claimProven(uint256 which) external {
        if (jobs.length == 0) return;
        claimFor(jobs[which % jobs.length]);
    }

    function dispute(uint256 which, uint256 tweak) external {
        (Terms memory t, bool found) = seek(which, Stage.Claimed, tweak);
        if (!found) return;
        Seen memory before = see(t);
        bytes memory data = abi.encodeCall(market.dispute, (t));
        asRenter(t, t.bond, data);
        paidIn[t.token] += t.bond;
        if (before.stage != Stage.Claimed) breaks("disputed what is no claim");
        if (block.timestamp >= since(t) + t.challenge) breaks("disputed too late");
        begins(t, Stage.Disputed);
        credited(t, before, before.credited, 0);
    }

    function answer(uint256 which, uint256 tweak) external {
        (Terms memory t, bool found) = seek(which, Stage.Disputed, tweak);
        if (!found) return;
        Seen memory before = see(t);
        uint32 proven = state(t).proven;
        Opening memory o = opening(t, state(t).signed, proven);
        if (tweak % 7 == 1) o.records[tweak / 7 % o.records.length] = "another record";
        if (tweak % 7 == 2) o = opening(t, state(t).signed == 0 ? 1 : 0, proven);
        if (tweak % 7 == 3) o.turns = turnsOf(proven, proven);
        bool right = tweak % 7 == 0 || tweak % 7 > 3;
        if (tweak % 7 == 3 && turnsOf(o.from, proven).length == 0) right = true;
        vm.prank(tweak % 7 == 4 ? renter : host);
        market.answerDispute(t, o);
        if (!right || tweak % 7 == 4) breaks("a wrong answer was accepted");
        if (before.stage != Stage.Disputed) breaks("answered what is not disputed");
        if (block.timestamp >= since(t) + t.challenge) breaks("answered too late");
        if (t.arbiter == address(0)) {
            won(t, before, true);
        } else {
            begins(t, Stage.Answered);
            credited(t, before, before.credited, 0);
        }
    }

    function rule(uint256 which, bool forHost, uint256 tweak) external {
        (Terms memory t, bool found) = seek(which, Stage.Answered, tweak);
        if (!found) return;
        Seen memory before = see(t);
        address[3] memory others = [host, renter, address(0)];
        bool arbiter = tweak % 4 != 3;
        vm.prank(arbiter ? ARBITER : others[tweak / 4 % 3]);
        market.rule(t, forHost);
        if (!arbiter || t.arbiter != ARBITER) breaks("ruled by somebody else");
        if (before.stage != Stage.Answered) breaks("ruled without an answer");
        if (block.timestamp >= since(t) + t.challenge) breaks("ruled too late");
        if (forHost) won(t, before, true);
        else lost_(t, before);
    }

    function contradict(uint256 which, uint256 tokens, uint256 tweak) external {
        if (tweak % 2 != 0) return; // not too often: it decides at once
        (Terms memory t, bool found) = seek(which, Stage(1 + tweak / 2 % 3), tweak / 6);
        if (!found) return;
        Seen memory before = see(t);
        uint32 shown = boundary(t, tokens);
        bytes memory consent = closeSig(tweak % 5 == 4 ? SIGNER : HOST, t, shown);
        market.contradict(t, cost(t, shown), shown, consent);
        if (tweak % 5 == 4) breaks("contradicted by somebody else");
        if (shown >= before.heldTokens) breaks("that was no contradiction");
        lost_(t, before);
    }

    function settleClaim(uint256 which, uint256 tweak) external {
        (Terms memory t, bool found) = seek(which, Stage(1 + tweak % 3), tweak / 3);
        if (!found) return;
        Seen memory before = see(t);
        market.settleClaim(t);
        if (block.timestamp < since(t) + t.challenge) breaks("settled before its window was over");
        if (before.stage == Stage.Disputed) lost_(t, before);
        else won(t, before, false);
    }

    // -- how it chooses

    /// The next job whose claim is in this stage; now and then any job.
    function seek(uint256 which, Stage stage, uint256 tweak) internal view returns (Terms memory t, bool found) {
        for (uint256 i; i < jobs.length; ++i) {
            t = jobs[(which % jobs.length + i) % jobs.length];
            if (tweak % 13 == 12 || state(t).stage == stage) return (t, true);
        }
    }

    function proveFor(Terms memory t, uint256 tokens) internal {
        uint32 more = boundary(t, tokens);
        prove(t, more, headOf(t, more)); // reverts where it may not; then nothing happened
    }

    // -- how it judges

    function since(Terms memory t) internal view returns (uint256) {
        return ghosts[market.idOf(t)].since;
    }

    function begins(Terms memory t, Stage stage) internal {
        ghosts[market.idOf(t)].since = uint40(block.timestamp);
        if (see(t).stage != stage) breaks("another stage");
        if (see(t).until != block.timestamp + t.challenge) breaks("another window");
    }

    function claimFor(Terms memory t) internal {
        Seen memory before = see(t);
        claim(t);
        Seen memory now_ = see(t);
        if (before.closed || before.stage != Stage.None) breaks("claimed from a closed job, or twice");
        if (ghosts[market.idOf(t)].lost) breaks("claimed after a loss");
        if (now_.held == 0 || now_.owed != before.owed + now_.held) breaks("held another amount");
        if (now_.owed > cost(t, state(t).proven)) breaks("claimed unproven tokens");
        if (now_.owed > cost(t, state(t).signed + t.exposure)) breaks("claimed more than W unsigned tokens");
        (,,, uint40 lockedUntil) = stakes.stakeOf(host);
        if (lockedUntil < block.timestamp + 4 * t.challenge) breaks("the stake is not locked");
        begins(t, Stage.Claimed);
        credited(t, before, before.credited, 0);
    }

    function won(Terms memory t, Seen memory before, bool bondToHost) internal {
        bool live = bonded(before);
        credited(t, before, before.owed, live && bondToHost ? t.bond : 0);
        if (live && !bondToHost) returned(t, t.bond);
        if (see(t).stage != Stage.None || see(t).held != 0) breaks("won, and held");
        ghosts[market.idOf(t)].decided = before.owed;
    }

    /// A lost claim pays nothing, and no bond either.
    function lost_(Terms memory t, Seen memory before) internal {
        credited(t, before, before.credited, 0);
        if (bonded(before)) returned(t, t.bond);
        if (before.closed) {
            returned(t, before.held);
            ghosts[market.idOf(t)].owedAtClose -= before.held;
        }
        if (see(t).stage != Stage.Lost || see(t).owed != before.credited) breaks("lost, and owed");
        ghosts[market.idOf(t)].lost = true;
        ++losses;
    }
}
