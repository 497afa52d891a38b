// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {IHostStake} from "./IHostStake.sol";
import {JobLedger} from "./JobLedger.sol";
import {Opening, Stage, Terms} from "./MarketTypes.sol";
import {Money} from "./Money.sol";
import {Transcript} from "./Transcript.sol";

/// Claims of proven tokens that the renter did not sign, and what the renter can do about them.
///
///     claimed   the renter disputes, or shows that the host contradicts itself      silence: the host is paid
///     disputed  the host opens the records between what was signed and committed    silence: the renter is right
///     answered  the arbiter of the terms rules; no arbiter: decided for the host    silence: the host is paid, the bond goes back
///
/// Each stage lasts `challenge` seconds. A job may be closed meanwhile. Who was wrong pays: the renter its bond, the host a fixed
/// slice of its stake. Decision record: docs/decisions/0005-disputes-stake-and-prompt-jobs.md.
abstract contract Disputes is JobLedger {
    using SafeERC20 for IERC20;

    /// The host's stake is locked for so many challenge windows: three stages, and one in which silence can still be settled.
    uint256 private constant LOCK_WINDOWS = 4;

    IHostStake public immutable stakes;

    event ClaimHeld(bytes32 indexed id, uint96 amount, uint32 tokens, uint40 until);
    event ClaimDisputed(bytes32 indexed id, uint40 until);
    event ClaimAnswered(bytes32 indexed id, uint40 until);
    /// The claim, or what vouchers left of it, is paid to the host.
    event ClaimPaid(bytes32 indexed id, uint96 amount);
    /// The claim is lost: its amount is the job's again, or the renter's where the job is closed.
    event ClaimLost(bytes32 indexed id, uint96 amount, uint96 slashed, uint96 compensation);
    /// A dispute's bond went to the host, or back to the renter.
    event BondPaid(bytes32 indexed id, address indexed to, uint96 bond);

    /// There is a claim already, or the host lost one in this job.
    error ClaimPending(Stage stage);
    /// The last commitment is not proven yet; a dispute could not open it.
    error ProofPending();
    /// There is no claim in the stage that this needs.
    error WrongStage(Stage stage);
    /// The stage is over.
    error TooLate(uint256 until);
    /// The stage still runs.
    error StageRuns(uint256 until);
    /// The host's statement covers what it claims.
    error NoContradiction();
    /// The records do not lead from what the renter signed to what the host committed.
    error OpeningMismatch();

    constructor(IHostStake stakes_) {
        stakes = stakes_;
    }

    /// Claims proven tokens that the renter did not sign, at most `exposure` of them beyond the best voucher. They are held back for
    /// `challenge` seconds, and the host's stake is locked as long as a dispute about them can last.
    function claimProven(Terms calldata t) external nonReentrant {
        bytes32 id = idOf(t);
        Job memory job = _jobOf(id);
        if (msg.sender != t.host) revert NotParty();
        Stage stage = _held[id].stage;
        if (stage != Stage.None) revert ClaimPending(stage);
        if (_committedAt(id) != 0) revert ProofPending();
        uint256 tokens = uint256(job.signed) + t.exposure;
        if (tokens > job.proven) tokens = job.proven;
        uint256 amount = Money.cost(tokens, t.pricePerMTok);
        if (amount > job.deposit) amount = job.deposit;
        if (amount <= job.owed) revert NothingToClaim();
        uint96 held = uint96(amount - job.owed);
        uint40 until = uint40(block.timestamp + t.challenge);
        _jobs[id].owed = uint88(amount);
        _jobs[id].claimed = true;
        _hold(id, Held(held, until, uint32(tokens), Stage.Claimed));
        emit ClaimHeld(id, held, uint32(tokens), until);
        stakes.lock(t.host, uint40(block.timestamp + LOCK_WINDOWS * t.challenge));
    }

    /// The renter objects and puts up the bond of the terms: native coin with the call, or an approved ERC-20.
    function dispute(Terms calldata t) external payable nonReentrant {
        bytes32 id = idOf(t);
        if (msg.sender != t.renter) revert NotParty();
        _advance(id, Stage.Claimed, Stage.Disputed, t.challenge);
        emit ClaimDisputed(id, _held[id].until);
        _collect(t.token, t.bond);
    }

    /// The host signed `Close` for fewer tokens than it claims: it said itself that there are no more. Anyone may show it, at any
    /// time before the claim is decided.
    function contradict(Terms calldata t, uint96 amount, uint32 tokens, bytes calldata hostSig) external nonReentrant {
        bytes32 id = idOf(t);
        Held memory held = _undecided(id);
        if (tokens >= held.tokens) revert NoContradiction();
        if (!_signed(closeDigest(id, amount, tokens), hostSig, t.host)) revert BadSignature();
        _lose(id, t, held);
    }

    /// The host shows the records between the last redeemed voucher and the proven commitment.
    function answerDispute(Terms calldata t, Opening calldata o) external nonReentrant {
        bytes32 id = idOf(t);
        if (msg.sender != t.host) revert NotParty();
        _advance(id, Stage.Disputed, Stage.Answered, t.challenge);
        _checkOpening(id, t, o);
        emit ClaimAnswered(id, _held[id].until);
        if (t.arbiter == address(0)) _win(id, t, _heldOf(id), true);
    }

    /// The arbiter decides what only running the model again can tell.
    function rule(Terms calldata t, bool forHost) external nonReentrant {
        bytes32 id = idOf(t);
        if (msg.sender != t.arbiter) revert NotParty();
        Held memory held = _heldOf(id);
        if (held.stage != Stage.Answered) revert WrongStage(held.stage);
        if (block.timestamp >= held.until) revert TooLate(held.until);
        if (forHost) _win(id, t, held, true);
        else _lose(id, t, held);
    }

    /// Once a stage is over: whoever was to act and did not has the outcome of its silence. Anyone may call.
    function settleClaim(Terms calldata t) external nonReentrant {
        bytes32 id = idOf(t);
        Held memory held = _undecided(id);
        if (block.timestamp < held.until) revert StageRuns(held.until);
        // slither-disable-next-line incorrect-equality -- a stage has no neighbourhood
        if (held.stage == Stage.Disputed) _lose(id, t, held);
        else _win(id, t, held, false);
    }

    // -- for the market

    /// What a voucher over `amount` credits, out of the claim where there is one; `bond`: whether it ended a dispute, so that the bond is
    /// the host's (`_payBond`). Changes `job`, which the caller stores.
    function _takeOver(bytes32 id, Job memory job, uint256 amount) internal returns (uint256 credit, bool bond) {
        uint256 held = job.claimed ? _held[id].amount : 0;
        uint256 owed;
        uint256 left;
        (credit, owed, left) = Money.takeOver(job.owed, held, amount);
        job.owed = uint88(owed);
        if (left != held) bond = _shrink(id, job, uint96(left));
    }

    /// Both sides agreed on a final amount: the claim is void, the bond goes back.
    function _withdrawClaim(bytes32 id, Terms calldata t, Job memory job) internal {
        Held memory held = _heldOf(id);
        job.owed -= uint88(held.amount);
        job.claimed = false;
        delete _held[id];
        if (held.stage != Stage.Claimed) _payBond(id, t.renter, t.token, t.bond);
    }

    /// Takes `amount` from the caller: native coin with the call, or an ERC-20 that must arrive in full.
    function _collect(address token, uint256 amount) internal {
        uint256 expected = token == address(0) ? amount : 0;
        if (msg.value != expected) revert BadValue(expected, msg.value);
        if (token == address(0) || amount == 0) return;
        uint256 before = IERC20(token).balanceOf(address(this));
        IERC20(token).safeTransferFrom(msg.sender, address(this), amount);
        _checkReceived(token, before, amount);
    }

    /// A token that takes a fee on transfer would leave less here than is owed to others.
    function _checkReceived(address token, uint256 before, uint256 amount) internal view {
        uint256 received = IERC20(token).balanceOf(address(this)) - before;
        if (received != amount) revert BadValue(amount, received);
    }

    // -- inside

    function _undecided(bytes32 id) private view returns (Held memory held) {
        held = _heldOf(id);
        // slither-disable-next-line incorrect-equality -- a stage has no neighbourhood
        if (held.stage == Stage.None || held.stage == Stage.Lost) revert WrongStage(held.stage);
    }

    function _advance(bytes32 id, Stage from, Stage to, uint32 window) private {
        Held memory held = _heldOf(id);
        if (held.stage != from) revert WrongStage(held.stage);
        if (block.timestamp >= held.until) revert TooLate(held.until);
        held.stage = to;
        held.until = uint40(block.timestamp + window);
        _hold(id, held);
    }

    function _checkOpening(bytes32 id, Terms calldata t, Opening calldata o) private view {
        bytes32 root = keccak256(abi.encode(o.treeRoot, o.head));
        if (_commitment[id] != _pack(0, root, o.tokens)) revert NoCommitment();
        if (o.from != _jobs[id].signed) revert OpeningMismatch();
        bytes32 head;
        if (o.from == 0) {
            head = Transcript.start(id, t);
        } else {
            uint96 amount = uint96(Money.cost(o.from, t.pricePerMTok));
            if (!_signed(voucherDigest(id, amount, o.from, o.transcript), o.voucher, t.signer)) revert BadSignature();
            head = o.transcript;
        }
        if (Transcript.extend(head, o) != o.head) revert OpeningMismatch();
    }

    /// A voucher signed for a part of the claim, or for all of it: then the dispute is over, and the host was right.
    function _shrink(bytes32 id, Job memory job, uint96 left) private returns (bool bond) {
        if (left != 0) {
            _held[id].amount = left;
            return false;
        }
        bond = _held[id].stage != Stage.Claimed;
        job.claimed = false;
        delete _held[id];
    }

    function _win(bytes32 id, Terms calldata t, Held memory held, bool bondToHost) private {
        _jobs[id].claimed = false;
        delete _held[id];
        emit ClaimPaid(id, held.amount);
        _credit(t.host, t.token, held.amount);
        if (held.stage != Stage.Claimed) _payBond(id, bondToHost ? t.host : t.renter, t.token, t.bond);
    }

    function _lose(bytes32 id, Terms calldata t, Held memory held) private {
        Job memory job = _job(id);
        job.owed -= uint88(held.amount);
        job.claimed = false;
        _store(id, job);
        _hold(id, Held(0, 0, 0, Stage.Lost));
        (uint96 slashed, uint96 compensation) = stakes.slash(t.host, t.renter);
        emit ClaimLost(id, held.amount, slashed, compensation);
        if (job.closed) _repay(t.renter, t.token, held.amount);
        if (held.stage != Stage.Claimed) _payBond(id, t.renter, t.token, t.bond);
    }

    function _payBond(bytes32 id, address to, address token, uint96 bond) internal {
        emit BondPaid(id, to, bond);
        _repay(to, token, bond);
    }
}
