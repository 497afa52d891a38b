// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {EzklSpotVerifier} from "../src/EzklSpotVerifier.sol";
import {ModelRegistry} from "../src/ModelRegistry.sol";
import {TestBase} from "./Base.sol";

/// Stands for the generated verifier: says yes to everything, so that what is refused is refused by the adapter; or only to what it is
/// told, so that it sees what the generated one would see.
contract SpotProbe {
    bytes32 public expected;
    uint256 public mood;

    function expect(bytes32 expected_) external {
        expected = expected_;
    }

    function setMood(uint256 mood_) external {
        mood = mood_;
    }

    function verifyProof(bytes calldata proof, uint256[] calldata instances) external view returns (bool) {
        if (mood == 1) revert();
        if (mood == 2) {
            assembly {
                return(0, 0)
            }
        }
        if (mood == 3) {
            assembly {
                mstore(0, 1)
                return(0, 64)
            }
        }
        return expected == 0 || keccak256(abi.encode(proof, instances)) == expected;
    }
}

/// One honest proof, its trees built whole: a head of seven rows, a checkpoint of five tokens whose fourth is drawn.
abstract contract SpotFixture is TestBase {
    uint256 internal constant ROWS = 7;
    uint256 internal constant RECORDS = 5;
    uint256 internal constant PLACE = 3;
    uint256 internal constant BEFORE = 20;
    uint256 internal constant TOKENS = 37;
    uint32 internal constant FIRST = 1_000;
    int64 internal constant Z = 3_000_000;
    uint8 internal constant SCALE = 6;
    int256 internal constant UNIT = 2 ** 16; // a million of it is a whole number of the logits' common divisor
    uint256 internal constant FIELD = 21888242871839275222246405745257275088548364400416034343698204186575808495617;

    ModelRegistry internal models = new ModelRegistry(address(this));
    SpotProbe internal probe = new SpotProbe();
    EzklSpotVerifier internal adapter = new EzklSpotVerifier(address(probe), models);
    bytes32 internal model;
    bytes32 internal twin; // another model with the same head

    uint32[6] internal listed = [uint32(2), 5, 0, 6, 1, 3];
    int32[6] internal logprobs = [int32(-500_000), -1_500_000, -2_500_000, -3_500_000, -4_500_000, -5_500_000];
    bytes32 internal seed = seedFor(PLACE, 0);

    function setUp() public {
        (bytes32 root,) = tree(headLeaves(), 0);
        model = registered("one", root, uint32(ROWS));
        twin = registered("twin", root, uint32(ROWS));
    }

    function registered(string memory name, bytes32 root, uint32 rows) internal returns (bytes32 id) {
        ModelRegistry.Head memory head = ModelRegistry.Head(root, rows, 896, SCALE);
        id = models.propose(name, "m.gguf", "sum", "tokenizer", "template", head);
        models.approve(id, head);
    }

    /// A seed that draws the token at `place` of the checkpoint.
    function seedFor(uint256 place, uint256 nonce) internal pure returns (bytes32) {
        uint256 number = uint256(keccak256(abi.encode(nonce)));
        return bytes32(number - number % TOKENS + BEFORE + place);
    }

    function xOf(uint256 row) internal pure returns (bytes32) {
        return keccak256(abi.encode("x", row));
    }

    function yOf(uint256 row) internal pure returns (bytes32) {
        return keccak256(abi.encode("y", row));
    }

    function headLeaves() internal pure returns (bytes32[] memory leaves) {
        leaves = new bytes32[](ROWS);
        for (uint256 i; i < ROWS; ++i) {
            leaves[i] = keccak256(abi.encode(i, xOf(i), yOf(i)));
        }
    }

    /// The root over `leaves`, and the way of one of them.
    function tree(bytes32[] memory leaves, uint256 place) internal pure returns (bytes32, bytes memory path) {
        while (leaves.length > 1) {
            bytes32[] memory above = new bytes32[]((leaves.length + 1) / 2);
            for (uint256 i; i < above.length; ++i) {
                bytes32 right = 2 * i + 1 < leaves.length ? leaves[2 * i + 1] : bytes32(0);
                above[i] = keccak256(abi.encode(leaves[2 * i], right));
            }
            path = abi.encodePacked(path, (place ^ 1) < leaves.length ? leaves[place ^ 1] : bytes32(0));
            (leaves, place) = (above, place / 2);
        }
        return (leaves[0], path);
    }

    function record(uint32 index, uint32 token, int32 logprob, uint16 temperature)
        internal
        view
        returns (bytes memory)
    {
        return recordOf(index, token, logprob, temperature, listed.length);
    }

    function recordOf(uint32 index, uint32 token, int32 logprob, uint16 temperature, uint256 count)
        internal
        view
        returns (bytes memory made)
    {
        made = abi.encodePacked(bytes32("salt"), index, token, logprob, temperature, uint32(1_000_000), uint8(count));
        for (uint256 i; i < count; ++i) {
            made = abi.encodePacked(made, listed[i], logprobs[i]);
        }
    }

    function honest() internal view returns (EzklSpotVerifier.SpotProof memory p) {
        p.statement = EzklSpotVerifier.Statement(
            block.chainid, address(this), "job", address(0xA), model, "root", TOKENS, BEFORE, RECORDS, "circuit"
        );
        p.first = FIRST;
        p.denominator = Z;
        p.record = record(FIRST + uint32(PLACE), listed[0], logprobs[0], 0);
        complete(p, seed);
    }

    /// Everything that follows from statement, record and denominator: rows, products, halo2 proof, paths.
    function complete(EzklSpotVerifier.SpotProof memory p, bytes32 drawn) internal view {
        (uint32[4] memory tokens, int32[4] memory stated) = rowsOf(p.record, drawn);
        bytes memory points =
            abi.encodePacked(bytes32("ctx x"), bytes32("ctx y"), bytes32("hidden x"), bytes32("hidden y"));
        p.rowPaths = "";
        for (uint256 i; i < 4; ++i) {
            p.dots[i] = (int256(stated[i]) + p.denominator) * UNIT / 1_000_000;
            points = abi.encodePacked(points, xOf(tokens[i]), yOf(tokens[i]));
            (, bytes memory path) = tree(headLeaves(), tokens[i]);
            p.rowPaths = abi.encodePacked(p.rowPaths, path);
        }
        p.halo2 = abi.encodePacked(points, new bytes(3936 - points.length));
        (, p.tracePath) = tree(traces(p, RECORDS), PLACE);
    }

    /// Which rows are checked: the token's own, then three of its list without it, from where the seed says.
    function rowsOf(bytes memory r, bytes32 drawn)
        internal
        view
        returns (uint32[4] memory tokens, int32[4] memory stated)
    {
        uint32 token;
        int32 logprob;
        assembly ("memory-safe") {
            token := shr(224, mload(add(r, 68)))
            logprob := signextend(3, shr(224, mload(add(r, 72))))
        }
        uint256 count;
        uint256[6] memory others;
        for (uint256 i; i < listed.length; ++i) {
            if (listed[i] != token) others[count++] = i;
        }
        (tokens[0], stated[0]) = (token, logprob);
        uint256 start = uint256(keccak256(abi.encode(drawn))) % count;
        for (uint256 i; i < 3; ++i) {
            uint256 at = others[(start + i) % count];
            (tokens[i + 1], stated[i + 1]) = (listed[at], logprobs[at]);
        }
    }

    /// Leaves of a checkpoint of `count` traces whose drawn one is that of `p`.
    function traces(EzklSpotVerifier.SpotProof memory p, uint256 count)
        internal
        pure
        returns (bytes32[] memory leaves)
    {
        leaves = new bytes32[](count);
        for (uint256 i; i < count; ++i) {
            leaves[i] = keccak256(abi.encode("trace", i));
        }
        leaves[PLACE] = traceOf(p);
    }

    function traceOf(EzklSpotVerifier.SpotProof memory p) internal pure returns (bytes32) {
        bytes32 x;
        bytes32 y;
        bytes memory halo2 = p.halo2;
        assembly ("memory-safe") {
            x := mload(add(halo2, 96))
            y := mload(add(halo2, 128))
        }
        bytes32 digest = sha256(abi.encodePacked("fabstir/record/2", p.record));
        return keccak256(abi.encode(bytes32("fabstir/trace/1"), digest, x, y, int256(p.denominator)));
    }

    function commitmentOf(EzklSpotVerifier.SpotProof memory p) internal pure returns (bytes32) {
        (bytes32 root,) = tree(traces(p, RECORDS), PLACE);
        return keccak256(abi.encode(bytes32("fabstir/traces/1"), uint256(p.first), root));
    }

    function hashOf(EzklSpotVerifier.SpotProof memory p) internal pure returns (bytes32) {
        return keccak256(abi.encode(p.statement));
    }

    /// Asked about exactly what `p` itself says; a revert is a no.
    function accepted(EzklSpotVerifier.SpotProof memory p) internal view returns (bool) {
        return accepted(p, hashOf(p), seed, commitmentOf(p));
    }

    function accepted(EzklSpotVerifier.SpotProof memory p, bytes32 statement, bytes32 drawn, bytes32 commitment)
        internal
        view
        returns (bool)
    {
        try adapter.verify(statement, drawn, commitment, abi.encode(p)) returns (bool valid) {
            return valid;
        } catch {
            return false;
        }
    }
}

