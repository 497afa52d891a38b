"""For docs/reference/protocol.md: what each side does with each message in each state, which errors that can lead to, bounds and times.

Nothing here is written down twice: states and messages come from the tables of transitions, outcomes from the docstrings of their handlers,
error codes from the calls of `error(...)` in the handlers and in what they call, numbers from the constants that the program uses.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterator
from functools import cache
from types import FunctionType
from typing import Any, Final, get_args

from fabstir.host import reception, session_actor
from fabstir.host.admission import Admission
from fabstir.host.nonces import NonceCache
from fabstir.host.settings import HostSettings
from fabstir.protocol import host_attaching, host_session, messages, renter_session
from fabstir.protocol.admission import AUTH_WINDOW_SECONDS
from fabstir.protocol.answer import Answer
from fabstir.protocol.context.preparing import Preparation
from fabstir.protocol.host_core import HostCore
from fabstir.protocol.host_inputs import SessionState, TokensCounted
from fabstir.protocol.meter import Meter
from fabstir.protocol.renter_core import RenterCore
from fabstir.protocol.renter_session import PING_SECONDS, RenterState
from reference.docstrings import below
from reference.table import table

CLASSES: Final = (HostCore, RenterCore, Meter, Preparation, Answer, Admission, NonceCache)
"""Whose methods handlers call on objects."""
OPENING: Final = (messages.SessionInit, messages.SessionResume)
ORDER: Final = """\
- A connection begins with `session_init` or `session_resume`; before that only `ping` is answered. One job for each connection, one
  connection for each job.
- One prompt at a time. Its `message_index` is the one of `session_ready`, and one more after each answer that began; a prompt that was
  refused keeps its index.
- Of one answer, in this order: `context_plan` where the prompt had a `context`, `stream_chunk`s without gaps, `response`. A `receipt`
  may stand between any two of them and counts exactly what came before it; after the last one it stands before `response`.
- `receipt_ack` answers the newest receipt; older ones need none. The stream stops where W tokens are not acknowledged.
- An `error` with the `message_index` of the running answer ends that answer, and `session_resume` must come before the next prompt. Any
  other `error` is about one message and changes nothing.
- `session_state` follows `session_ready` after a resume, and answers `session_clear`. `pong` answers `ping` at once, whatever else is
  going on.
- After `handoff` nothing is begun: what is left is `receipt_ack` and `session_end`. After `session_end` the host sends its own and
  closes.
