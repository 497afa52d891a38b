"""A prompt on the real PromptBoard, with real registries of hosts and models, until its answer opens a job in the market; from then on it
is a `Stage` like any other. The board has no model: its money is compared with what each test says."""

from __future__ import annotations

from typing import Final

from fabstir.chain.bindings import (
    Completion,
    Head,
    ModelRegistry,
    NodeRegistry,
    Offer,
    PromptBoard,
    PromptView,
    TestUSDC,
)
from fabstir.chain.bindings import PromptTerms as AbiPromptTerms
from fabstir.domain.ids import Address, Hash32, JobId, ModelId
from fabstir.domain.money import BaseUnits, PricePerMTok, Tokens
from fabstir.domain.prompts import SETTLE_SECONDS, Cid, PromptCompletion, PromptState, PromptTerms
from fabstir.protocol import settlement
from fabstir.protocol.matrix import Call
from fabstir.protocol.prompt_signing import escrow_of, market_terms, prompt_id
from fabstir.protocol.signing import SigningKey, job_id
from tests.contracts.evm import DEPLOYER, CallReverted
from tests.contracts.market import STAKE_MINIMUM
from tests.scenarios.stage import BOND, CHALLENGE, HOST, OTHER_HOST, PRICE, RENTER, SIGNER, STRANGER, Stage

ZERO = bytes(32)
NO_HEAD = Head(ZERO, 0, 0, 0)
MAX_TOKENS: Final = Tokens(60)
ANSWER: Final = 40
"""Tokens of the answer."""
EXECUTE_SECONDS: Final = 300
SHA256: Final = bytes(31) + b"\x01"
ASSIGNER, DELEGATE = (SigningKey(bytes([n]) * 32) for n in (15, 19))
CEILING: Final = PricePerMTok(PRICE + 100_000)
"""The host asks for less than the renter would pay."""


def abi_prompt(terms: PromptTerms) -> AbiPromptTerms:
    """As the bindings take them."""
    return AbiPromptTerms(
        terms.renter, terms.signer, terms.token, terms.assigner, terms.arbiter, terms.ceiling, terms.bond, terms.max_tokens,
        terms.deadline, terms.execute_seconds, terms.challenge, terms.policy, terms.model_id, terms.prompt_cid, terms.salt,
    )  # fmt: skip


