// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {JobMarketplace} from "../src/JobMarketplace.sol";
import {Claim, Terms} from "../src/MarketTypes.sol";
import {TestUSDC} from "../src/TestUSDC.sol";
import {Receiver} from "./Doubles.sol";
import {Fixture} from "./Fixture.sol";

/// Does anything that anybody may do, with amounts and counts at and around every bound, and keeps its own books.
contract Handler is Fixture {
    struct Books {
        bool closed;
        uint96 owedAtClose;
    }

    Terms[] internal jobs;
    mapping(bytes32 => Books) public books;
    mapping(address token => uint256) public deposited;
    mapping(address token => uint256) public withdrawn;
    mapping(address token => uint256) public pushed; // refunds that reached the renter
    string public broken; // the first promise that did not hold
    Receiver public stubborn = new Receiver();

    constructor() {
        setUp();
        stubborn.set(Receiver.Mood.Refuses);
        vm.deal(address(stubborn), 1e24);
    }

    function count() external view returns (uint256) {
        return jobs.length;
    }

    function job(uint256 i) external view returns (Terms memory) {
        return jobs[i];
    }

    function theMarket() external view returns (JobMarketplace) {
        return market;
    }

    function theUsdc() external view returns (TestUSDC) {
        return usdc;
    }

    function parties() public view returns (address[4] memory) {
        return [host, TREASURY, renter, address(stubborn)];
    }

    function held(address token) public view returns (uint256) {
        return token == NATIVE ? address(market).balance : usdc.balanceOf(address(market));
    }

    // -- what the fuzzer does

    function open(uint256 kind, uint96 price, uint96 deposit, uint32 exposure) external {
        if (jobs.length == 12) return; // few jobs, so that each sees many calls
        Terms memory t = terms(kind & 1 == 0 ? NATIVE : address(usdc), uint8(kind >> 1 & 1));
        t.pricePerMTok = pick(uint256(price), [uint96(1), 1e6, 999_999, 1_234_567, 1e12]);
        t.exposure = uint32(bound(exposure, 1, 600));
        t.salt = bytes32(jobs.length + 1);
        t.expiresAt = uint40(block.timestamp + 1 hours);
        deposit = uint96(bound(deposit, 1, cost(t, 1500) + 2));
        bool refuses = kind & 4 != 0 && t.token == NATIVE;
        if (refuses) t.renter = address(stubborn);
        bytes memory data = abi.encodeCall(market.open, (t, deposit));
        if (refuses) stubborn.run(address(market), deposit, data);
        else open(t, deposit);
        jobs.push(t);
        deposited[t.token] += deposit;
    }

    function redeem(uint256 which, uint256 tokens, uint256 tweak) external {
        if (jobs.length == 0) return;
        Terms memory t = jobs[which % jobs.length];
        Claim memory c = claim(t, tokens, tweak);
        vm.prank(tweak % 11 == 10 ? renter : host);
        market.redeem(one(c));
        if (tweak % 11 == 10) breaks("redeem: somebody but the host");
        judge(t, c, tweak, "redeem");
    }

    function proveTokens(uint256 which, uint256 tokens) external {
        if (jobs.length == 0) return;
        Terms memory t = jobs[which % jobs.length];
        prove(t, boundary(t, tokens)); // reverts where it may not; then nothing happened
    }

    function claimProven(uint256 which) external {
        if (jobs.length == 0) return;
        Terms memory t = jobs[which % jobs.length];
        (, uint96 before, uint32 signed, uint32 proven, bool closed) = state(t);
        vm.prank(host);
        market.claimProven(t);
        uint256 owed = owedOf(t);
        if (closed || owed <= before) breaks("claimed from a closed job or nothing");
        if (owed > cost(t, proven)) breaks("claimed unproven tokens");
        if (owed > cost(t, signed + t.exposure)) breaks("claimed more than W unsigned tokens");
    }

    function closeByHost(uint256 which, uint256 tokens, uint256 tweak) external {
        if (jobs.length == 0 || tweak % 3 != 0) return; // seldom, so that jobs live
        Terms memory t = jobs[which % jobs.length];
        Claim memory c = claim(t, tokens, tweak / 3);
        if (tweak % 2 == 0) c.sig = "";
        (, uint96 before,,,) = state(t);
        uint256 reserve = held(t.token);
        vm.prank(host);
        market.closeByHost(c);
        if (owedOf(t) != before) judge(t, c, tweak / 3, "closeByHost");
        closed_(t, reserve);
    }

    function closeCooperative(uint256 which, uint256 tokens, uint256 tweak) external {
        if (jobs.length == 0 || tweak % 3 != 0) return;
        Terms memory t = jobs[which % jobs.length];
        Claim memory c = claim(t, tokens, tweak / 3);
        (, uint96 before,,,) = state(t);
        uint256 reserve = held(t.token);
        bytes32 digest = market.closeDigest(market.idOf(t), c.amount, c.tokens);
        bytes memory consent = sign(tweak % 5 == 4 ? SIGNER : HOST, digest);
        market.closeCooperative(c, consent);
        if (tweak % 5 == 4) breaks("closed without the host's consent");
        if (owedOf(t) != before) judge(t, c, tweak / 3, "closeCooperative");
        closed_(t, reserve);
    }

    function requestClose(uint256 which) external {
        if (jobs.length == 0) return;
        Terms memory t = jobs[which % jobs.length];
        vm.prank(renter);
        market.requestClose(t);
    }

    function finalize(uint256 which) external {
        if (jobs.length == 0) return;
        Terms memory t = jobs[which % jobs.length];
        (,,,,, uint40 closingAt,) = market.jobs(market.idOf(t));
        uint256 reserve = held(t.token);
        market.finalize(t);
        bool requested = closingAt != 0 && block.timestamp >= closingAt;
        if (!requested && block.timestamp < uint256(t.expiresAt) + t.challenge) breaks("finalized early");
        closed_(t, reserve);
    }

    function warp(uint256 by) external {
        vm.warp(block.timestamp + pick(by, [uint96(1), 60, 1 hours - 1, 1 hours, 1 hours + 1]));
        vm.roll(block.number + by % 300);
    }

    function withdraw(uint256 who, bool native) external {
        address token = native ? NATIVE : address(usdc);
        address account = parties()[who % 4];
        vm.prank(account);
        withdrawn[token] += market.withdraw(token, address(0xFEED));
    }

    // -- how it chooses and judges

    /// One of five bounds, or now and then any number.
    function pick(uint256 seed, uint96[5] memory bounds) internal pure returns (uint96) {
        return seed % 6 == 5 ? uint96(bound(seed / 6, 1, 1e13)) : bounds[seed % 6];
    }

    /// Token counts around everything that decides: signed, proven, exposure, deposit.
    function boundary(Terms memory t, uint256 seed) internal view returns (uint32) {
        (uint96 deposit,, uint32 signed, uint32 proven,) = state(t);
        uint256 affordable = ((uint256(deposit) + 1) * 1e6 - 1) / t.pricePerMTok;
        if (affordable > 2_000) affordable = 2_000;
        uint96[5] memory bounds =
            [uint96(signed), proven, uint96(signed) + t.exposure, uint96(affordable), uint96(signed) + 40];
        uint256 about = bounds[seed % 5];
        uint256 step = seed / 5 % 3;
        if (step == 0 && about != 0) return uint32(about - 1);
        return uint32(step == 2 ? about + 1 : about);
    }

    /// A voucher that is right, or wrong in one way that `tweak` chooses.
    function claim(Terms memory t, uint256 seed, uint256 tweak) internal view returns (Claim memory c) {
        uint32 tokens = boundary(t, seed);
        uint96 amount = cost(t, tokens);
        if (tweak % 11 == 7) amount += 1;
        if (tweak % 11 == 8) amount = amount == 0 ? 1 : amount - 1;
        c = voucherOf(tweak % 11 == 9 ? HOST : SIGNER, t, tokens, amount);
    }

    /// What a credited voucher must have been.
    function judge(Terms memory t, Claim memory c, uint256 tweak, string memory where) internal {
        (uint96 deposit, uint96 owed,, uint32 proven,) = state(t);
        if (tweak % 11 >= 7 && tweak % 11 <= 9) breaks(string.concat(where, ": a wrong voucher was accepted"));
        if (books[market.idOf(t)].closed) breaks(string.concat(where, ": on a closed job"));
        if (owed < c.amount || owed > deposit) breaks(string.concat(where, ": wrong amount"));
        if (t.policy == 0 && c.tokens > proven) breaks(string.concat(where, ": without a proof"));
    }

    function closed_(Terms memory t, uint256 reserve) internal {
        Books storage b = books[market.idOf(t)];
        if (b.closed) breaks("closed twice");
        (uint96 deposit, uint96 owed,,,) = state(t);
        (b.closed, b.owedAtClose) = (true, owed);
        if (t.renter == renter) pushed[t.token] += deposit - owed;
        uint256 left = reserve - held(t.token);
        if (left != (t.renter == renter ? deposit - owed : 0)) breaks("wrong refund");
    }

    function breaks(string memory what) internal {
        if (bytes(broken).length == 0) broken = what;
    }
}