contract SpotTraceTest is SpotFixture {
    function test_anHonestProofIsAccepted() public view {
        ok(accepted(honest()), "honest");
    }

    function test_theWordsAreThoseOfTheStatement() public view {
        EzklSpotVerifier.SpotProof memory p = honest();
        bytes32 statement = hashOf(p);
        p.statement.modelId = twin;
        ok(accepted(p), "the twin has the same head");
        ok(!accepted(p, statement, seed, commitmentOf(p)), "and is another model");
    }

    function test_theTraceIsTheCommittedOne() public view {
        bytes32 commitment = commitmentOf(honest());
        EzklSpotVerifier.SpotProof memory p = honest();
        ok(!accepted(p, hashOf(p), seed, "other"), "commitment");
        p.first += 1;
        ok(!accepted(p, hashOf(p), seed, commitment), "first");
        p = honest();
        p.record[0] ^= 0x01;
        ok(!accepted(p, hashOf(p), seed, commitment), "record");
        p = honest();
        p.denominator += 1;
        ok(!accepted(p, hashOf(p), seed, commitment), "denominator");
        for (uint256 place = 95; place < 128; place += 32) {
            p = honest();
            p.halo2[place] ^= 0x01;
            ok(!accepted(p, hashOf(p), seed, commitment), "point of the state");
            ok(accepted(p), "committed so, it is as good");
        }
    }

    function test_theTraceIsTheDrawnOne() public view {
        EzklSpotVerifier.SpotProof memory p = honest();
        for (uint256 place; place < RECORDS; ++place) {
            bytes32 drawn = seedFor(place, 0);
            complete(p, drawn);
            ok(accepted(p, hashOf(p), drawn, commitmentOf(p)) == (place == PLACE), "place");
        }
    }

    function test_theRecordsFollowEachOther() public view {
        EzklSpotVerifier.SpotProof memory p = honest();
        p.first = FIRST + 1; // committed so
        ok(!accepted(p), "its index is not its place");
    }

    /// A host that commits to more traces than tokens has no second choice among them.
    function test_thereAreNoTracesBeyondTheRecords() public view {
        EzklSpotVerifier.SpotProof memory p = honest();
        p.statement.records = PLACE; // the drawn one lies behind the last, in a tree of the same depth
        (bytes32 root, bytes memory path) = tree(traces(p, 4), PLACE);
        p.tracePath = path;
        bytes32 commitment = keccak256(abi.encode(bytes32("fabstir/traces/1"), uint256(FIRST), root));
        ok(!accepted(p, hashOf(p), seed, commitment), "place");
        p.statement.records = 4;
        ok(accepted(p, hashOf(p), seed, commitment), "the last of four");
        p.statement.records = 8;
        ok(!accepted(p, hashOf(p), seed, commitment), "a path that is too short");
        p.statement.records = 2;
        ok(!accepted(p, hashOf(p), seed, commitment), "a path that is too long");
    }

    function test_aCheckpointHasAtMost256Records() public view {
        for (uint256 records = 256; records < 258; ++records) {
            EzklSpotVerifier.SpotProof memory p = honest();
            p.statement.records = records;
            (bytes32 root, bytes memory path) = tree(traces(p, records), PLACE);
            p.tracePath = path;
            bytes32 commitment = keccak256(abi.encode(bytes32("fabstir/traces/1"), uint256(FIRST), root));
            ok(accepted(p, hashOf(p), seed, commitment) == (records == 256), "records");
        }
    }

    function test_anEarlierCheckpointIsNotThisOne() public view {
        EzklSpotVerifier.SpotProof memory p = honest();
        p.statement.tokensBefore = BEFORE + PLACE + 1;
        ok(!accepted(p), "before");
    }

    function test_theSamplerCanHaveDrawnIt() public view {
        EzklSpotVerifier.SpotProof memory p = honest();
        p.record = record(FIRST + uint32(PLACE), listed[1], logprobs[1], 0);
        complete(p, seed);
        ok(!accepted(p), "not the likeliest at temperature 0");
        p.record = record(FIRST + uint32(PLACE), listed[1], logprobs[1], 800);
        complete(p, seed);
        ok(accepted(p), "at a temperature it can be");
    }
}

