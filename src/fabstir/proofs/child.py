"""One prover process, seen from the supervisor: start it, exchange a frame for a frame, end it, say how it ended.

Decides nothing about retries; that is `fabstir.proofs.process`. Owns the process, its socket and the task that reads
its stderr, and leaves none of them behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec
import structlog

from fabstir.domain.errors import error
from fabstir.proofs.circuit import Circuit
from fabstir.proofs.frames import Fault, Job, Ready, Reply, frame, read_reply

log = structlog.get_logger()

START_SECONDS: Final = 60.0
"""For the interpreter, ezkl and, at the first start, the keys; measured 0.6 s on two idle cores."""
END_SECONDS: Final = 2.0
"""How long a process may take to finish its job after the socket was closed; then it is killed."""
NOISE: Final = "SRS for poly commit does not exist (will be ignored)"
"""ezkl says so with every witness: it was not asked to compute the points there, `prove` does."""

SPARING: Final = {
    "RAYON_NUM_THREADS": "1",
    "MALLOC_MMAP_THRESHOLD_": "1073741824",
    "MALLOC_TRIM_THRESHOLD_": "1073741824",
}
"""Of the worker's environment, unless set already. On one thread a proof of `spot` takes 5 % less CPU than on two, on which idle threads
look for work, and none from the engine; glibc keeps the memory of the last proof for the next instead of giving it back, which is
another 3 %. Measured by `benchmarks/spot.py`."""


class ChildGone(Exception):
    """The process ended or broke the protocol."""


class Child:
    """A running worker. Memory: one frame each way and one line of its stderr."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        streams: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        self.pid: Final = process.pid
        self._process = process
        self._reader, self._writer = streams
        self._last_words = ""
        self._listening = asyncio.create_task(self._listen())
        self._exited = asyncio.create_task(process.wait())

    @classmethod
    async def spawn(cls, circuit: Circuit, cache: Path) -> Child:
        """Start and wait until the keys are ready. Raises LocalFault."""
        ours, theirs = socket.socketpair()
        with theirs:
            streams = await asyncio.open_unix_connection(sock=ours)
            try:
                process = await _execute(circuit, cache, theirs.fileno())
            except BaseException:
                streams[1].close()
                raise
        child = cls(process, streams)
        try:
            await child._await_ready()
        except BaseException:
            await child.end(grace=0)
            raise
        return child

    @property
    def alive(self) -> bool:
        """The process has not ended yet."""
        return not self._exited.done()

    def when_gone(self, call: Callable[[], None]) -> None:
        """Have `call` called in the event loop once the process has ended."""
        self._exited.add_done_callback(lambda _: call())

    async def exchange(self, job: Job) -> Reply:
        """Send `job`, wait for its reply; one at a time. Raises ChildGone."""
        try:
            self._writer.write(frame(job))
            await self._writer.drain()
            return await read_reply(self._reader)
        except (OSError, EOFError, ValueError, msgspec.DecodeError) as problem:
            raise ChildGone(str(problem)) from problem

    async def end(self, grace: float = END_SECONDS) -> str:
        """Close the socket, kill after `grace` seconds, reap. Returns how the process ended."""
        self._writer.close()
        if self.alive and grace:
            await asyncio.wait([self._exited], timeout=grace)
        with contextlib.suppress(ProcessLookupError):  # it ended by itself
            self._process.kill()
        await asyncio.wait([self._exited, self._listening])  # unlike `await`, leaves them alone when we are cancelled
        code = self._exited.result()
        how = f"exit code {code}" if code >= 0 else signal.Signals(-code).name
        return f"{how}: {self._last_words}" if code and self._last_words else how

    async def _await_ready(self) -> None:
        try:
            async with asyncio.timeout(START_SECONDS):
                reply = await read_reply(self._reader)
        except TimeoutError as problem:
            raise error("prover_unavailable", detail=f"not ready after {START_SECONDS:.0f} s") from problem
        except (OSError, EOFError, ValueError, msgspec.DecodeError) as problem:
            raise error("prover_unavailable", detail=f"ended at the start: {await self.end()}") from problem
        if isinstance(reply, Fault):
            raise error(reply.code, detail=reply.detail)
        if not isinstance(reply, Ready):
            raise error("prover_unavailable", detail=f"{type(reply).__name__} instead of Ready")

    async def _listen(self) -> None:
        """Log what ezkl says, and keep the last line as a reason."""
        assert self._process.stderr is not None  # noqa: S101 - PIPE was asked for
        while chunk := await self._process.stderr.read(4096):
            for line in chunk.decode(errors="replace").splitlines():
                if line and line != NOISE:
                    self._last_words = line[:200]
                    log.debug("prover_says", pid=self.pid, detail=line[:200])


async def _execute(circuit: Circuit, cache: Path, descriptor: int) -> asyncio.subprocess.Process:
    try:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "fabstir.proofs.prover_worker"),
            *(f"--socket={descriptor}", f"--parent={os.getpid()}"),
            *(f"--circuit={circuit.folder}", f"--cache={cache}"),
            pass_fds=[descriptor],
            env=SPARING | os.environ,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
    except OSError as problem:
        raise error("prover_unavailable", detail=f"cannot start the process: {problem}") from problem
