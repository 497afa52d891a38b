// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {PromptBoard} from "../src/PromptBoard.sol";
import {PromptTerms, PromptView, State} from "../src/PromptTypes.sol";
import {Receiver} from "./Doubles.sol";
import {DollarDouble, MarketDouble} from "./PromptDoubles.sol";
import {PromptFixture} from "./PromptFixture.sol";

/// Does anything that anybody may do, at and around every bound of time and tokens, and keeps its own books.
contract PromptHandler is PromptFixture {
    struct Books {
        bool ended;
        uint256 paid; // into the market
        uint256 returned; // pushed or owed to the renter
    }

    uint256 private constant PURSE = 1e24;

    PromptTerms[] internal jobs;
    mapping(bytes32 id => Books) public books;
    mapping(address token => uint256) public escrowed;
    mapping(address token => uint256) public ended;
    mapping(address token => uint256) public collected;
    string public broken; // the first promise that did not hold
    DollarDouble public dollar = new DollarDouble();
    Receiver public moody = new Receiver();

    constructor() {
        setUp();
        offer(address(dollar));
        dollar.mint(renter, PURSE);
        vm.deal(renter, PURSE);
        vm.deal(address(moody), PURSE);
        vm.prank(renter);
        dollar.approve(address(board), PURSE);
    }

    function count() external view returns (uint256) {
        return jobs.length;
    }

    function job(uint256 i) external view returns (PromptTerms memory) {
        return jobs[i];
    }

    function theBoard() external view returns (PromptBoard, MarketDouble) {
        return (board, market);
    }

    function renters() public view returns (address[2] memory) {
        return [renter, address(moody)];
    }

    function balance(address account, address token) public view returns (uint256) {
        return token == NATIVE ? account.balance : dollar.balanceOf(account);
    }

    /// What the renters are short of in `token`: it lies in the board or in the market, or was collected to somebody else.
    function missing(address token) external view returns (uint256) {
        uint256 had = token == NATIVE ? 2 * PURSE : PURSE;
        return had - balance(renter, token) - balance(address(moody), token);
    }

    // -- what the fuzzer does

    function post(uint256 kind, uint96 price, uint32 tokens) external {
        if (jobs.length == 12) return; // few prompts, so that each sees many calls
        PromptTerms memory t = terms(kind % 2 == 0 ? NATIVE : address(dollar));
        if (t.token == NATIVE && kind % 4 < 2) t.renter = address(moody);
        t.salt = bytes32(jobs.length + 1);
        t.pricePerMTok = uint96(bound(price, PRICE - 1, 1e15));
        t.maxTokens = uint32(bound(tokens, 1, 4096));
        t.deadline = uint40(block.timestamp + (kind % 3 == 0 ? 90 : 600));
        bytes memory data = abi.encodeCall(board.post, (t));
        if (t.renter == renter) post(t);
        else moody.run(address(board), escrowOf(t), data);
        jobs.push(t);
        escrowed[t.token] += escrowOf(t);
    }

    function claim(uint256 which, uint256 who) external {
        PromptTerms memory t = one(which);
        PromptView memory was = kept(t);
        address by = who % 2 == 0 ? host : other;
        claim(t, by);
        if (block.timestamp >= t.deadline) breaks("claimed after the deadline");
        if (running(was) && (was.state == State.Claimed || was.host != by)) breaks("claimed what another has");
        if (kept(t).until > t.deadline || kept(t).until <= block.timestamp) breaks("a claim without end or beginning");
        if (kept(t).price > t.pricePerMTok) breaks("above the ceiling");
        unended(t, "claim");
    }

    function assign(uint256 which, uint256 who, uint256 to) external {
        PromptTerms memory t = one(which);
        PromptView memory was = kept(t);
        assign(t, pick(who, t), to % 2 == 0 ? host : other);
        if (running(was) && was.state == State.Claimed) breaks("assigned away from a host at work");
        if (who % 4 > 1) breaks("assigned by a stranger");
        unended(t, "assign");
    }

    function release(uint256 which, uint256 who) external {
        PromptTerms memory t = one(which);
        PromptView memory was = kept(t);
        address by = pick(who, t);
        vm.prank(by);
        board.release(t);
        if (by != was.host || was.state != State.Claimed) breaks("released by another");
        unended(t, "release");
    }

    function complete(uint256 which, uint256 who, uint32 tokens) external {
        PromptTerms memory t = one(which);
        PromptView memory was = kept(t);
        uint256 before = market.taken(t.token);
        address by = who % 4 == 3 ? pick(who / 4, t) : was.host; // most often the right one
        complete(t, by, uint32(bound(tokens, 1, t.maxTokens)));
        if (by != was.host || was.state != State.Claimed || !running(was)) breaks("completed without a claim");
        ends(t, market.taken(t.token) - before);
    }

    function cancel(uint256 which, uint256 who) external {
        if (who % 16 > 3) return; // seldom, so that prompts live
        PromptTerms memory t = one(which);
        PromptView memory was = kept(t);
        address by = who % 16 == 3 ? STRANGER : t.renter;
        vm.prank(by);
        board.cancel(t);
        if (by != t.renter) breaks("cancelled by another");
        if (running(was) && was.state == State.Claimed) breaks("cancelled while a host works");
        ends(t, 0);
    }

    function refund(uint256 which) external {
        PromptTerms memory t = one(which);
        board.refund(t);
        if (block.timestamp < t.deadline) breaks("refunded early");
        ends(t, 0);
    }

    function repost(uint256 which) external {
        PromptTerms memory t = one(which);
        if (t.renter != renter) return;
        post(t);
        breaks("posted twice");
    }

    function collect(uint256 who, bool native, bool elsewhere) external {
        address token = native ? NATIVE : address(dollar);
        address account = renters()[who % 2];
        address to = elsewhere ? address(0xFEED) : renter;
        vm.prank(account);
        uint256 amount = board.collect(token, to);
        if (elsewhere) collected[token] += amount;
    }

    function moods(uint256 mood) external {
        moody.set(mood % 2 == 0 ? Receiver.Mood.Takes : Receiver.Mood.Refuses);
        dollar.setBlocked(renter, mood / 2 % 2 == 0);
        market.setShut(mood % 16 == 15);
    }

    function warp(uint256 by) external {
        uint16[6] memory steps = [1, 15, 30, 60, 61, 600];
        vm.warp(block.timestamp + steps[by % 6]);
    }

    // -- how it chooses and judges

    /// Any prompt; seven times out of eight one that still lives, where there is one.
    function one(uint256 which) private view returns (PromptTerms memory t) {
        for (uint256 i; i < jobs.length; ++i) {
            t = jobs[(which / 8 + i) % jobs.length];
            if (which % 8 == 0 || !books[board.idOf(t)].ended) return t;
        }
        return jobs[which / 8 % jobs.length];
    }

    function pick(uint256 who, PromptTerms memory t) private view returns (address) {
        return [t.renter, ASSIGNER, host, other][who % 4];
    }

    function running(PromptView memory p) private view returns (bool) {
        return block.timestamp < p.until;
    }

    function ends(PromptTerms memory t, uint256 paid) private {
        unended(t, "end");
        books[board.idOf(t)] = Books(true, paid, escrowOf(t) - paid);
        ended[t.token] += escrowOf(t);
        if (kept(t).escrow != 0) breaks("ended with money");
    }

    function unended(PromptTerms memory t, string memory what) private {
        if (books[board.idOf(t)].ended) breaks(string.concat(what, ": of an ended prompt"));
    }

    function breaks(string memory what) private {
        if (bytes(broken).length == 0) broken = what;
    }
}

