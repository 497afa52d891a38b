// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {IHostRegistry, IMarket} from "../src/IMarket.sol";
import {Terms} from "../src/MarketTypes.sol";

/// A market that refuses what the real one refuses, takes the deposit, and does nothing further with it.
contract MarketDouble is IMarket {
    using SafeERC20 for IERC20;

    mapping(bytes32 id => uint96) public deposits;
    mapping(address token => uint256) public taken;
    bool public shut;

    error Refused(string why);

    function setShut(bool value) external {
        shut = value;
    }

    function open(Terms calldata t, uint96 deposit) external payable returns (bytes32 id) {
        refuseIf(shut, "shut");
        refuseIf(
            uint32(uint256(t.salt) >> 64) != type(uint32).max || msg.sender != address(bytes20(t.salt)), "stranger"
        );
        refuseIf(deposit == 0 || deposit > type(uint88).max, "deposit");
        refuseIf(t.pricePerMTok == 0, "price");
        refuseIf(t.host == address(0), "host");
        refuseIf(t.signer == address(0), "signer");
        refuseIf(t.expiresAt <= block.timestamp, "expiry");
        refuseIf(t.challenge < 900 || t.challenge > 3 days, "challenge");
        refuseIf(t.exposure == 0 || t.exposure > 4096, "exposure");
        refuseIf(t.policy > 1, "policy");
        refuseIf(t.bond == 0, "bond");
        id = keccak256(abi.encode(t));
        refuseIf(deposits[id] != 0, "exists");
        deposits[id] = deposit;
        taken[t.token] += deposit;
        refuseIf(msg.value != (t.token == address(0) ? deposit : 0), "value");
        if (t.token != address(0)) IERC20(t.token).safeTransferFrom(msg.sender, address(this), deposit);
    }

    function refuseIf(bool condition, string memory why) private pure {
        if (condition) revert Refused(why);
    }
}

/// Says of hosts what it is told to say.
contract RegistryDouble is IHostRegistry {
    mapping(address account => bool) public isActive;
    mapping(address account => mapping(bytes32 modelId => mapping(address token => uint96))) public priceOf;

    function set(address account, bytes32 modelId, address token, uint96 price) external {
        isActive[account] = true;
        priceOf[account][modelId][token] = price;
    }

    function setActive(address account, bool value) external {
        isActive[account] = value;
    }
}

/// As USDT where that hurts: returns nothing, lets no allowance be replaced that is not spent. As USDC where that hurts: pays no
/// listed account.
contract DollarDouble {
    mapping(address => uint256) public balanceOf;
    mapping(address => mapping(address => uint256)) public allowance;
    mapping(address => bool) public blocked;

    function mint(address to, uint256 amount) external {
        balanceOf[to] += amount;
    }

    function setBlocked(address account, bool value) external {
        blocked[account] = value;
    }

    function approve(address spender, uint256 amount) external {
        require(amount == 0 || allowance[msg.sender][spender] == 0, "replaced");
        allowance[msg.sender][spender] = amount;
    }

    function transfer(address to, uint256 amount) external {
        _move(msg.sender, to, amount);
    }

    function transferFrom(address from, address to, uint256 amount) external {
        allowance[from][msg.sender] -= amount;
        _move(from, to, amount);
    }

    function _move(address from, address to, uint256 amount) private {
        require(!blocked[to] && !blocked[from], "blocked");
        balanceOf[from] -= amount;
        balanceOf[to] += amount;
    }
}
