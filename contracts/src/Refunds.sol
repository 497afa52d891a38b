// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";

/// Money on its way back: pushed where that works, kept for its owner where it does not. No receiver can stop what pays it.
abstract contract Refunds {
    using SafeERC20 for IERC20;

    /// What a renter's contract may spend when it is paid back in the native coin; then the refund waits in the ledger instead.
    uint256 private constant REFUND_GAS = 30_000;

    /// account => token => base units that `collect` pays.
    mapping(address account => mapping(address token => uint256)) public owed;
    bool private transient _entered;

    /// The refund could not be pushed; `account` gets it by `collect`.
    event RefundHeld(address indexed account, address indexed token, uint256 amount);
    event RefundCollected(address indexed account, address indexed token, address to, uint256 amount);

    /// A call from inside a call of this contract.
    error Reentered();
    /// Nothing is due.
    error NothingToCollect();
    /// Money must not go to nobody, nor to this contract itself.
    error BadRecipient();
    /// The receiver refused the native coin.
    error TransferFailed();

    modifier nonReentrant() {
        if (_entered) revert Reentered();
        _entered = true;
        _;
        _entered = false;
    }

    /// Pays out all that the caller is owed in `token`.
    function collect(address token, address to) external nonReentrant returns (uint256 amount) {
        if (to == address(0) || to == address(this)) revert BadRecipient();
        amount = owed[msg.sender][token];
        if (amount == 0) revert NothingToCollect();
        owed[msg.sender][token] = 0;
        emit RefundCollected(msg.sender, token, to, amount);
        if (token != address(0)) {
            IERC20(token).safeTransfer(to, amount);
        } else if (!_send(to, amount, gasleft())) {
            revert TransferFailed();
        }
    }

    function _refund(address to, address token, uint256 amount) internal {
        bool pushed = token == address(0) ? _send(to, amount, REFUND_GAS) : IERC20(token).trySafeTransfer(to, amount);
        if (pushed) return;
        owed[to][token] += amount;
        emit RefundHeld(to, token, amount);
    }

    /// Sends native coin and looks at nothing that comes back: a receiver cannot make the caller pay for copying a bomb.
    function _send(address to, uint256 amount, uint256 gasLimit) private returns (bool success) {
        assembly ("memory-safe") {
            success := call(gasLimit, to, amount, 0, 0, 0, 0)
        }
    }
}
