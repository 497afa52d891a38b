// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {EpochProofs} from "../src/EpochProofs.sol";
import {HostStake} from "../src/HostStake.sol";
import {JobMarketplace} from "../src/JobMarketplace.sol";
import {Claim, JobView, Proof, SumNode, Terms} from "../src/MarketTypes.sol";
import {ProofSystem} from "../src/ProofSystem.sol";
import {TestUSDC} from "../src/TestUSDC.sol";
import {TestBase} from "./Base.sol";
import {HashVerifier} from "./HashVerifier.sol";

/// A market with one renter, one host that has a stake, and a verifier that only accepts the right public inputs.
abstract contract Fixture is TestBase {
    uint256 internal constant RENTER = 0xA11CE;
    uint256 internal constant SIGNER = 0x5E55;
    uint256 internal constant HOST = 0xB0B;
    address internal constant NATIVE = address(0);
    address internal constant TREASURY = address(0x7EA5);
    address internal constant ARBITER = address(0xA4B1);
    bytes32 internal constant CIRCUIT = "hash circuit";
    bytes32 internal constant HEAD = "transcript head";
    uint96 internal constant PRICE = 1_234_567; // odd, so that rounding shows
    uint96 internal constant DEPOSIT = 5_000;
    uint96 internal constant BOND = 700;
    uint96 internal constant STAKE = 1e12;
    uint96 internal constant SLASH = 100e6;
    uint96 internal constant COMPENSATION = 60e6;
    uint256 internal constant START = 1_800_000_000;

    address internal renter = vm.addr(RENTER);
    address internal host = vm.addr(HOST);
    TestUSDC internal usdc;
    ProofSystem internal proofs;
    HashVerifier internal verifier;
    HostStake internal stakes;
    EpochProofs internal epochs;
    JobMarketplace internal market;

    function setUp() public virtual {
        vm.chainId(31337);
        vm.warp(START);
        vm.roll(1_000);
        usdc = new TestUSDC();
        proofs = new ProofSystem(address(this));
        verifier = new HashVerifier();
        proofs.register(CIRCUIT, verifier);
        stakes = new HostStake(address(this), usdc, TREASURY, 1_000e6, SLASH, COMPENSATION);
        epochs = new EpochProofs(proofs);
        market = new JobMarketplace(TREASURY, proofs, stakes, epochs);
        stakes.announce(address(market));
        usdc.mint(address(this), STAKE);
        usdc.approve(address(stakes), STAKE);
        stakes.stakeFor(host, STAKE);
        vm.deal(renter, 1e24);
        usdc.mint(renter, 1e24);
        vm.prank(renter);
        usdc.approve(address(market), type(uint256).max);
    }

    // -- jobs

    function terms(address token, uint8 policy) internal view returns (Terms memory) {
        return Terms({
            renter: renter,
            signer: vm.addr(SIGNER),
            host: host,
            token: token,
            arbiter: ARBITER,
            pricePerMTok: PRICE,
            bond: BOND,
            expiresAt: uint40(START + 1 days),
            challenge: 1 hours,
            exposure: 64,
            policy: policy,
            modelId: "model",
            salt: "salt"
        });
    }

    function open(Terms memory t, uint96 deposit) internal returns (bytes32) {
        vm.prank(t.renter);
        return market.open{value: t.token == NATIVE ? deposit : 0}(t, deposit);
    }

    /// An open native job in which the renter's voucher pays alone.
    function opened() internal returns (Terms memory t) {
        t = terms(NATIVE, 1);
        open(t, DEPOSIT);
    }

    function state(Terms memory t) internal view returns (JobView memory) {
        return market.jobs(market.idOf(t));
    }

    function isClosed(Terms memory t) internal view returns (bool closed) {
        return state(t).closed;
    }

    function owedOf(Terms memory t) internal view returns (uint96 owed) {
        return state(t).owed;
    }

    function cost(Terms memory t, uint32 tokens) internal pure returns (uint96) {
        return uint96(uint256(tokens) * t.pricePerMTok / 1e6);
    }

    // -- vouchers

    function voucher(Terms memory t, uint32 tokens) internal view returns (Claim memory) {
        return voucherOf(SIGNER, t, tokens, cost(t, tokens));
    }

    function voucherOf(uint256 key, Terms memory t, uint32 tokens, uint96 amount) internal view returns (Claim memory) {
        return voucherOf(key, t, tokens, amount, HEAD);
    }

    function voucherOf(uint256 key, Terms memory t, uint32 tokens, uint96 amount, bytes32 head)
        internal
        view
        returns (Claim memory)
    {
        bytes32 digest = market.voucherDigest(market.idOf(t), amount, tokens, head);
        return Claim(t, amount, tokens, head, sign(key, digest));
    }

    function unsigned(Terms memory t) internal pure returns (Claim memory) {
        return Claim(t, 0, 0, 0, "");
    }

    function closeSig(uint256 key, Terms memory t, uint32 tokens) internal view returns (bytes memory) {
        return sign(key, market.closeDigest(market.idOf(t), cost(t, tokens), tokens));
    }

    function one(Claim memory c) internal pure returns (Claim[] memory claims) {
        claims = new Claim[](1);
        claims[0] = c;
    }

    function redeem(Claim memory c) internal {
        vm.prank(host);
        market.redeem(one(c));
    }

    // -- proofs

    /// A tree over `tokens` tokens in checkpoints of 256; the last one holds the rest. The path leads to token `position`.
    function tree(uint32 tokens, uint256 position)
        internal
        pure
        returns (bytes32 root, bytes32 commitment, uint32 own, SumNode[] memory path)
    {
        uint256 width = (tokens + 255) / 256;
        bytes32[] memory hashes = new bytes32[](width);
        uint32[] memory sums = new uint32[](width);
        for (uint256 i; i < width; ++i) {
            sums[i] = i + 1 < width ? 256 : tokens - uint32(256 * (width - 1));
            hashes[i] = keccak256(abi.encode(uint8(0), keccak256(abi.encode("checkpoint", i)), sums[i]));
        }
        uint256 where = position / 256;
        commitment = keccak256(abi.encode("checkpoint", where));
        own = sums[where];
        path = new SumNode[](32);
        uint256 length;
        while (width > 1) {
            uint256 sibling = where ^ 1;
            if (sibling < width) path[length++] = SumNode(hashes[sibling], sums[sibling], sibling < where);
            for (uint256 i; i < width; i += 2) {
                if (i + 1 == width) {
                    (hashes[i / 2], sums[i / 2]) = (hashes[i], sums[i]);
                } else {
                    hashes[i / 2] = keccak256(abi.encode(uint8(1), hashes[i], sums[i], hashes[i + 1], sums[i + 1]));
                    sums[i / 2] = sums[i] + sums[i + 1];
                }
            }
            where /= 2;
            width = (width + 1) / 2;
        }
        root = hashes[0];
        assembly {
            mstore(path, length)
        }
    }

    // What is committed is a tree and a head of the transcript; where a test does not look at the head, it is HEAD.

    function rootOf(uint32 tokens) internal pure returns (bytes32) {
        return rootOf(tokens, HEAD);
    }

    function rootOf(uint32 tokens, bytes32 head) internal pure returns (bytes32) {
        (bytes32 treeRoot,,,) = tree(tokens, 0);
        return keccak256(abi.encode(treeRoot, head));
    }

    function commit(Terms memory t, uint32 tokens) internal {
        commit(t, tokens, HEAD);
    }

    function commit(Terms memory t, uint32 tokens, bytes32 head) internal {
        vm.prank(t.host);
        market.commitProof(t, tokens, rootOf(tokens, head));
    }

    function seedOf(Terms memory t, bytes32 root, uint256 committedAt) internal view returns (bytes32) {
        return keccak256(abi.encode(blockhash(committedAt + 2), market.idOf(t), root));
    }

    /// The right answer to the challenge of a commitment made in block `committedAt`.
    function answer(Terms memory t, uint32 tokens, uint256 committedAt) internal view returns (Proof memory) {
        return answer(t, tokens, committedAt, HEAD);
    }

    function answer(Terms memory t, uint32 tokens, uint256 committedAt, bytes32 head)
        internal
        view
        returns (Proof memory p)
    {
        bytes32 seed = seedOf(t, rootOf(tokens, head), committedAt);
        uint256 position = uint256(seed) % tokens;
        p.circuitId = CIRCUIT;
        p.head = head;
        p.tokens = tokens;
        (p.treeRoot, p.commitment, p.checkpointTokens, p.path) = tree(tokens, position);
        p.proof = abi.encodePacked(verifier.tag(statement(t, p, uint32(position / 256 * 256)), seed, p.commitment));
    }

    function statement(Terms memory t, Proof memory p, uint32 before) internal view returns (bytes32) {
        bytes memory whose = abi.encode(block.chainid, address(market), market.idOf(t), t.host, t.modelId);
        bytes memory what =
            abi.encode(keccak256(abi.encode(p.treeRoot, p.head)), p.tokens, before, p.checkpointTokens, p.circuitId);
        return keccak256(bytes.concat(whose, what));
    }

    /// Commits, waits for the challenge and answers it.
    function prove(Terms memory t, uint32 tokens) internal {
        prove(t, tokens, HEAD);
    }

    function prove(Terms memory t, uint32 tokens, bytes32 head) internal {
        uint256 committedAt = block.number;
        commit(t, tokens, head);
        vm.roll(committedAt + 3);
        market.submitProof(t, answer(t, tokens, committedAt, head));
    }

    // -- claims

    function claim(Terms memory t) internal {
        vm.prank(t.host);
        market.claimProven(t);
    }

    /// Claims, and has the window pass without an objection.
    function claimAndSettle(Terms memory t) internal {
        claim(t);
        vm.warp(block.timestamp + t.challenge);
        market.settleClaim(t);
    }
}
