"""Which prompt jobs a host takes, and how it ranks them: pure functions of terms, rules and time.

`refusal` names the first rule that a job breaks. `rank` is a virtual time of arrival, so it never changes while a job waits
and a heap can hold it: what is worth more, is due sooner or is reserved for this host counts as arrived earlier, each by a
bounded number of seconds. Hence nothing starves: whatever arrives `overtaking_bound` seconds later comes later. Reads no clock.
"""

from __future__ import annotations

from enum import Enum
from hashlib import sha256
from math import log2
from typing import Final

import msgspec

from fabstir.domain.ids import Address, ModelId
from fabstir.domain.money import BaseUnits, PricePerMTok, Tokens, cost
from fabstir.domain.prompts import PromptId, PromptTerms
from fabstir.domain.terms import ProofPolicy

MAX_DOUBLINGS: Final = 24
"""Beyond 16 million base units a second, more pay buys no better place."""


class Reason(Enum):
    """Why a job is not claimed. A closed set: the label of a metric."""

    MODEL = "model_not_served"
    """This host does not serve the model for that token."""
    PRICE = "price"
    """The ceiling is below this host's price."""
    WORTHLESS = "worthless"
    """The longest answer is worth less than this host works for."""
    TOO_LONG = "too_long"
    """Longer answers than this host gives."""
    DEADLINE = "deadline"
    """It cannot be finished in time at the measured speed."""
    WINDOW = "execute_seconds"
    """A claim would lapse before the answer is there."""
    RENTER = "renter_blocked"
    """The operator blocked this renter."""
    POLICY = "policy"
    """The operator does not accept this proof policy."""
    CHALLENGE = "challenge"
    """The money would wait for longer than the operator accepts."""
    ARBITER = "arbiter"
    """The arbiter is this host itself, or one that the operator does not accept."""
    EXPOSURE = "exposure"
    """It alone is more unpaid work than the operator allows."""
    FULL = "queue_full"
    """The queue holds its maximum, and this was the worst."""
    ENDED = "ended"
    """Completed by another, cancelled or refunded."""
    FAILED = "failed_here"
    """This host tried and failed."""


class ModelOffer(msgspec.Struct, frozen=True, kw_only=True):
    """What this host does for one model and one token of payment."""

    price: PricePerMTok
    """As the registry names it."""
    tokens_per_second: float
    """Measured, of one answer among as many as there are slots."""
    max_tokens: Tokens = Tokens(4096)


class QueueRules(msgspec.Struct, frozen=True, kw_only=True):
    """The operator's choices, with what they default to."""

    host: Address
    offers: dict[tuple[ModelId, Address], ModelOffer]
    """(model, token) -> offer."""
    policies: frozenset[ProofPolicy] = frozenset(ProofPolicy)
    blocked: frozenset[Address] = frozenset()
    arbiters: frozenset[Address] | None = None
    """Accepted ones; None: any but this host."""
    max_challenge: int = 3 * 86_400
    slots: int = 4
    """Answers that are worked on at the same time, claims on their way included."""
    max_queued: int = 10_000
    max_unpaid: BaseUnits = BaseUnits(50_000_000)
    """Work claimed and not paid yet, all jobs together."""
    min_value: BaseUnits = BaseUnits(1)
    safety: float = 1.25
    """An answer may take so many times as long as measured."""
    overhead: float = 20.0
    """Seconds for fetching, sealing, storing and two transactions; at least the margins of `prompt_job.PromptRules` together."""
    urgency_weight: float = 0.5
    """Seconds of earlier arrival for each second by which a job is due sooner."""
    patience: float = 3_600.0
    """Seconds: whatever is due later than this is equally patient."""
    value_weight: float = 60.0
    """Seconds that each doubling of the pay for a second of work counts as earlier arrival."""
    reserved_head_start: float = 3_600.0
    """Seconds that a job reserved for this host counts as earlier: more than urgency and pay together, so it comes before every
    open job that arrived with it, and not before one that waited for an hour."""
    scatter: float = 60.0
    """Seconds by which each host ranks differently, so that equal hosts do not all want the same job."""
    spread: float = 4.0
    """Seconds, two blocks or more, within which an open job is first claimed; one whose claim lapsed likewise."""
    backoff_base: float = 2.0
    backoff_cap: float = 300.0

    @property
    def overtaking_bound(self) -> float:
        """A job that arrives so many seconds after another never comes before it."""
        head_starts = self.reserved_head_start + self.scatter + self.value_weight * MAX_DOUBLINGS
        return head_starts + self.urgency_weight * self.patience


