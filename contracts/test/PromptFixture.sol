// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {PromptBoard} from "../src/PromptBoard.sol";
import {Completion, PromptTerms, PromptView, State} from "../src/PromptTypes.sol";
import {TestUSDC} from "../src/TestUSDC.sol";
import {TestBase} from "./Base.sol";
import {MarketDouble, RegistryDouble} from "./PromptDoubles.sol";

/// A board with one renter and two hosts; the second asks half.
abstract contract PromptFixture is TestBase {
    uint256 internal constant RENTER = 0xA11CE;
    address internal constant NATIVE = address(0);
    address internal constant ASSIGNER = address(0xA551);
    address internal constant ARBITER = address(0xA3B1);
    address internal constant STRANGER = address(0x57A4);
    uint96 internal constant CEILING = 2_000_001; // odd, so that rounding shows
    uint96 internal constant PRICE = 1_234_567;
    uint32 internal constant MAX_TOKENS = 1_000;
    uint88 internal constant ESCROW = 2_000; // floor(1,000 x 2.000001)
    uint32 internal constant EXECUTE = 60;
    uint256 internal constant START = 1_800_000_000;

    address internal renter = vm.addr(RENTER);
    address internal host = address(0xB0B);
    address internal other = address(0xCA401);
    TestUSDC internal usdc;
    MarketDouble internal market;
    RegistryDouble internal registry;
    PromptBoard internal board;

    function setUp() public virtual {
        vm.chainId(31337);
        vm.warp(START);
        usdc = new TestUSDC();
        market = new MarketDouble();
        registry = new RegistryDouble();
        board = new PromptBoard(market, registry);
        vm.deal(renter, 1e30);
        usdc.mint(renter, 1e30);
        vm.prank(renter);
        usdc.approve(address(board), type(uint256).max);
        offer(NATIVE);
        offer(address(usdc));
    }

    /// Both hosts serve the model for `token`.
    function offer(address token) internal {
        registry.set(host, "model", token, PRICE);
        registry.set(other, "model", token, PRICE / 2);
    }

    function terms(address token) internal view returns (PromptTerms memory) {
        return PromptTerms({
            renter: renter,
            signer: address(0x5E55),
            token: token,
            assigner: ASSIGNER,
            arbiter: ARBITER,
            pricePerMTok: CEILING,
            bond: 77,
            maxTokens: MAX_TOKENS,
            deadline: uint40(START + 1 hours),
            executeSeconds: EXECUTE,
            challenge: 900,
            policy: 1,
            modelId: "model",
            promptCid: "prompt",
            salt: "salt"
        });
    }

    function escrowOf(PromptTerms memory t) internal pure returns (uint88) {
        return uint88(uint256(t.maxTokens) * t.pricePerMTok / 1e6);
    }

    function post(PromptTerms memory t) internal returns (bytes32) {
        uint256 value = t.token == NATIVE ? escrowOf(t) : 0;
        vm.prank(t.renter);
        return board.post{value: value}(t);
    }

    function posted(address token) internal returns (PromptTerms memory t) {
        t = terms(token);
        post(t);
    }

    function claim(PromptTerms memory t, address by) internal {
        vm.prank(by);
        board.claim(t, by);
    }

    function claimed(address token) internal returns (PromptTerms memory t) {
        t = posted(token);
        claim(t, host);
    }

    function assign(PromptTerms memory t, address by, address to) internal {
        vm.prank(by);
        board.assignJobToHost(t, to);
    }

    function answer(uint32 tokens) internal pure returns (Completion memory) {
        return Completion(tokens, "result", "hash");
    }

    function complete(PromptTerms memory t, address by, uint32 tokens) internal returns (bytes32 jobId) {
        vm.prank(by);
        jobId = board.complete(t, answer(tokens));
    }

    function cancel(PromptTerms memory t) internal {
        vm.prank(t.renter);
        board.cancel(t);
    }

    function kept(PromptTerms memory t) internal view returns (PromptView memory) {
        return board.prompts(board.idOf(t));
    }

    function stands(PromptTerms memory t, State state, address who, uint256 until, string memory what) internal view {
        PromptView memory p = kept(t);
        eq(uint256(state), uint256(p.state), string.concat(what, ": state"));
        ok(p.host == who, string.concat(what, ": host"));
        eq(until, p.until, string.concat(what, ": until"));
    }
}
