"""docs/reference/protocol.md, from the messages in `fabstir.protocol.messages` and the states of a session."""

from __future__ import annotations

from inspect import cleandoc
from typing import get_args

from fabstir.protocol import messages, transcript
from fabstir.protocol.host_inputs import SessionState
from fabstir.protocol.transcript import TokenRecord
from reference.docstrings import below
from reference.structs import struct
from reference.table import table

INTRODUCTION = f"""\
# Session protocol, version {messages.PROTOCOL_VERSION}

Every message is one JSON object with a `type`, in one text frame of the WebSocket `/v1/ws`. Unknown fields are ignored, an unknown type is
answered with `error`, never dropped. Amounts are decimal strings in base units, since they exceed 2^53; hashes, keys and signatures are
lower-case hexadecimal with 0x. Signed structures are EIP-712, with the market contract as the verifying contract.

A session: the renter opens a job on chain, connects, sends `session_init` with the terms and proof that it holds the session key, and gets
`session_ready`. Each `prompt` is answered by `stream_chunk`s and one `response`; in between the host sends `receipt`s, which the renter
acknowledges with `receipt_ack`, a voucher that the contract pays. When W tokens are delivered and not acknowledged, the stream waits. After
a drop, `session_resume` goes on at the same host or at another one, and both agree on the count first."""


def render() -> str:
    """The page: messages by direction, the structures inside them, the states."""
    renter, host = get_args(messages.FromRenter), get_args(messages.FromHost)
    parts = [INTRODUCTION, "## From the renter"]
    parts += [_message(cls) for cls in renter]
    parts += ["## From the host", *(_message(cls) for cls in host if cls not in renter)]
    both = ", ".join(f"`{_tag(cls)}`" for cls in host if cls in renter)
    parts += [f"And {both}, as above.", "## Inside messages"]
    inside = (messages.ChatMessage, messages.WireTerms, messages.SessionAuth, messages.Usage, TokenRecord)
    parts += [struct(f"### {cls.__name__}", cls) for cls in inside]
    parts += ["## The transcript", cleandoc(transcript.__doc__ or "")]
    states = [(f"`{state.value}`", below(SessionState)[state.name]) for state in SessionState]
    parts += ["## States of a session, at the host", table(("State", "Meaning"), states)]
    return "\n\n".join(parts)


def _tag(cls: type) -> str:
    return str(cls.__struct_config__.tag)  # type: ignore[attr-defined]


def _message(cls: type) -> str:
    return struct(f"### `{_tag(cls)}`", cls)
