// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {Money} from "./Money.sol";

/// The pull ledger: who may withdraw how much of which token, and the only ways in which money leaves the market.
abstract contract Earnings {
    using SafeERC20 for IERC20;

    /// The market's share of every credit, in basis points; fixed for this version of the contract.
    uint256 public constant FEE_BPS = Money.FEE_BPS;
    /// What a contract may spend when it is paid back in the native coin; then the money waits in the ledger instead.
    uint256 private constant REPAY_GAS = 30_000;

    address public immutable treasury;
    /// account => token => base units that `withdraw` pays.
    mapping(address account => mapping(address token => uint256)) public earnings;
    bool private transient _entered;

    /// Money could not be pushed; its owner gets it by `withdraw`.
    event RepaymentHeld(address indexed account, address indexed token, uint256 amount);
    event EarningsWithdrawn(address indexed account, address indexed token, address to, uint256 amount);

    /// A call from inside a call of this contract.
    error Reentered();
    /// Nothing is due.
    error NothingToClaim();
    /// Money must not go to nobody, nor to the market itself.
    error BadRecipient();
    /// The receiver refused the native coin.
    error TransferFailed();

    modifier nonReentrant() {
        if (_entered) revert Reentered();
        _entered = true;
        _;
        _entered = false;
    }

    constructor(address treasury_) {
        if (treasury_ == address(0) || treasury_ == address(this)) revert BadRecipient();
        treasury = treasury_;
    }

    /// Pays out all that the caller earned in `token`.
    function withdraw(address token, address to) external nonReentrant returns (uint256 amount) {
        if (to == address(0) || to == address(this)) revert BadRecipient();
        amount = earnings[msg.sender][token];
        if (amount == 0) revert NothingToClaim();
        earnings[msg.sender][token] = 0;
        emit EarningsWithdrawn(msg.sender, token, to, amount);
        if (token != address(0)) {
            IERC20(token).safeTransfer(to, amount);
        } else if (!_send(to, amount, gasleft())) {
            revert TransferFailed();
        }
    }

    function _credit(address host, address token, uint256 delta) internal {
        uint256 fee = Money.fee(delta);
        _share(host, token, delta - fee, fee);
    }

    /// What several credits come to, the fee of each one taken off.
    function _share(address host, address token, uint256 due, uint256 fees) internal {
        // slither-disable-next-line incorrect-equality -- of nothing there is nothing to write, and a fee is less than what it is of
        if (due == 0) return;
        earnings[host][token] += due;
        if (fees != 0) earnings[treasury][token] += fees;
    }

    /// Pushes money to whom it belongs; where the receiver or the token refuses, it waits in the ledger.
    function _repay(address to, address token, uint256 amount) internal {
        // slither-disable-next-line incorrect-equality -- of nothing there is nothing to push
        if (amount == 0) return;
        // slither-disable-next-line unused-return -- it decides whether the ledger keeps the money
        if (token == address(0) ? _send(to, amount, REPAY_GAS) : IERC20(token).trySafeTransfer(to, amount)) return;
        earnings[to][token] += amount;
        emit RepaymentHeld(to, token, amount);
    }

    /// Sends native coin and looks at nothing that comes back: a receiver cannot make the caller pay for copying a bomb.
    function _send(address to, uint256 amount, uint256 gasLimit) private returns (bool success) {
        assembly ("memory-safe") {
            success := call(gasLimit, to, amount, 0, 0, 0, 0)
        }
    }
}
