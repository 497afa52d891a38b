"""One libp2p process, seen from the node: start it, hand it requests, hear its reports, end it, say how it ended.

Decides nothing about restarts; that is `fabstir.p2p.network`. Owns the process, its socket and the task that reads its stderr, and
leaves none of them behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from typing import Final

import msgspec
import structlog

from fabstir.domain.errors import error
from fabstir.p2p.frames import LENGTH, Failed, Ready, Report, Request, Setup, body_length, decode_report, frame

log = structlog.get_logger()

START_SECONDS: Final = 60.0
"""For the interpreter and libp2p; measured 1.2 s on an idle core."""
END_SECONDS: Final = 4.0
"""How long it may take to say goodbye to its peers."""
SILENCE_SECONDS: Final = 60.0
"""It tells how it stands every two seconds; a process that is silent for so long hangs."""


class ChildGone(Exception):
    """The process ended, hangs or broke the protocol."""


class Child:
    """A running process. Memory: one frame and one line of its stderr."""

    def __init__(
        self, process: asyncio.subprocess.Process, streams: tuple[asyncio.StreamReader, asyncio.StreamWriter]
    ) -> None:
        self.pid: Final = process.pid
        self.ready: Ready
        self._process = process
        self._reader, self._writer = streams
        self._last_words = ""
        self._listening = asyncio.create_task(self._listen())
        self._exited = asyncio.create_task(process.wait())

    @classmethod
    async def spawn(cls, setup: Setup) -> Child:
        """Start, and wait until it listens. Raises LocalFault (`p2p_missing`, `p2p_unavailable`)."""
        ours, theirs = socket.socketpair()
        with theirs:
            streams = await asyncio.open_unix_connection(sock=ours)
            try:
                process = await _execute(theirs.fileno())
            except BaseException:
                streams[1].close()
                raise
        child = cls(process, streams)
        try:
            child.send(setup)
            child.ready = await child._await_ready()
        except BaseException:
            await child.end(grace=0)
            raise
        return child

    def send(self, request: Request) -> None:
        """Hand it over; a process that is gone is noticed by whoever waits in `receive`."""
        self._writer.write(frame(request))

    async def receive(self) -> Report:
        """The next report. Raises ChildGone."""
        try:
            async with asyncio.timeout(SILENCE_SECONDS):
                header = await self._reader.readexactly(LENGTH.size)
                return decode_report.decode(await self._reader.readexactly(body_length(header)))
        except TimeoutError as silent:
            raise ChildGone(f"was silent for {SILENCE_SECONDS:g} s") from silent
        except (OSError, EOFError, ValueError, msgspec.DecodeError) as problem:
            raise ChildGone(str(problem)) from problem

    async def end(self, grace: float = END_SECONDS) -> str:
        """Close the socket, kill after `grace` seconds, reap. Returns how it ended."""
        self._writer.close()
        if grace and not self._exited.done():
            await asyncio.wait([self._exited], timeout=grace)
        with contextlib.suppress(ProcessLookupError):  # it ended by itself
            self._process.kill()
        await asyncio.wait([self._exited, self._listening])
        self._writer.transport.abort()  # what was still to be sent to it
        code = self._exited.result()
        how = f"exit code {code}" if code >= 0 else signal.Signals(-code).name
        return f"{how}: {self._last_words}" if code and self._last_words else how

    async def _await_ready(self) -> Ready:
        try:
            async with asyncio.timeout(START_SECONDS):
                report = await self.receive()
        except TimeoutError as problem:
            raise error("p2p_unavailable", f"not ready after {START_SECONDS:.0f} s") from problem
        except ChildGone as problem:
            raise error("p2p_unavailable", f"ended at the start: {await self.end()}") from problem
        if isinstance(report, Failed):
            raise error(report.code, report.detail)
        if not isinstance(report, Ready):
            raise error("p2p_unavailable", f"{type(report).__name__} instead of Ready")
        return report

    async def _listen(self) -> None:
        """Log what the library says, and keep the last line as a reason."""
        assert self._process.stderr is not None  # noqa: S101 - PIPE was asked for
        while chunk := await self._process.stderr.read(4096):
            for line in chunk.decode(errors="replace").splitlines():
                if line.strip():
                    self._last_words = line.strip()[:200]
                    log.debug("p2p_says", pid=self.pid, detail=self._last_words)


async def _execute(descriptor: int) -> asyncio.subprocess.Process:
    try:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "fabstir.p2p.worker", f"--socket={descriptor}", f"--parent={os.getpid()}"),
            pass_fds=[descriptor],
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
    except OSError as problem:
        raise error("p2p_unavailable", f"cannot start the process: {problem}") from problem
