"""docs/reference/session.md, from the table of transitions of the host's session core."""

from __future__ import annotations

from fabstir.protocol.host_session import TRANSITIONS, SessionState
from reference.docstrings import below
from reference.table import table

INTRODUCTION = """\
# Session states of a host

How the core of one session answers each input in each state. How the core is driven is told in
[a session at work](../explanation/session.md)."""

INPUTS = """\
## Transitions

What the core does with an input. Empty: the input does not fit the state and is answered with `message_out_of_order`, or cannot occur.
`ignore`: a late item of something that is over. `session_init` and `session_resume` are no inputs of this table: they attach a renter in
DETACHED, replace the conversation in READY, are `session_busy` while an answer streams and `job_closed` when FINISHED."""


def render() -> str:
    """The page: states, then one row for each input."""
    notes = below(SessionState)
    states = table(("State", "Meaning"), [(f"`{state.name}`", notes[state.name]) for state in SessionState])
    kinds = dict.fromkeys(kind for _, kind in TRANSITIONS)
    rows = [(f"`{kind.__name__}`", *(_cell(state, kind) for state in SessionState)) for kind in kinds]
    transitions = table(("Input", *(state.name for state in SessionState)), rows)
    return "\n\n".join((INTRODUCTION, "## States", states, INPUTS, transitions))


def _cell(state: SessionState, kind: type) -> str:
    handler = TRANSITIONS.get((state, kind))
    return handler.__name__.strip("_").replace("_", " ") if handler else ""
