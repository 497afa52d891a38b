// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Disputes} from "./Disputes.sol";
import {JobView, Stage, Terms} from "./MarketTypes.sol";

/// An arbiter that is several verifiers: it rules in a dispute what `threshold` of its members say. Whoever names it in the terms
/// trusts that fewer than `threshold` of them lie, and that no more than `members - threshold` are silent. Fixed for ever: another
/// panel is another contract. Holds no money and gets none, whatever it rules.
contract ArbiterPanel {
    uint256 public constant MAX_MEMBERS = 64;

    /// Where it rules.
    Disputes public immutable market;
    /// So many equal votes rule.
    uint256 public immutable threshold;

    address[] private _members;
    /// Member -> its number, from 1.
    mapping(address member => uint256 number) private _numbers;
    /// Dispute -> who has voted, one bit each.
    mapping(bytes32 dispute => uint256 voters) private _voted;
    mapping(bytes32 dispute => mapping(bool forHost => uint256 votes)) private _votes;

    /// `evidence` is the hash of what the member found, in whatever form it publishes that.
    event Voted(
        bytes32 indexed jobId, address indexed member, bool forHost, bytes32 evidence, uint256 votes, uint256 threshold
    );

    /// No market, no member, a member twice, more than 64 of them, or a threshold that is no majority.
    error BadPanel();
    error NotMember();
    error AlreadyVoted();
    /// The job is in no answered dispute.
    error WrongStage(Stage stage);

    /// More than half of the members must agree, so that the two sides can never both win.
    constructor(Disputes market_, address[] memory members_, uint256 threshold_) {
        uint256 count = members_.length;
        if (address(market_).code.length == 0 || count == 0 || count > MAX_MEMBERS) revert BadPanel();
        if (threshold_ > count || threshold_ * 2 <= count) revert BadPanel();
        for (uint256 i; i < count; ++i) {
            if (members_[i] == address(0) || _numbers[members_[i]] != 0) revert BadPanel();
            _numbers[members_[i]] = i + 1;
        }
        market = market_;
        threshold = threshold_;
        _members = members_;
    }

    /// One member's verdict about the answered dispute of this job. The vote that reaches the threshold rules in the same transaction.
    function vote(Terms calldata t, bool forHost, bytes32 evidence) external {
        uint256 number = _numbers[msg.sender];
        if (number == 0) revert NotMember();
        bytes32 id = market.idOf(t);
        bytes32 dispute = _disputeOf(id);
        uint256 bit = 1 << number;
        if (_voted[dispute] & bit != 0) revert AlreadyVoted();
        _voted[dispute] |= bit;
        uint256 votes = ++_votes[dispute][forHost];
        emit Voted(id, msg.sender, forHost, evidence, votes, threshold);
        if (votes == threshold) market.rule(t, forHost);
    }

    /// Who may vote, in the order in which they were named.
    function members() external view returns (address[] memory) {
        return _members;
    }

    /// Votes for each side in the dispute that a job is in now; zeros where it is in none.
    function votesOf(bytes32 id) external view returns (uint256 forHost, uint256 forRenter) {
        JobView memory job = market.jobs(id);
        bytes32 dispute = _name(id, job);
        // slither-disable-next-line boolean-cst -- the two sides are the two keys
        return (_votes[dispute][true], _votes[dispute][false]);
    }

    /// Whether this account has voted in the dispute that a job is in now.
    function hasVoted(bytes32 id, address account) external view returns (bool) {
        return _voted[_name(id, market.jobs(id))] & (1 << _numbers[account]) != 0;
    }

    function _disputeOf(bytes32 id) private view returns (bytes32) {
        JobView memory job = market.jobs(id);
        if (job.stage != Stage.Answered) revert WrongStage(job.stage);
        return _name(id, job);
    }

    /// A job can be disputed again after another claim: then the tokens are others, or the time.
    function _name(bytes32 id, JobView memory job) private pure returns (bytes32) {
        return keccak256(abi.encode(id, job.heldTokens, job.heldUntil));
    }
}
