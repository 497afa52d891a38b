"""`LlamaEngine`: one model in llama.cpp's own server, in a supervised child process behind a UNIX socket.

The child is the C++ server of the pinned xllamacpp wheel, or a `llama-server` program given by path (a native build is
1.2 to 1.3 times faster on a CPU and can use any GPU); both speak the same HTTP. Never in this process: loading would
hold the GIL, and a damaged file may abort (research/llm.md, section 3). When the child dies, requests end with
`engine_gone` and it is started again.

What the options mean for others on the same engine: every request has its own room in the KV cache and its own slot, what was
computed for one session is never used for another (`slots`), and prompts are evaluated in small steps on a CPU.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from fabstir.domain.errors import FabstirError, error
from fabstir.engines.child import ChildProcess
from fabstir.engines.llama_client import LlamaClient
from fabstir.engines.llama_worker import KEY_VARIABLE, WorkerSettings
from fabstir.engines.model_file import file_sha256, model_name
from fabstir.engines.server_session import ServerSession
from fabstir.engines.spill import SpillFolder, open_folder
from fabstir.engines.weighing import measure_frame
from fabstir.ports.engine import (
    ChatMessage,
    EngineHealth,
    GenerationEnd,
    GenerationRequest,
    ModelInfo,
    TokenBatch,
    Weight,
)

BASE_URL: Final = "http://engine"
"""The name means nothing on a UNIX socket."""
MAX_ADAPTERS: Final = 32
MAX_ADAPTER_NAME: Final = 64
"""What an offer holds of them."""
LOAD_SECONDS: Final = 600.0


class _Running(NamedTuple):
    """What one start made and one stop frees."""

    directory: Path
    server: ServerSession
    client: LlamaClient
    spill: SpillFolder | None
    child: ChildProcess


class LlamaEngine:
    """The port `Engine` for a GGUF file. Owns a child process, a private directory with its socket, and an HTTP session."""

    def __init__(
        self,
        model: Path,
        *,
        context_size: int = 4096,
        parallel: int = 4,
        threads: int | None = None,
        gpu_layers: int = 0,
        binary: Path | None = None,
        top_logprobs: int = 4,
        spill: int | None = 0,
    ) -> None:
        """`context_size` is for each of `parallel` requests; `threads`: half of the CPUs where None; `gpu_layers`: -1 for all.
        `spill`: bytes in memory for what was computed for sessions that lost their slot; None: as many as seems right (`engines.spill`).
        """
        self._model = model
        self._context_size = context_size
        self._parallel = parallel
        self._threads = threads or max(1, (os.cpu_count() or 1) // 2)
        self._gpu_layers = gpu_layers
        self._binary = binary
        self._top = top_logprobs
        self._spill = spill
        self._adapters: tuple[Path, ...] = ()
        self._info: ModelInfo | None = None
        self._running: _Running | None = None
        self._why_down = "not started"

    def __repr__(self) -> str:
        return f"<LlamaEngine {self._model.name} | {self._running.child if self._running else self._why_down}>"

    def adapting(self, paths: tuple[Path, ...]) -> LlamaEngine:
        """The same with LoRA adapters, which requests may name by their files' stems. Before the start."""
        self._adapters = paths
        return self

    # -- the port ------------------------------------------------------------------------------------------------------

    @property
    def info(self) -> ModelInfo:
        """Known after `start`."""
        if self._info is None:
            raise RuntimeError("the engine was not started")
        return self._info

    async def start(self) -> None:
        """Load the model. Raises LocalFault (`model_invalid`, `tool_missing`, `engine_unsuitable`)."""
        if self._running is not None:
            raise RuntimeError("the engine runs")
        try:
            name = model_name(self._model)
            _require_adapters(self._adapters)
            self._running = self._prepare()
            self._info = await self._load(self._running, name)
        except BaseException as fault:
            await self.stop()
            self._why_down = fault.detail if isinstance(fault, FabstirError) else "the start was cut off"
            raise

    async def stop(self) -> None:
        """End every request with `engine_gone` and free everything. Idempotent."""
        running, self._running = self._running, None
        if running is not None:
            self._why_down = "stopped"
            await running.child.stop()
            await running.server.close()
            await asyncio.to_thread(shutil.rmtree, running.directory, ignore_errors=True)
            if running.spill is not None:
                await asyncio.to_thread(running.spill.remove)

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[TokenBatch | GenerationEnd]:
        """See the port."""
        async with aclosing(self._usable().generate(request)) as items:
            async for item in items:
                yield item

    async def count_tokens(self, messages: tuple[ChatMessage, ...]) -> int:
        """See the port."""
        return await self._usable().count_tokens(messages)

    async def weigh(self, texts: tuple[str, ...]) -> tuple[Weight, ...]:
        """See the port."""
        return await self._usable().weigh(texts)

    async def prompt_ids(self, messages: tuple[ChatMessage, ...], prefix: str = "") -> tuple[int, ...]:
        """The tokens after which an answer to `messages` begins (`prefix`: what was said of it before). Raises as `generate`."""
        return await self._usable().prompt_ids(messages, prefix)

    async def health(self) -> EngineHealth:
        """See the port. `down` also where the process lives and does not answer."""
        if self._running is None:
            return EngineHealth("down", self._why_down)
        health = self._running.child.health
        if health.status == "ok" and not await self._running.server.answers():
            return EngineHealth("down", "the engine does not answer", health.restarts)
        return health

    # -- inside --------------------------------------------------------------------------------------------------------

    @property
    def child(self) -> ChildProcess:
        """The supervised process, for those who watch or test it."""
        if self._running is None:
            raise RuntimeError("the engine was not started")
        return self._running.child

    def _usable(self) -> LlamaClient:
        """The client, where requests have a chance."""
        if self._running is None:
            raise error("engine_gone", self._why_down)
        health = self._running.child.health
        if health.status != "ok":
            raise error("engine_gone", f"{health.status}: {health.reason}")
        return self._running.client

    def _prepare(self) -> _Running:
        """Everything that a start needs; nothing runs yet."""
        binary = self._find_binary()
        spill = open_folder(self._spill)
        directory = Path(tempfile.mkdtemp(prefix="fabstir-engine-"))
        settings = WorkerSettings(
            parent=os.getpid(),
            model=str(self._model.resolve()),
            socket=str(directory / "http.sock"),
            context_size=self._context_size,
            parallel=self._parallel,
            threads=self._threads,
            gpu_layers=self._gpu_layers,
            binary=binary,
            spill=str(spill.path) if spill else "",
            adapters=tuple(str(path.resolve()) for path in self._adapters),
        )
        key = secrets.token_hex(16)
        server = ServerSession(BASE_URL, key, settings.socket)
        child = ChildProcess(
            [sys.executable, "-m", "fabstir.engines.llama_worker", msgspec.json.encode(settings).decode()],
            {**os.environ, KEY_VARIABLE: key},
            server.answers,
            load_seconds=LOAD_SECONDS,
            forget_when_ready=bool(binary),  # the wheel's server is silent, another program may not be
        )
        client = LlamaClient(server, parallel=self._parallel, top_logprobs=self._top, spill=spill)
        return _Running(directory, server, client, spill, child)

    async def _load(self, running: _Running, name: str) -> ModelInfo:
        """Start the child, and hash the file meanwhile."""
        digest = asyncio.create_task(asyncio.to_thread(file_sha256, self._model), name="engine-digest")
        try:
            await running.child.start()
            context_size = await running.client.handshake()
            frame = await measure_frame(running.client.count_tokens, running.client.weigh)
            return ModelInfo(
                name=name,
                context_size=context_size,
                sha256=await digest,
                parallel=self._parallel,
                frame=frame,
                controls=running.client.controls,
            )
        finally:
            digest.cancel()

    def _find_binary(self) -> str:
        if self._binary is None:
            return ""
        found = shutil.which(self._binary)
        if found is None:
            raise error("tool_missing", f"{self._binary} is not a program")
        return str(Path(found).resolve())


def _require_adapters(paths: tuple[Path, ...]) -> None:
    """Raises LocalFault (`config_invalid`, `model_invalid`)."""
    names = [path.stem for path in paths]
    if len(set(names)) != len(names):
        raise error("config_invalid", "engine.adapters: two files have one name")
    if len(names) > MAX_ADAPTERS or max(map(len, names), default=0) > MAX_ADAPTER_NAME:
        bound = f"at most {MAX_ADAPTERS} files, of names of at most {MAX_ADAPTER_NAME} characters"
        raise error("config_invalid", f"engine.adapters: {bound}")
    for path in paths:
        model_name(path)
