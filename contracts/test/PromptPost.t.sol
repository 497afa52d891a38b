// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Delegates} from "../src/Delegates.sol";
import {PromptBoard} from "../src/PromptBoard.sol";
import {PromptTerms, PromptView, State} from "../src/PromptTypes.sol";
import {Refunds} from "../src/Refunds.sol";
import {TestUSDC} from "../src/TestUSDC.sol";
import {CallbackToken, FeeToken} from "./Doubles.sol";
import {PromptFixture} from "./PromptFixture.sol";

contract PromptPostTest is PromptFixture {
    address private constant DELEGATE = address(0xDE1E);

    function authorization(uint256 key, PromptTerms memory t, uint256 value, uint256 validBefore)
        private
        view
        returns (bytes memory)
    {
        bytes32 kind = usdc.RECEIVE_WITH_AUTHORIZATION_TYPEHASH();
        bytes32 hash =
            keccak256(abi.encode(kind, t.renter, address(board), value, uint256(0), validBefore, board.idOf(t)));
        return sign(key, keccak256(abi.encodePacked("\x19\x01", usdc.DOMAIN_SEPARATOR(), hash)));
    }

    function refused(PromptBoard.Term which, PromptTerms memory t) private {
        vm.expectRevert(abi.encodeWithSelector(PromptBoard.BadPrompt.selector, which));
        post(t);
    }

    function budget(address token, uint96 amount) private {
        vm.prank(renter);
        board.setDelegate(DELEGATE, token, amount, uint40(START + 1 days));
    }

    /// floor(maxTokens x ceiling) is taken with the call and recorded; the event says all of the terms.
    function test_nativeEscrowIsHeld() public {
        PromptTerms memory t = terms(NATIVE);
        bytes32 id = board.idOf(t);
        vm.expectEmit(true, true, true, true);
        emit PromptBoard.PromptPosted(id, renter, "model", t, ESCROW);
        ok(post(t) == id, "id");
        PromptView memory p = board.prompts(id);
        eq(uint256(State.Posted), uint256(p.state), "state");
        eq(ESCROW, p.escrow, "escrow");
        eq(0, uint256(p.until) + p.price + uint160(p.host), "all else is zero");
        eq(ESCROW, address(board).balance, "held");
    }

    function test_tokenEscrowIsHeld() public {
        posted(address(usdc));
        eq(ESCROW, usdc.balanceOf(address(board)), "held");
        eq(1e30 - ESCROW, usdc.balanceOf(renter), "paid by the renter");
    }

    function test_idIsTheHashOfFifteenWords() public view {
        PromptTerms memory t = terms(NATIVE);
        bytes memory first = abi.encode(t.renter, t.signer, t.token, t.assigner, t.arbiter, t.pricePerMTok, t.bond);
        bytes memory second = abi.encode(t.maxTokens, t.deadline, t.executeSeconds, t.challenge, t.policy);
        bytes memory third = abi.encode(t.modelId, t.promptCid, t.salt);
        ok(board.idOf(t) == keccak256(bytes.concat(first, second, third)), "id");
    }

    /// A second encoding of the same terms must not be a second prompt.
    function test_dirtyTermsAreRefused() public {
        PromptTerms memory t = terms(NATIVE);
        for (uint256 field; field < 12; ++field) {
            bytes memory data = abi.encodeCall(board.post, (t));
            data[4 + 32 * field] = 0x01;
            vm.prank(renter);
            (bool success,) = address(board).call{value: ESCROW}(data);
            ok(!success, "dirty");
        }
        bytes memory clean = abi.encodeCall(board.post, (t));
        vm.prank(renter);
        (bool taken,) = address(board).call{value: ESCROW}(clean);
        ok(taken, "clean");
    }

    function test_onlyTheRenterPosts() public {
        PromptTerms memory t = terms(NATIVE);
        vm.deal(STRANGER, ESCROW);
        vm.prank(STRANGER);
        vm.expectRevert(PromptBoard.NotRenter.selector);
        board.post{value: ESCROW}(t);
    }

    /// More or less than the escrow is refused, and native coin beside a token too.
    function test_theValueMustBeTheEscrow() public {
        PromptTerms memory t = terms(NATIVE);
        for (uint256 value = ESCROW - 1; value <= ESCROW + 1; value += 2) {
            vm.expectRevert(abi.encodeWithSelector(PromptBoard.BadValue.selector, ESCROW, value));
            vm.prank(renter);
            board.post{value: value}(t);
        }
        vm.expectRevert(abi.encodeWithSelector(PromptBoard.BadValue.selector, 0, 1));
        vm.prank(renter);
        board.post{value: 1}(terms(address(usdc)));
    }

    function test_coinThatNobodyPostedIsRefused() public {
        vm.prank(renter);
        (bool success,) = address(board).call{value: 1}("");
        ok(!success, "no receive");
    }

    /// What the market would refuse after the work was done is refused before.
    function test_eachTermIsChecked() public {
        PromptTerms memory t = terms(NATIVE);
        t.signer = address(0);
        refused(PromptBoard.Term.Signer, t);
        t = terms(NATIVE);
        t.bond = 0;
        refused(PromptBoard.Term.Bond, t);
        t = terms(NATIVE);
        t.maxTokens = 0;
        refused(PromptBoard.Term.MaxTokens, t);
        t.maxTokens = 4097;
        refused(PromptBoard.Term.MaxTokens, t);
        t = terms(NATIVE);
        t.challenge = 899;
        refused(PromptBoard.Term.Challenge, t);
        t.challenge = 3 days + 1;
        refused(PromptBoard.Term.Challenge, t);
        t = terms(NATIVE);
        t.policy = 2;
        refused(PromptBoard.Term.Policy, t);
        t = terms(NATIVE);
        t.executeSeconds = 29;
        refused(PromptBoard.Term.ExecuteSeconds, t);
        t = terms(NATIVE);
        t.deadline = uint40(START);
        refused(PromptBoard.Term.Deadline, t);
        t.deadline = uint40(START + 30 days + 1);
        refused(PromptBoard.Term.Deadline, t);
    }

    /// The bounds themselves are allowed.
    function test_theBoundsAreAllowed() public {
        PromptTerms memory t = terms(NATIVE);
        (t.maxTokens, t.challenge, t.policy) = (4096, 3 days, 0);
        (t.executeSeconds, t.deadline) = (30, uint40(START + 30 days));
        (t.assigner, t.arbiter) = (address(0), address(0));
        post(t);
        (t.maxTokens, t.pricePerMTok, t.deadline) = (1, 1e6, uint40(START + 1));
        post(t);
    }

    /// An escrow of nothing pays no answer; one beyond 88 bits cannot be recorded.
    function test_theEscrowHasBounds() public {
        PromptTerms memory t = terms(NATIVE);
        t.pricePerMTok = 0;
        refused(PromptBoard.Term.Escrow, t);
        (t.maxTokens, t.pricePerMTok) = (999, 1_001);
        refused(PromptBoard.Term.Escrow, t);
        t.maxTokens = 1;
        t.pricePerMTok = type(uint96).max;
        post(t);
        t.maxTokens = 4000;
        vm.deal(renter, type(uint128).max);
        // 2^88 x 1e6 / 4000 = 250 x 2^88: the first price whose escrow is 2^88
        t.pricePerMTok = uint96(250 * 2 ** 88);
        refused(PromptBoard.Term.Escrow, t);
        t.pricePerMTok -= 1;
        post(t);
        eq(type(uint88).max, kept(t).escrow, "2^88 - 1 is recorded whole");
    }

    /// The same terms are posted once, also after they ended in any way.
    function test_anIdIsUsedOnce() public {
        PromptTerms memory t = posted(NATIVE);
        vm.expectRevert(PromptBoard.PromptExists.selector);
        post(t);
        cancel(t);
        vm.expectRevert(PromptBoard.PromptExists.selector);
        post(t);
        t = claimed(address(usdc));
        complete(t, host, 1);
        vm.expectRevert(PromptBoard.PromptExists.selector);
        post(t);
    }

    /// A token that keeps a part of each transfer would make the board owe what it does not have.
    function test_tokensWithAFeeAreRefused() public {
        FeeToken fee = new FeeToken();
        fee.mint(renter, 1e9);
        vm.prank(renter);
        fee.approve(address(board), type(uint256).max);
        vm.expectRevert(abi.encodeWithSelector(PromptBoard.BadValue.selector, ESCROW, ESCROW - ESCROW / 100));
        post(terms(address(fee)));
        vm.expectRevert(abi.encodeWithSelector(PromptBoard.BadValue.selector, ESCROW, ESCROW - ESCROW / 100));
        board.postWithAuthorization(terms(address(fee)), START + 1, "");
    }

    /// A token that calls back finds the door shut.
    function test_theTokenCannotReenter() public {
        CallbackToken token = new CallbackToken();
        token.mint(renter, 1e9);
        vm.prank(renter);
        token.approve(address(board), type(uint256).max);
        PromptTerms memory t = terms(address(token));
        token.callWhenMoved(address(board), abi.encodeCall(board.refund, (t)));
        post(t);
        ok(!token.succeeded() && bytes4(token.seen()) == Refunds.Reentered.selector, "shut");
    }

    /// The renter's signature over the escrow and the id is enough; a stranger pays the gas.
    function test_anyoneRelaysTheAuthorization() public {
        PromptTerms memory t = terms(address(usdc));
        bytes memory sig = authorization(RENTER, t, ESCROW, START + 60);
        vm.prank(STRANGER);
        ok(board.postWithAuthorization(t, START + 60, sig) == board.idOf(t), "id");
        eq(ESCROW, kept(t).escrow, "escrow");
        eq(ESCROW, usdc.balanceOf(address(board)), "held");
    }

    /// An authorisation for these terms fits no others.
    function test_theAuthorizationIsForTheseTerms() public {
        PromptTerms memory t = terms(address(usdc));
        bytes memory sig = authorization(RENTER, t, ESCROW, START + 60);
        t.promptCid = "another";
        vm.expectRevert(TestUSDC.SignatureInvalid.selector);
        board.postWithAuthorization(t, START + 60, sig);
        vm.expectRevert(abi.encodeWithSelector(PromptBoard.BadPrompt.selector, PromptBoard.Term.Token));
        board.postWithAuthorization(terms(NATIVE), START + 60, sig);
        t = terms(address(usdc));
        t.challenge = 1;
        vm.expectRevert(abi.encodeWithSelector(PromptBoard.BadPrompt.selector, PromptBoard.Term.Challenge));
        board.postWithAuthorization(t, START + 60, sig);
    }

    /// A delegate spends the renter's money within its budget, and what is left goes back to the renter.
    function test_aDelegatePostsWithinItsBudget() public {
        budget(address(usdc), ESCROW + 1);
        PromptTerms memory t = terms(address(usdc));
        vm.prank(DELEGATE);
        board.postAsDelegate(t);
        (uint96 left,) = board.budgetOf(renter, DELEGATE, address(usdc));
        eq(1, left, "left");
        eq(ESCROW, usdc.balanceOf(address(board)), "held");
        t.salt = "second";
        vm.expectRevert(abi.encodeWithSelector(Delegates.OverBudget.selector, 1, ESCROW));
        vm.prank(DELEGATE);
        board.postAsDelegate(t);
        t.salt = "salt";
        cancel(t);
        eq(1e30, usdc.balanceOf(renter), "back with the renter");
    }

    /// The renter's allowance to the board is nobody else's to use.
    function test_aStrangerIsNoDelegate() public {
        vm.prank(STRANGER);
        vm.expectRevert(abi.encodeWithSelector(Delegates.OverBudget.selector, 0, ESCROW));
        board.postAsDelegate(terms(address(usdc)));
    }

    function test_delegatesHaveNoNativeCoin() public {
        vm.prank(DELEGATE);
        vm.expectRevert(abi.encodeWithSelector(PromptBoard.BadPrompt.selector, PromptBoard.Term.Token));
        board.postAsDelegate(terms(NATIVE));
    }

    /// Any price and length: what is held is the floor of their product.
    function testFuzz_theEscrowIsTheFloor(uint96 price, uint32 tokens, bool native) public {
        PromptTerms memory t = terms(native ? NATIVE : address(usdc));
        t.maxTokens = uint32(bound(tokens, 1, 4096));
        t.pricePerMTok = uint96(bound(price, (1e6 - 1) / t.maxTokens + 1, 1e24));
        post(t);
        uint256 held = native ? address(board).balance : usdc.balanceOf(address(board));
        eq(uint256(t.maxTokens) * t.pricePerMTok / 1e6, held, "held");
        eq(held, kept(t).escrow, "recorded");
    }
}
