// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// EIP-3009, the form that takes the signature as bytes (USDC v2.2).
interface IReceiveWithAuthorization {
    function receiveWithAuthorization(
        address from,
        address to,
        uint256 value,
        uint256 validAfter,
        uint256 validBefore,
        bytes32 nonce,
        bytes calldata sig
    ) external;
}
