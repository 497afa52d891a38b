// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Ownable} from "@openzeppelin/contracts/access/Ownable.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {HostStake} from "../src/HostStake.sol";
import {TestBase} from "./Base.sol";
import {CallbackToken} from "./Doubles.sol";
import {AnyMarket} from "./HostStake.t.sol";

/// Who may slash, from when on, and what a token that calls back can do.
contract HostStakeMarketsTest is TestBase {
    CallbackToken internal token = new CallbackToken();
    HostStake internal stakes = new HostStake(address(this), IERC20(address(token)), address(0x7EA), 1000, 300, 200);
    address internal market = address(new AnyMarket());

    function setUp() public {
        vm.warp(1_800_000_000);
        token.mint(address(this), 1e6);
        token.approve(address(stakes), 1e6);
    }

    function refused(address caller) internal {
        vm.prank(caller);
        vm.expectRevert(HostStake.NotAMarket.selector);
        stakes.lock(address(this), uint40(block.timestamp));
        vm.prank(caller);
        vm.expectRevert(HostStake.NotAMarket.selector);
        stakes.slash(address(this), address(0xB));
    }

    function acts(address caller) internal {
        vm.prank(caller);
        stakes.lock(address(this), uint40(block.timestamp));
        vm.prank(caller);
        stakes.slash(address(this), address(0xB));
    }

    /// The first market acts at once, each later one after 15 days: a host that leaves on that day has left.
    function test_laterMarketsWait() public {
        vm.expectEmit(true, true, true, true);
        emit HostStake.MarketAnnounced(market, block.timestamp);
        stakes.announce(market);
        eq(block.timestamp, stakes.authorizedFrom(market), "at once");
        stakes.stake(10_000);
        acts(market);
        address second = address(new AnyMarket());
        address third = address(new AnyMarket());
        uint256 from = block.timestamp + 15 days;
        vm.expectEmit(true, true, true, true);
        emit HostStake.MarketAnnounced(second, from);
        stakes.announce(second);
        stakes.announce(third);
        eq(from, stakes.authorizedFrom(third), "each of them");
        (uint96 all,,,) = stakes.stakeOf(address(this));
        stakes.requestUnstake(all);
        vm.warp(from - 1);
        refused(second);
        stakes.withdraw(address(0xC));
        stakes.stake(1000);
        acts(market);
        vm.warp(from);
        acts(second);
        acts(third);
    }

    /// An address without code cannot be judged by hosts; an announcement happens once, so that nothing starts its clock again.
    function test_announcedOnceAndWithCode() public {
        vm.expectRevert(HostStake.NoCode.selector);
        stakes.announce(address(0xC0DE));
        stakes.announce(market);
        vm.warp(block.timestamp + 1 days);
        vm.expectRevert(HostStake.AlreadyAnnounced.selector);
        stakes.announce(market);
        address second = address(new AnyMarket());
        stakes.announce(second);
        vm.expectRevert(HostStake.AlreadyAnnounced.selector);
        stakes.announce(second);
    }

    function test_onlyTheOwnerAnnouncesAndEvenItCannotSlash() public {
        vm.prank(address(0xBAD));
        vm.expectRevert(abi.encodeWithSelector(Ownable.OwnableUnauthorizedAccount.selector, address(0xBAD)));
        stakes.announce(market);
        stakes.announce(market);
        stakes.stake(1000);
        refused(address(this));
        refused(address(0));
    }

    /// The token's call back into `data` while `outer` runs is refused by name.
    function reenters(address caller, bytes memory outer, bytes memory inner) internal {
        token.callWhenMoved(address(stakes), inner);
        vm.prank(caller);
        (bool success,) = address(stakes).call(outer);
        ok(success, "the outer call goes on");
        ok(!token.succeeded() && bytes4(token.seen()) == HostStake.Reentered.selector, "the inner one is refused");
    }

    function test_nothingMovesMoneyInsideACall() public {
        stakes.announce(address(token));
        stakes.stake(10_000);
        bytes[4] memory calls = [
            abi.encodeCall(stakes.stakeFor, (address(this), 1)),
            abi.encodeCall(stakes.slash, (address(this), address(0xB))),
            abi.encodeCall(stakes.withdraw, (address(0xC))),
            abi.encodeCall(stakes.collect, (address(0xC)))
        ];
        stakes.requestUnstake(500);
        vm.warp(block.timestamp + 14 days);
        address[4] memory callers = [address(this), address(token), address(this), address(0x7EA)];
        for (uint256 i; i < 4; ++i) {
            reenters(callers[i], calls[i], calls[(i + 1) % 4]); // each is once the outer, once the inner
        }
        token.callWhenMoved(address(0), "");
        (uint96 total,,,) = stakes.stakeOf(address(this));
        eq(total + stakes.owed(address(0x7EA)), token.balanceOf(address(stakes)), "whole");
    }
}