contract InvariantsTest is Fixture {
    Handler private _handler;

    function setUp() public override {
        _handler = new Handler();
        market = _handler.theMarket();
        usdc = _handler.theUsdc();
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
        bytes4[14] memory all = [
            Handler.open.selector,
            Handler.redeem.selector,
            Handler.redeem.selector,
            Handler.redeem.selector,
            Handler.proveTokens.selector,
            Handler.proveTokens.selector,
            Handler.claimProven.selector,
            Handler.closeByHost.selector,
            Handler.closeCooperative.selector,
            Handler.requestClose.selector,
            Handler.finalize.selector,
            Handler.warp.selector,
            Handler.withdraw.selector,
            Handler.open.selector
        ];
        targets = new Selectors[](1);
        targets[0] = Selectors(address(_handler), new bytes4[](all.length));
        for (uint256 i; i < all.length; ++i) {
            targets[0].selectors[i] = all[i];
        }
    }

    /// No call did what it must not; the handler says which.
    function invariant_noPromiseBroken() public view {
        string memory broken = _handler.broken();
        ok(bytes(broken).length == 0, broken);
    }

    /// What the contract holds is what it owes, to the last unit: what is left of open jobs, and all that may be withdrawn.
    function invariant_solvent() public view {
        address[4] memory parties = _handler.parties();
        for (uint256 k; k < 2; ++k) {
            address token = k == 0 ? NATIVE : address(usdc);
            uint256 owing;
            for (uint256 i; i < _handler.count(); ++i) {
                Terms memory t = _handler.job(i);
                if (t.token != token) continue;
                (uint96 deposit, uint96 owed,,, bool closed) = state(t);
                if (!closed) owing += deposit - owed;
            }
            for (uint256 i; i < 4; ++i) {
                owing += market.earnings(parties[i], token);
            }
            eq(owing, _handler.held(token), "solvent");
        }
    }

    /// What went in is what came out and what is there.
    function invariant_conserved() public view {
        for (uint256 k; k < 2; ++k) {
            address token = k == 0 ? NATIVE : address(usdc);
            uint256 out = _handler.withdrawn(token) + _handler.pushed(token);
            eq(_handler.deposited(token), out + _handler.held(token), "conserved");
        }
    }

    /// Of each job: owed never above the deposit, and above what was signed only by proven tokens within W.
    function invariant_owedIsEarned() public view {
        for (uint256 i; i < _handler.count(); ++i) {
            Terms memory t = _handler.job(i);
            (uint96 deposit, uint96 owed, uint32 signed, uint32 proven, bool closed) = state(t);
            (bool closedBefore, uint96 owedAtClose) = _handler.books(market.idOf(t));
            ok(owed <= deposit, "owed <= deposit");
            ok(closed == closedBefore, "closed stays closed");
            if (closed) {
                eq(owedAtClose, owed, "a closed job's amount stays");
                continue;
            }
            ok(owed <= cost(t, signed + t.exposure), "unsigned money within W tokens");
            ok(owed <= cost(t, signed > proven ? signed : proven), "paid tokens are signed or proven");
            if (t.policy == 0) ok(signed <= proven, "required: nothing without a proof");
        }
    }
}
