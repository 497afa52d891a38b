// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// Who may spend a renter's ERC-20 for it, how much of which token, and until when. A budget is a ceiling over the allowance that
/// the renter gave this contract: nothing is deposited here. The native coin cannot be pulled from anybody, so it has no budgets.
abstract contract Delegates {
    /// One slot. `until`: Unix seconds from which nothing can be spent.
    struct Budget {
        uint96 left;
        uint40 until;
    }

    mapping(address renter => mapping(address delegate => mapping(address token => Budget))) private _budgets;

    event DelegateSet(
        address indexed renter, address indexed delegate, address indexed token, uint96 budget, uint40 until
    );
    event BudgetSpent(
        address indexed renter, address indexed delegate, address indexed token, uint96 amount, uint96 left
    );

    /// Nobody, the caller itself, or a budget in the native coin.
    error BadDelegate();
    /// The delegate may not spend as much (0 left where the renter never named it).
    error OverBudget(uint96 left, uint96 amount);
    /// The budget is not spent, but its time is over.
    error DelegationExpired(uint40 until);

    /// Lets `delegate` spend up to `budget` of the caller's `token` from now on, whatever it was allowed or spent before.
    /// 0 takes the permission back.
    function setDelegate(address delegate, address token, uint96 budget, uint40 until) external {
        if (delegate == address(0) || delegate == msg.sender || token == address(0)) revert BadDelegate();
        _budgets[msg.sender][delegate][token] = Budget(budget, until);
        emit DelegateSet(msg.sender, delegate, token, budget, until);
    }

    /// What was granted and not spent; worth nothing from `until` on.
    function budgetOf(address renter, address delegate, address token) public view returns (uint96 left, uint40 until) {
        Budget storage budget = _budgets[renter][delegate][token];
        return (budget.left, budget.until);
    }

    /// Takes `amount` off what the caller may spend for `renter`.
    function _spend(address renter, address token, uint96 amount) internal {
        Budget storage budget = _budgets[renter][msg.sender][token];
        (uint96 left, uint40 until) = (budget.left, budget.until);
        if (left < amount) revert OverBudget(left, amount);
        if (block.timestamp >= until) revert DelegationExpired(until);
        left -= amount;
        budget.left = left;
        emit BudgetSpent(renter, msg.sender, token, amount, left);
    }
}
