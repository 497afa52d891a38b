// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {Earnings} from "./Earnings.sol";
import {IEpochProofs} from "./IEpochProofs.sol";
import {IHostStake} from "./IHostStake.sol";
import {IProofSystem} from "./IProofSystem.sol";
import {IReceiveWithAuthorization} from "./IReceiveWithAuthorization.sol";
import {Claim, Proof, Terms} from "./MarketTypes.sol";
import {SumTree} from "./SumTree.sol";
import {Vouchers} from "./Vouchers.sol";

/// Payment channels between renters and hosts. Immutable: nobody can change it, pause it or take from it.
///
/// A renter deposits once under `Terms`; the host redeems cumulative vouchers that the renter's session key signed. Every amount is
/// floor(tokens * price / 1e6) of *cumulative* tokens, so rounding never adds up and favours the renter. What was not signed is paid
/// only where it is proven, after a window in which the renter can object, and never more than `exposure` tokens of it.
/// The same rules as a pure function: `fabstir.protocol.settlement`.
contract JobMarketplace is Vouchers {
    /// Which of the terms `BadTerms` complains about.
    enum Term {
        Deposit,
        Price,
        Host,
        Signer,
        Expiry,
        Challenge,
        Exposure,
        Policy,
        Token,
        Bond
    }

    /// Blocks from a commitment to the block whose hash is the challenge.
    uint256 public constant SEED_DELAY = 2;
    /// The EVM remembers this many block hashes; after that the challenge is lost and a new commitment is allowed.
    uint256 private constant BLOCKHASH_WINDOW = 256;
    uint256 public constant MIN_CHALLENGE = 900;
    uint256 public constant MAX_CHALLENGE = 3 days;
    uint256 public constant MAX_EXPOSURE = 4096;
    uint8 private constant PROOF_FALLBACK = 1;

    IProofSystem public immutable proofs;

    event JobOpened(bytes32 indexed id, address indexed renter, address indexed host, Terms terms, uint96 deposit);
    event JobToppedUp(bytes32 indexed id, uint96 amount, uint96 deposit);
    event ProofCommitted(bytes32 indexed id, uint32 tokens, bytes32 root, uint256 blockNumber);
    event ProofAccepted(bytes32 indexed id, uint32 tokens, bytes32 circuitId, bytes32 statement);
    event CloseRequested(bytes32 indexed id, uint40 closingAt);
    /// `paid` counts what a claim still holds back.
    event JobClosed(bytes32 indexed id, uint96 paid, uint96 refund, uint32 signed, uint32 proven);

    /// A term that no job may have.
    error BadTerms(Term which);
    /// These terms were used before; another salt makes another job.
    error JobExists();
    /// Not more tokens than are proven already.
    error NothingToProve();
    /// The last commitment can still be answered.
    error CommitmentPending(uint256 replaceableAt);
    /// The block that fixes the challenge has not passed.
    error SeedNotReady(uint256 readyAt);
    /// The block that fixed the challenge is forgotten; commit again.
    error SeedExpired();
    /// The verifier of the circuit does not accept the proof, or the circuit is unknown.
    error ProofInvalid();
    /// The renter has asked before.
    error AlreadyClosing();
    /// The challenge window is open.
    error TooEarly(uint256 finalizableAt);

    constructor(address treasury_, IProofSystem proofs_, IHostStake stakes_, IEpochProofs epochs_)
        Earnings(treasury_)
        EIP712("FabstirMarket", "2")
        Vouchers(stakes_, epochs_)
    {
        proofs = proofs_;
    }

    // -- deposits

    /// Deposits native coin (with the call) or an approved ERC-20. Who may open is written in the salt (`openerOf`): the renter, or
    /// one other account alone. So nobody can take the id of a job that somebody else is about to open.
    function open(Terms calldata t, uint96 deposit) external payable nonReentrant returns (bytes32 id) {
        if (msg.sender != openerOf(t)) revert NotParty();
        id = _open(t, deposit);
        _collect(t.token, deposit);
    }

    /// Opens with a transfer that the renter signed (EIP-3009); anyone may pay the gas. The authorisation's nonce is the job id,
    /// so that it fits these terms and no others.
    function openWithAuthorization(Terms calldata t, uint96 deposit, uint256 validBefore, bytes calldata sig)
        external
        nonReentrant
        returns (bytes32 id)
    {
        if (openerOf(t) != t.renter) revert NotParty();
        id = _open(t, deposit);
        _collectAuthorized(t, deposit, validBefore, id, sig);
    }

    /// Adds to the deposit of an open job; anyone may. The refund goes to the renter.
    function topUp(Terms calldata t, uint96 amount) external payable nonReentrant {
        _topUp(t, amount);
        _collect(t.token, amount);
    }

    /// As `topUp`, with a transfer that the renter signed (EIP-3009). Its nonce is `topUpNonce`: this job, at this deposit.
    function topUpWithAuthorization(Terms calldata t, uint96 amount, uint256 validBefore, bytes calldata sig)
        external
        nonReentrant
    {
        bytes32 nonce = topUpNonce(idOf(t));
        _topUp(t, amount);
        _collectAuthorized(t, amount, validBefore, nonce, sig);
    }

    function topUpNonce(bytes32 id) public view returns (bytes32) {
        return keccak256(abi.encode(id, _jobs[id].deposit));
    }

    /// The renter; or, where bytes 20 to 23 of the salt are 0xffffffff, the account in its first 20 bytes (`PromptBoard`, `Delegation`).
    function openerOf(Terms calldata t) public pure returns (address) {
        return uint32(uint256(t.salt) >> 64) == type(uint32).max ? address(bytes20(t.salt)) : t.renter;
    }

    function _open(Terms calldata t, uint96 deposit) private returns (bytes32 id) {
        if (deposit == 0 || deposit > type(uint88).max) revert BadTerms(Term.Deposit);
        if (t.pricePerMTok == 0) revert BadTerms(Term.Price);
        if (t.host == address(0)) revert BadTerms(Term.Host);
        if (t.signer == address(0)) revert BadTerms(Term.Signer);
        if (t.expiresAt <= block.timestamp) revert BadTerms(Term.Expiry);
        if (t.challenge < MIN_CHALLENGE || t.challenge > MAX_CHALLENGE) revert BadTerms(Term.Challenge);
        if (t.exposure == 0 || t.exposure > MAX_EXPOSURE) revert BadTerms(Term.Exposure);
        if (t.policy > PROOF_FALLBACK) revert BadTerms(Term.Policy);
        if (t.bond == 0) revert BadTerms(Term.Bond);
        id = idOf(t);
        if (_jobs[id].deposit != 0) revert JobExists();
        _jobs[id].deposit = uint88(deposit);
        emit JobOpened(id, t.renter, t.host, t, deposit);
    }

    function _topUp(Terms calldata t, uint96 amount) private {
        bytes32 id = idOf(t);
        uint256 deposit = uint256(_jobOf(id).deposit) + amount;
        if (amount == 0 || deposit > type(uint88).max) revert BadTerms(Term.Deposit);
        _jobs[id].deposit = uint88(deposit);
        emit JobToppedUp(id, amount, uint96(deposit));
    }

    function _collectAuthorized(Terms calldata t, uint96 amount, uint256 validBefore, bytes32 nonce, bytes calldata sig)
        private
    {
        if (t.token == address(0)) revert BadTerms(Term.Token);
        uint256 before = IERC20(t.token).balanceOf(address(this));
        IReceiveWithAuthorization(t.token)
            .receiveWithAuthorization(t.renter, address(this), amount, 0, validBefore, nonce, sig);
        _checkReceived(t.token, before, amount);
    }

    // -- proofs

    /// The host fixes what it served: `root` = keccak256(treeRoot, head). The hash of a block two blocks later chooses what must be
    /// shown. Not replaceable while that challenge can still be answered: nobody throws the dice twice. Nor while a claim about the
    /// last one is undecided: a dispute must be able to open it.
    function commitProof(Terms calldata t, uint32 tokens, bytes32 root) external nonReentrant {
        bytes32 id = idOf(t);
        Job memory job = _jobOf(id);
        if (msg.sender != t.host) revert NotParty();
        if (job.claimed) revert ClaimPending(_held[id].stage);
        if (tokens <= job.proven) revert NothingToProve();
        uint256 committedAt = _committedAt(id);
        if (committedAt != 0 && block.number <= committedAt + SEED_DELAY + BLOCKHASH_WINDOW) {
            revert CommitmentPending(committedAt + SEED_DELAY + BLOCKHASH_WINDOW + 1);
        }
        _commitment[id] = _pack(block.number, root, tokens);
        emit ProofCommitted(id, tokens, root, block.number);
    }

    /// Answers the challenge. Anyone may send it: money only ever moves to the host, and every public input is computed here.
    function submitProof(Terms calldata t, Proof calldata p) external nonReentrant {
        bytes32 id = idOf(t);
        uint32 proven = _jobOf(id).proven;
        bytes32 root = keccak256(abi.encode(p.treeRoot, p.head));
        bytes32 seed = _seed(id, root, p.tokens);
        // slither-disable-next-line weak-prng -- the seed is a hash; a remainder below 2^32 of it is biased by less than 2^-224
        uint256 before = SumTree.locate(p, uint256(seed) % p.tokens);
        bytes32 statement = _statement(id, t, p, root, before);
        if (p.tokens > proven) _jobs[id].proven = p.tokens; // an epoch may have proven more since the commitment
        _commitment[id] = _pack(0, root, p.tokens);
        emit ProofAccepted(id, p.tokens, p.circuitId, statement);
        // A revert, never `return false`: eth_estimateGas would settle on too little gas for the verifier.
        if (!proofs.verify(p.circuitId, statement, seed, p.commitment, p.proof)) revert ProofInvalid();
    }

    function _seed(bytes32 id, bytes32 root, uint32 tokens) private view returns (bytes32) {
        uint256 committedAt = _committedAt(id);
        // slither-disable-next-line incorrect-equality -- a hash is right or wrong, it has no neighbourhood
        if (committedAt == 0 || _commitment[id] != _pack(committedAt, root, tokens)) revert NoCommitment();
        uint256 seedBlock = committedAt + SEED_DELAY;
        if (block.number <= seedBlock) revert SeedNotReady(seedBlock + 1);
        bytes32 blockHash = blockhash(seedBlock);
        // slither-disable-next-line incorrect-equality -- 0 is what the EVM says of a block that it has forgotten
        if (blockHash == 0) revert SeedExpired();
        return keccak256(abi.encode(blockHash, id, root));
    }

    function _statement(bytes32 id, Terms calldata t, Proof calldata p, bytes32 root, uint256 before)
        private
        view
        returns (bytes32)
    {
        return keccak256(
            abi.encode(
                block.chainid,
                address(this),
                id,
                t.host,
                t.modelId,
                root,
                p.tokens,
                before,
                p.checkpointTokens,
                p.circuitId
            )
        );
    }

    // -- closing

    /// The host ends the job, with a last voucher where `c.sig` is not empty. The rest goes back to the renter at once.
    function closeByHost(Claim calldata c) external nonReentrant {
        bytes32 id = idOf(c.terms);
        Job memory job = _jobOf(id);
        if (msg.sender != c.terms.host) revert NotParty();
        if (c.sig.length != 0 && c.tokens > job.signed) _credit(c.terms.host, c.terms.token, _redeem(id, job, c));
        _close(id, c.terms, job);
    }

    /// Both agree on the final amount, and with that an undecided claim is void. The host consents by `hostSig`; the renter by sending
    /// this, or by its voucher in `c.sig`.
    function closeCooperative(Claim calldata c, bytes calldata hostSig) external nonReentrant {
        bytes32 id = idOf(c.terms);
        Job memory job = _jobOf(id);
        if (!_signed(closeDigest(id, c.amount, c.tokens), hostSig, c.terms.host)) revert BadSignature();
        if (msg.sender != c.terms.renter) {
            bytes32 digest = voucherDigest(id, c.amount, c.tokens, c.transcript);
            if (!_signed(digest, c.sig, c.terms.signer)) revert BadSignature();
        }
        _checkAmount(job, c.terms.pricePerMTok, c.amount, c.tokens);
        if (job.claimed) _withdrawClaim(id, c.terms, job);
        uint96 before = job.owed;
        if (c.amount < before) revert StaleVoucher();
        if (c.amount > before) {
            _checkPolicy(job, c.terms.policy, c.tokens);
            job.owed = uint88(c.amount);
            _credit(c.terms.host, c.terms.token, c.amount - before);
        }
        if (c.tokens > job.signed) job.signed = c.tokens;
        _close(id, c.terms, job);
    }

    /// The renter wants out without the host: the host has `challenge` seconds to redeem what it holds.
    function requestClose(Terms calldata t) external nonReentrant {
        bytes32 id = idOf(t);
        _jobOf(id);
        if (msg.sender != t.renter) revert NotParty();
        if (_closingAt[id] != 0) revert AlreadyClosing();
        uint40 closingAt = uint40(block.timestamp) + t.challenge;
        _closingAt[id] = closingAt;
        emit CloseRequested(id, closingAt);
    }

    /// Anyone may end a job whose challenge window has passed, or that expired one challenge window ago.
    function finalize(Terms calldata t) external nonReentrant {
        bytes32 id = idOf(t);
        Job memory job = _jobOf(id);
        uint256 allowed = uint256(t.expiresAt) + t.challenge;
        uint256 requested = _closingAt[id];
        if (requested != 0 && requested < allowed) allowed = requested;
        if (block.timestamp < allowed) revert TooEarly(allowed);
        _close(id, t, job);
    }

    function _close(bytes32 id, Terms calldata t, Job memory job) private {
        uint96 refund = job.deposit - job.owed;
        emit JobClosed(id, job.owed, refund, job.signed, job.proven);
        job.closed = true;
        _store(id, job);
        _repay(t.renter, t.token, refund);
    }
}
