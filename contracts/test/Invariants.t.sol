// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {JobView, Stage, Terms} from "../src/MarketTypes.sol";
import {Handler} from "./DisputeHandler.sol";
import {EpochHandler} from "./EpochHandler.sol";
import {Fixture} from "./Fixture.sol";
import {MarketHandler} from "./MarketHandler.sol";

contract InvariantsTest is Fixture {
    EpochHandler private _handler;

    function setUp() public override {
        _handler = new EpochHandler();
        market = _handler.theMarket();
        usdc = _handler.theUsdc();
        stakes = _handler.theStakes();
    }

    function targetContracts() public view returns (address[] memory targets) {
        targets = new address[](1);
        targets[0] = address(_handler);
    }

    struct Selectors {
        address addr;
        bytes4[] selectors;
    }

    function targetSelectors() public view returns (Selectors[] memory targets) {
        bytes4[24] memory all = [
            MarketHandler.open.selector,
            MarketHandler.open.selector,
            MarketHandler.topUp.selector,
            MarketHandler.redeem.selector,
            MarketHandler.redeem.selector,
            MarketHandler.redeem.selector,
            EpochHandler.epoch.selector,
            EpochHandler.epoch.selector,
            Handler.proveTokens.selector,
            Handler.proveAndClaim.selector,
            Handler.proveAndClaim.selector,
            Handler.claimProven.selector,
            Handler.dispute.selector,
            Handler.dispute.selector,
            Handler.answer.selector,
            Handler.answer.selector,
            Handler.rule.selector,
            Handler.contradict.selector,
            Handler.settleClaim.selector,
            MarketHandler.closeByHost.selector,
            MarketHandler.closeCooperative.selector,
            MarketHandler.finalize.selector,
            MarketHandler.warp.selector,
            MarketHandler.withdraw.selector
        ];
        targets = new Selectors[](1);
        targets[0] = Selectors(address(_handler), new bytes4[](all.length + 1));
        for (uint256 i; i < all.length; ++i) {
            targets[0].selectors[i] = all[i];
        }
        targets[0].selectors[all.length] = MarketHandler.requestClose.selector;
    }

    /// No call did what it must not; the handler says which.
    function invariant_noPromiseBroken() public view {
        string memory broken = _handler.broken();
        ok(bytes(broken).length == 0, broken);
    }

    /// What the contract holds is what it owes, to the last unit: what is left of open jobs, what claims hold, the bonds of disputes,
    /// and all that may be withdrawn.
    function invariant_solvent() public view {
        address[4] memory parties = _handler.parties();
        for (uint256 k; k < 2; ++k) {
            address token = k == 0 ? NATIVE : address(usdc);
            uint256 owing;
            for (uint256 i; i < _handler.count(); ++i) {
                Terms memory t = _handler.job(i);
                if (t.token != token) continue;
                JobView memory job = state(t);
                if (!job.closed) owing += job.deposit - job.owed;
                owing += job.held;
                if (job.stage == Stage.Disputed || job.stage == Stage.Answered) owing += t.bond;
            }
            for (uint256 i; i < 4; ++i) {
                owing += market.earnings(parties[i], token);
            }
            eq(owing, _handler.holds(token, address(market)), "solvent");
        }
    }

    /// What went in is what came out and what is there; what the host and the treasury have is what jobs credited, and
    /// what the host lost is what lost claims cost.
    function invariant_conserved() public view {
        for (uint256 k; k < 2; ++k) {
            address token = k == 0 ? NATIVE : address(usdc);
            uint256 out = _handler.withdrawn(token) + _handler.pushed(token);
            eq(_handler.paidIn(token), out + _handler.holds(token, address(market)), "conserved");
            uint256 credited;
            for (uint256 i; i < _handler.count(); ++i) {
                Terms memory t = _handler.job(i);
                if (t.token == token) credited += state(t).owed - state(t).held;
            }
            uint256 earned = market.earnings(host, token) + market.earnings(TREASURY, token) + _handler.earned(token);
            eq(credited, earned, "earned is credited");
        }
        (uint96 staked,,,) = stakes.stakeOf(host);
        eq(STAKE - _handler.losses() * SLASH, staked, "a slash for each lost claim, and for nothing else");
    }

    /// Of each job: credited is what the renter signed, or what waited or was decided; owed above that is held, proven and within W.
    function invariant_owedIsEarned() public view {
        for (uint256 i; i < _handler.count(); ++i) {
            Terms memory t = _handler.job(i);
            JobView memory job = state(t);
            (bool closed, bool lost,, uint96 owedAtClose, uint96 signed, uint96 decided) =
                _handler.ghosts(market.idOf(t));
            ok(job.owed <= job.deposit && job.held <= job.owed, "held <= owed <= deposit");
            eq(signed > decided ? signed : decided, job.owed - job.held, "credited is signed or decided");
            bool undecided = job.stage != Stage.None && job.stage != Stage.Lost;
            ok(undecided == (job.held != 0), "held while there is a claim");
            ok(!lost || job.stage == Stage.Lost, "lost stays lost");
            ok(closed == job.closed, "closed stays closed");
            if (closed) {
                eq(owedAtClose, job.owed, "a closed job's amount stays, or falls by what is lost");
            }
            ok(job.owed <= cost(t, job.signed + t.exposure), "unsigned money within W tokens");
            ok(job.owed <= cost(t, job.signed > job.proven ? job.signed : job.proven), "signed or proven");
            if (t.policy == 0 && !closed) ok(job.signed <= job.proven, "required: nothing without a proof");
        }
    }
}
