// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {EpochClaim, Proof, Shared, SumNode, Terms} from "../src/MarketTypes.sol";
import {DisputeFixture} from "./DisputeFixture.sol";

/// Epochs over sessions of one host, built from the specification and not with the contract's own library.
abstract contract EpochFixture is DisputeFixture {
    /// One session in an epoch.
    struct Member {
        Terms t;
        uint32 tokens;
        bytes32 head;
    }

    struct Node {
        bytes32 hash;
        uint32 tokens;
        bool given; // among the claimed ones, or above one of them
        uint32 place;
    }

    function leafOf(Member memory m) internal view returns (Node memory) {
        bytes32 root = rootOf(m.tokens, m.head);
        return Node(keccak256(abi.encode(uint256(2), market.idOf(m.t), root, uint256(m.tokens))), m.tokens, false, 0);
    }

    function rowOf(Member[] memory all) internal view returns (Node[] memory row) {
        row = new Node[](all.length);
        for (uint256 i; i < all.length; ++i) {
            row[i] = leafOf(all[i]);
        }
    }

    function parent(Node memory a, Node memory b) internal pure returns (Node memory) {
        bytes32 hash = keccak256(abi.encode(uint256(1), a.hash, uint256(a.tokens), b.hash, uint256(b.tokens)));
        return Node(hash, a.tokens + b.tokens, a.given || b.given, 0);
    }

    function above(Node[] memory row) internal pure returns (Node[] memory next) {
        next = new Node[]((row.length + 1) / 2);
        for (uint256 i; i < row.length; i += 2) {
            next[i / 2] = i + 1 == row.length ? row[i] : parent(row[i], row[i + 1]);
        }
    }

    function epochOf(Member[] memory all) internal view returns (bytes32 root, uint32 total) {
        Node[] memory row = rowOf(all);
        while (row.length > 1) {
            row = above(row);
        }
        return (row[0].hash, row[0].tokens);
    }

    function siblingsOf(Member[] memory all, uint256 at) internal view returns (SumNode[] memory path) {
        path = new SumNode[](32);
        uint256 length;
        for (Node[] memory row = rowOf(all); row.length > 1; row = above(row)) {
            uint256 sibling = at ^ 1;
            if (sibling < row.length) {
                path[length++] = SumNode(row[sibling].hash, row[sibling].tokens, sibling < at);
            }
            at /= 2;
        }
        assembly {
            mstore(path, length)
        }
    }

    /// The packed path of the members that `chosen` names by its bits.
    function packed(Member[] memory all, uint256 chosen) internal view returns (bytes memory path) {
        Node[] memory row = rowOf(all);
        path = abi.encodePacked(uint32(all.length));
        for (uint256 i; i < row.length; ++i) {
            row[i].given = chosen >> i & 1 == 1;
            if (row[i].given) path = bytes.concat(path, abi.encodePacked(uint32(i)));
        }
        for (; row.length > 1; row = above(row)) {
            for (uint256 i; i < row.length; ++i) {
                uint256 sibling = i ^ 1;
                if (!row[i].given || sibling >= row.length || row[sibling].given) continue;
                path = bytes.concat(path, abi.encodePacked(row[sibling].hash, row[sibling].tokens));
            }
        }
    }

    // -- what the host does

    function commitEpoch(Member[] memory all) internal {
        (bytes32 root, uint32 total) = epochOf(all);
        vm.prank(host);
        epochs.commitEpoch(root, total);
    }

    function epochSeed(address whose, bytes32 root, uint256 committedAt) internal view returns (bytes32) {
        return keccak256(abi.encode(blockhash(committedAt + 2), block.chainid, address(epochs), whose, root));
    }

    /// The right answer: whose session was drawn, its siblings, the proof of the checkpoint, and the tokens before that.
    function epochAnswer(Member[] memory all, uint256 committedAt)
        internal
        view
        returns (Terms memory t, SumNode[] memory path, Proof memory p)
    {
        (bytes32 root, uint32 total) = epochOf(all);
        bytes32 seed = epochSeed(host, root, committedAt);
        uint256 position = uint256(seed) % total;
        uint256 before;
        uint256 at;
        while (position >= before + all[at].tokens) {
            before += all[at++].tokens;
        }
        Member memory m = all[at];
        t = m.t;
        path = siblingsOf(all, at);
        (p.circuitId, p.head, p.tokens) = (CIRCUIT, m.head, m.tokens);
        (p.treeRoot, p.commitment, p.checkpointTokens, p.path) = tree(m.tokens, position - before);
        before += (position - before) / 256 * 256;
        p.proof = abi.encodePacked(verifier.tag(epochStatement(t, p, root, total, before), seed, p.commitment));
    }

    function epochStatement(Terms memory t, Proof memory p, bytes32 root, uint32 total, uint256 before)
        internal
        view
        returns (bytes32)
    {
        bytes memory whose = abi.encode(block.chainid, address(epochs), market.idOf(t), t.host, t.modelId);
        return keccak256(
            bytes.concat(whose, abi.encode(root, uint256(total), before, uint256(p.checkpointTokens), p.circuitId))
        );
    }

    function proveEpoch(Member[] memory all) internal {
        uint256 committedAt = block.number;
        commitEpoch(all);
        vm.roll(committedAt + 3);
        (Terms memory t, SumNode[] memory path, Proof memory p) = epochAnswer(all, committedAt);
        epochs.proveEpoch(t, path, p);
    }

    // -- what the market is told

    function shared(Terms memory t) internal pure returns (Shared memory) {
        return Shared(t.token, t.policy, t.modelId);
    }

    /// A claim of the session over what `key` signed.
    function epochClaim(uint256 key, Terms memory t, uint32 tokens, uint96 amount, bytes32 head)
        internal
        view
        returns (EpochClaim memory c)
    {
        bytes32 digest = market.voucherDigest(market.idOf(t), amount, tokens, head);
        (c.renter, c.signer, c.arbiter, c.pricePerMTok, c.bond) =
        (t.renter, t.signer, t.arbiter, t.pricePerMTok, t.bond);
        (c.expiresAt, c.challenge, c.exposure, c.salt) = (t.expiresAt, t.challenge, t.exposure, t.salt);
        (c.tokens, c.transcript) = (tokens, head);
        (c.treeRoot,,,) = tree(tokens, 0);
        uint8 v;
        (v, c.r, c.vs) = vm.sign(key, digest);
        if (v == 28) c.vs |= bytes32(uint256(1) << 255);
    }

    function epochClaim(Terms memory t, uint32 tokens, bytes32 head) internal view returns (EpochClaim memory) {
        return epochClaim(SIGNER, t, tokens, cost(t, tokens), head);
    }

    function claimsOf(Member[] memory all, uint256 chosen) internal view returns (EpochClaim[] memory claims) {
        claims = new EpochClaim[](all.length);
        uint256 length;
        for (uint256 i; i < all.length; ++i) {
            if (chosen >> i & 1 == 1) claims[length++] = epochClaim(all[i].t, all[i].tokens, all[i].head);
        }
        assembly {
            mstore(claims, length)
        }
    }

    function redeemByEpoch(Member[] memory all, uint256 chosen) internal {
        EpochClaim[] memory claims = claimsOf(all, chosen);
        (bytes32 root,) = epochOf(all);
        bytes memory path = packed(all, chosen);
        vm.prank(host);
        market.redeemByEpoch(shared(all[0].t), claims, root, path);
    }
}
