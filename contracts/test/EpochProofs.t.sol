// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {EpochProofs} from "../src/EpochProofs.sol";
import {Proof, SumNode, Terms} from "../src/MarketTypes.sol";
import {SumTree} from "../src/SumTree.sol";
import {SettableVerifier} from "./Doubles.sol";
import {EpochFixture} from "./EpochFixture.sol";

/// One commitment, one challenge and one proof for many sessions; what is refused.
contract EpochProofsTest is EpochFixture {
    uint256 private constant AT = 1_000;
    address private constant STRANGER = address(0xBAD);

    function token() internal pure override returns (address) {
        return NATIVE;
    }

    /// Five sessions of other sizes; the third is larger than a checkpoint.
    function five() internal view returns (Member[] memory all) {
        uint32[5] memory sizes = [uint32(3), 256, 700, 1, 40];
        all = new Member[](5);
        for (uint256 i; i < 5; ++i) {
            Terms memory t = terms(NATIVE, 0);
            t.salt = bytes32(i + 1);
            all[i] = Member(t, sizes[i], keccak256(abi.encode("head", i)));
        }
    }

    function waiting() internal returns (Member[] memory all) {
        all = five();
        commitEpoch(all);
        vm.roll(AT + 3);
    }

    function isProven(Member[] memory all) internal view returns (bool) {
        (bytes32 root, uint32 total) = epochOf(all);
        return epochs.provenTokens(host, root) == total;
    }

    function refused(bytes memory reason, Terms memory t, SumNode[] memory path, Proof memory p) internal {
        vm.expectRevert(reason);
        epochs.proveEpoch(t, path, p);
    }

    function refused(bytes4 reason, Terms memory t, SumNode[] memory path, Proof memory p) internal {
        refused(abi.encodePacked(reason), t, path, p);
    }

    // -- commitments

    function test_commitmentIsKept() public {
        (bytes32 root, uint32 total) = epochOf(five());
        vm.expectEmit(true, true, true, true);
        emit EpochProofs.EpochCommitted(host, root, total, AT);
        commitEpoch(five());
        (uint40 pendingBlock, uint216 digest) = epochs.epochOf(host);
        eq(AT, pendingBlock, "block");
        eq(uint216(uint256(keccak256(abi.encode(root, total)))), digest, "digest");
    }

    function test_anEpochOfNothing() public {
        vm.expectRevert(EpochProofs.NothingToProve.selector);
        epochs.commitEpoch("root", 0);
    }

    /// A host that dislikes its challenge gets no other one while it could still answer, for no root at all.
    function test_diceAreThrownOnce() public {
        commitEpoch(five());
        bytes memory reason = abi.encodeWithSelector(EpochProofs.CommitmentPending.selector, AT + 2 + 256 + 1);
        uint256[4] memory blocks = [AT, AT + 2, AT + 3, AT + 2 + 256];
        for (uint256 i; i < blocks.length; ++i) {
            vm.roll(blocks[i]);
            vm.prank(host);
            vm.expectRevert(reason);
            epochs.commitEpoch("another root", 7);
        }
        vm.roll(AT + 2 + 256 + 1);
        commitEpoch(five());
    }

    /// Another host's commitment changes nothing, and is not in anybody's way.
    function test_hostsDoNotMeet() public {
        Member[] memory all = waiting();
        vm.prank(STRANGER);
        epochs.commitEpoch("root", 1);
        (Terms memory t, SumNode[] memory path, Proof memory p) = epochAnswer(all, AT);
        epochs.proveEpoch(t, path, p);
        ok(isProven(all), "proven");
    }

    function test_afterAProofTheNextEpochFollowsAtOnce() public {
        Member[] memory all = five();
        proveEpoch(all);
        all[0].tokens = 9;
        proveEpoch(all);
        ok(isProven(five()) && isProven(all), "both stay proven");
    }

    // -- the challenge

    /// Wherever the draw falls, the session and the checkpoint that hold it are accepted, and the epoch is proven for this host alone.
    function testFuzz_rightAnswerIsAccepted(bytes32 hash) public {
        Member[] memory all = waiting();
        vm.setBlockhash(AT + 2, hash == 0 ? bytes32("hash") : hash);
        (Terms memory t, SumNode[] memory path, Proof memory p) = epochAnswer(all, AT);
        epochs.proveEpoch(t, path, p);
        ok(isProven(all), "proven");
        (bytes32 root,) = epochOf(all);
        eq(0, epochs.provenTokens(STRANGER, root), "of nobody else");
        (uint40 pendingBlock,) = epochs.epochOf(host);
        eq(0, pendingBlock, "no longer pending");
    }

    function test_acceptedIsAnnounced() public {
        Member[] memory all = waiting();
        (Terms memory t, SumNode[] memory path, Proof memory p) = epochAnswer(all, AT);
        (bytes32 root, uint32 total) = epochOf(all);
        uint256 position = uint256(epochSeed(host, root, AT)) % total;
        uint256 before;
        for (uint256 i; position >= before + all[i].tokens; ++i) {
            before += all[i].tokens;
        }
        before += (position - before) / 256 * 256;
        vm.expectEmit(true, true, true, true);
        emit EpochProofs.EpochProven(
            host, root, total, market.idOf(t), CIRCUIT, epochStatement(t, p, root, total, before)
        );
        epochs.proveEpoch(t, path, p);
    }

    function test_anAnswerIsAcceptedOnce() public {
        Member[] memory all = waiting();
        (Terms memory t, SumNode[] memory path, Proof memory p) = epochAnswer(all, AT);
        epochs.proveEpoch(t, path, p);
        refused(EpochProofs.NoCommitment.selector, t, path, p);
    }

    function test_tooEarlyAndTooLate() public {
        Member[] memory all = five();
        commitEpoch(all);
        vm.roll(AT + 2);
        (Terms memory t, SumNode[] memory path, Proof memory p) = epochAnswer(all, AT);
        refused(abi.encodeWithSelector(EpochProofs.SeedNotReady.selector, AT + 3), t, path, p);
        vm.roll(AT + 2 + 257);
        refused(EpochProofs.SeedExpired.selector, t, path, p);
        ok(!isProven(all), "nothing is proven");
    }

    function test_lastBlockOfTheAnswer() public {
        Member[] memory all = five();
        commitEpoch(all);
        vm.roll(AT + 2 + 256);
        (Terms memory t, SumNode[] memory path, Proof memory p) = epochAnswer(all, AT);
        epochs.proveEpoch(t, path, p);
    }

    /// Only the drawn session may be opened: every other one is refused, with a proof that fits it in all else.
    function test_anotherSessionIsRefused() public {
        Member[] memory all = waiting();
        (bytes32 root, uint32 total) = epochOf(all);
        uint256 position = uint256(epochSeed(host, root, AT)) % total;
        uint256 before;
        for (uint256 i; i < all.length; ++i) {
            bool drawn = position >= before && position < before + all[i].tokens;
            if (!drawn) {
                Proof memory p;
                (p.circuitId, p.head, p.tokens) = (CIRCUIT, all[i].head, all[i].tokens);
                (p.treeRoot, p.commitment, p.checkpointTokens, p.path) = tree(p.tokens, 0);
                bytes memory reason = abi.encodeWithSelector(EpochProofs.WrongSession.selector, position, before);
                refused(reason, all[i].t, siblingsOf(all, i), p);
            }
            before += all[i].tokens;
        }
    }

    /// The right session, another checkpoint of it.
    function test_anotherCheckpointIsRefused() public {
        Member[] memory all = waiting();
        vm.setBlockhash(AT + 2, inSession(all, 2));
        (Terms memory t, SumNode[] memory path, Proof memory p) = epochAnswer(all, AT);
        (bytes32 root, uint32 total) = epochOf(all);
        uint256 position = uint256(epochSeed(host, root, AT)) % total - 259;
        uint256 other = position < 256 ? 300 : 0;
        (, p.commitment, p.checkpointTokens, p.path) = tree(p.tokens, other);
        refused(abi.encodeWithSelector(SumTree.WrongCheckpoint.selector, position, other / 256 * 256), t, path, p);
    }

    /// A block hash whose draw falls into session `at`.
    function inSession(Member[] memory all, uint256 at) internal view returns (bytes32 hash) {
        (bytes32 root, uint32 total) = epochOf(all);
        uint256 before;
        for (uint256 i; i < at; ++i) {
            before += all[i].tokens;
        }
        uint256 position = total;
        for (uint256 n = 1; position < before || position >= before + all[at].tokens; ++n) {
            hash = bytes32(n);
            position = uint256(keccak256(abi.encode(hash, block.chainid, address(epochs), host, root))) % total;
        }
    }

    // -- what is bound

    /// Of everything that the answer names, nothing can be changed.
    function testFuzz_alteredAnswersAreRefused(uint256 what, uint256 bits) public {
        Member[] memory all = waiting();
        (Terms memory t, SumNode[] memory path, Proof memory p) = epochAnswer(all, AT);
        bits = bound(bits, 1, type(uint256).max);
        what %= 11;
        if (what == 0) t.salt ^= bytes32(bits);
        if (what == 1) t.modelId ^= bytes32(bits);
        if (what == 2) t.host = STRANGER;
        if (what == 3) path[bits % path.length].hash ^= bytes32(bits);
        if (what == 4) ++path[bits % path.length].tokens;
        if (what == 5) path[bits % path.length].left = !path[bits % path.length].left;
        if (what == 6) p.head ^= bytes32(bits);
        if (what == 7) p.treeRoot ^= bytes32(bits);
        if (what == 8) p.commitment ^= bytes32(bits);
        if (what == 9) p.circuitId ^= bytes32(bits);
        if (what == 10) p.proof[bits % 32] ^= 0x01;
        vm.expectRevert();
        epochs.proveEpoch(t, path, p);
        ok(!isProven(all), "nothing is proven");
    }

    function test_theProofIsTheVerifiersToJudge() public {
        Member[] memory all = waiting();
        SettableVerifier settable = new SettableVerifier();
        proofs.register("settable", settable);
        (Terms memory t, SumNode[] memory path, Proof memory p) = epochAnswer(all, AT);
        p.circuitId = "settable";
        settable.answer(abi.encode(false));
        refused(EpochProofs.ProofInvalid.selector, t, path, p);
        settable.answer(abi.encode(true));
        epochs.proveEpoch(t, path, p);
    }

    /// The same epoch committed again has another challenge: the old answer is worth nothing.
    function test_replayToALaterCommitment() public {
        Member[] memory all = waiting();
        vm.setBlockhash(AT + 2, inSession(all, 1));
        (Terms memory t, SumNode[] memory path, Proof memory p) = epochAnswer(all, AT);
        vm.roll(AT + 300);
        commitEpoch(all);
        vm.roll(AT + 303);
        vm.setBlockhash(AT + 302, keccak256(abi.encode(inSession(all, 1))));
        vm.expectRevert();
        epochs.proveEpoch(t, path, p);
    }

    function test_replayToAnotherChain() public {
        Member[] memory all = waiting();
        (Terms memory t, SumNode[] memory path, Proof memory p) = epochAnswer(all, AT);
        vm.chainId(8453);
        vm.expectRevert();
        epochs.proveEpoch(t, path, p);
    }

    function test_replayToAnotherContract() public {
        Member[] memory all = waiting();
        (Terms memory t, SumNode[] memory path, Proof memory p) = epochAnswer(all, AT);
        epochs = new EpochProofs(proofs);
        vm.roll(AT);
        commitEpoch(all);
        vm.roll(AT + 3);
        vm.expectRevert();
        epochs.proveEpoch(t, path, p);
    }

    /// Two hosts commit the same root in the same block: the answer of one is not that of the other.
    function test_replayToAnotherHost() public {
        Member[] memory all = five();
        (bytes32 root, uint32 total) = epochOf(all);
        vm.prank(STRANGER);
        epochs.commitEpoch(root, total);
        vm.roll(AT + 3);
        (Terms memory t, SumNode[] memory path, Proof memory p) = epochAnswer(all, AT);
        refused(EpochProofs.NoCommitment.selector, t, path, p);
        eq(0, epochs.provenTokens(STRANGER, root), "nothing is proven");
    }

    /// A proof of a job in the market is none of an epoch of one session, and the other way round.
    function test_replayBetweenJobAndEpoch() public {
        Member[] memory all = new Member[](1);
        all[0] = Member(terms(NATIVE, 0), 5, HEAD);
        open(all[0].t, DEPOSIT);
        commit(all[0].t, 5);
        commitEpoch(all);
        vm.roll(AT + 3);
        Proof memory ofJob = answer(all[0].t, 5, AT);
        (Terms memory t, SumNode[] memory path, Proof memory ofEpoch) = epochAnswer(all, AT);
        refused(EpochProofs.ProofInvalid.selector, t, path, ofJob);
        vm.expectRevert();
        market.submitProof(t, ofEpoch);
        epochs.proveEpoch(t, path, ofEpoch);
        market.submitProof(t, ofJob);
    }

    /// Sums that do not add up to the committed tokens open nothing.
    function test_totalIsWhatTheTreeShows() public {
        Member[] memory all = five();
        (bytes32 root, uint32 total) = epochOf(all);
        vm.prank(host);
        epochs.commitEpoch(root, total + 1);
        vm.roll(AT + 3);
        (Terms memory t, SumNode[] memory path, Proof memory p) = epochAnswer(all, AT);
        refused(EpochProofs.NoCommitment.selector, t, path, p);
    }

    // -- what an epoch covers

    struct Session {
        bytes32 id;
        bytes32 treeRoot;
        bytes32 head;
        uint32 tokens;
    }

    function session(Member memory m) internal pure returns (Session memory s) {
        (bytes32 treeRoot,,,) = tree(m.tokens, 0);
        bytes32 id = keccak256(abi.encode(m.t));
        return Session(id, treeRoot, m.head, m.tokens);
    }

    /// As the market hands them over.
    function leavesOf(Session[] memory sessions) internal pure returns (bytes memory leaves) {
        for (uint256 i; i < sessions.length; ++i) {
            Session memory s = sessions[i];
            bytes32 root = keccak256(abi.encode(s.treeRoot, s.head));
            bytes32 leaf = keccak256(abi.encode(uint256(2), s.id, root, uint256(s.tokens)));
            leaves = bytes.concat(leaves, abi.encode(leaf, s.tokens));
        }
    }

    function covered(Member[] memory all, uint256 chosen, bytes memory path, address whose)
        internal
        view
        returns (bool)
    {
        Session[] memory sessions = new Session[](all.length);
        uint256 length;
        for (uint256 i; i < all.length; ++i) {
            if (chosen >> i & 1 == 1) sessions[length++] = session(all[i]);
        }
        assembly {
            mstore(sessions, length)
        }
        (bytes32 root,) = epochOf(all);
        return epochs.covers(whose, root, leavesOf(sessions), path);
    }

    /// Every choice of sessions of an epoch of any size is covered; of another host or before the proof none is.
    function testFuzz_coversItsSessions(uint256 size, uint256 chosen) public {
        Member[] memory all = new Member[](bound(size, 1, 12));
        for (uint256 i; i < all.length; ++i) {
            Terms memory t = terms(NATIVE, 0);
            t.salt = bytes32(i + 1);
            all[i] = Member(t, uint32(1 + uint256(keccak256(abi.encode(size, i))) % 400), keccak256(abi.encode(i)));
        }
        chosen = bound(chosen, 1, 2 ** all.length - 1);
        bytes memory path = packed(all, chosen);
        ok(!covered(all, chosen, path, host), "not before the proof");
        proveEpoch(all);
        ok(covered(all, chosen, path, host), "covered");
        ok(!covered(all, chosen, path, STRANGER), "another host's");
        ok(!covered(all, 0, path, host), "no session at all");
    }

    /// Another job, tree, head or count, a changed, longer or shorter path: not covered.
    function testFuzz_coversNothingElse(uint256 chosen, uint256 what, uint256 bits) public {
        Member[] memory all = five();
        proveEpoch(all);
        chosen = bound(chosen, 1, 30); // not all: then there are siblings
        bytes memory path = packed(all, chosen);
        Session[] memory sessions = new Session[](5);
        uint256 n;
        for (uint256 i; i < 5; ++i) {
            if (chosen >> i & 1 == 1) sessions[n++] = session(all[i]);
        }
        assembly {
            mstore(sessions, n)
        }
        bits = bound(bits, 1, type(uint256).max);
        what %= 7;
        if (what == 0) sessions[bits % n].id ^= bytes32(bits);
        if (what == 1) sessions[bits % n].treeRoot ^= bytes32(bits);
        if (what == 2) sessions[bits % n].head ^= bytes32(bits);
        if (what == 3) sessions[bits % n].tokens ^= uint32(1 << bits % 32);
        if (what == 4) path[4 + 4 * n + bits % (path.length - 4 - 4 * n)] ^= 0x01;
        if (what == 5) path = bytes.concat(path, new bytes(1 + bits % 40));
        if (what == 6) {
            uint256 shorter = path.length - 1 - bits % path.length;
            assembly {
                mstore(path, shorter)
            }
        }
        (bytes32 root,) = epochOf(all);
        try epochs.covers(host, root, leavesOf(sessions), path) returns (bool yes) {
            ok(!yes, "covered something else");
        } catch {}
    }

    /// A session that is given twice hides no other one: its second place needs a proof of its own.
    function test_aSessionGivenTwice() public {
        Member[] memory all = new Member[](2);
        (all[0], all[1]) = (five()[0], five()[1]);
        proveEpoch(all);
        (bytes32 root,) = epochOf(all);
        Session[] memory sessions = new Session[](2);
        (sessions[0], sessions[1]) = (session(all[0]), session(all[0]));
        sessions[1].head = "never committed";
        SumNode[] memory sibling = siblingsOf(all, 0);
        bytes memory two = abi.encodePacked(sibling[0].hash, sibling[0].tokens, sibling[0].hash, sibling[0].tokens);
        ok(
            !epochs.covers(host, root, leavesOf(sessions), bytes.concat(abi.encodePacked(uint32(2), uint64(0)), two)),
            "hidden"
        );
    }

    /// A subtree whose declared weight is below that of its leaves would seldom be drawn; none of those leaves can be shown.
    function test_understatedWeightCoversNothing() public {
        Member[] memory all = five();
        Node memory honest = leafOf(all[0]);
        Node memory heavy = leafOf(all[2]);
        heavy.tokens = 1;
        bytes32 root = parent(honest, heavy).hash;
        vm.prank(host);
        epochs.commitEpoch(root, honest.tokens + 1);
        vm.roll(AT + 3);
        vm.setBlockhash(AT + 2, lowDraw(root, honest.tokens + 1, honest.tokens));
        bytes32 seed = epochSeed(host, root, AT);
        SumNode[] memory path = new SumNode[](1);
        path[0] = SumNode(heavy.hash, 1, false);
        Proof memory p;
        (p.circuitId, p.head, p.tokens) = (CIRCUIT, all[0].head, all[0].tokens);
        (p.treeRoot, p.commitment, p.checkpointTokens, p.path) = tree(p.tokens, 0);
        bytes32 statement_ = epochStatement(all[0].t, p, root, honest.tokens + 1, 0);
        p.proof = abi.encodePacked(verifier.tag(statement_, seed, p.commitment));
        epochs.proveEpoch(all[0].t, path, p);
        Session[] memory sessions = new Session[](1);
        sessions[0] = session(all[2]);
        bytes memory way = abi.encodePacked(uint32(2), uint32(1), honest.hash, honest.tokens);
        ok(!epochs.covers(host, root, leavesOf(sessions), way), "an understated session is covered");
    }

    function lowDraw(bytes32 root, uint32 total, uint32 below) internal view returns (bytes32 hash) {
        uint256 position = below;
        for (uint256 n = 1; position >= below; ++n) {
            hash = bytes32(n);
            position = uint256(keccak256(abi.encode(hash, block.chainid, address(epochs), host, root))) % total;
        }
    }
}
