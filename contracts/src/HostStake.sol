// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Ownable, Ownable2Step} from "@openzeppelin/contracts/access/Ownable2Step.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {IHostStake} from "./IHostStake.sol";

/// What hosts have to lose, in one token. Outlives markets and registries; nobody can change it, pause it or move a stake, except a
/// market that was announced: it may hold a stake in place and take a fixed slice of it. The owner can announce markets, each 15 days
/// before it may act; unstaking takes 14, so a host that does not trust a market is gone before.
///
/// What the contract holds is the sum of all stakes and of all that is `owed`. Tokens that were merely sent here belong to nobody.
contract HostStake is IHostStake, Ownable2Step {
    using SafeERC20 for IERC20;

    /// Money and lock share a slot: what a market touches is there. `availableAt` matters to `withdraw` alone.
    struct Stake {
        uint96 staked; // the unstaking part included: it can be slashed until it is withdrawn
        uint96 unstaking; // never more than `staked`
        uint40 lockedUntil; // Unix seconds; the last second of the lock
        uint40 availableAt; // Unix seconds; 0 while nothing is requested
    }

    /// Longer than the longest dispute that a market allows.
    uint256 public constant UNSTAKE_DELAY = 14 days;
    /// Longer than it takes to leave.
    uint256 public constant MARKET_DELAY = 15 days;

    IERC20 public immutable token;
    address public immutable treasury;
    /// Base units that a host must have staked, and not be unstaking, to be listed.
    uint96 public immutable minimum;
    /// Base units that one slash takes.
    uint96 public immutable slashAmount;
    /// The part of a slash that the harmed party gets first.
    uint96 public immutable compensation;

    /// Base units that `collect` pays: the treasury's share of slashes, and compensation that could not be delivered.
    mapping(address account => uint256) public owed;
    /// Unix seconds from which the market may lock and slash, for ever; 0 where it was never announced.
    mapping(address market => uint256) public authorizedFrom;
    mapping(address host => Stake) private _stakes;
    bool private _open; // the first market was announced
    bool private transient _entered;

    event Staked(address indexed host, address indexed payer, uint96 amount);
    event UnstakeRequested(address indexed host, uint96 amount, uint40 availableAt);
    event StakeWithdrawn(address indexed host, address to, uint96 amount);
    event StakeLocked(address indexed host, address indexed market, uint40 until);
    event StakeSlashed(
        address indexed host, address indexed market, address indexed harmed, uint96 slashed, uint96 compensation
    );
    event CompensationOwed(address indexed harmed, uint96 amount);
    event OwedCollected(address indexed account, address to, uint256 amount);
    event MarketAnnounced(address indexed market, uint256 authorizedFrom);

    /// A call from inside a call of this contract.
    error Reentered();
    /// Needed: 0 < slash, compensation <= slash <= minimum.
    error BadAmounts();
    /// Money must not go to nobody, nor to this contract itself.
    error BadRecipient();
    /// There is no contract at the address.
    error NoCode();
    /// A stake of nothing.
    error ZeroAmount();
    /// The token took a fee, or did not deliver.
    error BadValue(uint256 expected, uint256 received);
    /// Nobody stakes before the first market is known, because that one may act at once.
    error NoMarketYet();
    /// The host has less than this needs.
    error StakeTooLow(uint256 required, uint256 staked);
    /// Nothing is due, or no unstaking was requested.
    error NothingToClaim();
    /// The stake can leave from `allowedAt` on, not before.
    error TooEarly(uint256 allowedAt);
    /// The caller may neither lock nor slash, or not yet.
    error NotAMarket();
    /// The market was announced before; its time stays as it is.
    error AlreadyAnnounced();

    modifier nonReentrant() {
        if (_entered) revert Reentered();
        _entered = true;
        _;
        _entered = false;
    }

    modifier onlyMarket() {
        uint256 from = authorizedFrom[msg.sender];
        // slither-disable-next-line incorrect-equality -- 0 is who was never announced
        if (from == 0 || block.timestamp < from) revert NotAMarket();
        _;
    }

    constructor(
        address owner,
        IERC20 token_,
        address treasury_,
        uint96 minimum_,
        uint96 slashAmount_,
        uint96 compensation_
    ) Ownable(owner) {
        if (address(token_).code.length == 0) revert NoCode();
        if (treasury_ == address(0) || treasury_ == address(this)) revert BadRecipient();
        if (slashAmount_ == 0 || compensation_ > slashAmount_ || slashAmount_ > minimum_) revert BadAmounts();
        (token, treasury) = (token_, treasury_);
        (minimum, slashAmount, compensation) = (minimum_, slashAmount_, compensation_);
    }

    // -- the host

    /// Adds to the caller's own stake.
    function stake(uint96 amount) external {
        stakeFor(msg.sender, amount);
    }

    /// Adds to the stake of `host`, which alone can take it back. An unstaking under way goes on as it was.
    function stakeFor(address host, uint96 amount) public nonReentrant {
        if (!_open) revert NoMarketYet();
        if (host == address(0) || host == address(this)) revert BadRecipient();
        if (amount == 0) revert ZeroAmount();
        _stakes[host].staked += amount;
        emit Staked(host, msg.sender, amount);
        uint256 before = token.balanceOf(address(this));
        token.safeTransferFrom(msg.sender, address(this), amount);
        uint256 received = token.balanceOf(address(this)) - before;
        if (received != amount) revert BadValue(amount, received);
    }

    /// Asks for `amount` back, in place of all that was asked before: the delay begins anew. 0 takes the request back.
    function requestUnstake(uint96 amount) external {
        Stake storage s = _stakes[msg.sender];
        if (amount > s.staked) revert StakeTooLow(amount, s.staked);
        s.unstaking = amount;
        s.availableAt = amount == 0 ? 0 : uint40(block.timestamp + UNSTAKE_DELAY);
        emit UnstakeRequested(msg.sender, amount, s.availableAt);
    }

    /// Pays out what was requested and not slashed since, after the delay and after every lock.
    function withdraw(address to) external nonReentrant returns (uint96 amount) {
        if (to == address(0) || to == address(this)) revert BadRecipient();
        Stake storage s = _stakes[msg.sender];
        amount = s.unstaking;
        if (amount == 0) revert NothingToClaim();
        uint256 unlockedAt = uint256(s.lockedUntil) + 1;
        uint256 allowedAt = s.availableAt > unlockedAt ? s.availableAt : unlockedAt;
        if (block.timestamp < allowedAt) revert TooEarly(allowedAt);
        s.staked -= amount;
        s.unstaking = 0;
        s.availableAt = 0;
        emit StakeWithdrawn(msg.sender, to, amount);
        token.safeTransfer(to, amount);
    }

    // -- the markets

    /// @inheritdoc IHostStake
    function lock(address host, uint40 until) external onlyMarket {
        Stake storage s = _stakes[host];
        if (s.staked < slashAmount) revert StakeTooLow(slashAmount, s.staked);
        if (until > block.timestamp + UNSTAKE_DELAY) until = uint40(block.timestamp + UNSTAKE_DELAY);
        if (until <= s.lockedUntil) return;
        s.lockedUntil = until;
        emit StakeLocked(host, msg.sender, until);
    }

    /// @inheritdoc IHostStake
    function slash(address host, address harmed)
        external
        onlyMarket
        nonReentrant
        returns (uint96 slashed, uint96 compensated)
    {
        Stake storage s = _stakes[host];
        uint96 staked = s.staked;
        slashed = staked < slashAmount ? staked : slashAmount;
        compensated = slashed < compensation ? slashed : compensation;
        if (harmed == address(0) || harmed == address(this)) compensated = 0;
        staked -= slashed;
        s.staked = staked;
        if (s.unstaking > staked) s.unstaking = staked;
        owed[treasury] += slashed - compensated;
        emit StakeSlashed(host, msg.sender, harmed, slashed, compensated);
        _compensate(harmed, compensated);
    }

    /// Where the receiver or the token refuses, the money waits in the ledger: nobody can stop a dispute from being decided.
    function _compensate(address harmed, uint96 amount) private {
        if (amount == 0 || token.trySafeTransfer(harmed, amount)) return;
        owed[harmed] += amount;
        emit CompensationOwed(harmed, amount);
    }

    // -- the ledger

    /// Pays out all that is owed to the caller.
    function collect(address to) external nonReentrant returns (uint256 amount) {
        if (to == address(0) || to == address(this)) revert BadRecipient();
        amount = owed[msg.sender];
        if (amount == 0) revert NothingToClaim();
        owed[msg.sender] = 0;
        emit OwedCollected(msg.sender, to, amount);
        token.safeTransfer(to, amount);
    }

    // -- the owner

    /// Lets `market` lock and slash: the first one at once, since nobody has staked yet; every other one after MARKET_DELAY, in which
    /// hosts can read its code and leave. Cannot be taken back, so that no market can be stripped of the stakes behind its claims.
    function announce(address market) external onlyOwner {
        if (market.code.length == 0) revert NoCode();
        if (authorizedFrom[market] != 0) revert AlreadyAnnounced();
        uint256 from = _open ? block.timestamp + MARKET_DELAY : block.timestamp;
        _open = true;
        authorizedFrom[market] = from;
        emit MarketAnnounced(market, from);
    }

    // -- views

    function stakeOf(address host)
        external
        view
        returns (uint96 staked, uint96 unstaking, uint40 availableAt, uint40 lockedUntil)
    {
        Stake storage s = _stakes[host];
        return (s.staked, s.unstaking, s.availableAt, s.lockedUntil);
    }

    /// Whether the host has the minimum, without the part that is about to leave.
    function isStaked(address host) external view returns (bool) {
        Stake storage s = _stakes[host];
        return s.staked - s.unstaking >= minimum;
    }
}
