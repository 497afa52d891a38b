"""The wire to the byte: golden vectors of every message, and what is not a message is refused by name, whatever it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final, get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabstir.domain.errors import CATALOGUE, FabstirError, PeerFault, error
from fabstir.domain.money import MAX_AMOUNT
from fabstir.protocol import messages
from fabstir.protocol.messages import (
    HOST_TYPES,
    RENTER_TYPES,
    Error,
    FromHost,
    FromRenter,
    Prompt,
    SessionInit,
    WireTerms,
    amount_of,
    decode_from_host,
    decode_from_renter,
    encode,
    job_of,
)
from tests.protocol.market import terms

GOLDEN: Final[list[dict[str, str]]] = json.loads(
    (Path(__file__).parent / "vectors" / "messages.json").read_text("utf-8")
)
DECODE: Final = {"renter": decode_from_renter, "host": decode_from_host}
TAGS: Final = {
    "renter": {str(cls.__struct_config__.tag) for cls in get_args(FromRenter)},
    "host": {str(cls.__struct_config__.tag) for cls in get_args(FromHost)},
}


def golden(kind: str, sender: str = "") -> dict[str, Any]:
    """The golden message of a type, as JSON."""
    vector = next(v for v in GOLDEN if v["type"] == kind and v["from"].startswith(sender))
    message: dict[str, Any] = json.loads(vector["encoded"])
    return message


def refused(data: bytes | str, sender: str = "renter") -> str:
    """The code of the error that reading `data` gives."""
    with pytest.raises(PeerFault) as caught:
        DECODE[sender](data)
    return caught.value.code


# -- golden vectors -----------------------------------------------------------------------------------------------------------------


def test_there_is_a_vector_for_every_message() -> None:
    """Of both directions; the sets that name unknown types are complete too."""
    assert {v["type"] for v in GOLDEN if v["from"] == "renter"} == TAGS["renter"] == RENTER_TYPES
    assert {v["type"] for v in GOLDEN if v["from"] == "host"} == TAGS["host"] == HOST_TYPES


@pytest.mark.parametrize("vector", GOLDEN, ids=lambda v: f"{v['from']}-{v['type']}")
def test_golden_messages(vector: dict[str, str]) -> None:
    """Read and written again, a message is the same bytes; left-out fields have the values that the vector says; bytes and text, and
    fields in any order, read the same."""
    read = DECODE[vector["from"]]
    message = read(vector["encoded"].encode())
    assert encode(message) == vector["encoded"].encode()
    assert read(vector["encoded"]) == message
    backwards = dict(reversed(json.loads(vector["encoded"]).items()))
    assert read(json.dumps(backwards)) == message
    assert encode(read(vector["shortest"])) == vector["shortest_means"].encode()


@pytest.mark.parametrize("vector", GOLDEN, ids=lambda v: f"{v['from']}-{v['type']}")
def test_every_required_field_is_required(vector: dict[str, str]) -> None:
    """The shortest form lacks nothing that could be left out."""
    shortest = json.loads(vector["shortest"])
    for name in shortest:
        less = {key: value for key, value in shortest.items() if key != name}
        assert refused(json.dumps(less), vector["from"]) == (
            "message_unknown" if name == "type" else "message_malformed"
        )


def test_unknown_fields_are_ignored() -> None:
    """A newer peer may say more."""
    assert decode_from_renter(json.dumps(golden("ping") | {"since": 2027, "deep": [{}]})) == messages.Ping(id=7)


def test_terms_survive_the_wire() -> None:
    """Back to the very same terms."""
    assert WireTerms.of(terms()).terms() == terms()


# -- what is refused ----------------------------------------------------------------------------------------------------------------

HEX32: list[object] = [
    "0x" + "AB" * 32,
    "ab" * 32,
    "0x" + "ab" * 31,
    "0x" + "ab" * 33,
    "0x" + "ag" * 32,
    "0x" + "ab" * 32 + "\n",
    "",
    7,
]
HEX20: list[object] = ["0x" + "AB" * 20, "0x" + "ab" * 32, "0x" + "ab" * 20 + "\n"]
SIGNATURE: list[object] = ["0x" + "ab" * 64, "0x" + "ab" * 66, "0x" + "ab" * 65 + "\n", None]
DECIMAL: list[object] = ["", "-1", "+1", "01", "1.0", "1e3", " 1", "1\n", "\u0661", "1" * 30, 19]
SESSION: list[object] = ["", "a" * 65, "a b", "\u00e9", "a\n", 5]
COUNT: list[object] = [-1, 2**32 - 1, 2**64, 1.5, "1", None, True]
RECORD: list[object] = [{}, [1], ["1", 2], [1, 2, [1]], [1, 2, [[1]]], 5]
WORDS: list[object] = [["a b"], ["x" * 81], [""], ["a"] * 65, "ping"]
NO_CONTEXT: list[object] = ["x", [{}], [{"role": "wizard", "content": ""}], 7]
TEXT: list[object] = [7, None, ["x"]]
BAD: Final[list[tuple[str, str, tuple[Any, ...], object]]] = [
    *(("renter", "session_init", ("job_id",), value) for value in HEX32),
    *(("renter", "session_init", ("session_id",), value) for value in SESSION),
    *(("renter", "session_init", ("terms", name), v) for name in ("renter", "signer", "host", "token", "arbiter") for v in HEX20),
    *(("renter", "session_init", ("terms", name), v) for name in ("model_id", "salt") for v in HEX32),
    *(("renter", "session_init", ("terms", name), v) for name in ("price_per_mtok", "bond") for v in DECIMAL),
    *(("renter", "session_init", ("terms", "expires_at"), value) for value in (-1, 2**40, "1")),
    *(("renter", "session_init", ("terms", "challenge"), value) for value in (-1, 2**32)),
    *(("renter", "session_init", ("terms", "exposure"), value) for value in (0, -1, 2**32)),
    *(("renter", "session_init", ("terms", "policy"), value) for value in (-1, 2)),
    *(("renter", "session_init", ("auth", "nonce"), value) for value in HEX32),
    *(("renter", "session_init", ("auth", "signature"), value) for value in SIGNATURE),
    *(("renter", "session_init", ("auth", "issued_at"), value) for value in (-1, 2**53)),
    *(("renter", "session_init", ("protocol",), value) for value in (1, ["1"], None)),
    *(("renter", "session_init", ("conversation_context", 0, "role"), value) for value in ("function", "", "user\n")),
    *(("renter", "session_init", ("conversation_context", 0, "content"), value) for value in (*TEXT, "x" * (2**20 + 1))),
    *(("renter", "session_resume", ("transcript",), value) for value in HEX32),
    *(("renter", "session_resume", (name,), value) for name in ("last_message_index", "tokens_received") for value in COUNT),
    *(("renter", "prompt", ("content",), value) for value in ("", "x" * (2**20 + 1), 7)),
    *(("renter", "prompt", ("prefix",), value) for value in ("x" * (2**20 + 1), 7)),
    *(("renter", "prompt", ("message_index",), value) for value in COUNT),
    *(("renter", "prompt", ("max_tokens",), value) for value in (0, -1, 2**20 + 1)),
    *(("renter", "prompt", ("temperature",), value) for value in (-0.1, 5.1, "1")),
    *(("renter", "prompt", ("top_p",), value) for value in (0, -0.1, 1.1)),
    *(("renter", "prompt", ("seed",), value) for value in (-1, 2**32)),
    *(("renter", "prompt", ("stop",), value) for value in ("x", [""], ["x" * 65], ["x"] * 9)),
    *(("renter", "receipt_ack", ("amount",), value) for value in DECIMAL),
    *(("renter", "receipt_ack", ("tokens",), value) for value in COUNT),
    *(("renter", "receipt_ack", ("transcript",), value) for value in HEX32),
    *(("renter", "receipt_ack", ("signature",), value) for value in SIGNATURE),
    *(("renter", "cancel", ("message_index",), value) for value in COUNT),
    *(("renter", "ping", ("id",), value) for value in COUNT),
    *(("renter", "session_init", (name,), value) for name in ("capabilities", "requires") for value in WORDS),
    *(("renter", "session_init", ("client",), value) for value in ("x" * 65, "a\n", "\u00e9", 7)),
    *(("renter", "prompt", ("conversation_context",), value) for value in NO_CONTEXT),
    *(("renter", "session_clear", ("session_id",), value) for value in SESSION),
    *(("host", "session_state", (name,), value) for name in ("conversation", "transcript") for value in HEX32),
    *(("host", "session_state", (name,), value) for name in ("messages", "message_index", "tokens_served") for value in COUNT),
    *(("host", "handoff", (name,), value) for name in ("message_index", "tokens_served", "grace_s") for value in COUNT),
    *(("host", "handoff", ("transcript",), value) for value in HEX32),
    *(("host", "session_ready", (name,), value) for name in ("job_id", "model_id", "transcript", "salt") for value in HEX32),
    *(("host", "session_ready", ("host",), value) for value in HEX20),
    *(("host", "session_ready", ("price_per_mtok",), value) for value in DECIMAL),
    *(("host", "session_ready", ("tokens_served",), value) for value in COUNT),
    *(("host", "stream_chunk", ("index",), value) for value in COUNT),
    *(("host", "stream_chunk", ("tokens", 0), value) for value in RECORD),
    *(("host", "receipt", ("amount",), value) for value in DECIMAL),
    *(("host", "receipt", ("signature",), value) for value in SIGNATURE),
    *(("host", "response", ("usage",), value) for value in ({}, None, {"prompt_tokens": 1})),
    *(("host", "session_end", ("close_signature",), value) for value in SIGNATURE[:3]),
    *(("host", "error", ("retryable",), value) for value in ("yes", 1)),
    *(("host", "pong", ("id",), value) for value in COUNT),
]  # fmt: skip


@pytest.mark.parametrize(("sender", "kind", "path", "value"), BAD, ids=lambda value: str(value)[:24])
def test_a_malformed_field_is_refused(sender: str, kind: str, path: tuple[Any, ...], value: object) -> None:
    """Wrong letters, length, sign, range or type: `message_malformed`, with the type of the message in the detail."""
    message = golden(kind, sender)
    inner: Any = message
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = value
    with pytest.raises(PeerFault, match=f"message_malformed.*{kind}: "):
        DECODE[sender](json.dumps(message))


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "message_malformed"),
        (b"null", "message_malformed"),
        (b"7", "message_malformed"),
        (b'"ping"', "message_malformed"),
        (b"[]", "message_malformed"),
        (b"{", "message_malformed"),
        (b"\xff\xfe", "message_malformed"),
        (b'{"type":"ping","id":"\xff"}', "message_malformed"),
        (b"{}", "message_unknown"),
        (b'{"type":"","id":1}', "message_unknown"),
        (b'{"type":"session_close"}', "message_unknown"),
        (b'{"type":"Ping"}', "message_unknown"),
        (b'{"type":7}', "message_malformed"),
        (b'{"type":"ping","id":NaN}', "message_malformed"),
        (b'{"type":"ping","id":1}x', "message_malformed"),
        (b"[" * 200_000, "message_malformed"),
        (b'{"a":' * 200_000, "message_malformed"),
        (b'{"type":"ping","x":' + b"[" * 200_000 + b"]" * 200_000 + b"}", "message_malformed"),
        (b'{"type":"ping","id":' + b"9" * 5_000 + b"}", "message_malformed"),
        ('{"type":"ping","id":"\ud800"}', "message_malformed"),
        ("\udfff", "message_malformed"),
    ],
    ids=lambda value: str(value)[:24],
)
def test_what_is_no_message_is_refused(data: bytes | str, code: str) -> None:
    """No JSON, no object, no type, an unknown one, nesting without end, numbers without end, text that is none."""
    assert refused(data) == code
    theirs = data.replace("ping", "pong") if isinstance(data, str) else data.replace(b"ping", b"pong")
    assert refused(theirs, "host") == code


@pytest.mark.parametrize("sender", ["renter", "host"])
def test_each_side_takes_only_what_is_for_it(sender: str) -> None:
    """A host that hears a host, or a renter a renter, hears an unknown type."""
    for vector in GOLDEN:
        if vector["from"] != sender and vector["type"] not in RENTER_TYPES & HOST_TYPES:
            assert refused(vector["encoded"], sender) == "message_unknown"


def test_details_are_short() -> None:
    """What a stranger sent does not fill the log."""
    with pytest.raises(PeerFault) as unknown:
        decode_from_renter(json.dumps({"type": "x" * 10_000}))
    assert len(unknown.value.detail) < 60
    with pytest.raises(PeerFault) as malformed:
        decode_from_renter(json.dumps({"type": "prompt", "session_id": "x" * 10_000}))
    assert len(malformed.value.detail) <= 200


def test_amounts_have_the_contracts_range() -> None:
    """Up to 2**96 - 1."""
    assert (amount_of("0"), amount_of(str(MAX_AMOUNT))) == (0, MAX_AMOUNT)
    with pytest.raises(PeerFault, match="message_malformed"):
        amount_of(str(MAX_AMOUNT + 1))
    assert job_of("0x" + "ab" * 32) == b"\xab" * 32


def test_an_error_is_the_fault_in_one_shape() -> None:
    """Code, words, whether to try again, what was measured, what to do."""
    fault = error("deposit_exhausted", "49 of 49", "Open another one.")
    assert Error.of(fault, "talk", 3) == Error(
        code="deposit_exhausted",
        category="refused",
        message=CATALOGUE["deposit_exhausted"].summary,
        retryable=False,
        detail="49 of 49",
        next_step="Open another one.",
        session_id="talk",
        message_index=3,
    )
    assert Error.of(fault).session_id is None


# -- whatever comes -----------------------------------------------------------------------------------------------------------------

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


def survives(data: bytes | str) -> None:
    """Read by both sides: a message that can be written again, or an error of the tree."""
    told = []
    for read in DECODE.values():
        try:
            message = read(data)
        except FabstirError as fault:
            told.append(fault.code)
        else:
            assert read(encode(message)) == message
    assert set(told) <= {"message_malformed", "message_unknown"}


@given(data=st.binary(max_size=200))
def test_random_bytes(data: bytes) -> None:
    """Never anything but an error of our own."""
    survives(data)


@given(value=json_values)
def test_random_json(value: object) -> None:
    """Nor for JSON that is no message."""
    survives(json.dumps(value))


@given(data=st.data())
def test_messages_with_one_thing_wrong(data: st.DataObject) -> None:
    """One field of a right message becomes anything, or goes: it is understood, or refused by name; terms that are understood
    are terms."""
    vector = data.draw(st.sampled_from(GOLDEN))
    message = json.loads(vector["encoded"])
    places = [(message, name) for name in message]
    places += [(part, name) for part in message.values() if isinstance(part, dict) for name in part]
    inner, name = data.draw(st.sampled_from(places))
    if data.draw(st.booleans()):
        inner[name] = data.draw(json_values | st.text().map(lambda tail: str(inner[name]) + tail))
    else:
        del inner[name]
    text = json.dumps(message)
    survives(text)
    try:
        read = DECODE[vector["from"]](text)
    except FabstirError:
        return
    if isinstance(read, SessionInit):
        assert WireTerms.of(read.terms.terms()) == read.terms
    if isinstance(read, Prompt):
        assert msgspec.json.decode(messages.canonical(read), type=Prompt) == read
