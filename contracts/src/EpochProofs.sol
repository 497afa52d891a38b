// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IEpochProofs} from "./IEpochProofs.sol";
import {IProofSystem} from "./IProofSystem.sol";
import {Proof, SumNode, Terms} from "./MarketTypes.sol";
import {SumTree} from "./SumTree.sol";

/// One proof for many sessions of one host. Holds no money, has no owner, and moves nothing: the market asks it what is proven.
///
/// A host commits the root of a Merkle-sum tree over its sessions (an epoch); a later block draws one token of all of them; the host
/// opens the session and the checkpoint that hold it and proves that checkpoint. Each session's leaf names its job, what was served and
/// the count; each checkpoint is again a leaf of the session's own tree, so that the draw goes through both trees in one piece.
/// Mirrored bit by bit by `fabstir.protocol.epochs`. Decision record: docs/decisions/0006-epoch-proofs.md.
contract EpochProofs is IEpochProofs {
    /// Blocks from a commitment to the block whose hash is the challenge.
    uint256 public constant SEED_DELAY = 2;
    /// The EVM remembers this many block hashes; after that the challenge is lost and a new commitment is allowed.
    uint256 private constant BLOCKHASH_WINDOW = 256;
    uint256 private constant DIGEST_BITS = 216;
    /// Bytes of the packed path: a count or a place, and a sibling with its tokens.
    uint256 private constant PLACE = 4;
    uint256 private constant SIBLING = 36;

    IProofSystem public immutable proofs;

    /// The last commitment: its block in the top 40 bits (0 once it is proven), below the low 216 bits of keccak256(root, tokens). One
    /// for each host: who could have two open at once would throw the dice twice.
    mapping(address host => uint256) private _commitment;
    /// Tokens of a proven epoch; 0: not proven.
    mapping(address host => mapping(bytes32 root => uint32)) public provenTokens;

    event EpochCommitted(address indexed host, bytes32 indexed root, uint32 tokens, uint256 blockNumber);
    /// `id` is the job whose session was drawn.
    event EpochProven(
        address indexed host, bytes32 indexed root, uint32 tokens, bytes32 id, bytes32 circuitId, bytes32 statement
    );

    /// An epoch of no tokens.
    error NothingToProve();
    /// The last commitment can still be answered.
    error CommitmentPending(uint256 replaceableAt);
    /// Nothing was committed, or something else.
    error NoCommitment();
    /// The block that fixes the challenge has not passed.
    error SeedNotReady(uint256 readyAt);
    /// The block that fixed the challenge is forgotten; commit again.
    error SeedExpired();
    /// The opened session does not hold the challenged token.
    error WrongSession(uint256 position, uint256 tokensBefore);
    /// The verifier of the circuit does not accept the proof, or the circuit is unknown.
    error ProofInvalid();

    constructor(IProofSystem proofs_) {
        proofs = proofs_;
    }

    /// The caller fixes what it served. Not replaceable while the challenge can still be answered.
    function commitEpoch(bytes32 root, uint32 tokens) external {
        if (tokens == 0) revert NothingToProve();
        uint256 committedAt = _commitment[msg.sender] >> DIGEST_BITS;
        if (committedAt != 0 && block.number <= committedAt + SEED_DELAY + BLOCKHASH_WINDOW) {
            revert CommitmentPending(committedAt + SEED_DELAY + BLOCKHASH_WINDOW + 1);
        }
        _commitment[msg.sender] = _pack(block.number, root, tokens);
        emit EpochCommitted(msg.sender, root, tokens, block.number);
    }

    /// Answers the challenge of the epoch of `t.host`: the session that holds the drawn token, its siblings in the epoch, and the proof
    /// of the checkpoint that holds it. Anyone may send it; every public input is computed here.
    function proveEpoch(Terms calldata t, SumNode[] calldata path, Proof calldata p) external {
        bytes32 id = keccak256(abi.encode(t));
        (bytes32 root, uint256 total, uint256 before) =
            SumTree.climb(SumTree.session(id, p.treeRoot, p.head, p.tokens), p.tokens, path);
        bytes32 seed = _seed(t.host, root, total);
        // slither-disable-next-line weak-prng -- the seed is a hash; a remainder below 2^32 of it is biased by less than 2^-224
        uint256 position = uint256(seed) % total;
        if (position < before || position >= before + p.tokens) revert WrongSession(position, before);
        before += SumTree.locate(p, position - before);
        bytes32 statement = _statement(id, t, p, root, total, before);
        _commitment[t.host] = _pack(0, root, uint32(total));
        provenTokens[t.host][root] = uint32(total);
        emit EpochProven(t.host, root, uint32(total), id, p.circuitId, statement);
        // A revert, never `return false`: eth_estimateGas would settle on too little gas for the verifier.
        if (!proofs.verify(p.circuitId, statement, seed, p.commitment, p.proof)) revert ProofInvalid();
    }

    /// Block of the commitment that waits for its proof (0: none does), and the digest of (root, tokens) of the last one.
    function epochOf(address host) external view returns (uint40 pendingBlock, uint216 digest) {
        uint256 packed = _commitment[host];
        return (uint40(packed >> DIGEST_BITS), uint216(packed));
    }

    /// Joins the leaves level by level; where a neighbour is not among them, the next of `path` stands in. A wrong count or place gives
    /// another root: what is believed is a chain of hashes, and leaves, sessions and inner nodes are told apart by what is hashed.
    function covers(address host, bytes32 root, bytes calldata leaves, bytes calldata path)
        external
        view
        returns (bool)
    {
        uint256 left = leaves.length / SumTree.LEAF;
        uint256 total = provenTokens[host][root];
        if (total == 0 || left == 0) return false;
        uint256 used = PLACE;
        uint256 width = uint32(bytes4(path[:used]));
        SumTree.Place[] memory row = new SumTree.Place[](left);
        for (uint256 i; i < left; ++i) {
            (bytes32 leaf, uint256 tokens) = abi.decode(leaves[i * SumTree.LEAF:], (bytes32, uint256));
            row[i] = SumTree.Place(leaf, tokens, uint32(bytes4(path[used:used + PLACE])));
            used += PLACE;
        }
        while (width > 1) {
            (left, used) = _row(row, left, width, path, used);
            width = (width + 1) / 2;
        }
        return left == 1 && used == path.length && row[0].hash == root && row[0].tokens == total;
    }

    /// Replaces the first `left` places of `row` by their parents; returns how many these are and how much of `path` is used.
    function _row(SumTree.Place[] memory row, uint256 left, uint256 width, bytes calldata path, uint256 used)
        private
        pure
        returns (uint256 made, uint256)
    {
        for (uint256 i; i < left; ++i) {
            SumTree.Place memory node = row[i];
            // slither-disable-next-line incorrect-exp -- the neighbour's place differs in the lowest bit
            uint256 sibling = node.index ^ 1;
            if (sibling < width) {
                if (i + 1 < left && row[i + 1].index == sibling) {
                    SumTree.Place memory next = row[++i];
                    _join(node, next.hash, next.tokens, false);
                } else {
                    bytes32 hash = bytes32(path[used:used + 32]);
                    _join(node, hash, uint32(bytes4(path[used + 32:used + SIBLING])), node.index & 1 == 1);
                    used += SIBLING;
                }
            }
            node.index /= 2;
            row[made++] = node;
        }
        return (made, used);
    }

    function _join(SumTree.Place memory node, bytes32 hash, uint256 tokens, bool onLeft) private pure {
        node.hash = onLeft
            ? SumTree.inner(hash, tokens, node.hash, node.tokens)
            : SumTree.inner(node.hash, node.tokens, hash, tokens);
        node.tokens += tokens;
    }

    function _seed(address host, bytes32 root, uint256 total) private view returns (bytes32) {
        uint256 packed = _commitment[host];
        uint256 committedAt = packed >> DIGEST_BITS;
        // slither-disable-next-line incorrect-equality -- a hash is right or wrong, it has no neighbourhood
        if (committedAt == 0 || total > type(uint32).max || packed != _pack(committedAt, root, uint32(total))) {
            revert NoCommitment();
        }
        uint256 seedBlock = committedAt + SEED_DELAY;
        if (block.number <= seedBlock) revert SeedNotReady(seedBlock + 1);
        bytes32 blockHash = blockhash(seedBlock);
        // slither-disable-next-line incorrect-equality -- 0 is what the EVM says of a block that it has forgotten
        if (blockHash == 0) revert SeedExpired();
        return keccak256(abi.encode(blockHash, block.chainid, address(this), host, root));
    }

    /// `root`, `total` and `before` are the epoch's; job, model and checkpoint those of the drawn session.
    function _statement(bytes32 id, Terms calldata t, Proof calldata p, bytes32 root, uint256 total, uint256 before)
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
                total,
                before,
                p.checkpointTokens,
                p.circuitId
            )
        );
    }

    function _pack(uint256 number, bytes32 root, uint32 tokens) private pure returns (uint256) {
        return number << DIGEST_BITS | uint216(uint256(keccak256(abi.encode(root, tokens))));
    }
}
