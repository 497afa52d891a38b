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


def parties(terms: Terms, account: Address) -> tuple[str, ...]:
    """What the account is in this job; nothing where it has no part in it."""
    named = {"renter": terms.renter, "host": terms.host, "arbiter": terms.arbiter}
    return tuple(name for name, who in named.items() if who == account != ZERO_ADDRESS)


def concerning(history: History, account: Address) -> tuple[JobId, ...]:
    """Jobs with a claim, decided or not, that name the account."""
    return tuple(job for job in history.claimed if job in history.terms and parties(history.terms[job], account))


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


def refusal(act: Act, row: Row | None, caller: Address, now: int) -> FabstirError | None:
    """What stands against it; None where the market will take it."""
    if row is None:
        return error("dispute_stage", "no claim of this job is undecided")
    if act is not Act.SETTLE:
        named, needed = ("renter", _NEEDS[act]) if act is Act.RAISE else ("arbiter", _NEEDS[act])
        if named not in parties(row.terms, caller):
            return error("dispute_foreign", f"{to_hex(caller)} is not the {named}; that is {_named(row.terms, named)}")
        if row.stage is not needed:
            return error("dispute_stage", f"the claim is {row.stage.name.lower()}, not {needed.name.lower()}")
        if row.over(now):
            return error("dispute_over", f"the stage was over at {row.until}, it is {now}")
    elif not row.over(now):
        return error("dispute_runs", f"the stage runs until {row.until}, it is {now}")
    return None


def _named(terms: Terms, party: str) -> str:
    who: Address = getattr(terms, party)
    return "nobody" if who == ZERO_ADDRESS else to_hex(who)
