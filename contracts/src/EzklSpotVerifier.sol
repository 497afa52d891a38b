// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IProofVerifier} from "./IProofSystem.sol";
import {ModelRegistry} from "./ModelRegistry.sol";
import {PaddedTree} from "./PaddedTree.sol";
import {SamplingRule} from "./SamplingRule.sol";

/// Adapter for the ezkl circuit `spot`: for the token that the seed draws, the listed log-probabilities are what the registered output
/// head makes of the hidden state that was committed, and the token is one that its sampler can have drawn from them. The generated
/// verifier knows eight field elements; that its points are the committed state and the registered rows is checked here.
/// Mirrored by `fabstir.protocol.spot` and `spot_proof`, which say what is in a proof; what it shows: docs/explanation/proofs.md.
contract EzklSpotVerifier is IProofVerifier {
    /// What the market's statement is the hash of.
    struct Statement {
        uint256 chainId;
        address market;
        bytes32 job;
        address host;
        bytes32 modelId;
        bytes32 root;
        uint256 tokens;
        uint256 tokensBefore;
        uint256 records; // tokens of the opened checkpoint
        bytes32 circuitId;
    }

    struct SpotProof {
        Statement statement;
        uint32 first; // index in the job of the checkpoint's first record
        int64 denominator; // micro-nats: a token's logit is its log-probability and this
        bytes record; // as `SamplingRule` has it
        bytes tracePath;
        int256[4] dots; // row times hidden state, one for each row
        bytes rowPaths;
        bytes halo2;
    }

    struct Row {
        uint256 token;
        int256 logprob;
    }

    uint256 public constant ROWS = 4;
    uint256 public constant MAX_RECORDS = 256;
    /// Binary digits after the point of a hidden state.
    uint256 public constant HIDDEN_SCALE = 10;
    /// By how much a logit may be off, micro-nats.
    int256 public constant TOLERANCE = 250_000;
    /// Order of the scalar field of BN254.
    uint256 private constant FIELD = 21888242871839275222246405745257275088548364400416034343698204186575808495617;
    uint256 private constant HALO2_BYTES = 3936;
    /// A halo2 proof begins with one KZG point for each input tensor: context, hidden state, rows.
    uint256 private constant POINT = 64;
    int256 private constant MILLION = 1_000_000;
    bytes32 private constant TRACE = "fabstir/trace/1";
    bytes32 private constant TRACES = "fabstir/traces/1";

    address public immutable halo2Verifier;
    bytes32 public immutable halo2CodeHash;
    ModelRegistry public immutable modelRegistry;

    error NoCode();

    constructor(address halo2Verifier_, ModelRegistry modelRegistry_) {
        if (halo2Verifier_.code.length == 0) revert NoCode();
        halo2Verifier = halo2Verifier_;
        halo2CodeHash = halo2Verifier_.codehash;
        modelRegistry = modelRegistry_;
    }

    /// `proof` = abi.encode(SpotProof). Reverts where it does not decode.
    function verify(bytes32 statement, bytes32 seed, bytes32 commitment, bytes calldata proof)
        external
        view
        returns (bool)
    {
        SpotProof calldata p;
        assembly ("memory-safe") {
            p := add(proof.offset, 32) // what abi.encode puts before a struct of changing size says where it is: here
        }
        if (keccak256(abi.encode(p.statement)) != statement) return false;
        if (p.halo2.length != HALO2_BYTES || halo2Verifier.codehash != halo2CodeHash) return false;
        return _isCommitted(seed, commitment, p) && _isOfModel(seed, p) && _holds(statement, seed, p);
    }

    /// The trace at the drawn token's place is the committed one, and its record one that a sampler can have made.
    function _isCommitted(bytes32 seed, bytes32 commitment, SpotProof calldata p) private pure returns (bool) {
        uint256 records = p.statement.records;
        // slither-disable-next-line weak-prng -- the seed is a hash
        uint256 place = uint256(seed) % p.statement.tokens - p.statement.tokensBefore;
        if (place >= records || records > MAX_RECORDS || p.tracePath.length != 32 * _depth(records)) return false;
        bytes calldata record = p.record;
        if (uint32(bytes4(record[32:36])) != p.first + place || !SamplingRule.holds(record)) return false;
        bytes32 digest = sha256(abi.encodePacked("fabstir/record/2", record));
        bytes32 leaf = keccak256(abi.encode(TRACE, digest, _x(p, 0), _y(p, 0), int256(p.denominator)));
        return keccak256(abi.encode(TRACES, p.first, PaddedTree.climb(place, leaf, p.tracePath))) == commitment;
    }

    /// The rows are those of the statement's model, and what they make of the hidden state is what the record says.
    function _isOfModel(bytes32 seed, SpotProof calldata p) private view returns (bool) {
        ModelRegistry.Head memory head = modelRegistry.headOf(p.statement.modelId);
        if (head.root == 0 || p.rowPaths.length % (32 * ROWS) != 0) return false;
        uint256 length = p.rowPaths.length / ROWS;
        int256 unit = int256(1 << (head.scale + HIDDEN_SCALE));
        Row[] memory rows = _rows(seed, p.record);
        for (uint256 i; i < rows.length; ++i) {
            uint256 token = rows[i].token;
            bytes32 leaf = keccak256(abi.encode(token, _x(p, i + 1), _y(p, i + 1)));
            bytes calldata path = p.rowPaths[i * length:(i + 1) * length];
            if (token >= head.rows || PaddedTree.climb(token, leaf, path) != head.root) return false;
            int256 off = p.dots[i] * MILLION - (rows[i].logprob + p.denominator) * unit;
            if (off > TOLERANCE * unit || off < -TOLERANCE * unit) return false;
        }
        return rows.length == ROWS;
    }

    /// The drawn token, then three others of its list, from the place on that the seed picks; none where there are not three.
    function _rows(bytes32 seed, bytes calldata record) private pure returns (Row[] memory rows) {
        uint256 listed = (record.length - SamplingRule.FIXED) / SamplingRule.PAIR;
        uint256 token = uint32(bytes4(record[36:40]));
        uint256 own; // its place in the list; `listed` where it is not in it
        while (own < listed && _token(record, own) != token) ++own;
        uint256 others = own < listed ? listed - 1 : listed;
        if (others < ROWS - 1) return rows;
        rows = new Row[](ROWS);
        rows[0] = Row(token, int32(uint32(bytes4(record[40:44]))));
        // slither-disable-next-line weak-prng -- a hash of the seed
        uint256 start = uint256(keccak256(abi.encode(seed))) % others;
        for (uint256 i = 1; i < ROWS; ++i) {
            uint256 place = (start + i - 1) % others;
            if (place >= own) ++place;
            uint256 offset = SamplingRule.FIXED + SamplingRule.PAIR * place + 4;
            rows[i] = Row(_token(record, place), int32(uint32(bytes4(record[offset:offset + 4]))));
        }
    }

    function _token(bytes calldata record, uint256 place) private pure returns (uint256) {
        uint256 offset = SamplingRule.FIXED + SamplingRule.PAIR * place;
        return uint32(bytes4(record[offset:offset + 4]));
    }

    /// The generated verifier accepts the proof for this statement, this seed and these products.
    function _holds(bytes32 statement, bytes32 seed, SpotProof calldata p) private view returns (bool valid) {
        uint256[] memory instances = new uint256[](4 + ROWS);
        (instances[0], instances[1]) = _halves(statement);
        (instances[2], instances[3]) = _halves(seed);
        for (uint256 i; i < ROWS; ++i) {
            int256 dot = p.dots[i]; // far below the field's order: `_isOfModel` bounds it
            instances[4 + i] = dot < 0 ? FIELD - uint256(-dot) : uint256(dot);
        }
        bytes memory data = abi.encodeWithSignature("verifyProof(bytes,uint256[])", p.halo2, instances);
        address target = halo2Verifier;
        // The generated verifier reverts on a bad proof, so success alone is not enough and failure is no error.
        assembly ("memory-safe") {
            mstore(0, 0)
            let success := staticcall(gas(), target, add(data, 32), mload(data), 0, 32)
            valid := and(and(success, eq(returndatasize(), 32)), eq(mload(0), 1))
        }
    }

    /// Levels above the leaves of a tree of `records`.
    function _depth(uint256 records) private pure returns (uint256 depth) {
        while (1 << depth < records) ++depth;
    }

    /// Of the hidden state (0) or a row (1 to 4); the context comes first.
    function _x(SpotProof calldata p, uint256 tensor) private pure returns (bytes32) {
        uint256 offset = (tensor + 1) * POINT;
        return bytes32(p.halo2[offset:offset + 32]);
    }

    function _y(SpotProof calldata p, uint256 tensor) private pure returns (bytes32) {
        uint256 offset = (tensor + 1) * POINT + 32;
        return bytes32(p.halo2[offset:offset + 32]);
    }

    /// A 32-byte value does not fit the field; two halves of 128 bits do.
    function _halves(bytes32 word) private pure returns (uint256 high, uint256 low) {
        return (uint256(word) >> 128, uint128(uint256(word)));
    }
}
