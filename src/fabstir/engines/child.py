"""Keeps one child process alive: starts it, waits until it is ready, starts it again with growing pauses when it ends.

Knows nothing of engines. Its output (both streams) is kept only as a tail of `TAIL_BYTES`, for the reason of a failed
start. Owns one task that watches and one that reads; `stop` ends both and the process.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

from fabstir.domain.errors import FabstirError, error
from fabstir.ports.engine import EngineHealth

TAIL_BYTES: Final = 8192
READY_POLL_S: Final = 0.02
FIRST_PAUSE_S: Final = 0.1
LONGEST_PAUSE_S: Final = 30.0
CALM_S: Final = 60.0
"""A child that lived this long starts again without a pause worth mentioning."""
_TIMESTAMP: Final = re.compile(r"^[\d.]+ [EWI] ")


class ChildProcess:
    """One child after another. `ready` asks whether the newest one is usable; it must not raise."""

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        ready: Callable[[], Awaitable[bool]],
        *,
        load_seconds: float,
        forget_when_ready: bool = False,
    ) -> None:
        """`forget_when_ready`: what the child prints once it serves is thrown away, for programs that may print what they serve."""
        self._command = command
        self._environment = environment
        self._ready = ready
        self._load_seconds = load_seconds
        self._forget_when_ready = forget_when_ready
        self._listening = True
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._tail = b""
        self._up_again = asyncio.Event()
        self.health = EngineHealth("down", "not started")

    def __repr__(self) -> str:
        return f"<ChildProcess {self.pid}: {self.health.status}, {self.health.restarts} restarts>"

    @property
    def pid(self) -> int:
        """Of the newest child; 0 before the first."""
        return self._process.pid if self._process else 0

    @property
    def tail(self) -> bytes:
        """The end of what the newest child printed."""
        return self._tail

    async def start(self) -> None:
        """Return when the child is ready. Raises LocalFault: `tool_missing`, or `model_invalid` with the child's last words."""
        self.health = EngineHealth("starting")
        try:
            await self._launch()
        except BaseException as fault:
            await self._end()
            self.health = EngineHealth(
                "down", fault.detail if isinstance(fault, FabstirError) else "start was cancelled"
            )
            raise
        self.health = EngineHealth("ok")
        self._watcher = asyncio.create_task(self._watch(), name="engine-child")

    async def stop(self) -> None:
        """End child and tasks. Idempotent."""
        self.health = EngineHealth("down", "stopped", self.health.restarts)
        if self._watcher:
            self._watcher.cancel()
            await asyncio.wait([self._watcher])
            self._watcher = None
        await self._end()

    async def restarted(self, restarts: int) -> None:
        """Return when the child is up after at least `restarts` restarts."""
        while self.health.restarts < restarts or self.health.status != "ok":
            self._up_again.clear()
            await self._up_again.wait()

    async def _launch(self) -> None:
        """Start a child and wait until it is ready."""
        self._tail, self._listening = b"", True
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command,
                env=self._environment,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C at the terminal is for the parent, which drains first
            )
        except OSError as fault:
            raise error("tool_missing", f"{self._command[0]}: {fault.strerror}") from fault
        self._process = process
        if process.stdout is not None:
            self._reader = asyncio.create_task(self._read(process.stdout), name="engine-output")
        try:
            async with asyncio.timeout(self._load_seconds):
                while process.returncode is None and not await self._ready():  # noqa: ASYNC110  nothing tells us
                    await asyncio.sleep(READY_POLL_S)
        except TimeoutError as fault:
            raise error("model_invalid", f"the engine was not ready after {self._load_seconds:.0f} s") from fault
        if process.returncode is not None:
            if self._reader is not None:
                await self._reader
            raise error("model_invalid", f"the engine {_ending(process.returncode)} while loading: {self._words()}")
        if self._forget_when_ready:
            self._tail, self._listening = b"", False

    async def _watch(self) -> None:
        pause = FIRST_PAUSE_S
        loop = asyncio.get_running_loop()
        while self._process is not None:
            since = loop.time()
            reason = f"the engine {_ending(await self._process.wait())}"
            pause = FIRST_PAUSE_S if loop.time() - since > CALM_S else pause
            while True:
                self.health = EngineHealth("restarting", reason, self.health.restarts)
                await self._end()
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE_S)
                try:
                    await self._launch()
                    break
                except FabstirError as fault:
                    reason = fault.detail
            self.health = EngineHealth("ok", restarts=self.health.restarts + 1)
            self._up_again.set()

    async def _read(self, output: asyncio.StreamReader) -> None:
        while data := await output.read(TAIL_BYTES):
            if self._listening:
                self._tail = (self._tail + data)[-TAIL_BYTES:]

    async def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            if process.stdin is not None:
                process.stdin.close()
                with contextlib.suppress(OSError):
                    await process.stdin.wait_closed()  # else its transport outlives the event loop
        if self._reader is not None:
            await asyncio.wait([self._reader])
            self._reader = None

    def _words(self) -> str:
        """The last lines of the child, without time stamps and tracebacks' frames."""
        lines = [_TIMESTAMP.sub("", line).strip() for line in self._tail.decode("utf-8", "replace").splitlines()]
        telling = [line for line in lines if line and not line.startswith(("Traceback", "File", "^"))]
        return " | ".join(telling[-5:])[-600:] or "it said nothing"


def _ending(returncode: int) -> str:
    """How a process ended, in words."""
    if returncode < 0:
        return f"was killed by {signal.Signals(-returncode).name}"
    return f"exited with code {os.waitstatus_to_exitcode(returncode << 8)}"
