// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {Earnings} from "./Earnings.sol";
import {IProofSystem} from "./IProofSystem.sol";
import {Claim, Proof, Terms} from "./MarketTypes.sol";
import {SumTree} from "./SumTree.sol";

/// EIP-3009, the form that takes the signature as bytes (USDC v2.2).
interface IReceiveWithAuthorization {
    function receiveWithAuthorization(
        address from,
        address to,
        uint256 value,
        uint256 validAfter,
        uint256 validBefore,
        bytes32 nonce,
        bytes calldata sig
    ) external;
}

/// Payment channels between renters and hosts. Immutable: nobody can change it, pause it or take from it.
///
/// A renter deposits once under `Terms`; the host redeems cumulative vouchers that the renter's session key signed. Every amount is
/// floor(tokens * price / 1e6) of *cumulative* tokens, so rounding never adds up and favours the renter. What was not signed is paid
/// only where it is proven, and never more than `exposure` tokens of it. One storage slot holds one job.
/// The same rules as a pure function: `fabstir.protocol.settlement`.
contract JobMarketplace is Earnings, EIP712 {
    using SafeERC20 for IERC20;

    /// One slot. deposit == 0: never opened. signed == CLOSED: closed for ever, the id cannot be used again.
    struct Job {
        uint96 deposit;
        uint96 owed;
        uint32 signed;
        uint32 proven;
    }

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
        Token
    }

    /// Blocks from a commitment to the block whose hash is the challenge.
    uint256 public constant SEED_DELAY = 2;
    /// The EVM remembers this many block hashes; after that the challenge is lost and a new commitment is allowed.
    uint256 private constant BLOCKHASH_WINDOW = 256;
    uint256 public constant MIN_CHALLENGE = 900;
    uint256 public constant MAX_EXPOSURE = 4096;
    uint8 private constant PROOF_REQUIRED = 0;
    uint8 private constant PROOF_FALLBACK = 1;
    uint32 private constant CLOSED = type(uint32).max;
    uint256 private constant DIGEST_BITS = 216;

    bytes32 public constant VOUCHER_TYPEHASH =
        keccak256("Voucher(bytes32 jobId,uint96 amount,uint32 tokens,bytes32 transcript)");
    bytes32 public constant CLOSE_TYPEHASH = keccak256("Close(bytes32 jobId,uint96 amount,uint32 tokens)");

    IProofSystem public immutable proofs;
    mapping(bytes32 id => Job) private _jobs;
    mapping(bytes32 id => uint40) private _closingAt;
    /// Block of the commitment in the top 40 bits, the low 216 bits of keccak256(root, tokens) below.
    mapping(bytes32 id => uint256) private _pending;

    event JobOpened(bytes32 indexed id, address indexed renter, address indexed host, Terms terms, uint96 deposit);
    event VoucherRedeemed(bytes32 indexed id, uint96 amount, uint32 tokens, bytes32 transcript);
    event ProofCommitted(bytes32 indexed id, uint32 tokens, bytes32 root, uint256 blockNumber);
    event ProofAccepted(bytes32 indexed id, uint32 tokens, bytes32 circuitId, bytes32 statement);
    event ProvenClaimed(bytes32 indexed id, uint96 owed, uint32 tokens);
    event CloseRequested(bytes32 indexed id, uint40 closingAt);
    /// `signed` and `proven` are the job's last counts; the contract keeps `signed` no longer.
    event JobClosed(bytes32 indexed id, uint96 paid, uint96 refund, uint32 signed, uint32 proven);
    /// The refund could not be pushed; the renter gets it by `withdraw`.
    event RefundHeld(bytes32 indexed id, address indexed renter, uint96 refund);

    /// The caller is not the renter, or not the host, of these terms.
    error NotParty();
    /// A term that no job may have.
    error BadTerms(Term which);
    /// Another sum arrived than was announced: wrong value with the call, or a token that keeps a part of each transfer.
    error BadValue(uint256 expected, uint256 received);
    /// These terms were used before; another salt makes another job.
    error JobExists();
    /// There is no such job, or it is closed.
    error NotOpen();
    /// The amount is not floor(tokens * price / 1e6).
    error AmountMismatch(uint256 cost, uint256 amount);
    /// The voucher is above the deposit.
    error AboveDeposit(uint256 deposit, uint256 amount);
    /// 2^32 - 1 tokens: that number marks closed jobs.
    error TokensOutOfRange();
    /// The voucher is not above the last one, or the agreed amount is below what is owed already.
    error StaleVoucher();
    /// Not signed by the key that the terms name.
    error BadSignature();
    /// The job's policy asks for a proof of as many tokens first.
    error ProofMissing(uint256 proven, uint256 tokens);
    /// Not more tokens than are proven already.
    error NothingToProve();
    /// The last commitment can still be answered.
    error CommitmentPending(uint256 replaceableAt);
    /// Nothing was committed, or something else.
    error NoCommitment();
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

    constructor(address treasury_, IProofSystem proofs_) Earnings(treasury_) EIP712("FabstirMarket", "1") {
        proofs = proofs_;
    }

    // -- opening

    /// The renter deposits native coin (with the call) or an approved ERC-20.
    function open(Terms calldata t, uint96 deposit) external payable nonReentrant returns (bytes32 id) {
        if (msg.sender != t.renter) revert NotParty();
        id = _open(t, deposit);
        uint256 expected = t.token == address(0) ? deposit : 0;
        if (msg.value != expected) revert BadValue(expected, msg.value);
        if (t.token == address(0)) return id;
        uint256 before = IERC20(t.token).balanceOf(address(this));
        IERC20(t.token).safeTransferFrom(msg.sender, address(this), deposit);
        _checkReceived(t.token, before, deposit);
    }

    /// Opens with a transfer that the renter signed (EIP-3009); anyone may pay the gas. The authorisation's nonce is the job id,
    /// so that it fits these terms and no others.
    function openWithAuthorization(Terms calldata t, uint96 deposit, uint256 validBefore, bytes calldata sig)
        external
        nonReentrant
        returns (bytes32 id)
    {
        if (t.token == address(0)) revert BadTerms(Term.Token);
        id = _open(t, deposit);
        uint256 before = IERC20(t.token).balanceOf(address(this));
        IReceiveWithAuthorization(t.token)
            .receiveWithAuthorization(t.renter, address(this), deposit, 0, validBefore, id, sig);
        _checkReceived(t.token, before, deposit);
    }

    function _open(Terms calldata t, uint96 deposit) private returns (bytes32 id) {
        if (deposit == 0) revert BadTerms(Term.Deposit);
        if (t.pricePerMTok == 0) revert BadTerms(Term.Price);
        if (t.host == address(0)) revert BadTerms(Term.Host);
        if (t.signer == address(0)) revert BadTerms(Term.Signer);
        if (t.expiresAt <= block.timestamp) revert BadTerms(Term.Expiry);
        if (t.challenge < MIN_CHALLENGE) revert BadTerms(Term.Challenge);
        if (t.exposure == 0 || t.exposure > MAX_EXPOSURE) revert BadTerms(Term.Exposure);
        if (t.policy > PROOF_FALLBACK) revert BadTerms(Term.Policy);
        id = idOf(t);
        if (_jobs[id].deposit != 0) revert JobExists();
        _jobs[id].deposit = deposit;
        emit JobOpened(id, t.renter, t.host, t, deposit);
    }

    /// A token that takes a fee on transfer would leave less here than is owed to others.
    function _checkReceived(address token, uint256 before, uint256 deposit) private view {
        uint256 received = IERC20(token).balanceOf(address(this)) - before;
        if (received != deposit) revert BadValue(deposit, received);
    }

    // -- vouchers

    /// The host cashes one voucher of each of several jobs; one bad claim reverts all.
    function redeem(Claim[] calldata claims) external nonReentrant {
        for (uint256 i; i < claims.length; ++i) {
            bytes32 id = idOf(claims[i].terms);
            _redeem(id, _jobOf(id), claims[i]);
        }
    }

    function _redeem(bytes32 id, Job memory job, Claim calldata c) private {
        if (msg.sender != c.terms.host) revert NotParty();
        _checkAmount(job, c);
        if (c.tokens == CLOSED) revert TokensOutOfRange();
        if (c.tokens <= job.signed) revert StaleVoucher();
        if (!_signed(voucherDigest(id, c.amount, c.tokens, c.transcript), c.sig, c.terms.signer)) {
            revert BadSignature();
        }
        _checkPolicy(job, c);
        uint96 before = job.owed;
        job.signed = c.tokens;
        if (c.amount > before) job.owed = c.amount;
        _jobs[id] = job;
        emit VoucherRedeemed(id, c.amount, c.tokens, c.transcript);
        if (c.amount > before) _credit(c.terms.host, c.terms.token, c.amount - before);
    }

    function _checkAmount(Job memory job, Claim calldata c) private pure {
        uint256 cost = _cost(c.tokens, c.terms.pricePerMTok);
        if (c.amount != cost) revert AmountMismatch(cost, c.amount);
        if (c.amount > job.deposit) revert AboveDeposit(job.deposit, c.amount);
    }

    function _checkPolicy(Job memory job, Claim calldata c) private pure {
        if (c.terms.policy == PROOF_REQUIRED && c.tokens > job.proven) revert ProofMissing(job.proven, c.tokens);
    }

    // -- proofs

    /// The host fixes what it served: `root` = keccak256(treeRoot, head). The hash of a block two blocks later chooses what must be
    /// shown. Not replaceable while that challenge can still be answered: nobody throws the dice twice.
    function commitProof(Terms calldata t, uint32 tokens, bytes32 root) external nonReentrant {
        bytes32 id = idOf(t);
        Job memory job = _jobOf(id);
        if (msg.sender != t.host) revert NotParty();
        if (tokens <= job.proven) revert NothingToProve();
        uint256 pending = _pending[id];
        if (pending != 0) {
            uint256 last = (pending >> DIGEST_BITS) + SEED_DELAY + BLOCKHASH_WINDOW;
            if (block.number <= last) revert CommitmentPending(last + 1);
        }
        _pending[id] = _pack(block.number, root, tokens);
        emit ProofCommitted(id, tokens, root, block.number);
    }

    /// Answers the challenge. Anyone may send it: money only ever moves to the host, and every public input is computed here.
    function submitProof(Terms calldata t, Proof calldata p) external nonReentrant {
        bytes32 id = idOf(t);
        _jobOf(id);
        bytes32 root = keccak256(abi.encode(p.treeRoot, p.head));
        bytes32 seed = _seed(id, root, p.tokens);
        // slither-disable-next-line weak-prng -- the seed is a hash; a remainder below 2^32 of it is biased by less than 2^-224
        uint256 before = SumTree.locate(p, uint256(seed) % p.tokens);
        bytes32 statement = _statement(id, t, p, root, before);
        _jobs[id].proven = p.tokens;
        delete _pending[id];
        emit ProofAccepted(id, p.tokens, p.circuitId, statement);
        // A revert, never `return false`: eth_estimateGas would settle on too little gas for the verifier.
        if (!proofs.verify(p.circuitId, statement, seed, p.commitment, p.proof)) revert ProofInvalid();
    }

    /// Pays proven tokens that the renter did not sign, at most `exposure` of them beyond the best voucher.
    function claimProven(Terms calldata t) external nonReentrant {
        bytes32 id = idOf(t);
        Job memory job = _jobOf(id);
        if (msg.sender != t.host) revert NotParty();
        uint256 tokens = uint256(job.signed) + t.exposure;
        if (tokens > job.proven) tokens = job.proven;
        uint256 amount = _cost(tokens, t.pricePerMTok);
        if (amount > job.deposit) amount = job.deposit;
        uint96 before = job.owed;
        if (amount <= before) revert NothingToClaim();
        _jobs[id].owed = uint96(amount);
        emit ProvenClaimed(id, uint96(amount), uint32(tokens));
        _credit(t.host, t.token, amount - before);
    }

    function _pack(uint256 number, bytes32 root, uint32 tokens) private pure returns (uint256) {
        uint256 digest = uint256(keccak256(abi.encode(root, tokens)));
        return number << DIGEST_BITS | uint216(digest);
    }

    function _seed(bytes32 id, bytes32 root, uint32 tokens) private view returns (bytes32) {
        uint256 pending = _pending[id];
        uint256 committedAt = pending >> DIGEST_BITS;
        // slither-disable-next-line incorrect-equality -- a hash is right or wrong, it has no neighbourhood
        if (pending == 0 || pending != _pack(committedAt, root, tokens)) revert NoCommitment();
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
        if (c.sig.length != 0 && c.tokens > job.signed) _redeem(id, job, c);
        _close(id, c.terms, job);
    }

    /// Both agree on the final amount. The host consents by `hostSig`; the renter by sending this, or by its voucher in `c.sig`.
    function closeCooperative(Claim calldata c, bytes calldata hostSig) external nonReentrant {
        bytes32 id = idOf(c.terms);
        Job memory job = _jobOf(id);
        if (!_signed(closeDigest(id, c.amount, c.tokens), hostSig, c.terms.host)) revert BadSignature();
        if (msg.sender != c.terms.renter) {
            bytes32 digest = voucherDigest(id, c.amount, c.tokens, c.transcript);
            if (!_signed(digest, c.sig, c.terms.signer)) revert BadSignature();
        }
        _checkAmount(job, c);
        uint96 before = job.owed;
        if (c.amount < before) revert StaleVoucher();
        if (c.amount > before) {
            _checkPolicy(job, c);
            job.owed = c.amount;
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
        job.signed = CLOSED;
        _jobs[id] = job;
        if (refund != 0 && !_refund(t.renter, t.token, refund)) emit RefundHeld(id, t.renter, refund);
    }

    // -- views

    /// All that is kept about a job; `signed` and `pendingBlock` read 0 once it is closed.
    function jobs(bytes32 id)
        external
        view
        returns (
            uint96 deposit,
            uint96 owed,
            uint32 signed,
            uint32 proven,
            bool closed,
            uint40 closingAt,
            uint40 pendingBlock
        )
    {
        Job memory job = _jobs[id];
        closed = job.signed == CLOSED;
        deposit = job.deposit;
        owed = job.owed;
        signed = closed ? 0 : job.signed;
        proven = job.proven;
        closingAt = _closingAt[id];
        pendingBlock = closed ? 0 : uint40(_pending[id] >> DIGEST_BITS);
    }

    /// keccak256(abi.encode(t)). The terms are eleven static words, so their encoding is the calldata as it stands; copying it saves
    /// 600 gas in each call. An encoding with dirty upper bits opens no job: the event encodes every field, which checks it.
    function idOf(Terms calldata t) public pure returns (bytes32 id) {
        assembly ("memory-safe") {
            let free := mload(0x40)
            calldatacopy(free, t, 352)
            id := keccak256(free, 352)
        }
    }

    function voucherDigest(bytes32 id, uint96 amount, uint32 tokens, bytes32 transcript) public view returns (bytes32) {
        return _hashTypedDataV4(keccak256(abi.encode(VOUCHER_TYPEHASH, id, amount, tokens, transcript)));
    }

    function closeDigest(bytes32 id, uint96 amount, uint32 tokens) public view returns (bytes32) {
        return _hashTypedDataV4(keccak256(abi.encode(CLOSE_TYPEHASH, id, amount, tokens)));
    }

    function _jobOf(bytes32 id) private view returns (Job memory job) {
        job = _jobs[id];
        if (job.deposit == 0 || job.signed == CLOSED) revert NotOpen();
    }

    function _cost(uint256 tokens, uint256 price) private pure returns (uint256) {
        return tokens * price / 1e6;
    }

    /// Plain ECDSA with low s, never ERC-1271: an account that gains code later (EIP-7702) could otherwise disown its vouchers.
    function _signed(bytes32 digest, bytes calldata sig, address by) private pure returns (bool) {
        // slither-disable-next-line unused-return -- the third value repeats what was wrong with the signature
        (address recovered, ECDSA.RecoverError err,) = ECDSA.tryRecoverCalldata(digest, sig);
        return err == ECDSA.RecoverError.NoError && recovered == by;
    }
}
