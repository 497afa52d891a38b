"""How each call of the settlement matrix is made on a `Stage`: by everybody else first, too early, too late and twice, each refused by
name. Which calls are made, and what they must bring, stands in the matrix; `test_settlement_matrix` compares."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from fabstir.domain.ids import ZERO_ADDRESS
from fabstir.domain.terms import ClaimStage, ProofPolicy
from fabstir.protocol.matrix import Call, Cell, Ending
from fabstir.protocol.signing import SigningKey
from tests.scenarios.prompt_stage import ANSWER, PromptStage
from tests.scenarios.stage import ARBITER, HOST, OTHER_HOST, RENTER, SIGNER, STRANGER, Stage

NOT_HOSTS: Final = (RENTER, STRANGER, SIGNER, ARBITER)
BLOCK: Final = 3
"""Blocks from a commitment to its answer."""


class Story(msgspec.Struct, frozen=True):
    """What had happened when the job ended."""

    signed: int = 0
    unsigned: int = 0
    """Tokens that were served and not signed for."""
    late: int = 0
    """Tokens that were signed for, or agreed on, while the claim was held."""

    @property
    def served(self) -> int:
        return self.signed + self.unsigned


class Play:
    """One cell, one stage."""

    def __init__(self, stage: Stage, cell: Cell, story: Story) -> None:
        self.stage, self.cell, self.story = stage, cell, story
        self.others = list(cell.other_calls)

    def call(self, call: Call) -> None:
        """One call of the host, then what others do about it."""
        getattr(self, f"_{call.name.lower()}")()
        self.after()

    def after(self) -> None:
        """What others do now."""
        while self.others and self._is_due(self.others[0]):
            self._other(self.others.pop(0))

    def _is_due(self, call: Call) -> bool:
        due = {
            Call.DISPUTE: ClaimStage.CLAIMED,
            Call.CONTRADICT: ClaimStage.CLAIMED,
            Call.SETTLE_CLAIM: ClaimStage.DISPUTED,
            Call.RULE: ClaimStage.ANSWERED,
        }
        return self.stage.state.stage is due[call]

    def _other(self, call: Call) -> None:
        if call is Call.SETTLE_CLAIM:
            self._settle_claim(STRANGER)
        else:
            getattr(self, f"_{call.name.lower()}")()

    # -- the board ------------------------------------------------------------------------------------------------------

    @property
    def prompt(self) -> PromptStage:
        assert isinstance(self.stage, PromptStage)
        return self.stage

    def _claim(self) -> None:
        board = self.prompt
        assert board.complete() == "NotClaimed"
        assert board.release() == "NotClaimed"
        assert board.claim(by=STRANGER) == "HostNotActive"
        assert board.claim(by=STRANGER, host=HOST) == "NotHost"
        assert board.claim() is None
        assert board.claim(by=OTHER_HOST) == board.assign(OTHER_HOST) == board.cancel() == "AlreadyClaimed"

    def _complete(self) -> None:
        board = self.prompt
        for other in (RENTER, STRANGER, OTHER_HOST):
            assert board.complete(by=other) == "NotHost"
        assert board.complete(tokens=0) == board.complete(tokens=board.prompt.max_tokens + 1) == "TokensOutOfRange"
        with board.at(board.until):
            assert board.complete() == board.release() == "NotClaimed"
        board.until_time(board.until - 1)
        assert board.complete(ANSWER) is None
        board.the_board_is_done(refunded=False)

    # -- proofs and vouchers ----------------------------------------------------------------------------------------------

    def _commit_proof(self) -> None:
        stage, tokens = self.stage, self.story.served
        for other in NOT_HOSTS:
            assert stage.commit(tokens, by=other) == "NotParty"
        assert stage.claim_proven() == "NothingToClaim"
        assert stage.commit(tokens) is None
        assert stage.commit(tokens) == "CommitmentPending"
        assert stage.claim_proven() == "ProofPending"

    def _submit_proof(self) -> None:
        stage, story = self.stage, self.story
        if stage.terms.policy is ProofPolicy.REQUIRED and story.signed:
            assert stage.redeem(story.signed) == "ProofMissing"
        for block in range(BLOCK):
            stage.until_block(stage.committed_at + block)
            assert stage.submit() == "SeedNotReady"
        stage.until_block(stage.committed_at + BLOCK)
        assert stage.submit(valid=False) == "ProofInvalid"
        assert stage.submit() is None
        assert stage.submit() == "NoCommitment"
        assert stage.commit(story.served) == "NothingToProve"

    def _redeem(self) -> None:
        """The first time what was signed in time, then what was signed late."""
        stage, story = self.stage, self.story
        tokens = story.late if stage.undecided else story.signed
        if not tokens:
            return
        for other in NOT_HOSTS:
            assert stage.redeem(tokens, by=other) == "NotParty"
        for key in (HOST, RENTER, STRANGER):
            assert stage.redeem(tokens, key=key) == "BadSignature"
        assert stage.redeem(tokens) is None
        assert stage.redeem(tokens) == "StaleVoucher"

    # -- claims -----------------------------------------------------------------------------------------------------------

    def _claim_proven(self) -> None:
        stage, before = self.stage, self.stage.credited
        for other in NOT_HOSTS:
            assert stage.claim_proven(by=other) == "NotParty"
        early = [stage.dispute(), stage.settle_claim(), stage.answer(), stage.contradict(0)]
        assert set(early) == {"WrongStage"}
        assert stage.claim_proven() is None
        assert (stage.credited, stage.state.held_until) == (before, stage.evm.time + stage.terms.challenge)
        assert stage.claim_proven() == stage.commit(self.story.served + 1) == "ClaimPending"
        assert (stage.settle_claim(), stage.answer()) == ("StageRuns", "WrongStage")
        assert stage.rule(True) == ("WrongStage" if stage.arbiter != ZERO_ADDRESS else "NotParty")

    def _dispute(self) -> None:
        stage = self.stage
        for other in (HOST, STRANGER, SIGNER, ARBITER):
            assert stage.dispute(by=other) == "NotParty"
        if stage.token == ZERO_ADDRESS:
            assert stage.dispute(short=1) == stage.dispute(short=-1) == "BadValue"
        end = self._last_second(stage.dispute)
        assert (stage.dispute(), stage.settle_claim()) == ("WrongStage", "StageRuns")
        assert stage.state.held_until == end - 1 + stage.terms.challenge

    def _answer_dispute(self) -> None:
        stage = self.stage
        for other in NOT_HOSTS:
            assert stage.answer(by=other) == "NotParty"
        for flaw in ("record", "from"):
            assert stage.answer(flaw=flaw) == "OpeningMismatch"
        self._last_second(stage.answer)
        assert stage.answer() == "WrongStage"

    def _rule(self) -> None:
        stage, for_host = self.stage, self.cell.ending is Ending.RULED_FOR_HOST
        for other in (RENTER, HOST, STRANGER, SIGNER):
            assert stage.rule(for_host, by=other) == "NotParty"
        self._last_second(lambda: stage.rule(for_host))
        assert stage.rule(not for_host) == "WrongStage"

    def _last_second(self, call: Callable[[], str | None]) -> int:
        """Refused at the end of the stage, taken one second earlier; returns the end."""
        stage, end = self.stage, self.stage.state.held_until
        with stage.at(end):
            assert call() == "TooLate"
        stage.until_time(end - 1)
        assert call() is None
        return end

    def _contradict(self) -> None:
        """At any time before the claim is decided, also after its stage."""
        stage = self.stage
        held = stage.state.held_tokens
        assert stage.contradict(held) == stage.contradict(held + 1) == "NoContradiction"
        for key in (RENTER, SIGNER, STRANGER):
            assert stage.contradict(held - 1, key=key) == "BadSignature"
        stage.until_time(stage.state.held_until + 5)
        assert stage.contradict(held - 1) is None
        assert stage.contradict(held - 1) == "WrongStage"

    def _settle_claim(self, by: SigningKey = HOST) -> None:
        stage, end = self.stage, self.stage.state.held_until
        stage.until_time(end - 1)
        assert stage.settle_claim(by=by) == "StageRuns"
        stage.until_time(end)
        late: dict[ClaimStage, Callable[[], str | None]] = {
            ClaimStage.CLAIMED: stage.dispute,
            ClaimStage.DISPUTED: stage.answer,
            ClaimStage.ANSWERED: lambda: stage.rule(True),
        }
        assert late[stage.state.stage]() == "TooLate"
        assert stage.settle_claim(by=by) is None
        assert stage.settle_claim(by=by) == "WrongStage"

    # -- the end ----------------------------------------------------------------------------------------------------------

    def close(self, way: Call) -> None:
        """In the given way; wrong callers and wrong times first."""
        getattr(self, f"_{way.name.lower()}")()

    def _close_by_host(self) -> None:
        for other in NOT_HOSTS:
            assert self.stage.close_by_host(by=other) == "NotParty"
        assert self.stage.close_by_host() is None

    def _close_cooperative(self) -> None:
        stage = self.stage
        tokens = (
            self.story.late if stage.undecided else next(n for n in range(2_000) if stage.cost(n) >= stage.credited)
        )
        for consent in (SIGNER, STRANGER, RENTER):
            assert stage.close_cooperative(tokens, consent=consent) == "BadSignature"
        for sender in (STRANGER, HOST):
            assert stage.close_cooperative(tokens, by=sender) == "BadSignature"
            assert stage.close_cooperative(tokens, by=sender, key=HOST) == "BadSignature"
        if not tokens:
            assert stage.close_cooperative(tokens) is None
            return
        signed = next(n for n in range(2_000) if stage.cost(n) >= stage.credited)
        if signed:
            assert stage.close_cooperative(signed - 1) == "StaleVoucher"
        assert stage.close_cooperative(tokens, by=STRANGER, key=SIGNER) is None

    def _finalize(self) -> None:
        stage = self.stage
        assert stage.finalize() == "TooEarly"
        if self.cell.ending is Ending.EXPIRED:
            deadline = stage.terms.expires_at + stage.terms.challenge
        else:
            for other in (HOST, STRANGER, SIGNER):
                assert stage.request_close(by=other) == "NotParty"
            if not stage.state.closing_at:
                assert stage.request_close() is None
            assert stage.request_close() == "AlreadyClosing"
            deadline = stage.state.closing_at
        stage.until_time(deadline - 1)
        assert stage.finalize() == "TooEarly"
        stage.until_time(deadline)
        assert stage.finalize() is None

    def _refund(self) -> None:
        board = self.prompt
        with board.at(board.prompt.deadline - 1):
            assert board.refund() == "TooEarly"
        board.until_time(board.prompt.deadline)
        assert board.claim() == board.assign(HOST) == "PastDeadline"
        assert board.refund() is None

    def _cancel(self) -> None:
        """Not while a claim runs."""
        board = self.prompt
        for other in (HOST, STRANGER, SIGNER):
            assert board.cancel(by=other) == "NotRenter"
        if board.until:
            with board.at(board.until - 1):
                assert board.cancel() == "AlreadyClaimed"
            board.until_time(board.until)
        assert board.cancel() is None
