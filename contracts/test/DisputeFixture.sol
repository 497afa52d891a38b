// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Disputes} from "../src/Disputes.sol";
import {JobView, Opening, Stage, Terms, Turn} from "../src/MarketTypes.sol";
import {Fixture} from "./Fixture.sol";

/// One stream of 300 tokens of which the renter signed 100, its transcript built as `fabstir.protocol.transcript` builds it, and the
/// claim for the rest in each of its stages. `token` says in which currency.
abstract contract DisputeFixture is Fixture {
    /// What accounts had at some time, in the job's token.
    struct Books {
        uint256 renter;
        uint256 host;
        uint256 credited; // to host and treasury together
        uint256 stake;
    }

    uint32 internal constant SIGNED = 100;
    uint32 internal constant SERVED = 300;
    uint96 internal constant HELD = 370 - 123; // floor(300 * 1.234567) - floor(100 * 1.234567)
    bytes32 internal constant SALT = sha256("salt");

    function token() internal view virtual returns (address);

    // -- the transcript

    function recordOf(uint256 index) internal pure virtual returns (bytes32) {
        int32 logprob = -int32(uint32(index));
        return
            sha256(abi.encodePacked("fabstir/record/1", SALT, uint32(index), uint32(1000 + index), logprob, uint8(0)));
    }

    function recordsOf(uint32 from, uint32 to) internal pure returns (bytes32[] memory records) {
        records = new bytes32[](to - from);
        for (uint256 i; i < records.length; ++i) {
            records[i] = recordOf(from + i);
        }
    }

    /// Answers that begin at these counts; the second one where the voucher stands.
    function turnAt(uint32 tokens) internal pure returns (Turn memory) {
        uint32 index = tokens == 0 ? 1 : tokens == SIGNED ? 2 : 3;
        return Turn(tokens, index, sha256(abi.encodePacked("request ", bytes1(uint8(48 + index)))));
    }

    function isTurn(uint256 tokens) internal pure returns (bool) {
        return tokens == 0 || tokens == SIGNED || tokens == 150;
    }

    function turnsOf(uint32 from, uint32 to) internal pure returns (Turn[] memory turns) {
        turns = new Turn[](3);
        uint256 length;
        for (uint32 i = from; i < to; ++i) {
            if (isTurn(i)) turns[length++] = turnAt(i);
        }
        assembly {
            mstore(turns, length)
        }
    }

    function afterTurn(bytes32 head, Turn memory turn) internal pure returns (bytes32) {
        return
            sha256(bytes.concat("fabstir/turn/1", head, bytes4(turn.messageIndex), bytes4(turn.tokens), turn.request));
    }

    function afterToken(bytes32 head, bytes32 record) internal pure returns (bytes32) {
        return sha256(bytes.concat("fabstir/token/1", head, record));
    }

    /// The head after `tokens` tokens; an answer that begins there is not in it yet.
    function headOf(Terms memory t, uint32 tokens) internal view returns (bytes32) {
        bytes memory where = abi.encodePacked(uint64(block.chainid), address(market), market.idOf(t));
        return walk(sha256(bytes.concat("fabstir/job/1", where, bytes20(t.host), t.modelId)), tokens);
    }

    function walk(bytes32 head, uint32 tokens) internal pure returns (bytes32) {
        for (uint32 i; i < tokens; ++i) {
            if (isTurn(i)) head = afterTurn(head, turnAt(i));
            head = afterToken(head, recordOf(i));
        }
        return head;
    }

    /// The right answer to a dispute about a commitment to `to` tokens, `from` of which are signed.
    function opening(Terms memory t, uint32 from, uint32 to) internal view returns (Opening memory o) {
        (o.treeRoot,,,) = tree(to, 0);
        (o.head, o.tokens, o.from) = (headOf(t, to), to, from);
        if (from != 0) {
            o.transcript = headOf(t, from);
            o.voucher = voucherOf(SIGNER, t, from, cost(t, from), o.transcript).sig;
        }
        (o.records, o.turns) = (recordsOf(from, to), turnsOf(from, to));
    }

    // -- a claim in each of its stages

    function agreed() internal view returns (Terms memory t) {
        t = terms(token(), 1);
        t.exposure = 600;
    }

    function sign(Terms memory t, uint32 tokens) internal {
        redeem(voucherOf(SIGNER, t, tokens, cost(t, tokens), headOf(t, tokens)));
    }

    function claimed(Terms memory t) internal returns (Terms memory) {
        open(t, DEPOSIT);
        sign(t, SIGNED);
        prove(t, SERVED, headOf(t, SERVED));
        claim(t);
        return t;
    }

    function dispute(Terms memory t) internal {
        vm.prank(t.renter);
        market.dispute{value: token() == NATIVE ? BOND : 0}(t);
    }

    function answerDispute(Terms memory t) internal {
        Opening memory o = opening(t, SIGNED, SERVED);
        vm.prank(host);
        market.answerDispute(t, o);
    }

    /// A claim that has reached `stage`.
    function inStage(Stage stage) internal returns (Terms memory t) {
        t = claimed(agreed());
        advance(t, stage);
    }

    function advance(Terms memory t, Stage stage) internal {
        if (stage != Stage.Claimed) dispute(t);
        if (stage == Stage.Answered) answerDispute(t);
    }

    function stages() internal pure returns (Stage[3] memory) {
        return [Stage.Claimed, Stage.Disputed, Stage.Answered];
    }

    /// Another job by the same parties, for tests that go through all stages in turn.
    function inStage(Stage stage, bytes32 salt) internal returns (Terms memory t) {
        t = agreed();
        t.salt = salt;
        claimed(t);
        advance(t, stage);
    }

    function wait_(Terms memory t) internal {
        vm.warp(block.timestamp + t.challenge);
    }

    function lost(Terms memory t) internal {
        dispute(t);
        wait_(t);
        market.settleClaim(t);
    }

    function stands(Terms memory t, Stage stage) internal view {
        eq(uint8(stage), uint8(state(t).stage), "stage");
    }

    function wrongStage(Stage stage) internal pure returns (bytes memory) {
        return abi.encodeWithSelector(Disputes.WrongStage.selector, stage);
    }

    // -- money

    function balance(address account) internal view returns (uint256) {
        return token() == NATIVE ? account.balance : usdc.balanceOf(account);
    }

    function books() internal view returns (Books memory b) {
        b.renter = balance(renter);
        b.host = balance(host);
        b.credited = market.earnings(host, token()) + market.earnings(TREASURY, token());
        (b.stake,,,) = stakes.stakeOf(host);
    }

    /// Since `b`: what was pushed to renter and to host, what was credited, whether the host was slashed (which pays the renter, too).
    function moved(Books memory b, uint256 toRenter, uint256 toHost, uint256 credited, bool slashed) internal view {
        Books memory now_ = books();
        if (slashed && token() != NATIVE) toRenter += COMPENSATION;
        eq(b.renter + toRenter, now_.renter, "to the renter");
        eq(b.host + toHost, now_.host, "to the host");
        eq(b.credited + credited, now_.credited, "credited");
        eq(b.stake - (slashed ? SLASH : 0), now_.stake, "stake");
    }

    /// Where `t` is the only job: what the market holds is what it owes.
    function solvent(Terms memory t) internal view {
        JobView memory job = state(t);
        uint256 owing = job.held + market.earnings(host, token()) + market.earnings(TREASURY, token());
        owing += market.earnings(t.renter, token());
        if (!job.closed) owing += job.deposit - job.owed;
        if (job.stage == Stage.Disputed || job.stage == Stage.Answered) owing += t.bond;
        eq(owing, balance(address(market)), "solvent");
    }
}
