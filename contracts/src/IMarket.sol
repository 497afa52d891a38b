// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Terms} from "./MarketTypes.sol";

/// What a contract that opens jobs for renters needs of the market.
interface IMarket {
    /// Takes `deposit` from the caller: native coin with the call, an approved ERC-20 otherwise. The caller is who the
    /// salt says: its address, 0xffffffff, and eight more bytes.
    function open(Terms calldata t, uint96 deposit) external payable returns (bytes32 id);
}

/// What it needs to know of hosts.
interface IHostRegistry {
    function isActive(address account) external view returns (bool);

    /// Base units of `token` for 1,000,000 tokens; 0 where the host does not offer the model for that token.
    function priceOf(address account, bytes32 modelId, address token) external view returns (uint96);
}
