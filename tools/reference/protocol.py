"""docs/reference/protocol.md, from the messages in `fabstir.protocol.messages` and the states of a session."""

from __future__ import annotations

from inspect import cleandoc
from typing import get_args

import msgspec
from msgspec import inspect

from fabstir.protocol import messages, transcript
from fabstir.protocol.host_inputs import SessionState
from fabstir.protocol.transcript import TokenRecord
from reference.docstrings import below
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

WORDS = {
    r"^0x[0-9a-f]{64}\Z": "32 bytes, hex",
    r"^0x[0-9a-f]{40}\Z": "address, hex",
    r"^0x[0-9a-f]{130}\Z": "65 bytes r, s, v, hex",
    r"^(0|[1-9][0-9]{0,28})\Z": "decimal digits",
    r"^[A-Za-z0-9_-]{1,64}\Z": "1 to 64 of A-Z a-z 0-9 _ -",
}
"""Patterns of text for a person; another one is shown as it is."""


def render() -> str:
    """The page: messages by direction, the structures inside them, the states."""
    renter, host = get_args(messages.FromRenter), get_args(messages.FromHost)
    parts = [INTRODUCTION, "## From the renter"]
    parts += [_message(cls) for cls in renter]
    parts += ["## From the host", *(_message(cls) for cls in host if cls not in renter)]
    both = ", ".join(f"`{_tag(cls)}`" for cls in host if cls in renter)
    parts += [f"And {both}, as above.", "## Inside messages"]
    inside = (messages.ChatMessage, messages.WireTerms, messages.SessionAuth, messages.Usage, TokenRecord)
    parts += [_struct(f"### {cls.__name__}", cls) for cls in inside]
    parts += ["## The transcript", cleandoc(transcript.__doc__ or "")]
    states = [(f"`{state.value}`", below(SessionState)[state.name]) for state in SessionState]
    parts += ["## States of a session, at the host", table(("State", "Meaning"), states)]
    return "\n\n".join(parts)


def _tag(cls: type) -> str:
    return str(cls.__struct_config__.tag)  # type: ignore[attr-defined]


def _message(cls: type) -> str:
    return _struct(f"### `{_tag(cls)}`", cls)


def _struct(heading: str, cls: type) -> str:
    info = inspect.type_info(cls)
    assert isinstance(info, inspect.StructType)
    about = " ".join((cls.__doc__ or "").split())
    if info.array_like:
        about += " On the wire an array, in this order."
    notes = below(cls)
    rows = [(f"`{f.encode_name}`", _kind(f.type), _default(f), notes.get(f.name, "")) for f in info.fields]
    return f"{heading}\n\n{about}\n\n{table(('Field', 'Type', 'Default', 'Meaning'), rows)}"


def _default(field: inspect.Field) -> str:
    if field.required:
        return "required"
    value = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
    return f"`{msgspec.json.encode(value).decode()}`"


def _kind(kind: inspect.Type) -> str:
    match kind:
        case inspect.Metadata():
            return _kind(kind.type)
        case inspect.UnionType():
            return " or ".join(_kind(part) for part in kind.types)
        case inspect.VarTupleType():
            most = f", at most {kind.max_length}" if kind.max_length is not None else ""
            return f"list of {_kind(kind.item_type)}{most}"
        case inspect.TupleType():
            return f"[{', '.join(_kind(part) for part in kind.item_types)}]"
        case inspect.StructType():
            return kind.cls.__name__
        case inspect.StrType():
            return _text(kind)
        case inspect.IntType():
            return "integer" + _bounds(kind)
        case inspect.FloatType():
            return "number" + _bounds(kind)
        case _:
            return {inspect.BoolType: "true or false", inspect.NoneType: "null"}[type(kind)]


def _text(kind: inspect.StrType) -> str:
    if kind.pattern is not None:
        return WORDS.get(
            kind.pattern, kind.pattern.removeprefix("^").removesuffix(r"\Z").strip("()").replace("|", " or ")
        )
    return f"text, at most {kind.max_length} characters" if kind.max_length is not None else "text"


def _bounds(kind: inspect.IntType | inspect.FloatType) -> str:
    if kind.ge is not None and kind.le is not None:
        return f", {kind.ge} to {kind.le}"
    low = f">= {kind.ge}" if kind.ge is not None else f"> {kind.gt}" if kind.gt is not None else ""
    high = f"<= {kind.le}" if kind.le is not None else f"< {kind.lt}" if kind.lt is not None else ""
    return "".join(f", {bound}" for bound in (low, high) if bound)
