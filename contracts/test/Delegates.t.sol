// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Delegates} from "../src/Delegates.sol";
import {TestBase} from "./Base.sol";

contract Spender is Delegates {
    function spend(address renter, address token, uint96 amount) external {
        _spend(renter, token, amount);
    }
}

contract DelegatesTest is TestBase {
    address private constant RENTER = address(0xA11CE);
    address private constant DELEGATE = address(0xDE1E);
    address private constant TOKEN = address(0x70CE);
    uint40 private constant UNTIL = 1_800_000_100;

    Spender private _spender = new Spender();

    function setUp() public {
        vm.warp(UNTIL - 100);
    }

    function allow(uint96 budget, uint40 until) private {
        vm.prank(RENTER);
        _spender.setDelegate(DELEGATE, TOKEN, budget, until);
    }

    function spend(address token, uint96 amount) private {
        vm.prank(DELEGATE);
        _spender.spend(RENTER, token, amount);
    }

    function left() private view returns (uint96 budget) {
        (budget,) = _spender.budgetOf(RENTER, DELEGATE, TOKEN);
    }

    /// Each payment takes off the budget, to the last unit and not one further.
    function testFuzz_theBudgetIsSpentOnce(uint96 budget, uint96 first) public {
        budget = uint96(bound(budget, 1, type(uint96).max));
        first = uint96(bound(first, 0, budget));
        allow(budget, UNTIL);
        vm.expectEmit(true, true, true, true);
        emit Delegates.BudgetSpent(RENTER, DELEGATE, TOKEN, first, budget - first);
        spend(TOKEN, first);
        eq(budget - first, left(), "left");
        if (first != 0) {
            vm.expectRevert(abi.encodeWithSelector(Delegates.OverBudget.selector, budget - first, budget - first + 1));
            spend(TOKEN, budget - first + 1);
        }
        spend(TOKEN, budget - first);
        eq(0, left(), "all spent");
        vm.expectRevert(abi.encodeWithSelector(Delegates.OverBudget.selector, 0, 1));
        spend(TOKEN, 1);
    }

    /// A budget is good for the second before `until` and not for `until` itself.
    function test_theBudgetEnds() public {
        allow(10, UNTIL);
        vm.warp(UNTIL - 1);
        spend(TOKEN, 1);
        vm.warp(UNTIL);
        vm.expectRevert(abi.encodeWithSelector(Delegates.DelegationExpired.selector, UNTIL));
        spend(TOKEN, 1);
        eq(9, left(), "unspent");
    }

    /// A new budget replaces the old one; 0 revokes it.
    function test_theRenterReplacesTheBudget() public {
        allow(10, UNTIL);
        spend(TOKEN, 4);
        vm.expectEmit(true, true, true, true);
        emit Delegates.DelegateSet(RENTER, DELEGATE, TOKEN, 10, UNTIL + 1);
        allow(10, UNTIL + 1);
        (uint96 budget, uint40 until) = _spender.budgetOf(RENTER, DELEGATE, TOKEN);
        eq(10, budget, "not added to what was left");
        eq(UNTIL + 1, until, "until");
        allow(0, 0);
        vm.expectRevert(abi.encodeWithSelector(Delegates.OverBudget.selector, 0, 1));
        spend(TOKEN, 1);
    }

    /// A budget is for one renter, one delegate, one token.
    function test_theBudgetIsForThatDelegateAndToken() public {
        allow(10, UNTIL);
        vm.expectRevert(abi.encodeWithSelector(Delegates.OverBudget.selector, 0, 1));
        spend(address(0x70CF), 1);
        vm.expectRevert(abi.encodeWithSelector(Delegates.OverBudget.selector, 0, 1));
        _spender.spend(RENTER, TOKEN, 1);
        vm.expectRevert(abi.encodeWithSelector(Delegates.OverBudget.selector, 0, 1));
        vm.prank(DELEGATE);
        _spender.spend(address(0xA11CF), TOKEN, 1);
    }

    /// Nobody, oneself, and the native coin have no budgets.
    function test_senselessDelegatesAreRefused() public {
        vm.expectRevert(Delegates.BadDelegate.selector);
        _spender.setDelegate(address(0), TOKEN, 1, UNTIL);
        vm.expectRevert(Delegates.BadDelegate.selector);
        _spender.setDelegate(address(this), TOKEN, 1, UNTIL);
        vm.expectRevert(Delegates.BadDelegate.selector);
        _spender.setDelegate(DELEGATE, address(0), 1, UNTIL);
    }
}
