// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {Disputes} from "./Disputes.sol";
import {IEpochProofs} from "./IEpochProofs.sol";
import {IHostStake} from "./IHostStake.sol";
import {Claim, EpochClaim, Shared, Terms} from "./MarketTypes.sol";
import {Money} from "./Money.sol";
import {SumTree} from "./SumTree.sol";

/// How a host cashes what renters signed for: vouchers alone, with a proof of the job's own, or with an epoch that holds their sessions.
///
/// Every voucher is one write to its job's slot. What a call credits is added up, fee by fee, and written to the ledger at its end.
abstract contract Vouchers is Disputes {
    uint8 internal constant PROOF_REQUIRED = 0;

    IEpochProofs public immutable epochs;

    event VoucherRedeemed(bytes32 indexed id, uint96 amount, uint32 tokens, bytes32 transcript);

    /// The voucher is not above the last one, or the agreed amount is below what is owed already.
    error StaleVoucher();
    /// The claims are not what a proven epoch of the host holds.
    error NotCovered();
    /// The job's policy asks for a proof of as many tokens first.
    error ProofMissing(uint256 proven, uint256 tokens);

    constructor(IHostStake stakes_, IEpochProofs epochs_) Disputes(stakes_) {
        epochs = epochs_;
    }

    /// The host cashes one voucher of each of several jobs; one bad claim reverts all.
    function redeem(Claim[] calldata claims) external nonReentrant {
        address token = address(0);
        uint256 due = 0;
        uint256 fees = 0;
        for (uint256 i; i < claims.length; ++i) {
            Claim calldata c = claims[i];
            if (c.terms.token != token) {
                _share(msg.sender, token, due, fees);
                (token, due, fees) = (c.terms.token, 0, 0);
            }
            bytes32 id = idOf(c.terms);
            Job memory job = _jobOf(id);
            uint256 credit = _redeem(id, job, c);
            _store(id, job);
            uint256 fee = Money.fee(credit);
            due += credit - fee;
            fees += fee;
        }
        _share(msg.sender, token, due, fees);
    }

    /// As `redeem`, of sessions whose proof is a proven epoch of the caller: each claim is exactly a leaf of it (this job, these tokens,
    /// this head over that tree). What it proves is never more than is signed, so no claim of unsigned tokens comes of it. Of another
    /// host, token, policy or model there is no such job: its id is a hash of them.
    function redeemByEpoch(Shared calldata shared, EpochClaim[] calldata claims, bytes32 epochRoot, bytes calldata path)
        external
        nonReentrant
    {
        Terms memory t = _common(shared);
        bytes memory leaves = new bytes(claims.length * SumTree.LEAF);
        uint256 due = 0;
        uint256 fees = 0;
        for (uint256 i; i < claims.length; ++i) {
            EpochClaim calldata c = claims[i];
            bytes32 id = _idOf(t, c);
            uint256 credit = _cash(id, t, c);
            uint256 fee = Money.fee(credit);
            due += credit - fee;
            fees += fee;
            SumTree.put(leaves, i, SumTree.session(id, c.treeRoot, c.transcript, c.tokens), c.tokens);
        }
        _share(msg.sender, shared.token, due, fees);
        if (!epochs.covers(msg.sender, epochRoot, leaves, path)) revert NotCovered();
    }

    /// The terms as far as all claims have them in common.
    function _common(Shared calldata shared) private view returns (Terms memory t) {
        (t.host, t.token, t.policy, t.modelId) = (msg.sender, shared.token, shared.policy, shared.modelId);
    }

    /// Fills `t` with what is the claim's own, and hashes it: two parts and the salt, in the order of `Terms`. An encoding with dirty upper
    /// bits opens no job, see `JobLedger.idOf`.
    function _idOf(Terms memory t, EpochClaim calldata c) private pure returns (bytes32 id) {
        assembly ("memory-safe") {
            calldatacopy(t, c, 64) // renter, signer
            calldatacopy(add(t, 128), add(c, 64), 192) // arbiter, price, bond, expiry, challenge, exposure
            calldatacopy(add(t, 384), add(c, 256), 32) // salt
            id := keccak256(t, 416)
        }
    }

    /// One session of an epoch: what it credits.
    function _cash(bytes32 id, Terms memory t, EpochClaim calldata c) private returns (uint256 credit) {
        Job memory job = _jobOf(id);
        uint32 tokens = c.tokens;
        uint256 amount = Money.cost(tokens, t.pricePerMTok);
        if (amount > job.deposit) revert AboveDeposit(job.deposit, amount);
        if (tokens <= job.signed) revert StaleVoucher();
        bytes32 digest = voucherDigest(id, uint96(amount), tokens, c.transcript);
        // slither-disable-next-line unused-return -- the third value repeats what was wrong with the signature
        (address recovered, ECDSA.RecoverError err,) = ECDSA.tryRecover(digest, c.r, c.vs);
        if (err != ECDSA.RecoverError.NoError || recovered != t.signer) revert BadSignature();
        if (tokens > job.proven) job.proven = tokens;
        job.signed = tokens;
        emit VoucherRedeemed(id, uint96(amount), tokens, c.transcript);
        bool bond;
        (credit, bond) = _takeOver(id, job, amount);
        _store(id, job);
        if (bond) _payBond(id, msg.sender, t.token, t.bond);
    }

    /// Changes `job`, which the caller stores; returns what the caller is credited.
    function _redeem(bytes32 id, Job memory job, Claim calldata c) internal returns (uint256 credit) {
        if (msg.sender != c.terms.host) revert NotParty();
        _checkAmount(job, c.terms.pricePerMTok, c.amount, c.tokens);
        if (c.tokens <= job.signed) revert StaleVoucher();
        if (!_signed(voucherDigest(id, c.amount, c.tokens, c.transcript), c.sig, c.terms.signer)) {
            revert BadSignature();
        }
        _checkPolicy(job, c.terms.policy, c.tokens);
        job.signed = c.tokens;
        emit VoucherRedeemed(id, c.amount, c.tokens, c.transcript);
        bool bond;
        (credit, bond) = _takeOver(id, job, c.amount);
        if (bond) _payBond(id, msg.sender, c.terms.token, c.terms.bond);
    }

    function _checkPolicy(Job memory job, uint8 policy, uint32 tokens) internal pure {
        if (policy == PROOF_REQUIRED && tokens > job.proven) revert ProofMissing(job.proven, tokens);
    }
}
