// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Ownable} from "@openzeppelin/contracts/access/Ownable.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {HostStake} from "../src/HostStake.sol";
import {TestBase} from "./Base.sol";
import {FeeToken, MoodyToken} from "./Doubles.sol";

/// Has code, so that it can be announced; the tests speak in its name.
contract AnyMarket {}

contract HostStakeTest is TestBase {
    uint96 internal constant MINIMUM = 1000;
    uint96 internal constant SLASH = 300;
    uint96 internal constant COMPENSATION = 200;
    address internal constant TREASURY = address(0x7EA);
    address internal constant HOST = address(0xA);
    address internal constant RENTER = address(0xB);

    MoodyToken internal token = new MoodyToken();
    address internal market = address(new AnyMarket());
    HostStake internal stakes = deploy(address(token));

    function setUp() public {
        vm.warp(1_800_000_000);
        stakes.announce(market);
    }

    function deploy(address token_) internal returns (HostStake) {
        return new HostStake(address(this), IERC20(token_), TREASURY, MINIMUM, SLASH, COMPENSATION);
    }

    function staked(uint96 amount) internal {
        token.mint(HOST, amount);
        vm.prank(HOST);
        stakes.stake(amount);
    }

    function request(uint96 amount) internal {
        vm.prank(HOST);
        stakes.requestUnstake(amount);
    }

    function withdraw() internal returns (uint96) {
        vm.prank(HOST);
        return stakes.withdraw(address(0xFEED));
    }

    function lock(uint256 until) internal {
        vm.prank(market);
        stakes.lock(HOST, uint40(until));
    }

    function slash() internal returns (uint96 slashed, uint96 compensated) {
        vm.prank(market);
        return stakes.slash(HOST, RENTER);
    }

    function stateIs(uint256 total, uint256 unstaking, uint256 availableAt, uint256 lockedUntil) internal view {
        (uint96 total_, uint96 unstaking_, uint40 availableAt_, uint40 lockedUntil_) = stakes.stakeOf(HOST);
        eq(total, total_, "staked");
        eq(unstaking, unstaking_, "unstaking");
        eq(availableAt, availableAt_, "availableAt");
        eq(lockedUntil, lockedUntil_, "lockedUntil");
    }

    function tooLow(uint256 required, uint256 has) internal {
        vm.expectRevert(abi.encodeWithSelector(HostStake.StakeTooLow.selector, required, has));
    }

    function tooEarly(uint256 allowedAt) internal {
        vm.expectRevert(abi.encodeWithSelector(HostStake.TooEarly.selector, allowedAt));
    }

    // -- deployment

    function construct(address token_, address treasury, uint96 minimum, uint96 slash_, uint96 compensation) internal {
        new HostStake(address(this), IERC20(token_), treasury, minimum, slash_, compensation);
    }

    /// The amounts keep their order and nothing is nobody: otherwise there is no contract.
    function test_constructorRefusesWhatCannotWork() public {
        address t = address(token);
        vm.expectRevert(abi.encodeWithSelector(Ownable.OwnableInvalidOwner.selector, address(0)));
        new HostStake(address(0), IERC20(t), TREASURY, MINIMUM, SLASH, COMPENSATION);
        vm.expectRevert(HostStake.NoCode.selector);
        construct(address(0), TREASURY, MINIMUM, SLASH, COMPENSATION);
        vm.expectRevert(HostStake.NoCode.selector);
        construct(HOST, TREASURY, MINIMUM, SLASH, COMPENSATION);
        vm.expectRevert(HostStake.BadRecipient.selector);
        construct(t, address(0), MINIMUM, SLASH, COMPENSATION);
        vm.expectRevert(HostStake.BadAmounts.selector);
        construct(t, TREASURY, SLASH - 1, SLASH, COMPENSATION);
        vm.expectRevert(HostStake.BadAmounts.selector);
        construct(t, TREASURY, MINIMUM, SLASH, SLASH + 1);
        vm.expectRevert(HostStake.BadAmounts.selector);
        construct(t, TREASURY, MINIMUM, 0, 0);
        construct(t, TREASURY, SLASH, SLASH, SLASH);
        construct(t, TREASURY, 1, 1, 0);
    }

    // -- staking

    /// A stake counts from the minimum on; a top-up is the same call.
    function test_stakeAndTopUp() public {
        staked(MINIMUM - 1);
        ok(!stakes.isStaked(HOST), "one below the minimum");
        token.mint(HOST, 1);
        vm.expectEmit(true, true, true, true);
        emit HostStake.Staked(HOST, HOST, 1);
        vm.prank(HOST);
        stakes.stake(1);
        ok(stakes.isStaked(HOST), "at the minimum");
        stateIs(MINIMUM, 0, 0, 0);
        eq(MINIMUM, token.balanceOf(address(stakes)), "held");
    }

    /// Somebody else can pay; the stake is the host's alone.
    function test_stakeForSomebody() public {
        token.mint(RENTER, 50);
        vm.expectEmit(true, true, true, true);
        emit HostStake.Staked(HOST, RENTER, 50);
        vm.prank(RENTER);
        stakes.stakeFor(HOST, 50);
        stateIs(50, 0, 0, 0);
        eq(0, token.balanceOf(RENTER), "paid by the caller");
        vm.prank(RENTER);
        tooLow(1, 0);
        stakes.requestUnstake(1);
    }

    function test_stakeNeedsAmountAndHost() public {
        token.mint(address(this), 10);
        vm.expectRevert(HostStake.ZeroAmount.selector);
        stakes.stake(0);
        vm.expectRevert(HostStake.BadRecipient.selector);
        stakes.stakeFor(address(0), 1);
        vm.expectRevert(HostStake.BadRecipient.selector);
        stakes.stakeFor(address(stakes), 1);
    }

    /// Nobody stakes before it is known who may slash at once.
    function test_noStakeBeforeTheFirstMarket() public {
        HostStake fresh = deploy(address(token));
        token.mint(address(this), 10);
        vm.expectRevert(HostStake.NoMarketYet.selector);
        fresh.stake(10);
        fresh.announce(market);
        fresh.stake(10);
        eq(10, token.balanceOf(address(fresh)), "held");
    }

    /// What did not arrive is not staked.
    function test_tokenWithAFeeIsRefused() public {
        FeeToken fee = new FeeToken();
        HostStake other = deploy(address(fee));
        other.announce(market);
        fee.mint(address(this), 1000);
        fee.approve(address(other), 1000);
        vm.expectRevert(abi.encodeWithSelector(HostStake.BadValue.selector, 1000, 990));
        other.stake(1000);
    }

    // -- unstaking

    /// The unstaking part no longer counts as stake, but can be slashed; a second request replaces the first and its clock; 0 cancels.
    function test_requestIsReplacedAndCancelled() public {
        staked(MINIMUM + 10);
        uint256 first = block.timestamp;
        vm.expectEmit(true, true, true, true);
        emit HostStake.UnstakeRequested(HOST, 10, uint40(first + 14 days));
        request(10);
        ok(stakes.isStaked(HOST), "the minimum stays");
        vm.warp(first + 1 days);
        request(11);
        stateIs(MINIMUM + 10, 11, first + 15 days, 0);
        ok(!stakes.isStaked(HOST), "one too many leaves");
        request(0);
        stateIs(MINIMUM + 10, 0, 0, 0);
        ok(stakes.isStaked(HOST), "cancelled");
        vm.warp(first + 30 days);
        vm.expectRevert(HostStake.NothingToClaim.selector);
        withdraw();
    }

    function test_requestIsBoundByTheStake() public {
        staked(10);
        tooLow(11, 10);
        request(11);
        request(10);
        stateIs(10, 10, block.timestamp + 14 days, 0);
    }

    /// Paid at the second and not before; once.
    function test_withdrawAfterTheDelay() public {
        staked(MINIMUM);
        uint256 due = block.timestamp + 14 days;
        request(400);
        vm.warp(due - 1);
        tooEarly(due);
        withdraw();
        vm.warp(due);
        vm.expectEmit(true, true, true, true);
        emit HostStake.StakeWithdrawn(HOST, address(0xFEED), 400);
        eq(400, withdraw(), "amount");
        eq(400, token.balanceOf(address(0xFEED)), "paid");
        stateIs(MINIMUM - 400, 0, 0, 0);
        vm.expectRevert(HostStake.NothingToClaim.selector);
        withdraw();
    }

    /// A lock outlasts the delay: its last second is still locked.
    function test_withdrawAfterTheLock() public {
        staked(MINIMUM);
        request(MINIMUM);
        vm.warp(block.timestamp + 10 days);
        uint256 until = block.timestamp + 10 days;
        lock(until);
        vm.warp(until);
        tooEarly(until + 1);
        withdraw();
        vm.warp(until + 1);
        eq(MINIMUM, withdraw(), "amount");
    }

    function test_withdrawNeedsARecipient() public {
        staked(MINIMUM);
        request(1);
        vm.warp(block.timestamp + 14 days);
        vm.prank(HOST);
        vm.expectRevert(HostStake.BadRecipient.selector);
        stakes.withdraw(address(0));
        vm.prank(HOST);
        vm.expectRevert(HostStake.BadRecipient.selector);
        stakes.withdraw(address(stakes));
    }

    // -- locks

    function test_lockNeverShortens() public {
        staked(MINIMUM);
        uint256 until = block.timestamp + 5 days;
        vm.expectEmit(true, true, true, true);
        emit HostStake.StakeLocked(HOST, market, uint40(until));
        lock(until);
        lock(until - 1);
        stateIs(MINIMUM, 0, 0, until);
        lock(until + 1);
        stateIs(MINIMUM, 0, 0, until + 1);
    }

    /// A market that is wrong cannot keep a stake for ever.
    function test_lockIsNeverLongerThanUnstaking() public {
        staked(MINIMUM);
        lock(block.timestamp + 14 days);
        stateIs(MINIMUM, 0, 0, block.timestamp + 14 days);
        lock(block.timestamp + 15 days);
        lock(type(uint40).max);
        stateIs(MINIMUM, 0, 0, block.timestamp + 14 days);
    }

    /// A claim needs one slash behind it; what is unstaking is still here.
    function test_lockNeedsOneSlash() public {
        staked(SLASH - 1);
        tooLow(SLASH, SLASH - 1);
        lock(block.timestamp + 1);
        staked(1);
        request(SLASH);
        lock(block.timestamp + 1);
        stateIs(SLASH, SLASH, block.timestamp + 14 days, block.timestamp + 1);
    }

    // -- slashes

    /// The harmed party is paid first, the rest waits for the treasury.
    function test_slashTakesAFixedAmount() public {
        staked(MINIMUM);
        vm.expectEmit(true, true, true, true);
        emit HostStake.StakeSlashed(HOST, market, RENTER, SLASH, COMPENSATION);
        (uint96 slashed, uint96 compensated) = slash();
        ok(slashed == SLASH && compensated == COMPENSATION, "returned");
        stateIs(MINIMUM - SLASH, 0, 0, 0);
        eq(COMPENSATION, token.balanceOf(RENTER), "paid at once");
        eq(SLASH - COMPENSATION, stakes.owed(TREASURY), "the rest");
        ok(!stakes.isStaked(HOST), "below the minimum now");
        vm.expectEmit(true, true, true, true);
        emit HostStake.OwedCollected(TREASURY, address(0xFEED), SLASH - COMPENSATION);
        vm.prank(TREASURY);
        eq(SLASH - COMPENSATION, stakes.collect(address(0xFEED)), "collected");
        eq(SLASH - COMPENSATION, token.balanceOf(address(0xFEED)), "received");
        vm.prank(TREASURY);
        vm.expectRevert(HostStake.NothingToClaim.selector);
        stakes.collect(address(0xFEED));
    }

    /// Of a rest too small for both, the harmed party gets all up to its compensation; of nothing, nothing.
    function test_slashOfARestPaysTheHarmedFirst() public {
        staked(SLASH + 250);
        slash();
        (uint96 slashed, uint96 compensated) = slash();
        ok(slashed == 250 && compensated == COMPENSATION, "50 for the treasury");
        staked(COMPENSATION - 1);
        (slashed, compensated) = slash();
        ok(slashed == COMPENSATION - 1 && compensated == slashed, "all for the harmed");
        (slashed, compensated) = slash();
        ok(slashed == 0 && compensated == 0, "nothing left");
        eq(2 * COMPENSATION + COMPENSATION - 1, token.balanceOf(RENTER), "paid");
        eq(SLASH - COMPENSATION + 50, stakes.owed(TREASURY), "treasury");
        eq(stakes.owed(TREASURY), token.balanceOf(address(stakes)), "held");
    }

    /// A request asks for no more than a slash left, and keeps its time; what it can still get it gets.
    function test_slashShrinksTheRequest() public {
        staked(MINIMUM);
        uint256 due = block.timestamp + 14 days;
        request(MINIMUM - 100);
        slash();
        stateIs(MINIMUM - SLASH, MINIMUM - SLASH, due, 0);
        staked(50);
        vm.warp(due);
        eq(MINIMUM - SLASH, withdraw(), "what was left");
        stateIs(50, 0, 0, 0);
    }

    function test_slashLeavesASmallerRequestAlone() public {
        staked(MINIMUM);
        request(MINIMUM - SLASH);
        slash();
        stateIs(MINIMUM - SLASH, MINIMUM - SLASH, block.timestamp + 14 days, 0);
        request(10);
        slash();
        stateIs(MINIMUM - 2 * SLASH, 10, block.timestamp + 14 days, 0);
    }

    /// Who cannot be paid does not stop the decision; its money waits.
    function test_compensationWaitsWhereItIsRefused() public {
        staked(MINIMUM);
        token.setBlocked(RENTER, true);
        vm.expectEmit(true, true, true, true);
        emit HostStake.CompensationOwed(RENTER, COMPENSATION);
        (, uint96 compensated) = slash();
        eq(COMPENSATION, compensated, "due all the same");
        eq(COMPENSATION, stakes.owed(RENTER), "waits");
        vm.prank(RENTER);
        eq(COMPENSATION, stakes.collect(address(0xFEED)), "collected");
        eq(COMPENSATION, token.balanceOf(address(0xFEED)), "elsewhere");
    }

    /// Where the harmed party is nobody, or this contract, all goes to the treasury: nothing is stranded.
    function test_nobodyIsNotCompensated() public {
        staked(2 * MINIMUM);
        vm.prank(market);
        (uint96 slashed, uint96 compensated) = stakes.slash(HOST, address(0));
        ok(slashed == SLASH && compensated == 0, "nobody");
        vm.prank(market);
        (slashed, compensated) = stakes.slash(HOST, address(stakes));
        ok(slashed == SLASH && compensated == 0, "itself");
        eq(2 * SLASH, stakes.owed(TREASURY), "treasury");
    }

    function test_collectNeedsARecipient() public {
        staked(MINIMUM);
        slash();
        vm.prank(TREASURY);
        vm.expectRevert(HostStake.BadRecipient.selector);
        stakes.collect(address(0));
        vm.prank(TREASURY);
        vm.expectRevert(HostStake.BadRecipient.selector);
        stakes.collect(address(stakes));
    }

    /// For any stake and any request, the parts add up and the bounds hold.
    function testFuzz_slashAddsUp(uint96 amount, uint96 asked, uint8 times) public {
        amount = uint96(bound(amount, 1, 5000));
        asked = uint96(bound(asked, 0, amount));
        staked(amount);
        request(asked);
        uint256 left = amount;
        for (uint256 i; i < times % 8; ++i) {
            (uint96 slashed, uint96 compensated) = slash();
            eq(left < SLASH ? left : SLASH, slashed, "a slash or the rest");
            eq(slashed < COMPENSATION ? slashed : COMPENSATION, compensated, "harmed first");
            left -= slashed;
        }
        (uint96 total, uint96 unstaking,,) = stakes.stakeOf(HOST);
        eq(left, total, "left");
        eq(asked < left ? asked : left, unstaking, "request");
        eq(left + stakes.owed(TREASURY), token.balanceOf(address(stakes)), "held");
        eq(amount, left + stakes.owed(TREASURY) + token.balanceOf(RENTER), "conserved");
    }

    /// Whatever is requested and locked whenever: out exactly from the later of both times on.
    function testFuzz_leavesAtTheLaterTime(uint32 lockFor, uint32 wait) public {
        lockFor = uint32(bound(lockFor, 0, 60 days));
        wait = uint32(bound(wait, 0, 60 days));
        staked(MINIMUM);
        request(MINIMUM);
        lock(block.timestamp + lockFor);
        vm.warp(block.timestamp + wait);
        uint32 locked = lockFor < 14 days ? lockFor : 14 days;
        bool due = wait >= 14 days && wait > locked;
        vm.prank(HOST);
        (bool out,) = address(stakes).call(abi.encodeCall(stakes.withdraw, (HOST)));
        ok(out == due, "leaves when it may, not before");
    }
}
