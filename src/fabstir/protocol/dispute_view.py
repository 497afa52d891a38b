"""Claims that are not decided, as those see them who may act on one by hand: folded from events, checked against what the market holds.

Decides which jobs an account has a part in, who is to act until when, and what must be refused before anything is sent. Events only
say where to look: what a claim is says the market's state. Reads nothing and sends nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Final

import msgspec

from fabstir.domain.errors import FabstirError, error
from fabstir.domain.ids import ZERO_ADDRESS, Address, JobId, to_hex
from fabstir.domain.money import BaseUnits, Tokens
from fabstir.domain.terms import ClaimStage, JobState, Terms
from fabstir.protocol.panel import Panel, Votes, vote_refusal
from fabstir.protocol.signing import job_id

WIDER: Final = "Look further back with --since-block."


class Opened(msgspec.Struct, frozen=True):
    """A job was opened under these terms."""

    job: JobId
    terms: Terms


class Claimed(msgspec.Struct, frozen=True):
    """Something happened to a claim of this job: held, disputed or answered."""

    job: JobId


class History(msgspec.Struct, frozen=True):
    """What a range of blocks told."""

    terms: Mapping[JobId, Terms]
    claimed: tuple[JobId, ...]
    """Jobs in which something was claimed, in the order of the first event; the terms of some may lie before the range."""

    @property
    def without_terms(self) -> int:
        """Jobs with a claim that were opened before the range."""
        return sum(job not in self.terms for job in self.claimed)


class Act(StrEnum):
    """What somebody does by hand."""

    RAISE = "raise"
    RULE = "rule"
    SETTLE = "settle"


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One claim that is not decided."""

    job: JobId
    terms: Terms
    stage: ClaimStage
    amount: BaseUnits
    tokens: Tokens
    until: int
    """Unix seconds at which the stage is over."""
    votes: Votes | None = None
    """Of the panel that the account acts for, where the terms name it and the claim is answered."""

    def over(self, now: int) -> bool:
        """Nobody can act in this stage any more; anyone may settle."""
        return now >= self.until

    def awaits(self, now: int) -> str:
        """Who is to act."""
        return "anyone" if self.over(now) else _ACTOR[self.stage]


_ACTOR: Final = {ClaimStage.CLAIMED: "renter", ClaimStage.DISPUTED: "host", ClaimStage.ANSWERED: "arbiter"}
_NEEDS: Final = {Act.RAISE: ClaimStage.CLAIMED, Act.RULE: ClaimStage.ANSWERED}


def fold(events: Iterable[Opened | Claimed]) -> History:
    """Each job once. Terms that do not hash to the job's id are an endpoint's lie: raises ChainFault (`chain_mismatch`)."""
    terms: dict[JobId, Terms] = {}
    claimed: dict[JobId, None] = {}
    for event in events:
        if isinstance(event, Claimed):
            claimed.setdefault(event.job)
        elif job_id(event.terms) == event.job:
            terms[event.job] = event.terms
        else:
            raise error(
                "chain_mismatch", f"the terms that an endpoint names for job {to_hex(event.job)} are not its terms"
            )
    return History(terms, tuple(claimed))


def parties(terms: Terms, account: Address, panel: Panel | None = None) -> tuple[str, ...]:
    """What the account is in this job, `verifier` as a member of the panel; nothing where it has no part in it."""
    named = {"renter": terms.renter, "host": terms.host, "arbiter": terms.arbiter}
    found = tuple(name for name, who in named.items() if who == account != ZERO_ADDRESS)
    return (*found, "verifier") if panel is not None and _names(terms, panel) and account in panel.members else found


def concerning(history: History, account: Address, panel: Panel | None = None) -> tuple[JobId, ...]:
    """Jobs with a claim, decided or not, that name the account or the panel."""
    known = [(job, history.terms[job]) for job in history.claimed if job in history.terms]
    return tuple(job for job, terms in known if parties(terms, account) or _names(terms, panel))


def _names(terms: Terms, panel: Panel | None) -> bool:
    return panel is not None and terms.arbiter == panel.address


def row_of(terms: Terms, state: JobState) -> Row | None:
    """None where no claim is undecided."""
    if state.stage not in _ACTOR:
        return None
    return Row(
        job=job_id(terms),
        terms=terms,
        stage=state.stage,
        amount=state.held,
        tokens=state.held_tokens,
        until=state.held_until,
    )


def rows(history: History, states: Mapping[JobId, JobState]) -> tuple[Row, ...]:
    """The undecided ones, what is over first."""
    found = [row_of(history.terms[job], state) for job, state in states.items()]
    return tuple(sorted((row for row in found if row is not None), key=lambda row: (row.until, row.job)))


def find(history: History, beginning: str) -> JobId:
    """The job whose id begins so (0x and hexadecimal digits). Raises Refused (`dispute_unknown`), PeerFault (`request_invalid`)."""
    wanted = beginning.lower()
    matching = [job for job in history.terms if to_hex(job).startswith(wanted)] if wanted.startswith("0x") else []
    if not matching:
        raise error("dispute_unknown", f"no job {beginning} was opened in these blocks", WIDER)
    if len(matching) > 1:
        raise error("request_invalid", f"{len(matching)} jobs begin with {beginning}", "Give more digits of the id.")
    return matching[0]


def refusal(act: Act, row: Row | None, caller: Address, now: int, panel: Panel | None = None) -> FabstirError | None:
    """What stands against it; None where the market will take it, from the caller or from its panel."""
    if row is None:
        return error("dispute_stage", "no claim of this job is undecided")
    if act is not Act.SETTLE:
        needed = _NEEDS[act]
        if foreign := _foreign(act, row.terms, caller, panel):
            return foreign
        if row.stage is not needed:
            return error("dispute_stage", f"the claim is {row.stage.name.lower()}, not {needed.name.lower()}")
        if row.over(now):
            return error("dispute_over", f"the stage was over at {row.until}, it is {now}")
        if act is Act.RULE and row.votes is not None and row.votes.voted:
            return error("dispute_voted", f"{to_hex(caller)} has voted in this dispute")
    elif not row.over(now):
        return error("dispute_runs", f"the stage runs until {row.until}, it is {now}")
    return None


def _foreign(act: Act, terms: Terms, caller: Address, panel: Panel | None) -> FabstirError | None:
    if act is Act.RULE and panel is not None and _names(terms, panel):
        return vote_refusal(panel, caller)
    party = "renter" if act is Act.RAISE else "arbiter"
    if party in parties(terms, caller):
        return None
    return error("dispute_foreign", f"{to_hex(caller)} is not the {party}; that is {_named(terms, party)}")


def _named(terms: Terms, party: str) -> str:
    who: Address = getattr(terms, party)
    return "nobody" if who == ZERO_ADDRESS else to_hex(who)
