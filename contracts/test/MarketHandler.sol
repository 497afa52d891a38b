// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {JobMarketplace} from "../src/JobMarketplace.sol";
import {HostStake} from "../src/HostStake.sol";
import {Claim, JobView, Stage, Terms} from "../src/MarketTypes.sol";
import {TestUSDC} from "../src/TestUSDC.sol";
import {DisputeFixture} from "./DisputeFixture.sol";
import {Receiver} from "./Doubles.sol";

/// Does anything that anybody may do, with amounts and counts at and around every bound, and keeps its own books: what the parties
/// signed, what was decided, which money had to leave. Claims are in `DisputeHandler`.
abstract contract MarketHandler is DisputeFixture {
    /// Of each job, by what the handler saw and not by what the contract says.
    struct Ghost {
        bool closed;
        bool lost;
        uint40 since; // when the stage of its claim began
        uint96 owedAtClose;
        uint96 signed; // the best amount that the renter signed and the market took
        uint96 decided; // unsigned money that waited for its window, or was ruled or answered to be the host's
    }

    /// What the market says of a job at one moment.
    struct Seen {
        uint96 credited;
        uint96 owed;
        uint96 held;
        uint32 heldTokens;
        uint40 until;
        Stage stage;
        bool closed;
        uint256 host; // what the host has of the job's token outside the market
    }

    Terms[] internal jobs;
    mapping(bytes32 => Ghost) public ghosts;
    mapping(address token => uint256) public paidIn; // deposits and bonds
    mapping(address token => uint256) public withdrawn;
    mapping(address token => uint256) public earned; // of `withdrawn`, by host and treasury
    mapping(address token => uint256) public pushed; // what reached renters and, as bonds, the host
    uint256 public losses;
    string public broken; // the first promise that did not hold
    Receiver public stubborn = new Receiver();

    constructor() {
        setUp();
        stubborn.set(Receiver.Mood.Refuses);
        vm.deal(address(stubborn), 1e24);
    }

    function token() internal pure virtual override returns (address) {
        return NATIVE;
    }

    /// No hash: streams are walked thousands of times here.
    function recordOf(uint256 index) internal pure virtual override returns (bytes32) {
        return bytes32(index + 1);
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

    function theStakes() external view returns (HostStake) {
        return stakes;
    }

    function parties() public view returns (address[4] memory) {
        return [host, TREASURY, renter, address(stubborn)];
    }

    function holds(address token_, address account) public view returns (uint256) {
        return token_ == NATIVE ? account.balance : usdc.balanceOf(account);
    }

    // -- what the fuzzer does

    function open(uint256 kind, uint96 price, uint96 deposit, uint32 exposure) external {
        if (jobs.length == 8) return; // few jobs, so that each sees many calls
        Terms memory t = terms(kind & 1 == 0 ? NATIVE : address(usdc), uint8(kind >> 1 & 1));
        t.pricePerMTok = pick(uint256(price), [uint96(1), 1e6, 999_999, 1_234_567, 1e12]);
        t.exposure = uint32(bound(exposure, 1, 150));
        t.salt = bytes32(jobs.length + 1);
        t.expiresAt = uint40(block.timestamp + 1 hours);
        t.bond = uint96(bound(kind >> 8, 1, 1e9));
        if (kind & 8 != 0) t.arbiter = address(0);
        deposit = uint96(bound(deposit, 1, cost(t, 320) + 2));
        if (kind & 4 != 0 && t.token == NATIVE) t.renter = address(stubborn);
        asRenter(t, deposit, abi.encodeCall(market.open, (t, deposit)));
        jobs.push(t);
        paidIn[t.token] += deposit;
    }

    function topUp(uint256 which, uint96 amount) external {
        if (jobs.length == 0) return;
        Terms memory t = jobs[which % jobs.length];
        amount = uint96(bound(amount, 1, cost(t, 100) + 1));
        Seen memory before = see(t);
        uint96 deposit = state(t).deposit;
        asRenter(t, amount, abi.encodeCall(market.topUp, (t, amount)));
        paidIn[t.token] += amount;
        if (before.closed) breaks("topUp: a closed job");
        if (state(t).deposit != deposit + amount) breaks("topUp: another sum");
        credited(t, before, before.credited, 0);
    }

    function redeem(uint256 which, uint256 tokens, uint256 tweak) external {
        if (jobs.length == 0) return;
        Terms memory t = jobs[which % jobs.length];
        Claim memory c = voucherFor(t, tokens, tweak);
        Seen memory before = see(t);
        vm.prank(tweak % 11 == 10 ? renter : host);
        market.redeem(one(c));
        if (tweak % 11 == 10) breaks("redeem: somebody but the host");
        signed(t, c, before, tweak);
    }

    function closeByHost(uint256 which, uint256 tokens, uint256 tweak) external {
        if (jobs.length == 0 || tweak % 3 != 0) return; // seldom, so that jobs live
        Terms memory t = jobs[which % jobs.length];
        Claim memory c = voucherFor(t, tokens, tweak / 3);
        if (tweak % 2 == 0) c.sig = "";
        Seen memory before = see(t);
        uint32 signedBefore = state(t).signed;
        vm.prank(host);
        market.closeByHost(c);
        if (state(t).signed != signedBefore) signed(t, c, before, tweak / 3);
        else credited(t, before, before.credited, 0);
        closed_(t);
    }

    function closeCooperative(uint256 which, uint256 tokens, uint256 tweak) external {
        if (jobs.length == 0 || tweak % 3 != 0) return;
        Terms memory t = jobs[which % jobs.length];
        Claim memory c = voucherFor(t, tokens, tweak / 3);
        Seen memory before = see(t);
        bytes memory consent =
            sign(tweak % 5 == 4 ? SIGNER : HOST, market.closeDigest(market.idOf(t), c.amount, c.tokens));
        market.closeCooperative(c, consent);
        if (tweak % 5 == 4) breaks("closed without the host's consent");
        if (c.amount < before.credited) breaks("agreed on less than is credited");
        judge(t, c, tweak / 3);
        credited(t, before, c.amount, 0);
        if (see(t).held != 0 || (before.stage != Stage.Lost && see(t).stage != Stage.None)) breaks("agreed, and held");
        if (bonded(before)) returned(t, t.bond);
        closed_(t);
    }

    function requestClose(uint256 which) external {
        if (jobs.length == 0) return;
        vm.prank(renter);
        market.requestClose(jobs[which % jobs.length]);
    }

    function finalize(uint256 which) external {
        if (jobs.length == 0) return;
        Terms memory t = jobs[which % jobs.length];
        uint40 closingAt = state(t).closingAt;
        Seen memory before = see(t);
        market.finalize(t);
        bool requested = closingAt != 0 && block.timestamp >= closingAt;
        if (!requested && block.timestamp < uint256(t.expiresAt) + t.challenge) breaks("finalized early");
        credited(t, before, before.credited, 0);
        closed_(t);
    }

    function warp(uint256 by) external {
        uint256[6] memory bounds = [uint256(1), 60, 1 hours - 1, 1 hours, 1 hours + 1, 30 minutes];
        vm.warp(block.timestamp + bounds[by % 6]);
        vm.roll(block.number + by / 6 % 300);
    }

    function withdraw(uint256 who, bool native) external {
        address token_ = native ? NATIVE : address(usdc);
        address account = parties()[who % 4];
        vm.prank(account);
        uint256 amount = market.withdraw(token_, address(0xFEED));
        withdrawn[token_] += amount;
        if (who % 4 < 2) earned[token_] += amount;
    }

    // -- how it chooses

    /// One of five bounds, or now and then any number.
    function pick(uint256 seed, uint96[5] memory bounds) internal pure returns (uint96) {
        return seed % 6 == 5 ? uint96(bound(seed / 6, 1, 1e13)) : bounds[seed % 6];
    }

    /// Token counts around everything that decides: signed, proven, claimed, exposure, deposit.
    function boundary(Terms memory t, uint256 seed) internal view returns (uint32) {
        JobView memory v = state(t);
        uint256 affordable = ((uint256(v.deposit) + 1) * 1e6 - 1) / t.pricePerMTok;
        if (affordable > 300) affordable = 300;
        uint256[6] memory bounds = [
            uint256(v.signed),
            v.proven,
            v.heldTokens,
            uint256(v.signed) + t.exposure,
            affordable,
            uint256(v.signed) + 40
        ];
        uint256 about = bounds[seed % 6];
        uint256 step = seed / 6 % 3;
        if (step == 0 && about != 0) return uint32(about - 1);
        return uint32(step == 2 ? about + 1 : about);
    }

    /// A voucher that is right, or wrong in one way that `tweak` chooses.
    function voucherFor(Terms memory t, uint256 seed, uint256 tweak) internal view returns (Claim memory c) {
        uint32 tokens = boundary(t, seed);
        uint96 amount = cost(t, tokens);
        if (tweak % 11 == 7) amount += 1;
        if (tweak % 11 == 8) amount = amount == 0 ? 1 : amount - 1;
        c = voucherOf(tweak % 11 == 9 ? HOST : SIGNER, t, tokens, amount, headOf(t, tokens));
    }

    function asRenter(Terms memory t, uint256 value, bytes memory data) internal {
        if (t.token != NATIVE) value = 0;
        if (t.renter == address(stubborn)) {
            stubborn.run(address(market), value, data);
            return;
        }
        vm.prank(renter);
        (bool success, bytes memory reason) = address(market).call{value: value}(data);
        if (success) return;
        assembly {
            revert(add(reason, 32), mload(reason))
        }
    }

    // -- how it judges

    function see(Terms memory t) internal view returns (Seen memory) {
        JobView memory v = state(t);
        uint256 outside = holds(t.token, host);
        return Seen(v.owed - v.held, v.owed, v.held, v.heldTokens, v.heldUntil, v.stage, v.closed, outside);
    }

    function bonded(Seen memory s) internal pure returns (bool) {
        return s.stage == Stage.Disputed || s.stage == Stage.Answered;
    }

    /// After any call: what is credited, and what the host got beside it, is exactly this.
    function credited(Terms memory t, Seen memory before, uint96 expected, uint256 toHost) internal {
        Seen memory now_ = see(t);
        if (now_.credited != expected) breaks("credited another amount");
        if (now_.host != before.host + toHost) breaks("the host got another bond");
        pushed[t.token] += toHost;
    }

    /// Money that had to go back to the renter: pushed, or kept for one that refuses it.
    function returned(Terms memory t, uint256 amount) internal {
        if (t.renter == renter) pushed[t.token] += amount;
    }

    /// A voucher was taken: it must have been right, and took over what it signs for. All of a claim taken over: the bond is the host's.
    function signed(Terms memory t, Claim memory c, Seen memory before, uint256 tweak) internal {
        judge(t, c, tweak);
        bool ends = before.held != 0 && c.amount >= before.owed;
        credited(
            t, before, c.amount > before.credited ? c.amount : before.credited, ends && bonded(before) ? t.bond : 0
        );
        Seen memory now_ = see(t);
        if (now_.owed != (c.amount > before.owed ? c.amount : before.owed)) breaks("owed another amount");
        if (now_.stage != (ends ? Stage.None : before.stage)) breaks("a voucher changed the stage");
    }

    /// What a credited voucher must have been.
    function judge(Terms memory t, Claim memory c, uint256 tweak) internal {
        Ghost storage g = ghosts[market.idOf(t)];
        JobView memory v = state(t);
        if (tweak % 11 >= 7 && tweak % 11 <= 9) breaks("a wrong voucher was accepted");
        if (g.closed) breaks("a voucher on a closed job");
        if (c.amount > v.deposit) breaks("a voucher above the deposit");
        if (t.policy == 0 && c.tokens > v.proven && c.amount > g.signed && c.amount > g.decided) {
            breaks("without a proof");
        }
        if (c.amount > g.signed) g.signed = c.amount;
    }

    function closed_(Terms memory t) internal {
        Ghost storage g = ghosts[market.idOf(t)];
        if (g.closed) breaks("closed twice");
        JobView memory v = state(t);
        if (!v.closed) breaks("not closed");
        (g.closed, g.owedAtClose) = (true, v.owed);
        returned(t, v.deposit - v.owed);
    }

    function breaks(string memory what) internal {
        if (bytes(broken).length == 0) broken = what;
    }
}
