"""docs/reference/prompts.md, from the tables of the two logs of a prompt job."""

from __future__ import annotations

from enum import Enum
from typing import TypeVar

from fabstir.domain.prompts import PromptState
from fabstir.protocol import prompt_log, prompt_order_log
from fabstir.protocol.prompt_rules import Reason
from reference.docstrings import below
from reference.table import table

S = TypeVar("S", bound=Enum)

INTRODUCTION = """\
# States of a prompt job

Where a job stands on chain, for the host that works on it, and for its renter. How they fit together is told in
[prompt jobs](../explanation/prompts.md)."""

REASONS = """\
## Why a host passes a job over

Counted by the queue of each host; the first rule that speaks against a job."""


def render() -> str:
    """The page: the three enumerations, the two tables, the reasons."""
    board = below(PromptState)
    rows = [(f"`{state.name.lower()}`", board.get(state.name, "")) for state in PromptState]
    reasons = below(Reason)
    return "\n\n".join(
        (
            INTRODUCTION,
            "## On the board",
            table(("State", "Meaning"), rows),
            *_log("At the host", prompt_log.Stage, prompt_log.TRANSITIONS),
            *_log("At the renter", prompt_order_log.OrderStage, prompt_order_log.TRANSITIONS),
            REASONS,
            table(("Reason", "Meaning"), [(f"`{reason.value}`", reasons[reason.name]) for reason in Reason]),
        )
    )


def _log(heading: str, stages: type[S], transitions: dict[tuple[S, type], S]) -> tuple[str, ...]:
    notes = below(stages)
    rows = [(f"`{stage.value}`", notes[stage.name], _ways(stage, transitions)) for stage in stages]
    return (f"## {heading}", table(("Stage", "Meaning", "What may follow"), rows))


def _ways(stage: S, transitions: dict[tuple[S, type], S]) -> str:
    ways = [f"`{kind.__name__}` -> {to.value}" for (at, kind), to in transitions.items() if at is stage]
    return ", ".join(ways) or "nothing"