class PromptStage(Stage):
    """Begins with a posted prompt; a job is there after `complete`."""

    def begin(self) -> None:
        """Two hosts are registered, the renter posts."""
        models = self.evm.deploy(ModelRegistry.deploy_data(DEPLOYER))
        out = self.evm.call(
            DEPLOYER, models, ModelRegistry.encode_propose("repository", "file", SHA256, ZERO, ZERO, NO_HEAD)
        )
        self.model = ModelId(out[:32])
        self.evm.call(DEPLOYER, models, ModelRegistry.encode_approve(self.model, NO_HEAD))
        self.registry = self.evm.deploy(NodeRegistry.deploy_data(models, self.twin.stakes))
        self.board = self.evm.deploy(PromptBoard.deploy_data(self.twin.address, self.registry))
        self.twin.wealth |= {(self.board, token): 0 for token in self.twin.tokens}
        self.twin.stake(OTHER_HOST.address, STAKE_MINIMUM)
        offers = [Offer(self.model, token, PRICE) for token in self.twin.tokens]
        for host in (HOST, OTHER_HOST):
            self.evm.call(host.address, self.registry, NodeRegistry.encode_register("https://host", bytes(32), offers))
        self.evm.call(RENTER.address, self.twin.usdc, TestUSDC.encode_approve(self.board, 2**256 - 1))
        self.prompt = PromptTerms(
            renter=RENTER.address, signer=SIGNER.address, token=self.token, assigner=ASSIGNER.address, arbiter=self.arbiter,
            ceiling=CEILING, bond=BOND, max_tokens=MAX_TOKENS, deadline=self.evm.time + 3_600, execute_seconds=EXECUTE_SECONDS,
            challenge=CHALLENGE, policy=self.policy, model_id=self.model, prompt_cid=Cid(bytes(32)), salt=Hash32(bytes(32)),
        )  # fmt: skip
        self.escrow = escrow_of(self.prompt)
        assert self.post() is None

    # -- calls

    def _board(self, data: bytes, by: SigningKey, call: Call | None = None, value: int = 0) -> str | None:
        try:
            self.returned = self.evm.call(by.address, self.board, data, value)
        except CallReverted as refusal:
            return refusal.revert.name
        if call is not None:
            self.made.append((call, by.address))
        self.twin.changed = True
        return None

    def _moves(self, account: Address, amount: int) -> None:
        """Between the board and somebody."""
        self.twin.wealth[self.board, self.token] -= amount
        self.twin.wealth[account, self.token] += amount

    def post(self) -> str | None:
        told = self._board(PromptBoard.encode_post(abi_prompt(self.prompt)), RENTER, value=self.value(self.escrow))
        if told is None:
            self._moves(RENTER.address, -self.escrow)
        return told

    def claim(self, by: SigningKey = HOST, host: SigningKey | None = None) -> str | None:
        """For `host`, where that is not the sender."""
        data = PromptBoard.encode_claim(abi_prompt(self.prompt), (host or by).address)
        return self._board(data, by, Call.CLAIM)

    def assign(self, host: SigningKey, by: SigningKey = RENTER) -> str | None:
        data = PromptBoard.encode_assign_job_to_host(abi_prompt(self.prompt), host.address)
        return self._board(data, by, Call.ASSIGN)

    def release(self, by: SigningKey = HOST) -> str | None:
        return self._board(PromptBoard.encode_release(abi_prompt(self.prompt)), by, Call.RELEASE)

    def complete(self, tokens: int = ANSWER, by: SigningKey = HOST) -> str | None:
        """The board opens the job in the market, on the real one and in its model."""
        data = PromptBoard.encode_complete(abi_prompt(self.prompt), Completion(tokens, bytes(32), bytes(32)))
        told = self._board(data, by, Call.COMPLETE)
        if told is not None:
            return told
        done = PromptCompletion(
            job=JobId(self.returned), host=by.address, tokens=Tokens(tokens), price=PRICE, result_cid=Cid(bytes(32)),
            result_hash=Hash32(bytes(32)), expires_at=self.evm.time + SETTLE_SECONDS,
        )  # fmt: skip
        self.enter(market_terms(self.board, self.prompt, done))
        assert job_id(self.terms) == done.job
        self.deposit = self.cost(tokens)
        opened = settlement.Open(self.board, self.terms, BaseUnits(self.deposit))
        self.twin.model = settlement.apply(self.twin.model, opened, self.evm.time, self.evm.block)
        self._moves(RENTER.address, self.escrow - self.deposit)
        self.twin.wealth[self.board, self.token] -= self.deposit
        return None

    def cancel(self, by: SigningKey = RENTER) -> str | None:
        return self._ended(self._board(PromptBoard.encode_cancel(abi_prompt(self.prompt)), by, Call.CANCEL))

    def refund(self, by: SigningKey = STRANGER) -> str | None:
        return self._ended(self._board(PromptBoard.encode_refund(abi_prompt(self.prompt)), by, Call.REFUND))

    def _ended(self, told: str | None) -> str | None:
        if told is None:
            self._moves(RENTER.address, self.escrow)
        return told

    def delegate(self, to: SigningKey, until: int) -> None:
        """The host lets somebody claim for it."""
        assert self._board(PromptBoard.encode_set_claim_delegate(to.address, until), HOST) is None

    # -- views

    @property
    def until(self) -> int:
        """End of the claim or of the reservation."""
        return self._view().until

    @property
    def board_state(self) -> PromptState:
        return PromptState(self._view().state)

    def _view(self) -> PromptView:
        data = PromptBoard.encode_prompts(prompt_id(self.prompt))
        return PromptBoard.decode_prompts(self.evm.view(self.board, data))

    def the_board_is_done(self, refunded: bool) -> None:
        """Nothing lies there, nothing more can be called; where the money went back, the renter has all of it."""
        self.twin.check()
        assert self.balance(self.board) == 0
        if refunded:
            assert self.balance(RENTER.address) == self.had
            assert self.balance(self.twin.address) == 0
        told = [self.claim(), self.assign(HOST), self.release(), self.complete(), self.cancel(), self.refund()]
        assert set(told) == {"NotPosted"}
        assert self.post() == ("PromptExists" if self.evm.time < self.prompt.deadline else "BadPrompt")
