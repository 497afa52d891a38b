"""`OpenAIEngine`: a server that somebody else runs, behind the port `Engine`: llama.cpp's `llama-server`, or vLLM.

Metering needs the id of every token. A server that does not report them (Ollama, SGLang's chat completions, hosted
APIs) is refused at start with `engine_unsuitable`; tokens are never counted from pieces of text. Which dialect a server
speaks is found by asking it: `/props` with slots is llama.cpp; anything else must pass vLLM's trial of one token.
Starts and supervises nothing: a server that is gone is reported as `down` until it answers again.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

import msgspec

from fabstir.domain.errors import FabstirError, error
from fabstir.domain.ids import ZERO_HASH
from fabstir.engines.llama_client import LlamaClient
from fabstir.engines.llama_wire import Props
from fabstir.engines.server_session import ServerSession
from fabstir.engines.vllm_client import VllmClient
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


class ModelEntry(msgspec.Struct):
    """One entry of `/v1/models`."""

    id: str
    max_model_len: int | None = None


class ModelList(msgspec.Struct):
    """Answer of `/v1/models`."""

    data: list[ModelEntry]


class OpenAIEngine:
    """The port `Engine` for a server at `base_url` (with or without `/v1`). Owns an HTTP session."""

    def __init__(
        self, base_url: str, model: str = "", api_key: str = "", *, parallel: int = 8, top_logprobs: int = 4
    ) -> None:
        """`model`: the server's name for it; the first one that it lists where empty. `parallel`: what vLLM does not tell."""
        self._url = base_url.rstrip("/").removesuffix("/v1")
        self._model = model
        self._key = api_key
        self._parallel = parallel
        self._top = top_logprobs
        self._info: ModelInfo | None = None
        self._server: ServerSession | None = None
        self._client: LlamaClient | VllmClient | None = None

    def __repr__(self) -> str:
        return f"<OpenAIEngine {self._url} | {self._client!r}>"

    @property
    def info(self) -> ModelInfo:
        """Known after `start`. The digest is zero: the weights are elsewhere."""
        if self._info is None:
            raise RuntimeError("the engine was not started")
        return self._info

    async def start(self) -> None:
        """Find the dialect and try it. Raises LocalFault (`engine_unsuitable`), Interrupted (`engine_gone`)."""
        server = self._server = ServerSession(self._url, self._key)
        try:
            entry = await self._entry(server)
            props = await server.look("/props", Props)
            self._info = await (self._start_llama(server, entry, props) if props else self._start_vllm(server, entry))
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """End every request with `engine_gone` and close the session. Idempotent."""
        self._client = None
        if self._server is not None:
            await self._server.close()

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

    async def health(self) -> EngineHealth:
        """See the port."""
        if self._server is None or self._client is None:
            return EngineHealth("down", "not started")
        return (
            EngineHealth("ok") if await self._server.answers() else EngineHealth("down", f"{self._url} does not answer")
        )

    # -- inside --------------------------------------------------------------------------------------------------------

    def _usable(self) -> LlamaClient | VllmClient:
        if self._client is None:
            raise error("engine_gone", "not started, or stopped")
        return self._client

    async def _entry(self, server: ServerSession) -> ModelEntry:
        listed = await server.look("/v1/models", ModelList)
        if listed is None or not listed.data:
            raise error("engine_unsuitable", f"{self._url}/v1/models lists no model; check address and API key")
        entry = next((item for item in listed.data if self._model in ("", item.id)), None)
        if entry is None:
            raise error("engine_unsuitable", f"{self._url} does not serve {self._model}")
        return entry

    async def _start_llama(self, server: ServerSession, entry: ModelEntry, props: Props) -> ModelInfo:
        client = LlamaClient(server, parallel=props.total_slots, top_logprobs=self._top)
        context_size = await client.handshake()
        self._client = client
        return ModelInfo(
            name=entry.id,
            context_size=context_size,
            sha256=ZERO_HASH,
            parallel=props.total_slots,
            frame=await measure_frame(client.count_tokens, client.weigh),
            controls=client.controls,
        )

    async def _start_vllm(self, server: ServerSession, entry: ModelEntry) -> ModelInfo:
        if entry.max_model_len is None:
            raise error("engine_unsuitable", f"{self._url} is neither llama.cpp's server nor vLLM: no max_model_len")
        client = VllmClient(server, entry.id, top_logprobs=self._top)
        try:
            await client.handshake()
        except FabstirError as fault:
            if fault.code == "engine_gone":
                raise
            raise error("engine_unsuitable", fault.detail) from fault
        self._client = client
        return ModelInfo(
            name=entry.id,
            context_size=entry.max_model_len,
            sha256=ZERO_HASH,
            parallel=self._parallel,
            frame=await measure_frame(client.count_tokens, client.weigh),
            controls=client.controls,
        )
