// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Terms} from "../src/MarketTypes.sol";
import {PromptBoard} from "../src/PromptBoard.sol";
import {PromptTerms, PromptView, State} from "../src/PromptTypes.sol";
import {Refunds} from "../src/Refunds.sol";
import {CallbackToken, Receiver} from "./Doubles.sol";
import {DollarDouble, MarketDouble} from "./PromptDoubles.sol";
import {PromptFixture} from "./PromptFixture.sol";

interface Logs {
    struct Log {
        bytes32[] topics;
        bytes data;
        address emitter;
    }

    function recordLogs() external;
    function getRecordedLogs() external returns (Log[] memory);
}

/// How a prompt ends, and where the money goes.
contract PromptEndTest is PromptFixture {
    uint32 private constant TOKENS = 700;
    uint96 private constant COST = 864; // floor(700 x 1.234567)

    function jobOf(PromptTerms memory t, address by, uint96 price, uint32 tokens) private view returns (Terms memory) {
        uint256 opener = uint256(uint160(address(board))) << 32 | type(uint32).max;
        uint256 salt = opener << 64 | uint64(uint256(board.idOf(t)));
        return Terms({
            renter: t.renter,
            signer: t.signer,
            host: by,
            token: t.token,
            arbiter: t.arbiter,
            pricePerMTok: price,
            bond: t.bond,
            expiresAt: uint40(block.timestamp + 1 days),
            challenge: t.challenge,
            exposure: tokens,
            policy: t.policy,
            modelId: t.modelId,
            salt: bytes32(salt)
        });
    }

    /// The job has the deposit that the answer costs; the renter has the rest.
    function test_anAnswerOpensItsJob() public {
        for (uint256 i; i < 2; ++i) {
            PromptTerms memory t = claimed(i == 0 ? NATIVE : address(usdc));
            vm.warp(block.timestamp + 5);
            bytes32 expected = keccak256(abi.encode(jobOf(t, host, PRICE, TOKENS)));
            uint40 expiresAt = uint40(block.timestamp + 1 days);
            vm.expectEmit(true, true, true, true);
            emit PromptBoard.PromptCompleted(board.idOf(t), expected, host, TOKENS, PRICE, "result", "hash", expiresAt);
            ok(complete(t, host, TOKENS) == expected, "job id");
            eq(COST, market.deposits(expected), "deposit");
            eq(uint256(State.Completed), uint256(kept(t).state), "state");
            eq(0, uint256(kept(t).escrow) + kept(t).until, "nothing left");
            ok(kept(t).host == host && kept(t).price == PRICE, "who answered");
        }
        eq(COST, address(market).balance, "coin in the market");
        eq(COST, usdc.balanceOf(address(market)), "dollars in the market");
        eq(1e30 - COST, renter.balance, "coin of the renter");
        eq(1e30 - COST, usdc.balanceOf(renter), "dollars of the renter");
        eq(0, address(board).balance + usdc.balanceOf(address(board)), "nothing here");
        eq(0, usdc.allowance(address(board), address(market)), "no allowance left");
    }

    /// Who saw `PromptPosted` and `PromptCompleted`, and knows the board, knows all of the job's terms.
    function test_theJobFollowsFromEvents() public {
        Logs logs = Logs(address(vm));
        logs.recordLogs();
        PromptTerms memory t = claimed(NATIVE);
        complete(t, host, TOKENS);
        Logs.Log[] memory seen = logs.getRecordedLogs();
        (PromptTerms memory told,) = abi.decode(seen[0].data, (PromptTerms, uint88));
        Logs.Log memory last = seen[seen.length - 1];
        ok(last.topics[0] == PromptBoard.PromptCompleted.selector && last.topics[1] == seen[0].topics[1], "events");
        (uint32 tokens, uint96 price,,, uint40 expiresAt) =
            abi.decode(last.data, (uint32, uint96, bytes32, bytes32, uint40));
        Terms memory job = jobOf(told, address(uint160(uint256(last.topics[3]))), price, tokens);
        job.expiresAt = expiresAt;
        uint256 opener = uint256(uint160(address(board))) << 32 | type(uint32).max;
        job.salt = bytes32(opener << 64 | uint256(seen[0].topics[1]) % 2 ** 64);
        ok(keccak256(abi.encode(job)) == last.topics[2], "the job's id");
    }

    /// Any answer at any price: deposit and refund are the escrow, to the last unit.
    function testFuzz_nothingIsLost(uint96 ceiling, uint96 price, uint32 most, uint32 tokens, bool native) public {
        PromptTerms memory t = terms(native ? NATIVE : address(usdc));
        t.maxTokens = uint32(bound(most, 1, 4096));
        t.pricePerMTok = uint96(bound(ceiling, 1e6, 1e24));
        price = uint96(bound(price, 1e6, t.pricePerMTok));
        tokens = uint32(bound(tokens, 1, t.maxTokens));
        registry.set(host, "model", t.token, price);
        post(t);
        claim(t, host);
        bytes32 jobId = complete(t, host, tokens);
        uint256 cost = uint256(tokens) * price / 1e6;
        eq(cost, market.deposits(jobId), "deposit");
        eq(1e30 - cost, native ? renter.balance : usdc.balanceOf(renter), "renter");
        eq(0, native ? address(board).balance : usdc.balanceOf(address(board)), "board");
    }

    /// A whole answer at the ceiling leaves nothing to pay back, and that is no obstacle.
    function test_theWholeEscrowIsSpent() public {
        registry.set(host, "model", NATIVE, CEILING);
        PromptTerms memory t = claimed(NATIVE);
        ok(market.deposits(complete(t, host, MAX_TOKENS)) == ESCROW, "all of it");
    }

    /// Between 1 token and the terms' most, and worth at least one base unit.
    function test_anAnswerHasItsBounds() public {
        PromptTerms memory t = claimed(NATIVE);
        vm.expectRevert(abi.encodeWithSelector(PromptBoard.TokensOutOfRange.selector, MAX_TOKENS, 0));
        complete(t, host, 0);
        vm.expectRevert(abi.encodeWithSelector(PromptBoard.TokensOutOfRange.selector, MAX_TOKENS, MAX_TOKENS + 1));
        complete(t, host, MAX_TOKENS + 1);
        registry.set(host, "model", address(usdc), 999_999);
        t = claimed(address(usdc));
        vm.expectRevert(PromptBoard.NothingToPay.selector);
        complete(t, host, 1);
        complete(t, host, 2);
    }

    /// Only the claiming host, not its delegate, and only while its claim runs.
    function test_onlyARunningClaimCompletes() public {
        PromptTerms memory t = posted(NATIVE);
        vm.expectRevert(PromptBoard.NotClaimed.selector);
        complete(t, host, 1);
        claim(t, host);
        vm.prank(host);
        board.setClaimDelegate(other, uint40(START + 1 days));
        vm.expectRevert(abi.encodeWithSelector(PromptBoard.NotHost.selector, host));
        complete(t, other, 1);
        vm.warp(START + EXECUTE);
        vm.expectRevert(PromptBoard.NotClaimed.selector);
        complete(t, host, 1);
        claim(t, host);
        vm.warp(START + 2 * EXECUTE - 1);
        complete(t, host, 1);
        vm.expectRevert(PromptBoard.NotPosted.selector);
        complete(t, host, 1);
    }

    /// Where the market refuses, nothing has happened: the claim runs on, and the deadline brings the money back.
    function test_aMarketThatRefusesCostsNothing() public {
        PromptTerms memory t = claimed(address(usdc));
        market.setShut(true);
        vm.expectRevert(abi.encodeWithSelector(MarketDouble.Refused.selector, "shut"));
        complete(t, host, TOKENS);
        stands(t, State.Claimed, host, START + EXECUTE, "still claimed");
        vm.warp(t.deadline);
        board.refund(t);
        eq(1e30, usdc.balanceOf(renter), "back");
    }

    // -- without an answer

    /// The renter cancels what nobody works on: posted, reserved, lapsed.
    function test_theRenterCancels() public {
        for (uint256 i; i < 3; ++i) {
            PromptTerms memory t = terms(NATIVE);
            t.salt = bytes32(i);
            post(t);
            if (i == 1) assign(t, renter, host);
            if (i == 2) claim(t, host);
            if (i == 2) vm.warp(START + EXECUTE);
            vm.expectEmit(true, true, true, true);
            emit PromptBoard.PromptCancelled(board.idOf(t), ESCROW);
            cancel(t);
            PromptView memory p = kept(t);
            eq(uint256(State.Cancelled), uint256(p.state), "state");
            eq(0, uint256(p.escrow) + p.until + p.price + uint160(p.host), "nothing left");
            eq(1e30, renter.balance, "back");
            vm.expectRevert(PromptBoard.NotPosted.selector);
            cancel(t);
        }
    }

    /// Not while a host works, and nobody in the renter's place.
    function test_aRunningClaimIsNotCancelled() public {
        PromptTerms memory t = claimed(NATIVE);
        vm.warp(START + EXECUTE - 1);
        vm.expectRevert(abi.encodeWithSelector(PromptBoard.AlreadyClaimed.selector, host, uint40(START + EXECUTE)));
        cancel(t);
        vm.warp(START + EXECUTE);
        vm.expectRevert(PromptBoard.NotRenter.selector);
        vm.prank(ASSIGNER);
        board.cancel(t);
    }

    /// From the deadline on anyone sends the money back, once, and to the renter.
    function test_anyoneRefundsAfterTheDeadline() public {
        PromptTerms memory t = claimed(address(usdc));
        vm.warp(t.deadline - 1);
        claim(t, host);
        vm.expectRevert(abi.encodeWithSelector(PromptBoard.TooEarly.selector, t.deadline));
        board.refund(t);
        vm.warp(t.deadline);
        vm.expectEmit(true, true, true, true);
        emit PromptBoard.PromptRefunded(board.idOf(t), ESCROW);
        vm.prank(STRANGER);
        board.refund(t);
        eq(1e30, usdc.balanceOf(renter), "back");
        eq(uint256(State.Refunded), uint256(kept(t).state), "state");
        vm.expectRevert(PromptBoard.NotPosted.selector);
        board.refund(t);
        vm.expectRevert(PromptBoard.NotPosted.selector);
        cancel(t);
    }

    function test_whatEndedIsNotRefunded() public {
        PromptTerms memory t = claimed(NATIVE);
        complete(t, host, 1);
        posted(address(usdc)); // other money lies here
        vm.warp(t.deadline);
        vm.expectRevert(PromptBoard.NotPosted.selector);
        board.refund(t);
        vm.expectRevert(PromptBoard.NotPosted.selector);
        board.refund(terms(STRANGER));
    }

    // -- refunds that cannot be pushed

    /// A listed renter does not stop the host, and gets its money where it says.
    function test_aBlockedRenterCollects() public {
        DollarDouble dollar = new DollarDouble();
        dollar.mint(renter, ESCROW);
        vm.prank(renter);
        dollar.approve(address(board), ESCROW);
        offer(address(dollar));
        PromptTerms memory t = claimed(address(dollar));
        dollar.setBlocked(renter, true);
        vm.expectEmit(true, true, true, true);
        emit Refunds.RefundHeld(renter, address(dollar), ESCROW - COST);
        complete(t, host, TOKENS);
        eq(COST, dollar.balanceOf(address(market)), "the host's part");
        eq(ESCROW - COST, board.owed(renter, address(dollar)), "owed");
        vm.expectEmit(true, true, true, true);
        emit Refunds.RefundCollected(renter, address(dollar), STRANGER, ESCROW - COST);
        vm.prank(renter);
        eq(ESCROW - COST, board.collect(address(dollar), STRANGER), "collected");
        eq(ESCROW - COST, dollar.balanceOf(STRANGER), "paid");
        vm.expectRevert(Refunds.NothingToCollect.selector);
        vm.prank(renter);
        board.collect(address(dollar), STRANGER);
    }

    function hostile(Receiver.Mood mood) private returns (Receiver receiver, PromptTerms memory t) {
        receiver = new Receiver();
        vm.deal(address(receiver), ESCROW);
        t = terms(NATIVE);
        t.renter = address(receiver);
        receiver.run(address(board), ESCROW, abi.encodeCall(board.post, (t)));
        receiver.set(mood);
    }

    /// A renter's contract that refuses, burns gas or returns a bomb waits for its money; nobody else does.
    function test_aHostileRenterOnlyHurtsItself() public {
        Receiver.Mood[3] memory moods = [Receiver.Mood.Refuses, Receiver.Mood.Burns, Receiver.Mood.Bombs];
        for (uint256 i; i < 3; ++i) {
            (Receiver receiver, PromptTerms memory t) = hostile(moods[i]);
            claim(t, host);
            vm.prank(host);
            board.complete{gas: 600_000}(t, answer(TOKENS));
            eq(ESCROW - COST, board.owed(address(receiver), NATIVE), "held");
            bytes memory data = abi.encodeCall(board.collect, (NATIVE, STRANGER));
            receiver.run(address(board), 0, data);
        }
        eq(3 * (ESCROW - COST), STRANGER.balance, "collected");
    }

    /// Paid in the middle of a call it cannot act a second time.
    function test_theRenterCannotReenter() public {
        CallbackToken token = new CallbackToken();
        token.mint(renter, ESCROW);
        vm.prank(renter);
        token.approve(address(board), ESCROW);
        PromptTerms memory t = posted(address(token));
        token.callWhenMoved(address(board), abi.encodeCall(board.collect, (address(token), STRANGER)));
        cancel(t);
        ok(!token.succeeded() && bytes4(token.seen()) == Refunds.Reentered.selector, "shut");
        eq(ESCROW, token.balanceOf(renter), "paid once");
    }

    /// Each collects its own, of that token, to somebody that takes it.
    function test_collecting() public {
        (Receiver receiver, PromptTerms memory t) = hostile(Receiver.Mood.Refuses);
        vm.warp(t.deadline);
        board.refund(t);
        eq(ESCROW, board.owed(address(receiver), NATIVE), "owed");
        vm.expectRevert(Refunds.NothingToCollect.selector);
        board.collect(NATIVE, STRANGER);
        vm.expectRevert(Refunds.NothingToCollect.selector);
        vm.prank(address(receiver));
        board.collect(address(usdc), STRANGER);
        address[2] memory bad = [address(0), address(board)];
        for (uint256 i; i < 2; ++i) {
            vm.expectRevert(Refunds.BadRecipient.selector);
            vm.prank(address(receiver));
            board.collect(NATIVE, bad[i]);
        }
        vm.expectRevert(Refunds.TransferFailed.selector);
        vm.prank(address(receiver));
        board.collect(NATIVE, address(receiver));
        eq(ESCROW, board.owed(address(receiver), NATIVE), "still owed");
    }
}
