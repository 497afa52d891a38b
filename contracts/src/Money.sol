// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// The arithmetic of the market, apart from everything else so that it can be proven for all inputs (test/Symbolic.t.sol).
/// Amounts are base units of a token, prices base units for 1,000,000 tokens of a model.
library Money {
    /// The market's share of every credit, in basis points; fixed for this version of the contracts.
    uint256 internal constant FEE_BPS = 500;

    /// Floor: rounding favours the renter, and because `tokens` is cumulative it never adds up.
    function cost(uint256 tokens, uint256 price) internal pure returns (uint256) {
        return tokens * price / 1e6;
    }

    function fee(uint256 amount) internal pure returns (uint256) {
        return amount * FEE_BPS / 10_000;
    }

    /// A voucher over `amount` meets a job that owes `owed`, of which `held` waits in a claim: what it credits, what then is owed, and
    /// what of the claim is left. A voucher takes over what it signs for. Where amount <= owed - held it changes nothing.
    function takeOver(uint256 owed, uint256 held, uint256 amount)
        internal
        pure
        returns (uint256 credit, uint256 newOwed, uint256 newHeld)
    {
        uint256 credited = owed - held;
        if (amount <= credited) return (0, owed, held);
        newOwed = amount > owed ? amount : owed;
        return (amount - credited, newOwed, newOwed - amount);
    }
}
