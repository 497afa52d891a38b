// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {TestUSDC} from "../src/TestUSDC.sol";
import {TestBase} from "./Base.sol";

contract TestUSDCTest is TestBase {
    uint256 private constant KEY = 0xA11CE;
    address private _from = vm.addr(KEY);
    address private _to = address(0x70);
    TestUSDC private _usdc;

    function setUp() public {
        vm.chainId(31337);
        vm.warp(1_000);
        _usdc = new TestUSDC();
        _usdc.mint(_from, 100);
    }

    function digest(bytes32 hash) internal view returns (bytes32) {
        return keccak256(abi.encodePacked("\x19\x01", _usdc.DOMAIN_SEPARATOR(), hash));
    }

    function signed(bytes32 typeHash, uint256 after_, uint256 before, bytes32 nonce)
        internal
        view
        returns (bytes memory)
    {
        return sign(KEY, digest(keccak256(abi.encode(typeHash, _from, _to, uint256(40), after_, before, nonce))));
    }

    function test_domainIsCirclesOnBase() public view {
        bytes32 domain = keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)");
        bytes32 expected =
            keccak256(abi.encode(domain, keccak256("USD Coin"), keccak256("2"), uint256(31337), address(_usdc)));
        ok(_usdc.DOMAIN_SEPARATOR() == expected, "domain");
        eq(6, _usdc.decimals(), "decimals");
        ok(keccak256(bytes(_usdc.version())) == keccak256("2"), "version");
    }

    function test_mintingIsForTheDevnetOnly() public {
        vm.chainId(8453);
        vm.expectRevert(TestUSDC.DevnetOnly.selector);
        _usdc.mint(_from, 1);
    }

    function test_signedTransfer() public {
        bytes memory sig = signed(_usdc.TRANSFER_WITH_AUTHORIZATION_TYPEHASH(), 0, 2_000, "n");
        vm.expectEmit(true, true, true, true);
        emit TestUSDC.AuthorizationUsed(_from, "n");
        _usdc.transferWithAuthorization(_from, _to, 40, 0, 2_000, "n", sig);
        eq(40, _usdc.balanceOf(_to), "moved");
        vm.expectRevert(TestUSDC.AuthorizationUsedBefore.selector);
        _usdc.transferWithAuthorization(_from, _to, 40, 0, 2_000, "n", sig);
    }

    function test_windowIsExact() public {
        bytes memory sig = signed(_usdc.TRANSFER_WITH_AUTHORIZATION_TYPEHASH(), 1_000, 1_002, "n");
        vm.expectRevert(TestUSDC.AuthorizationNotYetValid.selector);
        _usdc.transferWithAuthorization(_from, _to, 40, 1_000, 1_002, "n", sig);
        vm.warp(1_002);
        vm.expectRevert(TestUSDC.AuthorizationExpired.selector);
        _usdc.transferWithAuthorization(_from, _to, 40, 1_000, 1_002, "n", sig);
        vm.warp(1_001);
        _usdc.transferWithAuthorization(_from, _to, 40, 1_000, 1_002, "n", sig);
    }

    function test_onlyTheReceiverReceives() public {
        bytes memory sig = signed(_usdc.RECEIVE_WITH_AUTHORIZATION_TYPEHASH(), 0, 2_000, "n");
        vm.expectRevert(TestUSDC.CallerNotReceiver.selector);
        _usdc.receiveWithAuthorization(_from, _to, 40, 0, 2_000, "n", sig);
        vm.expectRevert(TestUSDC.SignatureInvalid.selector);
        _usdc.transferWithAuthorization(_from, _to, 40, 0, 2_000, "n", sig);
        vm.prank(_to);
        _usdc.receiveWithAuthorization(_from, _to, 40, 0, 2_000, "n", sig);
        eq(40, _usdc.balanceOf(_to), "moved");
    }

    function test_permit() public {
        bytes32 hash =
            keccak256(abi.encode(_usdc.PERMIT_TYPEHASH(), _from, _to, uint256(40), uint256(0), uint256(1_000)));
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(KEY, digest(hash));
        vm.warp(1_001);
        vm.expectRevert(TestUSDC.AuthorizationExpired.selector);
        _usdc.permit(_from, _to, 40, 1_000, v, r, s);
        vm.warp(1_000);
        _usdc.permit(_from, _to, 40, 1_000, v, r, s);
        eq(40, _usdc.allowance(_from, _to), "allowed");
        vm.expectRevert(TestUSDC.SignatureInvalid.selector);
        _usdc.permit(_from, _to, 40, 1_000, v, r, s);
    }
}
