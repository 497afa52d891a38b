"""What supervisor and worker say to each other: one job, one reply, over a socket that both inherit.

A frame is four bytes of length, big-endian, and a msgpack body. Nothing here decides; a frame that breaks the rules
ends the connection.
"""

from __future__ import annotations

from typing import Final

import msgspec

from fabstir.ports.framing import Framing
from fabstir.ports.prover import ProofStatement
from fabstir.protocol.spot import SpotVector

MAX_FRAME: Final = 1 << 20
"""The largest honest frame, 64 vectors of the circuit `spot`, is below 300 KiB; a prove job of `bind` below 10 KiB."""


class CommitJob(msgspec.Struct, frozen=True, tag="commit"):
    """Commit to these records."""

    records: tuple[bytes, ...]


class ProveJob(msgspec.Struct, frozen=True, tag="prove"):
    """Prove `statement` about these records."""

    statement: ProofStatement
    records: tuple[bytes, ...]


class VerifyJob(msgspec.Struct, frozen=True, tag="verify"):
    """Check `proof` against `statement`."""

    statement: ProofStatement
    proof: bytes


class SpotCommitJob(msgspec.Struct, frozen=True, tag="spot_commit"):
    """Commit to these vectors, hidden states or rows of a head."""

    vectors: tuple[SpotVector, ...]


class SpotProveJob(msgspec.Struct, frozen=True, tag="spot_prove"):
    """Prove what the rows make of the hidden state, for `statement`."""

    statement: ProofStatement
    hidden: SpotVector
    rows: tuple[SpotVector, ...]


class SpotVerifyJob(msgspec.Struct, frozen=True, tag="spot_verify"):
    """Check a halo2 proof of these products against `statement`."""

    statement: ProofStatement
    dots: tuple[int, ...]
    halo2: bytes


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """The first frame of a worker: the keys are there."""


class Committed(msgspec.Struct, frozen=True, tag="committed"):
    """Answer to CommitJob: point and checksum."""

    opening: bytes


class Proved(msgspec.Struct, frozen=True, tag="proved"):
    """Answer to ProveJob, as it goes on chain."""

    proof: bytes


class Verified(msgspec.Struct, frozen=True, tag="verified"):
    """Answer to VerifyJob."""

    valid: bool


class SpotCommitted(msgspec.Struct, frozen=True, tag="spot_committed"):
    """Answer to SpotCommitJob: 64 bytes for each vector."""

    points: bytes


class SpotProved(msgspec.Struct, frozen=True, tag="spot_proved"):
    """Answer to SpotProveJob: the products, and the halo2 proof of them."""

    dots: tuple[int, ...]
    halo2: bytes


class Fault(msgspec.Struct, frozen=True, tag="fault"):
    """The job or the start failed; `code` is one of the error catalogue."""

    code: str
    detail: str


SpotJob = SpotCommitJob | SpotProveJob | SpotVerifyJob
Job = CommitJob | ProveJob | VerifyJob | SpotJob
Reply = Ready | Committed | Proved | Verified | SpotCommitted | SpotProved | Fault

_framing: Final[Framing[Job, Reply]] = Framing(Job, Reply, MAX_FRAME)
frame: Final = _framing.frame
read_job: Final = _framing.read_job
read_reply: Final = _framing.read_reply
