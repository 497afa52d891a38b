"""docs/reference/channel.md, from `fabstir.protocol.channel` and its golden vectors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from fabstir.domain.errors import CATALOGUE
from fabstir.protocol import channel
from reference.structs import struct
from reference.table import table

VECTORS: Final = Path(__file__).resolve().parents[2] / "tests" / "protocol" / "vectors" / "channel.json"
INTRODUCTION: Final = f"""\
# Encrypted channel, version {channel.CHANNEL_VERSION}

An option of the WebSocket `/v1/ws`, for hosts whose offer (`GET /v1/offer`) lists this version in `channel`. The first message of the
connection is `channel_open`, a text frame; after `channel_ready` every message of [the session protocol](protocol.md), in both directions,
is one binary frame. What it protects and why it is made so: [encryption](../explanation/encryption.md)."""
RULES: Final = f"""\
- The renter says nothing before it has checked the signature against the account that its terms pay.
- `n` begins at 0 in each direction and counts up by one. A frame with another number, or that does not open, ends the connection.
- The key of a direction is replaced after each {channel.UPDATE_EVERY} frames: frame {channel.UPDATE_EVERY} is the first under the second.
- The X25519 result is refused where it is zero (points of low order).
- The last frame is of kind 1, with an error's code or `ended` as its content; then the WebSocket is closed. A connection that ends without
  it was cut.
- `kind`, content and the mark 0x80 are together padded with zeros to {channel.SMALLEST_BUCKET} bytes, to the next power of two up to
  {channel.LARGEST_STEP}, or to the next multiple of {channel.LARGEST_STEP}. Other padding is refused. `max_message_bytes` of the offer
  bounds the frame, not the message.
- Frames are not compressed: where permessage-deflate is agreed on, they travel with RSV1 unset. Compressed ones are read, too.
- BLAKE2b has 32 bytes of digest and the personalization "fabstir/chan/1", filled up with zeros; `|` joins bytes, numbers are big-endian."""


def render() -> str:
    """The page: messages, frames, rules, errors, one golden handshake."""
    construction = (channel.__doc__ or "").split("\n\n")
    rows = [(f"`{code}`", CATALOGUE[code].summary) for code in CATALOGUE if code.startswith("channel_")]
    golden = json.loads(VECTORS.read_text("utf-8"))
    return "\n\n".join(
        (
            INTRODUCTION,
            "## Messages",
            struct("### `channel_open`", channel.ChannelOpen),
            _code("json", golden["channel_open"]),
            struct("### `channel_ready`", channel.ChannelReady),
            _code("json", golden["channel_ready"]),
            "## Construction",
            _code(
                "text", "\n\n".join(block.replace("\n    ", "\n").removeprefix("    ") for block in construction[1:3])
            ),
            "## Rules",
            RULES,
            "## Errors",
            table(("Code", "Meaning"), rows),
            "## A golden channel",
            "From tests/protocol/vectors/channel.json, which has frames of both directions too; made without this code.",
            table(
                ("What", "Bytes"), [(name.replace("_", " "), f"`{golden[name]}`") for name in _NAMES] + _first(golden)
            ),
        )
    )


_NAMES: Final = (
    "chain_id",
    "market",
    "host",
    "host_account_key",
    "renter_secret",
    "host_secret",
    "digest",
    "shared",
    "root",
)


def _first(golden: dict[str, Any]) -> list[tuple[str, str]]:
    """The keys of the first frames."""
    return [(f"key 0 of the {sender}", f"`{golden[f'{sender}_frames'][0]['key']}`") for sender in ("renter", "host")]


def _code(kind: str, text: str) -> str:
    return f"```{kind}\n{text}\n```"