def offer_for(rules: QueueRules, terms: PromptTerms) -> ModelOffer | None:
    """What this host does for such terms."""
    return rules.offers.get((terms.model_id, terms.token))


def work_seconds(offer: ModelOffer, terms: PromptTerms) -> float:
    """Seconds of generating the longest answer, at the measured speed."""
    return terms.max_tokens / offer.tokens_per_second


def needed_seconds(rules: QueueRules, offer: ModelOffer, terms: PromptTerms) -> float:
    """Seconds from the claim to the completed job, with the margins."""
    return rules.overhead + rules.safety * work_seconds(offer, terms)


def latest_start(rules: QueueRules, offer: ModelOffer, terms: PromptTerms) -> float:
    """Unix seconds after which a claim would come too late."""
    return terms.deadline - needed_seconds(rules, offer, terms)


def refusal(rules: QueueRules, terms: PromptTerms, now: float) -> Reason | None:
    """The first rule that speaks against this job; None where nothing does."""
    offer = offer_for(rules, terms)
    if offer is None:
        return Reason.MODEL
    return _unwanted(rules, terms) or _unfit(rules, offer, terms, now)


def _unwanted(rules: QueueRules, terms: PromptTerms) -> Reason | None:
    """What the operator does not want, however well it fits."""
    if terms.renter in rules.blocked:
        return Reason.RENTER
    if terms.policy not in rules.policies:
        return Reason.POLICY
    if terms.arbiter == rules.host or (rules.arbiters is not None and terms.arbiter not in rules.arbiters):
        return Reason.ARBITER
    if terms.challenge > rules.max_challenge:
        return Reason.CHALLENGE
    return None


def _unfit(rules: QueueRules, offer: ModelOffer, terms: PromptTerms, now: float) -> Reason | None:
    """What cannot be done at this price, in this time."""
    worth, needed = cost(terms.max_tokens, offer.price), needed_seconds(rules, offer, terms)
    if terms.max_tokens > offer.max_tokens:
        return Reason.TOO_LONG
    if offer.price > terms.ceiling:
        return Reason.PRICE
    if worth < rules.min_value:
        return Reason.WORTHLESS
    if worth > rules.max_unpaid:
        return Reason.EXPOSURE
    if needed > terms.execute_seconds:
        return Reason.WINDOW
    return Reason.DEADLINE if now > terms.deadline - needed else None


def rank(rules: QueueRules, offer: ModelOffer, prompt: PromptId, terms: PromptTerms, seen_at: float) -> float:
    """The virtual time of arrival, without the head start of a reservation: smaller is first."""
    wait = min(latest_start(rules, offer, terms) - seen_at, rules.patience)
    pay = cost(terms.max_tokens, offer.price) / work_seconds(offer, terms)
    doublings = min(log2(1 + pay), MAX_DOUBLINGS)
    scatter = rules.scatter * fraction(rules.host, prompt)
    return seen_at + rules.urgency_weight * wait - rules.value_weight * doublings + scatter


def fraction(seed: bytes, prompt: bytes, attempt: int = 0) -> float:
    """A number in [0, 1) that looks random and is always the same for the same arguments."""
    digest = sha256(b"fabstir/jitter/1" + seed + prompt + attempt.to_bytes(4, "big")).digest()
    return int.from_bytes(digest[:6], "big") / 2**48
