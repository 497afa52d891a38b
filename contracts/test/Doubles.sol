// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";
import {IProofVerifier} from "../src/IProofSystem.sol";

/// Says what it is told to say.
contract SettableVerifier is IProofVerifier {
    bytes private _answer = abi.encode(true);
    bool private _reverts;
    bool private _burns;
    uint256 private _bomb;

    function answer(bytes calldata data) external {
        (_answer, _reverts, _burns) = (data, false, false);
    }

    function refuse(bytes calldata data) external {
        (_answer, _reverts) = (data, true);
    }

    function bomb(uint256 size) external {
        _bomb = size;
    }

    function burn() external {
        _burns = true;
    }

    function verify(bytes32, bytes32, bytes32, bytes calldata) external view returns (bool) {
        bytes memory data = _answer;
        bool reverts = _reverts;
        uint256 size = _bomb;
        uint256 junk;
        while (_burns) {
            ++junk;
        }
        assembly {
            if size { revert(0, size) }
            if reverts { revert(add(data, 32), mload(data)) }
            return(add(data, 32), mload(data))
        }
    }
}

/// Keeps one part in a hundred of each transfer.
contract FeeToken is ERC20("Fee", "FEE") {
    function mint(address to, uint256 amount) external {
        _mint(to, amount);
    }

    function _update(address from, address to, uint256 amount) internal override {
        uint256 fee = from == address(0) ? 0 : amount / 100;
        if (fee != 0) super._update(from, address(0xFEE), fee);
        super._update(from, to, amount - fee);
    }

    function receiveWithAuthorization(
        address from,
        address to,
        uint256 value,
        uint256,
        uint256,
        bytes32,
        bytes calldata
    ) external {
        _transfer(from, to, value);
    }
}

/// Refuses to pay listed accounts, as USDC's blacklist does; returns nothing on success, as USDT does.
contract MoodyToken {
    mapping(address => uint256) public balanceOf;
    mapping(address => bool) public blocked;
    bool public mute;

    function mint(address to, uint256 amount) external {
        balanceOf[to] += amount;
    }

    function setBlocked(address account, bool value) external {
        blocked[account] = value;
    }

    function transfer(address to, uint256 amount) public {
        require(!blocked[to], "blocked");
        balanceOf[msg.sender] -= amount;
        balanceOf[to] += amount;
    }

    function transferFrom(address from, address to, uint256 amount) external {
        balanceOf[from] -= amount;
        balanceOf[to] += amount;
    }
}

/// A renter's contract that answers money in one of several ways.
contract Receiver {
    enum Mood {
        Takes,
        Refuses,
        Burns,
        Bombs,
        Calls
    }

    Mood public mood;
    address public target;
    bytes public data;
    bytes public seen;
    bool public succeeded;

    function set(Mood mood_) external {
        mood = mood_;
    }

    function callWhenPaid(address target_, bytes calldata data_) external {
        (mood, target, data) = (Mood.Calls, target_, data_);
    }

    function run(address to, uint256 value, bytes calldata call_) external returns (bytes memory) {
        (bool success, bytes memory result) = to.call{value: value}(call_);
        if (!success) {
            assembly {
                revert(add(result, 32), mload(result))
            }
        }
        return result;
    }

    receive() external payable {
        if (mood == Mood.Refuses) revert("no");
        if (mood == Mood.Bombs) {
            assembly {
                revert(0, 500000)
            }
        }
        uint256 junk;
        while (mood == Mood.Burns) {
            ++junk;
        }
        if (mood == Mood.Calls) {
            (succeeded, seen) = target.call(data);
        }
    }
}

/// A token that calls back into somebody when it is moved.
contract CallbackToken is ERC20("Callback", "CB") {
    address public target;
    bytes public data;
    bytes public seen;
    bool public succeeded;

    function mint(address to, uint256 amount) external {
        _mint(to, amount);
    }

    function callWhenMoved(address target_, bytes calldata data_) external {
        (target, data) = (target_, data_);
    }

    function _update(address from, address to, uint256 amount) internal override {
        super._update(from, to, amount);
        if (target != address(0)) (succeeded, seen) = target.call(data);
    }
}