contract SpotRowsTest is SpotFixture {
    /// Wherever the token stands in its list, or not in it, and wherever the seed begins.
    function test_theSeedPicksTheOtherRows() public view {
        for (uint256 own; own < listed.length; ++own) {
            for (uint256 nonce; nonce < 12; ++nonce) {
                bytes32 drawn = seedFor(PLACE, nonce);
                EzklSpotVerifier.SpotProof memory p = honest();
                p.record = record(FIRST + uint32(PLACE), listed[own], logprobs[own], 1_300);
                complete(p, drawn);
                ok(accepted(p, hashOf(p), drawn, commitmentOf(p)), "rows");
            }
        }
        EzklSpotVerifier.SpotProof memory unlisted = honest();
        unlisted.record = record(FIRST + uint32(PLACE), 4, -6_500_000, 1_300);
        complete(unlisted, seed);
        ok(accepted(unlisted), "not in its list");
    }

    function test_aListThatIsTooShortHasNoProof() public view {
        for (uint256 count = 3; count < 5; ++count) {
            EzklSpotVerifier.SpotProof memory p = honest();
            p.record = recordOf(FIRST + uint32(PLACE), listed[0], logprobs[0], 0, count);
            uint256 start = uint256(keccak256(abi.encode(seed))) % (count - 1);
            completeShort(p, start, count - 1);
            ok(accepted(p) == (count == 4), "three others");
        }
    }

    /// `complete`, where `others` tokens beside the first are listed.
    function completeShort(EzklSpotVerifier.SpotProof memory p, uint256 start, uint256 others) internal view {
        bytes memory points =
            abi.encodePacked(bytes32("ctx x"), bytes32("ctx y"), bytes32("hidden x"), bytes32("hidden y"));
        p.rowPaths = "";
        for (uint256 i; i < 4; ++i) {
            uint256 at = i == 0 ? 0 : 1 + (start + i - 1) % others;
            p.dots[i] = (int256(logprobs[at]) + p.denominator) * UNIT / 1_000_000;
            points = abi.encodePacked(points, xOf(listed[at]), yOf(listed[at]));
            (, bytes memory path) = tree(headLeaves(), listed[at]);
            p.rowPaths = abi.encodePacked(p.rowPaths, path);
        }
        p.halo2 = abi.encodePacked(points, new bytes(3936 - points.length));
        (, p.tracePath) = tree(traces(p, RECORDS), PLACE);
    }

    function test_eachRowIsTheRegisteredOne() public view {
        for (uint256 place = 159; place < 384; place += 32) {
            EzklSpotVerifier.SpotProof memory p = honest();
            p.halo2[place] ^= 0x01;
            ok(!accepted(p), "a coordinate of a row");
        }
        EzklSpotVerifier.SpotProof memory q = honest();
        q.rowPaths[0] ^= 0x01;
        ok(!accepted(q), "path");
        q = honest();
        q.rowPaths = abi.encodePacked(q.rowPaths, bytes32(0));
        ok(!accepted(q), "a path that is longer");
    }

    function test_anUnknownModelHasNoRows() public view {
        EzklSpotVerifier.SpotProof memory p = honest();
        p.statement.modelId = "unknown";
        ok(!accepted(p), "model");
    }

    /// A leaf behind the last row: in the tree, and no row.
    function test_rowsEndWhereTheHeadSays() public {
        bool some;
        (bytes32 root,) = tree(headLeaves(), 0);
        for (uint32 rows = 6; rows < 8; ++rows) {
            bytes32 id = registered(rows == 6 ? "six" : "seven", root, rows);
            for (uint256 nonce; nonce < 8; ++nonce) {
                bytes32 drawn = seedFor(PLACE, nonce);
                EzklSpotVerifier.SpotProof memory p = honest();
                p.statement.modelId = id;
                complete(p, drawn);
                (uint32[4] memory tokens,) = rowsOf(p.record, drawn);
                bool last = tokens[1] == 6 || tokens[2] == 6 || tokens[3] == 6;
                ok(accepted(p, hashOf(p), drawn, commitmentOf(p)) == (rows == 7 || !last), "row 6");
                some = some || last;
            }
        }
        ok(some, "it was asked for");
    }

    function test_theToleranceIsAQuarterOfANat() public view {
        int256 most = 250_000 * UNIT / 1_000_000;
        for (uint256 i; i < 4; ++i) {
            for (int256 sign_ = -1; sign_ < 2; sign_ += 2) {
                EzklSpotVerifier.SpotProof memory p = honest();
                p.dots[i] += sign_ * most;
                ok(accepted(p), "at the bound");
                p.dots[i] += sign_;
                ok(!accepted(p), "beyond");
            }
        }
    }
}