contract PromptInvariantsTest is PromptFixture {
    PromptHandler private _handler;

    function setUp() public override {
        _handler = new PromptHandler();
        (board, market) = _handler.theBoard();
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
        bytes4[15] memory all = [
            PromptHandler.post.selector,
            PromptHandler.post.selector,
            PromptHandler.claim.selector,
            PromptHandler.claim.selector,
            PromptHandler.assign.selector,
            PromptHandler.release.selector,
            PromptHandler.complete.selector,
            PromptHandler.complete.selector,
            PromptHandler.complete.selector,
            PromptHandler.cancel.selector,
            PromptHandler.refund.selector,
            PromptHandler.repost.selector,
            PromptHandler.collect.selector,
            PromptHandler.moods.selector,
            PromptHandler.warp.selector
        ];
        targets = new Selectors[](1);
        targets[0] = Selectors(address(_handler), new bytes4[](all.length));
        for (uint256 i; i < all.length; ++i) {
            targets[0].selectors[i] = all[i];
        }
    }

    function tokens() private view returns (address[2] memory) {
        return [NATIVE, address(_handler.dollar())];
    }

    /// No call did what it must not; the handler says which.
    function invariant_noPromiseBroken() public view {
        string memory broken = _handler.broken();
        ok(bytes(broken).length == 0, broken);
    }

    /// What the board holds is what it owes, to the last unit: live escrows, and all that may be collected.
    function invariant_solvent() public view {
        for (uint256 k; k < 2; ++k) {
            address token = tokens()[k];
            uint256 owing;
            for (uint256 i; i < _handler.count(); ++i) {
                if (_handler.job(i).token == token) owing += kept(_handler.job(i)).escrow;
            }
            for (uint256 i; i < 2; ++i) {
                owing += board.owed(_handler.renters()[i], token);
            }
            eq(owing, _handler.balance(address(board), token), "solvent");
        }
    }

    /// All that renters are short of lies here or in the market, or was collected; nothing is left on the way.
    function invariant_conserved() public view {
        for (uint256 k; k < 2; ++k) {
            address token = tokens()[k];
            uint256 held = _handler.balance(address(board), token);
            eq(_handler.missing(token), held + market.taken(token) + _handler.collected(token), "conserved");
            eq(market.taken(token), _handler.balance(address(market), token), "the market has what it was paid");
        }
    }

    /// Each prompt is whole while it lives, and once it ended what was paid and what went back are what was posted.
    function invariant_endedOnce() public view {
        uint256[2] memory live;
        uint256[2] memory paid;
        for (uint256 i; i < _handler.count(); ++i) {
            PromptTerms memory t = _handler.job(i);
            (bool ended, uint256 cost, uint256 returned) = _handler.books(board.idOf(t));
            eq(ended ? 0 : escrowOf(t), kept(t).escrow, "escrow");
            ok(ended == (kept(t).state > State.Claimed), "ended stays ended");
            if (ended) eq(escrowOf(t), cost + returned, "completed + refunded == posted");
            uint256 k = t.token == NATIVE ? 0 : 1;
            live[k] += kept(t).escrow;
            paid[k] += cost;
        }
        for (uint256 k; k < 2; ++k) {
            address token = tokens()[k];
            eq(_handler.escrowed(token), _handler.ended(token) + live[k], "posted == ended + live");
            eq(market.taken(token), paid[k], "the market took what answers cost");
        }
    }
}
