"""What supervisor and worker say to each other over a UNIX socket: one job, one reply, then the connection closes.

A frame is four bytes of length, big-endian, and a msgpack body. Nothing here decides; a frame that breaks the rules
ends the connection.
"""

from __future__ import annotations

from typing import Final

import msgspec

from fabstir.ports.framing import Framing
from fabstir.protocol.audit_sampler import ClaimedSampler, Position

MAX_FRAME: Final = 1 << 28
"""A position takes at most 300 bytes in either direction; models of today have contexts below a million tokens."""


class Prefill(msgspec.Struct, frozen=True, tag="prefill"):
    """Read `prompt` and `answer` at once."""

    prompt: tuple[int, ...]
    answer: tuple[int, ...]
    asked: tuple[tuple[int, ...], ...]
    """For each token of the answer: of which other tokens the log-probability is wanted."""
    sampler: ClaimedSampler
    top: int = 4
    step: int = 32
    """Tokens of the answer that are read at once; 1 reads as generation does."""
    fingerprints: bool = False
    """Make them of the final hidden states of the answer's tokens, 32 at a time."""
    compare: tuple[bytes, ...] = ()
    """Fingerprints that somebody made of them: how far away they are."""


class Trace(msgspec.Struct, frozen=True, tag="trace"):
    """Read `prompt` and the tokens of `records`: what does the circuit `spot` need of these?"""

    prompt: tuple[int, ...]
    records: tuple[bytes, ...]
    """As their digests are made of them, without the tag, from the answer's first on."""
    first: int = 0
    """Of the records before this one nothing is wanted."""


class Describe(msgspec.Struct, frozen=True, tag="describe"):
    """Say what is loaded."""


class Prefilled(msgspec.Struct, frozen=True, tag="prefilled"):
    """Answer to Prefill; everything token by token of the answer."""

    positions: tuple[Position, ...]
    pieces: tuple[bytes, ...]
    """The bytes that each token stands for; none for control tokens."""
    ends: tuple[bool, ...]
    """Whether it ends a turn."""
    fingerprints: tuple[bytes, ...]
    distances: tuple[float, ...]
    cpu_seconds: float


class Traced(msgspec.Struct, frozen=True, tag="traced"):
    """Answer to Trace: for each wanted record the hidden state that its token was drawn from, and the softmax's denominator."""

    hidden: tuple[bytes, ...]
    """`spot.packed`."""
    denominators: tuple[int, ...]
    """Logarithms, micro-nats."""
    cpu_seconds: float


class Described(msgspec.Struct, frozen=True, tag="described"):
    """Answer to Describe."""

    description: str
    """llama.cpp's words, e.g. `llama 0.84 M F16`."""
    vocabulary: int
    context_size: int


class Fault(msgspec.Struct, frozen=True, tag="fault"):
    """The job failed; `code` is one of the error catalogue."""

    code: str
    detail: str


Job = Prefill | Trace | Describe
Reply = Prefilled | Traced | Described | Fault

_framing: Final[Framing[Job, Reply]] = Framing(Job, Reply, MAX_FRAME)
frame: Final = _framing.frame
read_job: Final = _framing.read_job
read_reply: Final = _framing.read_reply
