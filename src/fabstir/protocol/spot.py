"""The circuit `spot`: is a record's list of log-probabilities what the registered output head makes of a hidden state that was
committed before anyone knew that this token would be asked for?

    x_i    = round(hidden * 2^10)                         of the final, normalised hidden state; 24 bits with sign
    X_i    = KZG point of (x_i, zeros, salt_i)            896 places and one for the salt, which hides x
    leaf_i = keccak256("fabstir/trace/1" | record_i | X_i | z_i)
    commitment = keccak256("fabstir/traces/1" | index of the first record | root of a `padded_tree` over the leaves)
    logit of a listed token = its log-probability + z_i   micro-nats; z_i is the logarithm of the softmax's denominator

The seed picks one token of the job. Checked are the row of that token and three of the other listed tokens, chosen by the seed: the
circuit makes <W_j, x> public, and contract and `spot_proof.judge` compare it with the logit, |error| <= TOLERANCE. Logits are not
committed a second time: they are in the record that host and renter both hold, which also fixes the rows' numbers. z_i is free, so
what is checked is how the listed logits differ. Pure. What this shows and does not show: docs/explanation/proofs.md.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from hashlib import sha256
from typing import Final, NamedTuple

import msgspec

from fabstir.domain.ids import Hash32
from fabstir.protocol.padded_tree import PaddedTree
from fabstir.protocol.sampling import read_record
from fabstir.protocol.signing import keccak
from fabstir.protocol.transcript import RECORD_TAG

ROWS: Final = 4
COLUMNS: Final = 896
"""Narrower models are filled up with zeros: one circuit, key and contract for all of them. Wider ones need a wider circuit."""
VECTOR: Final = COLUMNS + 1
HIDDEN_SCALE: Final = 10
"""Rounding then moves a logit by less than a thousandth of a nat: 2^-11 for each place, weights below 1, random signs."""
HIDDEN_LIMIT: Final = 2**23 - 1
TOLERANCE: Final = 250_000
"""Micro-nats. The largest error of an honest answer was 5,400 where it was measured (tests/engines/test_traces.py: the model of the
package, 16-bit weights, one machine); a listed token with twice the probability is 693,000 away."""
SALT_BYTES: Final = 31

_PACKED: Final = 4
_SALT_TAG: Final = b"fabstir/spot/1"
_TRACE_TAG: Final = b"fabstir/trace/1".ljust(32, b"\0")
_TRACES_TAG: Final = b"fabstir/traces/1".ljust(32, b"\0")


class SpotVector(msgspec.Struct, frozen=True, array_like=True):
    """One input tensor of the circuit."""

    values: tuple[int, ...]
    """At most COLUMNS; zeros follow."""
    salt: bytes = b""
    """The last place, as a big-endian number; rows of the head have none."""


class TokenTrace(msgspec.Struct, frozen=True):
    """What a host knows of one generated token that the circuit can speak of. Secret like the conversation."""

    hidden: tuple[int, ...]
    """`quantised` final hidden state at the position that this token was drawn from."""
    denominator: int
    """Logarithm of the sum of exp(logit) over the whole vocabulary, micro-nats."""
    record: bytes
    """What the record's digest is the SHA-256 of (`transcript.record_preimage`), without the tag."""
    salt: bytes
    """`hidden_salt`."""

    @property
    def vector(self) -> SpotVector:
        """As the circuit takes it."""
        return SpotVector(self.hidden, self.salt)


class CheckedRow(NamedTuple):
    """A row of the head, and what the record says of its token."""

    token: int
    logprob: int


def quantised(hidden: Sequence[float]) -> tuple[int, ...]:
    """A hidden state as integers. Raises ValueError where it is too long or a value out of range or not a number."""
    if not 0 < len(hidden) <= COLUMNS:
        raise ValueError(f"a hidden state of {len(hidden)} values; the circuit takes {COLUMNS}")
    if not all(abs(value) * 2**HIDDEN_SCALE <= HIDDEN_LIMIT for value in hidden):  # false of NaN too
        raise ValueError("a value of the hidden state is out of range")
    return tuple(round(value * 2**HIDDEN_SCALE) for value in hidden)


