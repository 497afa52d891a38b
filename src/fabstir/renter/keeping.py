"""What this renter keeps of its sessions: one file for each job, to have an answer checked or a payment shown later.

Always the hashes of what was served, which say nothing to anybody else; the words only where `renter.keep_words` says so. Lines are
appended as answers end, so that a crash costs the last one. What both sides signed is in the journal, not here. Never stands in the way
of an answer: what cannot be written is told in the log, and the session goes on.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import msgspec
import structlog

from fabstir.domain.errors import error
from fabstir.domain.ids import JobId, to_hex
from fabstir.protocol.messages import Signature, WireTerms
from fabstir.protocol.renter_items import FingerprintsKept
from fabstir.protocol.renter_log import RenterLedger
from fabstir.protocol.transcript_file import HashedTurn, ReceiptFile, SessionTranscript, SpokenTurn, signed_count

log = structlog.get_logger()


class Rewound(msgspec.Struct, frozen=True, tag="rewound"):
    """Both sides agreed to go on from here; what came after was not delivered."""

    tokens: int


class Hashed(msgspec.Struct, frozen=True, tag="hashed"):
    """An answer without its words."""

    turn: HashedTurn


class Spoken(msgspec.Struct, frozen=True, tag="spoken"):
    """An answer with its words."""

    turn: SpokenTurn


class Fingerprinted(msgspec.Struct, frozen=True, tag="fingerprinted"):
    """What the host's fingerprints of an answer before are; never without that answer's words."""

    message_index: int
    tokens: int
    """Of the answer."""
    fingerprints: tuple[bytes, ...]
    signature: Signature


Line = Hashed | Spoken | Rewound | Fingerprinted
_decoder: Final[msgspec.json.Decoder[Line]] = msgspec.json.Decoder(Line)
_encoder: Final = msgspec.json.Encoder()


class Keeper:
    """The folder of these files. Memory: a number for each job."""

    def __init__(self, folder: Path, *, words: bool) -> None:
        self._folder = folder
        self._words = words
        self._ends: dict[JobId, int] = {}
        """Where the last line of a job leaves it, as far as this process wrote it."""

    def __repr__(self) -> str:
        return f"<Keeper {self._folder}{' with words' if self._words else ''}>"

    async def keep(self, job: JobId, turn: SpokenTurn) -> None:
        """An answer ended. Never raises OSError."""
        await self._append(job, Spoken(turn) if self._words else Hashed(turn.hashed()))
        self._ends[job] = turn.tokens_before + len(turn.records)

    @property
    def words(self) -> bool:
        """Words are kept, and what is of use only with them."""
        return self._words

    async def fingerprinted(self, job: JobId, made: FingerprintsKept) -> None:
        """Fingerprints of an answer came. Never raises OSError."""
        if self._words:
            line = Fingerprinted(made.of.message_index, made.of.tokens, made.fingerprints, made.signature)
            await self._append(job, line)

    async def rewind(self, job: JobId, tokens: int) -> None:
        """Both sides agreed on this position. Never raises OSError."""
        if self._ends.get(job) != tokens and self._file(job).exists():
            await self._append(job, Rewound(tokens))
        self._ends[job] = tokens

    def jobs(self) -> tuple[JobId, ...]:
        """Those of which something is kept, oldest first."""
        try:
            files = sorted(self._folder.glob("*.jsonl"), key=lambda file: file.stat().st_mtime)
        except OSError:
            return ()
        return tuple(JobId(bytes.fromhex(file.stem)) for file in files if len(file.stem) == 64)

    def receipt(self, ledger: RenterLedger) -> ReceiptFile:
        """Of this job, without words. Raises LocalFault (`transcript_missing`)."""
        turns = tuple(turn.hashed() if isinstance(turn, SpokenTurn) else turn for turn in self._turns(ledger.job))
        return ReceiptFile(
            chain_id=ledger.market.chain_id,
            market=to_hex(ledger.market.address),
            terms=WireTerms.of(ledger.terms),
            turns=turns,
            signed=signed_count(ledger),
        )

    def transcript(self, ledger: RenterLedger, model: str = "") -> SessionTranscript:
        """Of this job, with words. Raises LocalFault (`transcript_missing`)."""
        kept = self._turns(ledger.job)
        turns = [turn for turn in kept if isinstance(turn, SpokenTurn)]
        if len(turns) != len(kept):
            raise error("transcript_missing", f"the words of job {to_hex(ledger.job)} were not kept")
        return SessionTranscript(
            chain_id=ledger.market.chain_id,
            market=to_hex(ledger.market.address),
            terms=WireTerms.of(ledger.terms),
            model=model,
            turns=tuple(turns),
            signed=signed_count(ledger),
        )

    def _turns(self, job: JobId) -> tuple[HashedTurn | SpokenTurn, ...]:
        try:
            data = self._file(job).read_bytes()
        except OSError:
            raise error("transcript_missing", f"nothing is kept of job {to_hex(job)}") from None
        return fold(_lines(data))

    async def _append(self, job: JobId, line: Line) -> None:
        try:
            await asyncio.to_thread(_write, self._file(job), _encoder.encode(line) + b"\n")
        except OSError as fault:
            log.warning("transcript_not_kept", job_id=job, reason=str(fault.strerror))

    def _file(self, job: JobId) -> Path:
        return self._folder / f"{job.hex()}.jsonl"


def fold(lines: Iterable[Line]) -> tuple[HashedTurn | SpokenTurn, ...]:
    """The answers that count, in order: as the transcript that both sides signed has them."""
    turns: list[HashedTurn | SpokenTurn] = []
    for line in lines:
        if isinstance(line, Rewound):
            turns = [turn.until(line.tokens) for turn in turns if turn.tokens_before < line.tokens]
        elif isinstance(line, Fingerprinted):
            turns = [_with(line, turn) for turn in turns]
        else:
            turns.append(line.turn)
    return tuple(turns)


def _with(line: Fingerprinted, turn: HashedTurn | SpokenTurn) -> HashedTurn | SpokenTurn:
    """`turn`, with the fingerprints where they are its own."""
    if not isinstance(turn, SpokenTurn) or turn.prompt.message_index != line.message_index:
        return turn
    if len(turn.records) != line.tokens:
        return turn
    return msgspec.structs.replace(turn, fingerprints=line.fingerprints, fingerprints_signature=line.signature)


def _lines(data: bytes) -> list[Line]:
    """A last line that a crash cut off is not there."""
    whole, _, _ = data.rpartition(b"\n")
    try:
        return [_decoder.decode(line) for line in whole.splitlines()]
    except msgspec.MsgspecError as fault:
        raise error("transcript_missing", f"the file cannot be read: {fault}"[:200]) from None


def _write(file: Path, line: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(file, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        end = os.lseek(descriptor, 0, os.SEEK_END)
        cut_off = end > 0 and os.pread(descriptor, 1, end - 1) != b"\n"
        if cut_off:  # a crash in the middle of a line: it is lost, the next one is not
            os.ftruncate(descriptor, _last_line_end(descriptor, end))
        os.write(descriptor, line)
    finally:
        os.close(descriptor)


def _last_line_end(descriptor: int, end: int) -> int:
    return os.pread(descriptor, end, 0).rfind(b"\n") + 1
