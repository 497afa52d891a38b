// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// What a market needs of the stakes. Only an authorised market may call.
interface IHostStake {
    /// Keeps the host's stake in place until then (Unix seconds; never shortens, and never longer than unstaking takes). Reverts where less is left than one slash.
    function lock(address host, uint40 until) external;

    /// Takes a fixed amount, or what is left: `harmed` is paid first, the rest goes to the treasury.
    function slash(address host, address harmed) external returns (uint96 slashed, uint96 compensation);
}