contract SpotPairingTest is SpotFixture {
    function expected(EzklSpotVerifier.SpotProof memory p, bytes32 statement, bytes32 drawn)
        internal
        pure
        returns (bytes32)
    {
        uint256[] memory instances = new uint256[](8);
        (instances[0], instances[1]) = (uint256(statement) >> 128, uint128(uint256(statement)));
        (instances[2], instances[3]) = (uint256(drawn) >> 128, uint128(uint256(drawn)));
        for (uint256 i; i < 4; ++i) {
            instances[4 + i] = p.dots[i] < 0 ? FIELD - uint256(-p.dots[i]) : uint256(p.dots[i]);
        }
        return keccak256(abi.encode(p.halo2, instances));
    }

    /// Statement, seed and products, the negative ones too, are what the generated verifier is asked about.
    function test_theInstances() public {
        EzklSpotVerifier.SpotProof memory p = honest();
        bool negative;
        for (uint256 nonce; nonce < 8; ++nonce) {
            bytes32 drawn = seedFor(PLACE, nonce);
            complete(p, drawn);
            for (uint256 i; i < 4; ++i) {
                negative = negative || p.dots[i] < 0;
            }
            probe.expect(expected(p, hashOf(p), drawn));
            ok(accepted(p, hashOf(p), drawn, commitmentOf(p)), "as expected");
            probe.expect("something else");
            ok(!accepted(p, hashOf(p), drawn, commitmentOf(p)), "its word counts");
        }
        ok(negative, "a logit below 0 was among them");
    }

    function test_onlyThirtyTwoBytesOfTrueCount() public {
        for (uint256 mood = 1; mood < 4; ++mood) {
            probe.setMood(mood);
            ok(!accepted(honest()), "refused, silent or garbage");
        }
    }

    function test_aProofHasOneLength() public view {
        EzklSpotVerifier.SpotProof memory p = honest();
        p.halo2 = abi.encodePacked(p.halo2, bytes1(0));
        ok(!accepted(p), "longer");
        bytes memory cut = honest().halo2;
        assembly ("memory-safe") {
            mstore(cut, 3935)
        }
        p.halo2 = cut;
        ok(!accepted(p), "shorter");
    }

    function test_aChangedVerifierIsFalse() public {
        vm.etch(address(probe), hex"600160005260206000f3");
        ok(!accepted(honest()), "says yes to all, is not the pinned one");
    }

    function test_theVerifierMustBeAContract() public {
        vm.expectRevert(EzklSpotVerifier.NoCode.selector);
        new EzklSpotVerifier(address(0xE0A), models);
    }

    function test_noProofAtAllIsFalse() public view {
        ok(!adapter.verify("statement", seed, "commitment", ""), "nothing");
    }
}
