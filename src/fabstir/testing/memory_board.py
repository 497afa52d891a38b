"""The `PromptBoard` in memory: the contract's rules, each refusal under the contract's own name.

One object holds what the contract's storage would: prompts, claim delegates, budgets, and the jobs that it opened in the market.
A method checks everything before it changes anything, so a refused call changes nothing. It knows amounts and deadlines;
tokens that keep a fee, signatures and reentrancy are the EVM tests' matter. Specification: contracts/src/PromptBoard.sol.
"""

from __future__ import annotations

from typing import Final

import msgspec

from fabstir.domain.ids import ZERO_ADDRESS, Address, Hash32, JobId, ModelId
from fabstir.domain.money import BaseUnits, PricePerMTok, Tokens, cost
from fabstir.domain.prompts import (
    MAX_ANSWER_TOKENS,
    MAX_ESCROW,
    SETTLE_SECONDS,
    Cid,
    PromptCompletion,
    PromptId,
    PromptState,
    PromptStatus,
    PromptTerms,
)
from fabstir.domain.terms import MAX_CHALLENGE_SECONDS, MIN_CHALLENGE_SECONDS, ProofPolicy, Terms
from fabstir.protocol.prompt_signing import escrow_of, job_salt, prompt_id
from fabstir.protocol.settlement import Reverted
from fabstir.protocol.signing import job_id

MAX_DURATION: Final = 30 * 86_400
MIN_EXECUTE_SECONDS: Final = 30


class BoardEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One event of the contract, with the fields that it has."""

    name: str
    prompt: PromptId
    at: int
    terms: PromptTerms | None = None
    host: Address = ZERO_ADDRESS
    until: int = 0
    price: PricePerMTok = PricePerMTok(0)
    amount: BaseUnits = BaseUnits(0)
    completion: PromptCompletion | None = None


class MemoryBoard:
    """Memory: everything that ever happened on it."""

    def __init__(self, address: Address) -> None:
        self.address: Final = address
        self.now = 0
        """Of the block in which the next call is mined."""
        self.prices: dict[tuple[Address, ModelId, Address], PricePerMTok] = {}
        """The registry: (host, model, token) -> price."""
        self.active: set[Address] = set()
        self.events: list[BoardEvent] = []
        self.jobs: dict[JobId, tuple[Terms, BaseUnits]] = {}
        """What it opened in the market, with each deposit."""
        self.refunded: dict[tuple[Address, Address], int] = {}
        """(renter, token) -> base units paid back, ever."""
        self.deposited: dict[tuple[Address, Address], int] = {}
        """(renter, token) -> base units taken in, ever."""
        self._prompts: dict[PromptId, PromptStatus] = {}
        self._completions: dict[PromptId, PromptCompletion] = {}
        self._claimers: dict[tuple[Address, Address], int] = {}
        self._budgets: dict[tuple[Address, Address, Address], tuple[int, int]] = {}
        self.escrowed: dict[Address, int] = {}
        """token -> base units that lie here for prompts."""

    def __repr__(self) -> str:
        return f"<MemoryBoard {len(self._prompts)} prompts, {len(self.jobs)} jobs, now={self.now}>"

    # -- views -----------------------------------------------------------------------------------------------------------------

    def status(self, prompt: PromptId) -> PromptStatus:
        """All zero where nobody posted it."""
        return self._prompts.get(prompt, PromptStatus())

    def completion(self, prompt: PromptId) -> PromptCompletion | None:
        """The event of its completion."""
        return self._completions.get(prompt)

    def register(self, host: Address, model: ModelId, token: Address, price: PricePerMTok) -> None:
        """As the registry would show it."""
        self.active.add(host)
        self.prices[host, model, token] = price

    # -- posting ---------------------------------------------------------------------------------------------------------------

    def post(self, sender: Address, terms: PromptTerms) -> PromptId:
        """The renter deposits the escrow."""
        if sender != terms.renter:
            raise Reverted("NotRenter")
        return self._post(terms)

    def set_delegate(self, sender: Address, delegate: Address, token: Address, budget: int, until: int) -> None:
        """A renter's budget for another who posts for it."""
        if delegate in (ZERO_ADDRESS, sender) or token == ZERO_ADDRESS:
            raise Reverted("BadDelegate")
        self._budgets[sender, delegate, token] = (budget, until)

    def post_as_delegate(self, sender: Address, terms: PromptTerms) -> PromptId:
        """Out of a budget that the renter gave the sender."""
        if terms.token == ZERO_ADDRESS:
            raise Reverted("BadPrompt")
        self._check_new(terms)
        budget, escrow = (terms.renter, sender, terms.token), escrow_of(terms)
        left, until = self._budgets.get(budget, (0, 0))
        if left < escrow:
            raise Reverted("OverBudget")
        if self.now >= until:
            raise Reverted("DelegationExpired")
        self._budgets[budget] = (left - escrow, until)
        return self._post(terms)

    def _check_new(self, terms: PromptTerms) -> None:
        bad = (
            terms.signer == ZERO_ADDRESS
            or terms.bond == 0
            or not 0 < terms.max_tokens <= MAX_ANSWER_TOKENS
            or not self.now < terms.deadline <= self.now + MAX_DURATION
            or terms.execute_seconds < MIN_EXECUTE_SECONDS
            or not MIN_CHALLENGE_SECONDS <= terms.challenge <= MAX_CHALLENGE_SECONDS
            or terms.policy not in tuple(ProofPolicy)
            or not 0 < escrow_of(terms) <= MAX_ESCROW
        )
        if bad:
            raise Reverted("BadPrompt")
        if prompt_id(terms) in self._prompts:
            raise Reverted("PromptExists")

    def _post(self, terms: PromptTerms) -> PromptId:
        self._check_new(terms)
        prompt, escrow = prompt_id(terms), escrow_of(terms)
        self._prompts[prompt] = PromptStatus(state=PromptState.POSTED, escrow=escrow)
        self.escrowed[terms.token] = self.escrowed.get(terms.token, 0) + escrow
        payer = (terms.renter, terms.token)
        self.deposited[payer] = self.deposited.get(payer, 0) + escrow
        self._emit("PromptPosted", prompt, terms=terms, amount=escrow)
        return prompt

    # -- finding a host --------------------------------------------------------------------------------------------------------

    def set_claim_delegate(self, sender: Address, delegate: Address, until: int) -> None:
        """Lets `delegate` claim and release for the sender until then; 0 takes it back."""
        if delegate in (ZERO_ADDRESS, sender):
            raise Reverted("BadDelegate")
        self._claimers[sender, delegate] = until

    def claim(self, sender: Address, terms: PromptTerms, host: Address) -> None:
        """Takes the prompt for `host`, at the registry's price."""
        self._check_acts_for(sender, host)
        prompt, status = self._unclaimed(terms)
        if status.state is PromptState.RESERVED and self.now < status.until and status.host != host:
            raise Reverted("Reserved")
        price = self._price(terms, host)
        until = self._take(prompt, terms, PromptState.CLAIMED, host, price)
        self._emit("PromptClaimed", prompt, host=host, price=price, until=until)

    def assign(self, sender: Address, terms: PromptTerms, host: Address) -> None:
        """Keeps the prompt for `host`, as long as a claim would last."""
        self._check_assign(sender, terms, host)
        prompt = prompt_id(terms)
        until = self._take(prompt, terms, PromptState.RESERVED, host, PricePerMTok(0))
        self._emit("PromptAssigned", prompt, host=host, until=until)

    def assign_many(self, sender: Address, pairs: tuple[tuple[PromptTerms, Address], ...]) -> None:
        """All or none."""
        for terms, host in pairs:
            self._check_assign(sender, terms, host)
        for terms, host in pairs:
            self.assign(sender, terms, host)

    def release(self, sender: Address, terms: PromptTerms) -> None:
        """The host that claimed the prompt gives it back."""
        prompt, status = self._claimed(terms)
        self._check_acts_for(sender, status.host)
        self._prompts[prompt] = PromptStatus(state=PromptState.POSTED, escrow=status.escrow)
        self._emit("PromptReleased", prompt, host=status.host)

    def _check_assign(self, sender: Address, terms: PromptTerms, host: Address) -> None:
        if sender not in (terms.renter, terms.assigner):
            raise Reverted("NotAssigner")
        self._unclaimed(terms)
        self._price(terms, host)
        if self.now >= terms.deadline:
            raise Reverted("PastDeadline")

    def _take(
        self, prompt: PromptId, terms: PromptTerms, state: PromptState, host: Address, price: PricePerMTok
    ) -> int:
        if self.now >= terms.deadline:
            raise Reverted("PastDeadline")
        until = min(self.now + terms.execute_seconds, terms.deadline)
        escrow = self._prompts[prompt].escrow
        self._prompts[prompt] = PromptStatus(state=state, host=host, until=until, price=price, escrow=escrow)
        return until

    def _price(self, terms: PromptTerms, host: Address) -> PricePerMTok:
        if host == terms.arbiter:
            raise Reverted("HostIsArbiter")
        if host not in self.active:
            raise Reverted("HostNotActive")
        price = self.prices.get((host, terms.model_id, terms.token), PricePerMTok(0))
        if price == 0:
            raise Reverted("ModelNotOffered")
        if price > terms.ceiling:
            raise Reverted("PriceAboveCeiling")
        return price

    # -- ending ----------------------------------------------------------------------------------------------------------------

    def complete(
        self, sender: Address, terms: PromptTerms, tokens: Tokens, result_cid: Cid, result_hash: Hash32
    ) -> JobId:
        """Opens a job in the market for what the answer costs, pays the rest back."""
        prompt, status = self._claimed(terms)
        if sender != status.host:
            raise Reverted("NotHost")
        if not 0 < tokens <= terms.max_tokens:
            raise Reverted("TokensOutOfRange")
        amount = cost(tokens, status.price)
        if amount == 0:
            raise Reverted("NothingToPay")
        job = self._job_terms(prompt, terms, status, tokens)
        done = PromptCompletion(
            job=job_id(job),
            host=sender,
            tokens=tokens,
            price=status.price,
            result_cid=result_cid,
            result_hash=result_hash,
            expires_at=job.expires_at,
        )
        self.jobs[done.job] = (job, amount)
        self._completions[prompt] = done
        self._end(prompt, terms, PromptState.COMPLETED, BaseUnits(status.escrow - amount))
        self._emit("PromptCompleted", prompt, host=sender, price=status.price, amount=amount, completion=done)
        return done.job

    def cancel(self, sender: Address, terms: PromptTerms) -> None:
        """The renter takes its money back; not while a host works."""
        if sender != terms.renter:
            raise Reverted("NotRenter")
        prompt, status = self._unclaimed(terms)
        self._end(prompt, terms, PromptState.CANCELLED, status.escrow)
        self._emit("PromptCancelled", prompt, amount=status.escrow)

    def refund(self, terms: PromptTerms) -> None:
        """The deadline has passed without an answer; anyone may call."""
        prompt, status = self._open(terms)
        if self.now < terms.deadline:
            raise Reverted("TooEarly")
        self._end(prompt, terms, PromptState.REFUNDED, status.escrow)
        self._emit("PromptRefunded", prompt, amount=status.escrow)

    def _end(self, prompt: PromptId, terms: PromptTerms, state: PromptState, back: BaseUnits) -> None:
        status = self._prompts[prompt]
        done = state is PromptState.COMPLETED
        self._prompts[prompt] = (
            PromptStatus(state=state, host=status.host, price=status.price) if done else PromptStatus(state=state)
        )
        self.escrowed[terms.token] -= status.escrow
        payee = (terms.renter, terms.token)
        self.refunded[payee] = self.refunded.get(payee, 0) + back

    def _job_terms(self, prompt: PromptId, terms: PromptTerms, status: PromptStatus, tokens: Tokens) -> Terms:
        return Terms(
            renter=terms.renter,
            signer=terms.signer,
            host=status.host,
            token=terms.token,
            arbiter=terms.arbiter,
            price=status.price,
            bond=terms.bond,
            expires_at=self.now + SETTLE_SECONDS,
            challenge=terms.challenge,
            exposure=tokens,
            policy=terms.policy,
            model_id=terms.model_id,
            salt=job_salt(self.address, prompt),
        )

    # -- what the parts share --------------------------------------------------------------------------------------------------

    def _open(self, terms: PromptTerms) -> tuple[PromptId, PromptStatus]:
        prompt = prompt_id(terms)
        status = self.status(prompt)
        if status.state is PromptState.NONE or status.ended:
            raise Reverted("NotPosted")
        return prompt, status

    def _claimed(self, terms: PromptTerms) -> tuple[PromptId, PromptStatus]:
        prompt, status = self._open(terms)
        if status.state is not PromptState.CLAIMED or self.now >= status.until:
            raise Reverted("NotClaimed")
        return prompt, status

    def _unclaimed(self, terms: PromptTerms) -> tuple[PromptId, PromptStatus]:
        prompt, status = self._open(terms)
        if status.state is PromptState.CLAIMED and self.now < status.until:
            raise Reverted("AlreadyClaimed")
        return prompt, status

    def _check_acts_for(self, sender: Address, host: Address) -> None:
        if sender != host and self.now >= self._claimers.get((host, sender), 0):
            raise Reverted("NotHost")

    def _emit(
        self,
        name: str,
        prompt: PromptId,
        *,
        terms: PromptTerms | None = None,
        host: Address = ZERO_ADDRESS,
        until: int = 0,
        price: int = 0,
        amount: int = 0,
        completion: PromptCompletion | None = None,
    ) -> None:
        event = BoardEvent(
            name=name,
            prompt=prompt,
            at=self.now,
            terms=terms,
            host=host,
            until=until,
            price=PricePerMTok(price),
            amount=BaseUnits(amount),
            completion=completion,
        )
        self.events.append(event)
