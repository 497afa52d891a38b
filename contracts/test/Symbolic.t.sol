// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Money} from "../src/Money.sol";

/// The arithmetic of the market for every input: `tools/halmos.sh` proves what begins with `testFuzz_`, forge runs all as fuzz tests.
/// Each says its promise with `assert`, the only failure that halmos looks for; nothing is assumed, the arguments have the widths that
/// the contracts give them.
contract SymbolicTest {
    bool public IS_TEST = true;

    /// No sum of a price and a count that the contracts can hold overflows; a cost that fits a deposit is kept whole.
    function testFuzz_costWithinADepositFitsItsSlot(uint32 tokens, uint96 price, uint88 deposit) public pure {
        uint256 cost = Money.cost(tokens, price);
        if (cost <= deposit) assert(uint88(cost) == cost);
        else assert(cost <= type(uint128).max);
    }

    function testFuzz_feeIsAPart(uint96 amount) public pure {
        assert(Money.fee(amount) <= amount);
    }

    /// What `Earnings` gives to host and treasury is the credit, to the last unit.
    function testFuzz_feeAndShareAreTheCredit(uint96 amount) public pure {
        uint256 fee = Money.fee(amount);
        uint256 share = amount - fee;
        assert(share + fee == amount);
    }

    /// A voucher's credit out of a deposit: the host's share and the fee are the amount, and no more than the deposit.
    function testFuzz_costIsSharedWhole(uint32 tokens, uint96 price, uint88 deposit) public pure {
        uint256 cost = Money.cost(tokens, price);
        if (cost > deposit) return;
        uint256 fee = Money.fee(cost);
        assert((cost - fee) + fee == cost);
        assert(fee <= cost);
        assert(cost - fee <= deposit);
    }

    /// What is credited afterwards is the better of voucher and what was credited before: nothing is paid twice or taken back.
    function testFuzz_takeOverCreditsUpToTheVoucher(uint88 credited, uint88 held, uint96 amount) public pure {
        uint256 owed = uint256(credited) + held;
        (uint256 credit, uint256 newOwed, uint256 newHeld) = Money.takeOver(owed, held, amount);
        assert(newOwed - newHeld == uint256(credited) + credit);
        assert(newOwed - newHeld == (amount > credited ? amount : credited));
    }

    /// A claim shrinks and never grows, and what it loses is credited; what is owed never falls.
    function testFuzz_takeOverIsOutOfTheClaim(uint88 credited, uint88 held, uint96 amount) public pure {
        uint256 owed = uint256(credited) + held;
        (uint256 credit, uint256 newOwed, uint256 newHeld) = Money.takeOver(owed, held, amount);
        assert(newHeld <= held);
        assert(held - newHeld <= credit);
        assert(newOwed >= owed);
        assert(newOwed == owed || newHeld == 0);
        assert(newOwed - owed == credit - (held - newHeld));
    }

    /// Within the deposit before, within the deposit afterwards.
    function testFuzz_takeOverStaysWithinTheDeposit(uint88 deposit, uint88 owed, uint88 held, uint96 amount)
        public
        pure
    {
        if (owed > deposit || held > owed || amount > deposit) return;
        (uint256 credit, uint256 newOwed,) = Money.takeOver(owed, held, amount);
        assert(newOwed <= deposit);
        assert(credit <= deposit);
    }

    /// A voucher below what is credited moves nothing.
    function testFuzz_takeOverOfLessIsNothing(uint88 credited, uint88 held, uint88 amount) public pure {
        if (amount > credited) return;
        (uint256 credit, uint256 newOwed, uint256 newHeld) = Money.takeOver(uint256(credited) + held, held, amount);
        assert(credit == 0 && newOwed == uint256(credited) + held && newHeld == held);
    }

    // -- what a solver does not finish in a minute (divisions, multiplied back), so that only forge tries it: no `testFuzz_`

    /// Exactly the floor: rounding costs the renter nothing, and the host less than one base unit.
    function testOnly_costIsTheFloor(uint32 tokens, uint96 price) public pure {
        uint256 exact = uint256(tokens) * price;
        uint256 cost = Money.cost(tokens, price);
        assert(cost * 1e6 <= exact && exact - cost * 1e6 < 1e6);
    }

    /// Five hundredths, rounded for the host.
    function testOnly_feeIsTheFloor(uint96 amount) public pure {
        uint256 fee = Money.fee(amount);
        assert(fee * 20 <= amount && amount - fee * 20 < 20);
    }
}
