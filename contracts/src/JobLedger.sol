// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {Earnings} from "./Earnings.sol";
import {JobView, Stage, Terms} from "./MarketTypes.sol";
import {Money} from "./Money.sol";

/// What is kept about jobs, how they are named, and how their signatures are checked. One storage slot holds a job; a claim and a
/// commitment have one more each, only while there is one.
abstract contract JobLedger is Earnings, EIP712 {
    /// One slot. deposit == 0: never opened.
    struct Job {
        uint88 deposit;
        uint88 owed; // credited and held
        uint32 signed;
        uint32 proven;
        bool closed;
        bool claimed; // _held has a claim that is not decided
    }

    /// One slot: what a claim holds back.
    struct Held {
        uint96 amount;
        uint40 until;
        uint32 tokens;
        Stage stage;
    }

    uint256 private constant DIGEST_BITS = 216;

    bytes32 public constant VOUCHER_TYPEHASH =
        keccak256("Voucher(bytes32 jobId,uint96 amount,uint32 tokens,bytes32 transcript)");
    bytes32 public constant CLOSE_TYPEHASH = keccak256("Close(bytes32 jobId,uint96 amount,uint32 tokens)");

    mapping(bytes32 id => Job) internal _jobs;
    mapping(bytes32 id => Held) internal _held;
    mapping(bytes32 id => uint40) internal _closingAt;
    /// The last commitment: its block in the top 40 bits (0 once it is proven), below the low 216 bits of keccak256(root, tokens).
    mapping(bytes32 id => uint256) internal _commitment;

    /// The caller is not the one in these terms who may do this.
    error NotParty();
    /// Another sum arrived than was announced: wrong value with the call, or a token that keeps a part of each transfer.
    error BadValue(uint256 expected, uint256 received);
    /// There is no such job, or it is closed.
    error NotOpen();
    /// The amount is not floor(tokens * price / 1e6).
    error AmountMismatch(uint256 cost, uint256 amount);
    /// The voucher is above the deposit.
    error AboveDeposit(uint256 deposit, uint256 amount);
    /// Not signed by the key that the terms name.
    error BadSignature();
    /// Nothing was committed, or something else.
    error NoCommitment();

    // -- views

    function jobs(bytes32 id) external view returns (JobView memory v) {
        Job memory job = _job(id);
        Held memory held = _heldOf(id);
        v.deposit = job.deposit;
        v.owed = job.owed;
        v.signed = job.signed;
        v.proven = job.proven;
        v.closed = job.closed;
        v.closingAt = _closingAt[id];
        v.pendingBlock = job.closed ? 0 : uint40(_commitment[id] >> DIGEST_BITS);
        v.held = held.amount;
        v.heldTokens = held.tokens;
        v.heldUntil = held.until;
        v.stage = held.stage;
    }

    /// keccak256(abi.encode(t)). The terms are thirteen static words, so their encoding is the calldata as it stands; copying it saves
    /// 600 gas in each call. An encoding with dirty upper bits opens no job: the event encodes every field, which checks it.
    function idOf(Terms calldata t) public pure returns (bytes32 id) {
        assembly ("memory-safe") {
            let free := mload(0x40)
            calldatacopy(free, t, 416)
            id := keccak256(free, 416)
        }
    }

    function voucherDigest(bytes32 id, uint96 amount, uint32 tokens, bytes32 transcript) public view returns (bytes32) {
        return _hashTypedDataV4(keccak256(abi.encode(VOUCHER_TYPEHASH, id, amount, tokens, transcript)));
    }

    function closeDigest(bytes32 id, uint96 amount, uint32 tokens) public view returns (bytes32) {
        return _hashTypedDataV4(keccak256(abi.encode(CLOSE_TYPEHASH, id, amount, tokens)));
    }

    // -- for those who build on it

    function _jobOf(bytes32 id) internal view returns (Job memory job) {
        job = _job(id);
        // slither-disable-next-line incorrect-equality -- 0 is what is read of a job that was never opened
        if (job.deposit == 0 || job.closed) revert NotOpen();
    }

    /// These four are one place each for the packing of a slot: written out wherever they are needed, it would not fit into the contract.
    function _job(bytes32 id) internal view returns (Job memory) {
        return _jobs[id];
    }

    function _store(bytes32 id, Job memory job) internal {
        _jobs[id] = job;
    }

    function _heldOf(bytes32 id) internal view returns (Held memory) {
        return _held[id];
    }

    function _hold(bytes32 id, Held memory held) internal {
        _held[id] = held;
    }

    function _checkAmount(Job memory job, uint96 price, uint96 amount, uint32 tokens) internal pure {
        uint256 cost = Money.cost(tokens, price);
        if (amount != cost) revert AmountMismatch(cost, amount);
        if (amount > job.deposit) revert AboveDeposit(job.deposit, amount);
    }

    /// `number` 0 marks a commitment that was proven.
    function _pack(uint256 number, bytes32 root, uint32 tokens) internal pure returns (uint256) {
        uint256 digest = uint256(keccak256(abi.encode(root, tokens)));
        return number << DIGEST_BITS | uint216(digest);
    }

    function _committedAt(bytes32 id) internal view returns (uint256 number) {
        return _commitment[id] >> DIGEST_BITS;
    }

    /// Plain ECDSA with low s, never ERC-1271: an account that gains code later (EIP-7702) could otherwise disown its vouchers.
    function _signed(bytes32 digest, bytes calldata sig, address by) internal pure returns (bool) {
        // slither-disable-next-line unused-return -- the third value repeats what was wrong with the signature
        (address recovered, ECDSA.RecoverError err,) = ECDSA.tryRecoverCalldata(digest, sig);
        return err == ECDSA.RecoverError.NoError && recovered == by;
    }
}