def packed(hidden: Sequence[int]) -> bytes:
    """A quantised hidden state in four bytes a value: a tuple of as many integers takes eight times the memory."""
    return struct.pack(f"<{len(hidden)}i", *hidden)


def unpacked(hidden: bytes) -> tuple[int, ...]:
    """The values again. Raises ValueError where these are not whole ones."""
    if len(hidden) % _PACKED:
        raise ValueError("not a packed hidden state")
    return struct.unpack(f"<{len(hidden) // _PACKED}i", hidden)


def hidden_salt(salt: Hash32, index: int) -> bytes:
    """What hides the hidden state of the job's token `index`; `salt` is that of the connection."""
    return sha256(_SALT_TAG + salt + struct.pack(">I", index)).digest()[:SALT_BYTES]


def trace_leaf(trace: TokenTrace, point: bytes) -> Hash32:
    """What a trace is in the commitment; `point` is that of its vector."""
    return leaf_of(record_digest(trace.record), point, trace.denominator)


def leaf_of(record: bytes, point: bytes, denominator: int) -> Hash32:
    """The same from its parts, as the contract makes it."""
    return keccak(_TRACE_TAG + record + point + denominator.to_bytes(32, "big", signed=True))


def record_digest(record: bytes) -> bytes:
    """As it is in the transcript."""
    return sha256(RECORD_TAG + record).digest()


def first_index(traces: Sequence[TokenTrace]) -> int:
    """Index in the job of a checkpoint's first record. Raises ValueError where the records do not follow each other."""
    indices = [read_record(trace.record).index for trace in traces]
    if not indices or indices != list(range(indices[0], indices[0] + len(indices))):
        raise ValueError("the records of a checkpoint follow each other")
    return indices[0]


def tree_of(traces: Sequence[TokenTrace], points: Sequence[bytes]) -> PaddedTree:
    """The tree of a checkpoint's traces. Raises ValueError."""
    return PaddedTree(b"".join(trace_leaf(trace, point) for trace, point in zip(traces, points, strict=True)))


def commit(traces: Sequence[TokenTrace], points: bytes) -> Hash32:
    """The commitment to a checkpoint's traces; `points` are 64 bytes each. Raises ValueError as `first_index`."""
    split = [points[at : at + 64] for at in range(0, len(points), 64)]
    return commitment_of(first_index(traces), tree_of(traces, split).root)


def commitment_of(first: int, tree: bytes) -> Hash32:
    """The commitment of a tree of traces whose first record is the job's token `first`."""
    return keccak(_TRACES_TAG + first.to_bytes(32, "big") + tree)


def checked_rows(record: bytes, seed: Hash32) -> tuple[CheckedRow, ...]:
    """The ROWS rows: the token's own, then neighbours in the list from a place that the seed picks. Raises ValueError where the record
    lists fewer than three other tokens."""
    parts = read_record(record)
    own = CheckedRow(parts.token, parts.logprob)
    others = [CheckedRow(*pair) for pair in parts.top if pair[0] != own.token]
    if len(others) < ROWS - 1:
        raise ValueError(f"the record lists {len(others)} other tokens; {ROWS - 1} are needed")
    start = int.from_bytes(keccak(seed), "big")
    return own, *(others[(start + place) % len(others)] for place in range(ROWS - 1))


def error_of(dot: int, row: CheckedRow, denominator: int, scale: int) -> int:
    """<W_j, x> less the stated logit, in micro-nats at the product scale: times 2^(scale + HIDDEN_SCALE)."""
    return dot * 1_000_000 - ((row.logprob + denominator) << (scale + HIDDEN_SCALE))


def tolerated(error: int, scale: int) -> bool:
    """Whether such an error is within the tolerance."""
    return abs(error) <= TOLERANCE << (scale + HIDDEN_SCALE)


def dot(hidden: Sequence[int], row: Sequence[int]) -> int:
    """What the circuit makes public of one row."""
    return sum(a * b for a, b in zip(hidden, row, strict=True))
