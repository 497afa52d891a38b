"""`Reexecutor`: answers through the weights once more, in a supervised process of its own; never in this one.

It asks first, computes later: the ids of a prompt come from llama.cpp's own server (`prompt_ids`), by the same template
and tokeniser that the host's engine uses, which is then stopped, so that the weights are in memory once. Decides
nothing about what the figures mean; that is `fabstir.protocol.audit`. A worker that dies ends its job with
`engine_gone` and is started again (`ChildProcess`).
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeVar

import msgspec

from fabstir.domain.errors import CATALOGUE, FabstirError, error
from fabstir.engines.child import ChildProcess
from fabstir.engines.llama import LlamaEngine
from fabstir.engines.model_file import model_name
from fabstir.engines.reexecution.frames import (
    Describe,
    Described,
    Fault,
    Job,
    Prefill,
    Prefilled,
    Reply,
    Trace,
    Traced,
    frame,
    read_reply,
)
from fabstir.engines.reexecution.worker import WorkerSettings
from fabstir.ports.engine import ChatMessage

LOAD_SECONDS: Final = 600.0

R = TypeVar("R", bound=Reply)


class Reexecutor:
    """One weights file. Owns a process and a private directory with its socket; an asynchronous context manager, which several may
    enter: the first one loads, the last one to leave ends the process."""

    def __init__(self, model: Path, *, threads: int | None = None, gpu_layers: int = 0, nice: int = 0) -> None:
        """`threads`: half of the CPUs where None; `gpu_layers`: -1 for all; `nice`: how far behind others it stands."""
        self._model = model
        self._threads = threads or max(1, (os.cpu_count() or 1) // 2)
        self._gpu_layers = gpu_layers
        self._nice = nice
        self._directory: Path | None = None
        self._child: ChildProcess | None = None
        self._users = 0
        self._loading = asyncio.Lock()

    def __repr__(self) -> str:
        return f"<Reexecutor {self._model.name} | {self._child or 'not started'}>"

    @property
    def child(self) -> ChildProcess:
        """The supervised process, for those who watch or test it."""
        if self._child is None:
            raise RuntimeError("the worker was not started")
        return self._child

    async def __aenter__(self) -> Self:
        """Load the weights where nobody did. Raises LocalFault (`model_invalid`, `reexecution_unsupported`)."""
        async with self._loading:
            if self._child is None:
                await self._load()
            self._users += 1
        return self

    async def _load(self) -> None:
        await asyncio.to_thread(model_name, self._model)
        self._directory = Path(tempfile.mkdtemp(prefix="fabstir-reexecution-"))
        settings = WorkerSettings(
            parent=os.getpid(),
            model=str(self._model.resolve()),
            socket=str(self._socket),
            threads=self._threads,
            gpu_layers=self._gpu_layers,
            nice=self._nice,
        )
        command = [
            *(sys.executable, "-P", "-m", "fabstir.engines.reexecution.worker"),
            msgspec.json.encode(settings).decode(),
        ]
        # One thread of numpy: more would spin against the engine's own.
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
        self._child = ChildProcess(command, environment, self._listens, load_seconds=LOAD_SECONDS)
        try:
            await self._child.start()
        except BaseException as fault:
            said = self._child.tail
            await self.close()
            raise _named(said) or fault from fault

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.leave()

    async def leave(self) -> None:
        """One user fewer. Idempotent once there is none."""
        self._users = max(0, self._users - 1)
        if self._users == 0:
            await self.close()

    async def close(self) -> None:
        """End the process, whoever uses it. Idempotent."""
        child, self._child = self._child, None
        if child is not None:
            await child.stop()
        if self._directory is not None:
            await asyncio.to_thread(shutil.rmtree, self._directory, ignore_errors=True)

    async def describe(self) -> Described:
        """What is loaded."""
        return await self._ask(Describe(), Described)

    async def prefill(self, job: Prefill) -> Prefilled:
        """Every token of an answer, thought of again.

        Raises Refused (`context_too_long`), PeerFault (`token_unknown`), Interrupted (`engine_gone`), LocalFault (`model_invalid`).
        """
        if not job.prompt or len(job.asked) != len(job.answer):
            raise ValueError("a prompt of at least one token, and one entry of `asked` for each token of the answer")
        return await self._ask(job, Prefilled)

    async def trace(self, job: Trace) -> Traced:
        """The states that an answer's tokens were drawn from. Raises as `prefill`, and LocalFault (`reexecution_unsupported`)."""
        return await self._ask(job, Traced)

    # -- inside --------------------------------------------------------------------------------------------------------

    @property
    def _socket(self) -> Path:
        if self._directory is None:
            raise RuntimeError("the worker was not started")
        return self._directory / "job.sock"

    async def _listens(self) -> bool:
        try:
            _, writer = await asyncio.open_unix_connection(self._socket)
        except OSError:
            return False
        writer.close()
        return True

    async def _ask(self, job: Job, kind: type[R]) -> R:
        health = self.child.health
        if health.status != "ok":
            raise error("engine_gone", f"{health.status}: {health.reason}")
        try:
            reader, writer = await asyncio.open_unix_connection(self._socket)
            try:
                writer.write(frame(job))
                await writer.drain()
                reply = await read_reply(reader)
            finally:
                writer.close()
        except (OSError, EOFError, ValueError, msgspec.DecodeError) as fault:
            raise error("engine_gone", f"the re-execution of an answer broke off: {fault}") from fault
        if isinstance(reply, Fault):
            raise error(reply.code, reply.detail)
        if not isinstance(reply, kind):
            raise error("engine_gone", f"{type(reply).__name__} instead of {kind.__name__}")
        return reply


def _named(tail: bytes) -> FabstirError | None:
    """The error that a worker named with its last words."""
    code, _, detail = tail.decode("utf-8", "replace").strip().rpartition("\n")[2].partition(": ")
    return error(code, detail) if code in CATALOGUE else None


async def prompt_ids(
    model: Path, prompts: Sequence[tuple[tuple[ChatMessage, ...], str]], *, threads: int | None = None
) -> list[tuple[int, ...]]:
    """The ids of (messages, beginning of the answer), as the engine would begin to generate from them. Starts and stops an engine."""
    engine = LlamaEngine(model, parallel=1, threads=threads)
    await engine.start()
    try:
        return [await engine.prompt_ids(messages, prefix) for messages, prefix in prompts]
    finally:
        await engine.stop()