- Messages that are late (of an answer that is over, of a session that has ended) are ignored by both sides; anything else that does not
  fit its state is `message_out_of_order`: the host says so, a renter leaves."""


def rules() -> list[str]:
    """The sections."""
    return [
        "## Order",
        ORDER,
        "## The host: what happens with each message",
        "Rows are messages of the renter, columns the states of the session at the host. Empty: `message_out_of_order`, nothing changes.",
        _grid(host_session.TRANSITIONS, SessionState, _of_renter()),
        _outcomes(host_session.TRANSITIONS, _of_renter()),
        "## The renter: what happens with each message",
        "Rows are messages of the host, columns the states of the session at the renter. Empty: the host is left, nothing more is signed.",
        table(("State", "Meaning"), [(f"`{state.value}`", below(RenterState)[state.name]) for state in RenterState]),
        _grid(renter_session.TRANSITIONS, RenterState, get_args(messages.FromHost)),
        _outcomes(renter_session.TRANSITIONS, get_args(messages.FromHost)),
        "## Errors of each message",
        "What a host may answer. Any message may also be answered with `message_malformed`, `message_unknown`, `message_out_of_order`,"
        " `rate_limited` and `journal_failed`; while an answer streams, the codes of engines come besides. Meanings: [errors](errors.md).",
        table(
            ("Message", "Codes"),
            [(f"`{tag(kind)}`", _listed(errors_of(kind))) for kind in get_args(messages.FromRenter)],
        ),
        "## Bounds and times",
        table(("What", "Bound"), _bounds()),
    ]


def tag(cls: type) -> str:
    """`type` of a message."""
    return str(cls.__struct_config__.tag)  # type: ignore[attr-defined]


def errors_of(kind: type) -> tuple[str, ...]:
    """Codes that a host may answer this message with, in alphabetical order, without those that every message has."""
    kinds = (kind, TokensCounted) if kind is messages.Prompt else (kind,)
    handlers: list[Callable[..., Any]] = [h for (_, one), h in host_session.TRANSITIONS.items() if one in kinds]
    if kind in OPENING:
        handlers = [host_attaching.attach, Admission.identify, Admission.examine, reception.Reception._require_room]
    if kind is messages.DepositChanged:
        handlers = [session_actor.SessionActor._find_deposit]
    found = {code for handler in handlers for code in _codes(handler)}
    return tuple(sorted(found - {"message_out_of_order", "message_malformed"}))


@cache
def _codes(function: Callable[..., Any]) -> frozenset[str]:
    """Of `function` and of everything of ours that it calls."""
    found: set[str] = set()
    seen: set[Any] = set()
    waiting: list[Any] = [function]
    while waiting:
        one = waiting.pop()
        if one in seen or not isinstance(one, FunctionType):
            continue
        seen.add(one)
        for call in _calls(one):
            if isinstance(call.func, ast.Name) and call.func.id == "error" and call.args:
                found |= {str(node.value) for node in ast.walk(call.args[0]) if isinstance(node, ast.Constant)}
            else:
                waiting += _called(one, call.func)
    return frozenset(found)


def _calls(function: FunctionType) -> Iterator[ast.Call]:
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    return (node for node in ast.walk(tree) if isinstance(node, ast.Call))


def _called(function: FunctionType, called: ast.expr) -> list[Any]:
    """What a call may mean: a function of ours by its name, the making of one of CLASSES, or a method of one of them."""
    if isinstance(called, ast.Name):
        one = function.__globals__.get(called.id)
        one = one.__init__ if one in CLASSES else one
        return [one] if (getattr(one, "__module__", None) or "").startswith("fabstir.") else []
    if isinstance(called, ast.Attribute):
        return [getattr(cls, called.attr) for cls in CLASSES if called.attr in vars(cls)]
    return []


def _of_renter() -> tuple[type, ...]:
    return tuple(
        kind for kind in get_args(messages.FromRenter) if kind not in OPENING and kind is not messages.DepositChanged
    )


def _grid(transitions: Any, states: Any, kinds: tuple[type, ...]) -> str:
    rows = [
        (f"`{tag(kind)}`", *(_name(transitions.get((state, kind))) for state in states))
        for kind in kinds
    ]  # fmt: skip
    return table(("Message", *(f"`{state.value}`" for state in states)), rows)


def _outcomes(transitions: Any, kinds: tuple[type, ...]) -> str:
    handlers = dict.fromkeys(handler for (_, kind), handler in transitions.items() if kind in kinds)
    rows = [(_name(handler), " ".join((handler.__doc__ or "").split())) for handler in handlers]
    return table(("Outcome", "Meaning"), sorted(set(rows)))


def _name(handler: Any) -> str:
    return handler.__name__.strip("_").replace("_", " ") if handler else ""


def _listed(codes: tuple[str, ...]) -> str:
    return ", ".join(f"`{code}`" for code in codes)


def _bounds() -> list[tuple[str, str]]:
    host = HostSettings.__struct_defaults__
    names = HostSettings.__struct_fields__[-len(host) :]
    default = dict(zip(names, host, strict=True))
    return [
        ("A message, in bytes", f"{default['max_message_bytes']} (`max_message_bytes`); a larger frame closes with 1009"),
        ("A text field, in characters", str(messages.MAX_CONTENT)),
        ("Tokens scored at once", str(messages.MAX_SCORED)),
        ("Tokens of one answer", f"{default['max_answer_tokens']} (`max_answer_tokens`)"),
        ("Messages before a session", f"{reception.MAX_ATTEMPTS}, then `rate_limited` and the end"),
        ("Unreadable messages in a session", f"{session_actor.MAX_FAULTS}, then `rate_limited` and the end"),
        ("`auth.issued_at` from the host's clock", f"{AUTH_WINDOW_SECONDS} s either way"),
        ("From connecting to `session_ready`", f"{default['hello_timeout']:g} s"),
        ("A stream waits for `receipt_ack`", f"{default['ack_timeout']:g} s (`ack_timeout_s`), then `ack_timeout`"),
        ("A renter that takes nothing", f"{default['write_timeout']:g} s, then `client_too_slow`"),
        ("Silence of a renter until the host asks", f"{default['ping_seconds']:g} s (`ping_s`), then as long again, then `peer_silent`"),
        ("Silence of a host until the renter asks", f"{PING_SECONDS:g} s, then as long again, then it goes on elsewhere"),
        ("A running answer at a host that leaves", f"{default['drain_timeout']:g} s, then `handoff` in its middle"),
        ("After `handoff`", f"{default['ack_grace']:g} s (`grace_s`), then the connection is closed"),
    ]  # fmt: skip
