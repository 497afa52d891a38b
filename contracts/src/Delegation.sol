// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {Delegates} from "./Delegates.sol";
import {JobMarketplace} from "./JobMarketplace.sol";
import {Terms} from "./MarketTypes.sol";

/// Lets a renter's delegates open and top up jobs in its name, each within a budget (`setDelegate`) and within what the renter let
/// this contract take. The money goes from the renter straight into the market; refunds go to the renter. ERC-20 only. Apart from
/// the market so that neither has to be trusted by the other: the market takes from it what it takes from any payer.
contract Delegation is Delegates {
    using SafeERC20 for IERC20;

    JobMarketplace public immutable market;

    constructor(JobMarketplace market_) {
        market = market_;
    }

    /// Opens a job for `t.renter`. The salt must name this contract as the opener: its address, 0xffffffff, eight more bytes.
    function openJob(Terms calldata t, uint96 deposit) external returns (bytes32 id) {
        _pull(t, deposit);
        return market.open(t, deposit);
    }

    function topUpJob(Terms calldata t, uint96 amount) external {
        _pull(t, amount);
        market.topUp(t, amount);
    }

    /// Nothing stays here between calls: what the renter pays is what the market takes, or all of it reverts.
    function _pull(Terms calldata t, uint96 amount) private {
        _spend(t.renter, t.token, amount);
        // slither-disable-next-line arbitrary-send-erc20 -- the renter set the caller's budget, and `_spend` has checked it
        IERC20(t.token).safeTransferFrom(t.renter, address(this), amount);
        IERC20(t.token).forceApprove(address(market), amount);
    }
}
