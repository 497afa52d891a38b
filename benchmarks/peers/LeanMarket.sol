// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";
import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";

interface IVerifier {
    function verify(bytes32 statement, bytes calldata proof) external returns (bool);
}

interface I3009 {
    function receiveWithAuthorization(address, address, uint256, uint256, uint256, bytes32, bytes memory) external;
}

/// A checkpoint "proof" that is one signature: the cheapest thing that a proof path can cost.
contract SignedVerifier is IVerifier {
    address private immutable _attester;

    constructor(address attester) {
        _attester = attester;
    }

    function verify(bytes32 statement, bytes calldata proof) external view returns (bool) {
        return ECDSA.recoverCalldata(statement, proof) == _attester;
    }
}

/// The lean channel of the design study, against which the gas of JobMarketplace is compared: terms in calldata, one slot per session,
/// no proof policy, no exposure bound, no commitment before the challenge. Not audited, not deployed, not part of the product.
contract LeanMarket is EIP712, ReentrancyGuardTransient {
    using SafeERC20 for IERC20;

    struct Terms {
        address renter;
        address signer;
        address host;
        address token;
        uint96 pricePerMTok;
        uint40 expiresAt;
        uint32 challenge;
        bytes32 modelId;
        bytes32 salt;
    }

    struct State {
        uint96 deposit;
        uint96 owed;
        uint64 tokens;
    }

    struct Claim {
        Terms terms;
        uint96 amount;
        uint64 tokens;
        bytes32 transcript;
        bytes sig;
    }

    uint64 private constant CLOSED = type(uint64).max;
    bytes32 public constant VOUCHER_TYPEHASH =
        keccak256("Voucher(bytes32 sessionId,uint96 amount,uint64 tokens,bytes32 transcript)");
    bytes32 public constant CLOSE_TYPEHASH = keccak256("Close(bytes32 sessionId,uint96 amount)");
    uint256 public constant FEE_BPS = 500;

    address public immutable treasury;
    IVerifier public immutable verifier;
    mapping(bytes32 => State) public state;
    mapping(bytes32 => uint40) public closingAt;
    mapping(address => mapping(address => uint256)) public earnings;

    event SessionOpened(
        bytes32 indexed id, address indexed renter, address indexed host, Terms terms, uint96 deposit
    );
    event VoucherRedeemed(bytes32 indexed id, uint96 amount, uint64 tokens, bytes32 transcript);
    event ProofAccepted(bytes32 indexed id, uint64 tokens, uint96 owed, bytes32 proofHash);
    event CloseRequested(bytes32 indexed id, uint40 at);
    event SessionClosed(bytes32 indexed id, uint96 paid, uint96 refund);

    error BadState();
    error NotParty();
    error BadValue();
    error BadSignature();
    error TooEarly();
    error ProofInvalid();
    error TransferFailed();

    constructor(address treasury_, IVerifier verifier_) EIP712("FabMarket", "1") {
        treasury = treasury_;
        verifier = verifier_;
    }

    function idOf(Terms calldata t) public pure returns (bytes32) {
        return keccak256(abi.encode(t));
    }

    function open(Terms calldata t, uint96 amount) external payable nonReentrant returns (bytes32 id) {
        if (msg.sender != t.renter) revert NotParty();
        if (t.token == address(0)) {
            if (msg.value != amount) revert BadValue();
        } else {
            if (msg.value != 0) revert BadValue();
            uint256 before = IERC20(t.token).balanceOf(address(this));
            IERC20(t.token).safeTransferFrom(msg.sender, address(this), amount);
            if (IERC20(t.token).balanceOf(address(this)) - before != amount) revert BadValue();
        }
        id = _open(t, amount);
    }

    function openWithAuthorization(Terms calldata t, uint96 amount, uint256 validBefore, bytes calldata sig)
        external
        nonReentrant
        returns (bytes32 id)
    {
        id = idOf(t);
        I3009(t.token).receiveWithAuthorization(t.renter, address(this), amount, 0, validBefore, id, sig);
        _open(t, amount);
    }

    function _open(Terms calldata t, uint96 amount) private returns (bytes32 id) {
        bool missing = amount == 0 || t.pricePerMTok == 0 || t.host == address(0) || t.signer == address(0);
        if (missing || t.expiresAt <= block.timestamp || t.challenge < 900) revert BadValue();
        id = idOf(t);
        State storage s = state[id];
        if (s.deposit != 0 || s.tokens != 0) revert BadState();
        s.deposit = amount;
        emit SessionOpened(id, t.renter, t.host, t, amount);
    }

    function voucherDigest(bytes32 id, uint96 amount, uint64 tokens, bytes32 transcript)
        public
        view
        returns (bytes32)
    {
        return _hashTypedDataV4(keccak256(abi.encode(VOUCHER_TYPEHASH, id, amount, tokens, transcript)));
    }

    function closeDigest(bytes32 id, uint96 amount) public view returns (bytes32) {
        return _hashTypedDataV4(keccak256(abi.encode(CLOSE_TYPEHASH, id, amount)));
    }

    function redeem(Claim[] calldata claims) external nonReentrant {
        for (uint256 i; i < claims.length; i++) {
            _redeem(claims[i]);
        }
    }

    function _redeem(Claim calldata c) private returns (bytes32 id) {
        id = idOf(c.terms);
        State memory s = state[id];
        if (s.deposit == 0 || s.tokens == CLOSED || c.tokens == CLOSED) revert BadState();
        if (msg.sender != c.terms.host) revert NotParty();
        if (c.amount > s.deposit || c.amount <= s.owed) revert BadValue();
        bytes32 digest = voucherDigest(id, c.amount, c.tokens, c.transcript);
        if (ECDSA.recoverCalldata(digest, c.sig) != c.terms.signer) revert BadSignature();
        state[id] = State(s.deposit, c.amount, c.tokens);
        _credit(c.terms, c.amount - s.owed);
        emit VoucherRedeemed(id, c.amount, c.tokens, c.transcript);
    }

    function submitProof(Terms calldata t, uint64 tokens, bytes32 proofHash, bytes calldata proof)
        external
        nonReentrant
    {
        bytes32 id = idOf(t);
        State memory s = state[id];
        if (s.deposit == 0 || s.tokens == CLOSED) revert BadState();
        if (msg.sender != t.host) revert NotParty();
        bytes32 statement = keccak256(abi.encode(block.chainid, address(this), id, s.tokens, tokens, proofHash));
        if (tokens == 0 || !verifier.verify(statement, proof)) revert ProofInvalid();
        s.tokens += tokens;
        uint256 gross = Math.mulDiv(s.tokens, t.pricePerMTok, 1e6);
        if (gross > s.deposit) revert BadValue();
        uint96 delta = uint96(gross) - s.owed;
        s.owed = uint96(gross);
        state[id] = s;
        _credit(t, delta);
        emit ProofAccepted(id, s.tokens, s.owed, proofHash);
    }

    function _credit(Terms calldata t, uint96 delta) private {
        uint256 fee = uint256(delta) * FEE_BPS / 10_000;
        earnings[t.host][t.token] += delta - fee;
        if (fee != 0) earnings[treasury][t.token] += fee;
    }

    function closeByHost(Claim calldata c) external nonReentrant {
        bytes32 id = idOf(c.terms);
        if (c.amount > state[id].owed) _redeem(c);
        else if (msg.sender != c.terms.host) revert NotParty();
        _close(id, c.terms);
    }

    function closeCooperative(Claim calldata c, bytes calldata hostSig) external nonReentrant {
        bytes32 id = idOf(c.terms);
        State storage s = state[id];
        if (s.deposit == 0 || s.tokens == CLOSED || c.amount < s.owed || c.amount > s.deposit) revert BadState();
        bytes32 digest = closeDigest(id, c.amount);
        if (ECDSA.recoverCalldata(digest, hostSig) != c.terms.host) revert BadSignature();
        if (msg.sender != c.terms.renter && ECDSA.recoverCalldata(digest, c.sig) != c.terms.signer) {
            revert BadSignature();
        }
        uint96 delta = c.amount - s.owed;
        s.owed = c.amount;
        if (delta != 0) _credit(c.terms, delta);
        _close(id, c.terms);
    }

    function requestClose(Terms calldata t) external {
        bytes32 id = idOf(t);
        if (msg.sender != t.renter) revert NotParty();
        State storage s = state[id];
        if (s.deposit == 0 || s.tokens == CLOSED || closingAt[id] != 0) revert BadState();
        closingAt[id] = uint40(block.timestamp) + t.challenge;
        emit CloseRequested(id, closingAt[id]);
    }

    function finalize(Terms calldata t) external nonReentrant {
        bytes32 id = idOf(t);
        uint256 requested = closingAt[id];
        if (block.timestamp < (requested != 0 ? requested : uint256(t.expiresAt) + t.challenge)) revert TooEarly();
        _close(id, t);
    }

    function _close(bytes32 id, Terms calldata t) private {
        State memory s = state[id];
        if (s.deposit == 0 || s.tokens == CLOSED) revert BadState();
        state[id].tokens = CLOSED;
        uint96 refund = s.deposit - s.owed;
        emit SessionClosed(id, s.owed, refund);
        if (refund == 0) return;
        if (t.token == address(0)) {
            (bool ok,) = t.renter.call{value: refund, gas: 30_000}("");
            if (!ok) earnings[t.renter][t.token] += refund;
        } else if (!IERC20(t.token).trySafeTransfer(t.renter, refund)) {
            earnings[t.renter][t.token] += refund;
        }
    }

    function withdraw(address token, address to) external nonReentrant returns (uint256 amount) {
        amount = earnings[msg.sender][token];
        if (amount == 0) revert BadValue();
        earnings[msg.sender][token] = 0;
        if (token == address(0)) {
            (bool ok,) = to.call{value: amount}("");
            if (!ok) revert TransferFailed();
        } else {
            IERC20(token).safeTransfer(to, amount);
        }
    }
}
