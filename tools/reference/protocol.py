"""docs/reference/protocol.md, from the messages in `fabstir.protocol.messages`, the golden vectors and the states of a session."""

from __future__ import annotations

import json
from functools import cache
from inspect import cleandoc
from pathlib import Path
from typing import Any, Final, get_args

from fabstir.protocol import capabilities, messages, transcript
from fabstir.protocol.context.plan import FATES, ContextSpan
from fabstir.protocol.controls import Tool
from fabstir.protocol.host_inputs import SessionState
from fabstir.protocol.transcript import TokenRecord
from reference.docstrings import below
from reference.protocol_rules import rules
from reference.structs import struct
from reference.table import table

INTRODUCTION = f"""\
# Session protocol, version {messages.PROTOCOL_VERSION}

Every message is one JSON object with a `type`, in one text frame of the WebSocket `/v1/ws`. Unknown fields are ignored, an unknown type is
answered with `error`, never dropped. In an [encrypted channel](channel.md) the same messages travel in binary frames. Amounts are decimal
strings in base units, since they exceed 2^53; hashes, keys and signatures are lower-case hexadecimal with 0x. Signed structures are
EIP-712, with the market contract as the verifying contract.

A session: the renter opens a job on chain, connects, sends `session_init` with the terms and proof that it holds the session key, and gets
`session_ready`. Each `prompt` is answered by `stream_chunk`s and one `response`; in between the host sends `receipt`s, which the renter
acknowledges with `receipt_ack`, a voucher that the contract pays. When W tokens are delivered and not acknowledged, the stream waits. After
a drop, `session_resume` goes on at the same host or at another one, and both agree on the count first."""

VECTORS: Final = Path(__file__).resolve().parents[2] / "tests" / "protocol" / "vectors"
REQUEST: Final = """\
What was asked is bound into the transcript at the start of each answer: `request_hash` is SHA-256 of "fabstir/request/1", the connection's
salt, and the canonical encoding of the pair of the conversation (the question at its end) and the `prompt`. Canonical is: JSON with the
keys of each object sorted, no spaces, every field present with its default where it was left out (but for the last two of a
`ChatMessage`), `type` included; text as UTF-8 with only quote, backslash and control characters escaped (the short forms where JSON has
them); a number with a fraction in its shortest form that reads back the same, and 1 written as 1.0 where the field is no integer. Example,
from tests/protocol/vectors/transcript.json:"""

PLANNED: Final = """\
The conversation is what the engine was given. Where the `prompt` has a `context`, the host says what that is (`context_plan`), before the
first token, and the canonical encoding is of three things: what the engine was given, the `prompt`, and the plan. Example:"""


def render() -> str:
    """The page: messages by direction, the structures inside them, the states."""
    renter, host = get_args(messages.FromRenter), get_args(messages.FromHost)
    parts = [INTRODUCTION, "## From the renter"]
    parts += [_message(cls, "renter") for cls in renter]
    parts += ["## From the host", *(_message(cls, "host") for cls in host if cls not in renter)]
    for cls in host:
        if cls in renter:
            parts += [f"And `{_tag(cls)}`, as above:", _example(cls, "host")]
    parts.append("## Inside messages")
    inside = (
        *(messages.ChatMessage, messages.WireTerms, messages.SessionAuth, messages.Usage, TokenRecord),
        *(messages.ContextRequest, messages.ContextPlan, ContextSpan),
        *(messages.ToolCall, Tool),
    )
    parts += [struct(f"### {cls.__name__}", cls) for cls in inside]
    words = [(f"`{name}`", meaning) for name, meaning in capabilities.MEANING.items()]
    parts += ["## Capabilities", cleandoc(capabilities.__doc__ or ""), table(("Name", "Meaning"), words)]
    parts += ["## The transcript", cleandoc(transcript.__doc__ or "")]
    parts += ["## The request", REQUEST, _code(_vectors("transcript")["request"]["canonical"])]
    parts += [PLANNED, _code(_vectors("transcript")["planned_request"]["canonical"])]
    parts += [
        "## Fates of messages, in a context plan",
        table(("Fate", "Meaning"), [(f"`{fate}`", about) for fate, about in FATES.items()]),
    ]
    states = [(f"`{state.value}`", below(SessionState)[state.name]) for state in SessionState]
    parts += ["## States of a session, at the host", table(("State", "Meaning"), states), *rules()]
    return "\n\n".join(parts)


def _tag(cls: type) -> str:
    return str(cls.__struct_config__.tag)  # type: ignore[attr-defined]


def _message(cls: type, sender: str) -> str:
    return struct(f"### `{_tag(cls)}`", cls) + "\n\n" + _example(cls, sender)


def _example(cls: type, sender: str) -> str:
    """The golden message, one field a line."""
    (text,) = (v["encoded"] for v in _vectors("messages") if (v["from"], v["type"]) == (sender, _tag(cls)))
    fields = [f"  {_compact(name)}: {_compact(value)}" for name, value in json.loads(text).items()]
    return _code("{\n" + ",\n".join(fields) + "\n}")


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _code(text: str) -> str:
    return f"```json\n{text}\n```"


@cache
def _vectors(name: str) -> Any:
    return json.loads((VECTORS / f"{name}.json").read_text("utf-8"))
