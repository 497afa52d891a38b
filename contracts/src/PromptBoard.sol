// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {Delegates} from "./Delegates.sol";
import {IHostRegistry, IMarket} from "./IMarket.sol";
import {IReceiveWithAuthorization} from "./IReceiveWithAuthorization.sol";
import {Terms} from "./MarketTypes.sol";
import {Completion, PromptTerms, PromptView, State} from "./PromptTypes.sol";
import {Refunds} from "./Refunds.sol";

/// Prompts whose renter does not wait for the answer. Immutable: nobody can change it, pause it or take from it.
///
/// The board holds the most that an answer may cost until a host has one. Then it opens a job in the market for exactly what the answer
/// costs, pays the rest back, and is done: proof, claim, dispute and payment are the market's. It never judges an answer and never
/// pays a host. What fails before `complete` costs nobody anything; at the deadline, at the latest, the renter has all of it back.
contract PromptBoard is Refunds, Delegates {
    using SafeERC20 for IERC20;

    /// Two slots. state == None: never posted. An ended prompt keeps its state, so that its id cannot be used again.
    struct Prompt {
        State state;
        uint88 escrow;
        address host;
        uint96 price;
        uint40 until;
    }

    /// Which of the terms `BadPrompt` complains about.
    enum Term {
        Escrow,
        Signer,
        Token,
        Bond,
        MaxTokens,
        Deadline,
        ExecuteSeconds,
        Challenge,
        Policy
    }

    /// The market's bounds: a prompt that no job could follow is not posted.
    uint256 public constant MIN_CHALLENGE = 900;
    uint256 public constant MAX_CHALLENGE = 3 days;
    uint256 public constant MAX_TOKENS = 4096;
    uint256 private constant MAX_POLICY = 1;
    uint256 public constant MAX_DURATION = 30 days;
    uint256 public constant MIN_EXECUTE_SECONDS = 30;
    /// How long the host has in the market to prove the answer and to claim.
    uint256 public constant SETTLE_SECONDS = 1 days;

    IMarket public immutable market;
    IHostRegistry public immutable registry;
    mapping(bytes32 id => Prompt) private _prompts;
    /// host => delegate => Unix seconds from which the delegate may no longer claim for it.
    mapping(address host => mapping(address delegate => uint40)) public claimDelegates;

    event PromptPosted(
        bytes32 indexed id, address indexed renter, bytes32 indexed modelId, PromptTerms terms, uint88 escrow
    );
    event PromptAssigned(bytes32 indexed id, address indexed host, uint40 until);
    event PromptClaimed(bytes32 indexed id, address indexed host, uint96 price, uint40 until);
    event PromptReleased(bytes32 indexed id, address indexed host);
    /// With `PromptPosted`, all of the job's terms: `exposure` is `tokens`, the salt is `saltOf(id)`.
    event PromptCompleted(
        bytes32 indexed id,
        bytes32 indexed jobId,
        address indexed host,
        uint32 tokens,
        uint96 price,
        bytes32 resultCid,
        bytes32 resultHash,
        uint40 expiresAt
    );
    event PromptCancelled(bytes32 indexed id, uint88 refund);
    event PromptRefunded(bytes32 indexed id, uint88 refund);
    event ClaimDelegateSet(address indexed host, address indexed delegate, uint40 until);

    /// A term that no prompt may have.
    error BadPrompt(Term which);
    /// Another sum arrived than the escrow: wrong value with the call, or a token that keeps a part of each transfer.
    error BadValue(uint256 expected, uint256 received);
    /// These terms were used before; another salt makes another prompt.
    error PromptExists();
    /// There is no such prompt, or it has ended.
    error NotPosted();
    /// The deadline of the prompt has passed.
    error PastDeadline();
    /// The deadline of the prompt has not passed.
    error TooEarly(uint256 refundableAt);
    /// The caller is not the renter of these terms.
    error NotRenter();
    /// The caller is neither the renter nor the assigner of these terms.
    error NotAssigner();
    /// The caller is not that host; where a delegate may act, no delegate of it either.
    error NotHost(address host);
    /// That host has claimed the prompt, and its time runs.
    error AlreadyClaimed(address host, uint40 until);
    /// The prompt is reserved for that host, and the time runs.
    error Reserved(address host);
    /// The caller's host has no claim on the prompt, or its time is over.
    error NotClaimed();
    /// The registry does not know the host.
    error HostNotActive(address host);
    /// The host does not offer the model for that token.
    error ModelNotOffered(address host);
    /// The host asks for more than the renter pays.
    error PriceAboveCeiling(uint96 ceiling, uint96 price);
    /// Who would judge the answer must not give it.
    error HostIsArbiter();
    /// No answer has 0 tokens, and none more than the terms allow.
    error TokensOutOfRange(uint32 maxTokens, uint32 tokens);
    /// So few tokens at that price are worth less than one base unit; the market opens no empty job.
    error NothingToPay();
    /// Not one host for each prompt.
    error LengthMismatch();

    constructor(IMarket market_, IHostRegistry registry_) {
        market = market_;
        registry = registry_;
    }

    // -- posting

    /// The renter deposits the escrow: native coin (with the call) or an approved ERC-20.
    function post(PromptTerms calldata t) external payable nonReentrant returns (bytes32 id) {
        if (msg.sender != t.renter) revert NotRenter();
        uint88 escrow;
        (id, escrow) = _post(t);
        uint256 expected = t.token == address(0) ? escrow : 0;
        if (msg.value != expected) revert BadValue(expected, msg.value);
        if (t.token != address(0)) _pull(t, escrow);
    }

    /// Posts with a transfer of the escrow that the renter signed (EIP-3009); anyone may pay the gas. The authorisation's nonce is the
    /// prompt's id, so that it fits these terms and no others.
    function postWithAuthorization(PromptTerms calldata t, uint256 validBefore, bytes calldata sig)
        external
        nonReentrant
        returns (bytes32 id)
    {
        if (t.token == address(0)) revert BadPrompt(Term.Token);
        uint88 escrow;
        (id, escrow) = _post(t);
        uint256 before = IERC20(t.token).balanceOf(address(this));
        IReceiveWithAuthorization(t.token)
            .receiveWithAuthorization(t.renter, address(this), escrow, 0, validBefore, id, sig);
        _checkReceived(t.token, before, escrow);
    }

    /// Posts for a renter that gave the caller a budget (`setDelegate`) and this contract an allowance.
    function postAsDelegate(PromptTerms calldata t) external nonReentrant returns (bytes32 id) {
        if (t.token == address(0)) revert BadPrompt(Term.Token);
        uint88 escrow;
        (id, escrow) = _post(t);
        _spend(t.renter, t.token, escrow);
        _pull(t, escrow);
    }

    function _post(PromptTerms calldata t) private returns (bytes32 id, uint88 escrow) {
        _checkTerms(t);
        uint256 most = _cost(t.maxTokens, t.pricePerMTok);
        if (most == 0 || most > type(uint88).max) revert BadPrompt(Term.Escrow);
        // forge-lint: disable-next-line(unsafe-typecast) -- compared just above
        escrow = uint88(most);
        id = idOf(t);
        Prompt storage p = _prompts[id];
        if (p.state != State.None) revert PromptExists();
        (p.state, p.escrow) = (State.Posted, escrow);
        emit PromptPosted(id, t.renter, t.modelId, t, escrow);
    }

    function _checkTerms(PromptTerms calldata t) private view {
        if (t.signer == address(0)) revert BadPrompt(Term.Signer);
        if (t.bond == 0) revert BadPrompt(Term.Bond);
        if (t.maxTokens == 0 || t.maxTokens > MAX_TOKENS) revert BadPrompt(Term.MaxTokens);
        if (t.deadline <= block.timestamp || t.deadline > block.timestamp + MAX_DURATION) {
            revert BadPrompt(Term.Deadline);
        }
        if (t.executeSeconds < MIN_EXECUTE_SECONDS) revert BadPrompt(Term.ExecuteSeconds);
        if (t.challenge < MIN_CHALLENGE || t.challenge > MAX_CHALLENGE) revert BadPrompt(Term.Challenge);
        if (t.policy > MAX_POLICY) revert BadPrompt(Term.Policy);
    }

    function _pull(PromptTerms calldata t, uint88 escrow) private {
        uint256 before = IERC20(t.token).balanceOf(address(this));
        // slither-disable-next-line arbitrary-send-erc20 -- the renter calls, or gave the caller the budget just spent
        IERC20(t.token).safeTransferFrom(t.renter, address(this), escrow);
        _checkReceived(t.token, before, escrow);
    }

    /// A token that takes a fee on transfer would leave less here than is owed to others.
    function _checkReceived(address token, uint256 before, uint256 escrow) private view {
        uint256 received = IERC20(token).balanceOf(address(this)) - before;
        if (received != escrow) revert BadValue(escrow, received);
    }

    // -- finding a host

    /// Lets `delegate` claim and release for the caller until then (Unix seconds); 0 takes the permission back.
    function setClaimDelegate(address delegate, uint40 until) external {
        if (delegate == address(0) || delegate == msg.sender) revert BadDelegate();
        claimDelegates[msg.sender][delegate] = until;
        emit ClaimDelegateSet(msg.sender, delegate, until);
    }

    /// Takes the prompt for `host`, at the price that the registry names now.
    function claim(PromptTerms calldata t, address host) external nonReentrant {
        _checkActsFor(host);
        bytes32 id = idOf(t);
        Prompt storage p = _openPrompt(id);
        _checkUnclaimed(p);
        if (p.state == State.Reserved && block.timestamp < p.until && p.host != host) revert Reserved(p.host);
        uint96 price = _priceOf(t, host);
        uint40 until = _take(p, t, State.Claimed, host);
        p.price = price;
        emit PromptClaimed(id, host, price, until);
    }

    /// Keeps the prompt for `host`, as long as a claim would last. By the renter or its assigner, who may change their mind.
    function assignJobToHost(PromptTerms calldata t, address host) external nonReentrant {
        _assign(t, host);
    }

    /// One bad assignment reverts all.
    function assignJobsToHosts(PromptTerms[] calldata ts, address[] calldata hosts) external nonReentrant {
        if (ts.length != hosts.length) revert LengthMismatch();
        for (uint256 i; i < ts.length; ++i) {
            _assign(ts[i], hosts[i]);
        }
    }

    /// The host that claimed the prompt gives it back at once.
    function release(PromptTerms calldata t) external nonReentrant {
        bytes32 id = idOf(t);
        Prompt storage p = _claimedPrompt(id);
        address host = p.host;
        _checkActsFor(host);
        (p.state, p.host, p.price, p.until) = (State.Posted, address(0), 0, 0);
        emit PromptReleased(id, host);
    }

    function _assign(PromptTerms calldata t, address host) private {
        if (msg.sender != t.renter && msg.sender != t.assigner) revert NotAssigner();
        bytes32 id = idOf(t);
        Prompt storage p = _openPrompt(id);
        _checkUnclaimed(p);
        // Nothing is kept for a host that could not claim it.
        _priceOf(t, host);
        uint40 until = _take(p, t, State.Reserved, host);
        p.price = 0;
        emit PromptAssigned(id, host, until);
    }

    function _take(Prompt storage p, PromptTerms calldata t, State state, address host) private returns (uint40 until) {
        if (block.timestamp >= t.deadline) revert PastDeadline();
        uint256 end = block.timestamp + t.executeSeconds;
        // forge-lint: disable-next-line(unsafe-typecast) -- below the deadline, which has 40 bits
        until = end < t.deadline ? uint40(end) : t.deadline;
        (p.state, p.host, p.until) = (state, host, until);
    }

    function _priceOf(PromptTerms calldata t, address host) private view returns (uint96 price) {
        if (host == t.arbiter) revert HostIsArbiter();
        if (!registry.isActive(host)) revert HostNotActive(host);
        price = registry.priceOf(host, t.modelId, t.token);
        if (price == 0) revert ModelNotOffered(host);
        if (price > t.pricePerMTok) revert PriceAboveCeiling(t.pricePerMTok, price);
    }

    // -- ending

    /// The host has the answer: opens the job in the market for what the answer costs, pays the rest of the escrow back.
    function complete(PromptTerms calldata t, Completion calldata c) external nonReentrant returns (bytes32 jobId) {
        bytes32 id = idOf(t);
        Prompt storage p = _claimedPrompt(id);
        if (msg.sender != p.host) revert NotHost(p.host);
        if (c.tokens == 0 || c.tokens > t.maxTokens) revert TokensOutOfRange(t.maxTokens, c.tokens);
        uint256 cost = _cost(c.tokens, p.price);
        if (cost == 0) revert NothingToPay();
        Terms memory job = _jobTerms(id, t, p.price, c.tokens);
        uint256 rest = _end(p, State.Completed) - cost;
        // forge-lint: disable-next-line(unsafe-typecast) -- not above the escrow, which has 88 bits
        jobId = _open(job, uint96(cost));
        emit PromptCompleted(id, jobId, job.host, c.tokens, job.pricePerMTok, c.resultCid, c.resultHash, job.expiresAt);
        if (rest != 0) _refund(t.renter, t.token, rest);
    }

    /// The renter takes its money back; not while a host works.
    function cancel(PromptTerms calldata t) external nonReentrant {
        if (msg.sender != t.renter) revert NotRenter();
        bytes32 id = idOf(t);
        Prompt storage p = _openPrompt(id);
        _checkUnclaimed(p);
        uint88 escrow = _end(p, State.Cancelled);
        emit PromptCancelled(id, escrow);
        _refund(t.renter, t.token, escrow);
    }

    /// The deadline has passed without an answer. Anyone may call: the money goes to the renter.
    function refund(PromptTerms calldata t) external nonReentrant {
        bytes32 id = idOf(t);
        Prompt storage p = _openPrompt(id);
        if (block.timestamp < t.deadline) revert TooEarly(t.deadline);
        uint88 escrow = _end(p, State.Refunded);
        emit PromptRefunded(id, escrow);
        _refund(t.renter, t.token, escrow);
    }

    function _end(Prompt storage p, State state) private returns (uint88 escrow) {
        escrow = p.escrow;
        (p.state, p.escrow, p.until) = (state, 0, 0);
        if (state != State.Completed) (p.host, p.price) = (address(0), 0);
    }

    function _jobTerms(bytes32 id, PromptTerms calldata t, uint96 price, uint32 tokens)
        private
        view
        returns (Terms memory)
    {
        return Terms({
            renter: t.renter,
            signer: t.signer,
            host: msg.sender,
            token: t.token,
            arbiter: t.arbiter,
            pricePerMTok: price,
            bond: t.bond,
            // forge-lint: disable-next-line(unsafe-typecast) -- 40 bits of seconds last for 34,000 years
            expiresAt: uint40(block.timestamp + SETTLE_SECONDS),
            challenge: t.challenge,
            exposure: tokens,
            policy: t.policy,
            modelId: t.modelId,
            salt: saltOf(id)
        });
    }

    function _open(Terms memory job, uint96 deposit) private returns (bytes32) {
        if (job.token == address(0)) return market.open{value: deposit}(job, deposit);
        IERC20(job.token).forceApprove(address(market), deposit);
        return market.open(job, deposit);
    }

    // -- what the parts share

    function _openPrompt(bytes32 id) private view returns (Prompt storage p) {
        p = _prompts[id];
        if (p.state == State.None || p.state > State.Claimed) revert NotPosted();
    }

    function _claimedPrompt(bytes32 id) private view returns (Prompt storage p) {
        p = _openPrompt(id);
        if (p.state != State.Claimed || block.timestamp >= p.until) revert NotClaimed();
    }

    function _checkUnclaimed(Prompt storage p) private view {
        if (p.state == State.Claimed && block.timestamp < p.until) revert AlreadyClaimed(p.host, p.until);
    }

    function _checkActsFor(address host) private view {
        if (msg.sender != host && block.timestamp >= claimDelegates[host][msg.sender]) revert NotHost(host);
    }

    function _cost(uint256 tokens, uint256 price) private pure returns (uint256) {
        return tokens * price / 1e6;
    }

    // -- views

    /// All zero where nobody posted that prompt.
    function prompts(bytes32 id) external view returns (PromptView memory) {
        Prompt storage p = _prompts[id];
        return PromptView(p.state, p.host, p.until, p.price, p.escrow);
    }

    /// The salt of the prompt's job: this contract, which alone may therefore open it, and the last 8 bytes of the id.
    function saltOf(bytes32 id) public view returns (bytes32) {
        return bytes32(bytes20(address(this))) | bytes32(uint256(type(uint32).max) << 64 | uint64(uint256(id)));
    }

    function idOf(PromptTerms calldata t) public pure returns (bytes32) {
        return keccak256(abi.encode(t));
    }
}
