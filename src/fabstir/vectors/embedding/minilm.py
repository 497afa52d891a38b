"""all-MiniLM-L6-v2: 384 numbers for a text, at length one, the same on every machine to about seven digits.

Texts that are asked for at the same moment are embedded together, longest with longest, in a thread of its own: onnxruntime
releases the interpreter's lock, so the event loop goes on. Longer texts than 256 tokens count with their first 256, as the model
was trained; cutting a document into pieces is the caller's. The tag names weights, precision and runtime: vectors of the 8-bit form
of the same model differ by up to 1.6 % and must not be mixed with these. Memory: 90 MB of weights, and one batch.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from fabstir.domain.errors import error
from fabstir.vectors.embedding import graph, weights
from fabstir.vectors.native import library

TAG: Final = "minilm-l6-v2/f32/onnx"
MAX_TOKENS: Final = 256
BATCH: Final = 32
MAX_TEXTS: Final = 1_024
MAX_CHARACTERS: Final = 100_000
"""Of one text: far more than 256 tokens have, and a bound for what the tokenizer has to look at."""
Vectors = npt.NDArray[np.float32]


class _Asked(msgspec.Struct, frozen=True):
    texts: list[str]
    done: asyncio.Future[Vectors]


class Model:
    """Tokenizer and session, to be used from one thread."""

    def __init__(self, directory: Path | None = None) -> None:
        """Hashes 90 MB and builds the graph: about a second. Raises `embedder_unavailable`, `embedder_corrupt`, `tool_missing`."""
        found = weights.find(directory)
        runtime = library("onnxruntime")
        content = graph.build(weights.tensors(weights.read(found, weights.WEIGHTS)))
        options = runtime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = (
            1  # two cost 1.7 times the CPU for no gain on a busy machine
        )
        self._session: Any = runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        self._tokenizer: Any = library("tokenizers").Tokenizer.from_buffer(weights.read(found, weights.TOKENIZER))
        self._tokenizer.no_padding()  # its file asks for 128 tokens, always
        self._tokenizer.enable_truncation(MAX_TOKENS)

    def embed(self, texts: Sequence[str]) -> Vectors:
        """In order."""
        encoded = [each.ids for each in self._tokenizer.encode_batch(list(texts))]
        order = sorted(range(len(encoded)), key=lambda position: len(encoded[position]))
        rows = np.empty((len(encoded), graph.WIDTH), np.float32)
        for at in range(0, len(order), BATCH):
            chosen = order[at : at + BATCH]
            rows[chosen] = self._run([encoded[position] for position in chosen])
        return rows

    def count(self, texts: Sequence[str]) -> int:
        """Tokens that are read of them, the two that frame each text included."""
        return sum(len(each.ids) for each in self._tokenizer.encode_batch(list(texts)))

    def _run(self, tokens: list[list[int]]) -> Vectors:
        ids = np.zeros((len(tokens), max(map(len, tokens))), np.int64)
        mask = np.zeros_like(ids)
        for row, each in enumerate(tokens):
            ids[row, : len(each)] = each
            mask[row, : len(each)] = 1
        return np.asarray(self._session.run(None, {"input_ids": ids, "attention_mask": mask})[0], np.float32)


class MiniLm:
    """Implements `ports.vectors.Embedder`. `open` makes one; `close` at the end."""

    tag = TAG
    dimension = graph.WIDTH

    def __init__(self, model: Model, thread: ThreadPoolExecutor) -> None:
        self._model = model
        self._thread = thread
        self._asked: list[_Asked] = []
        self._working: asyncio.Task[None] | None = None
        self._closed = False

    def __repr__(self) -> str:
        return f"<MiniLm: {len(self._asked)} wait>"

    @classmethod
    async def open(cls, directory: Path | None = None) -> MiniLm:
        """Raises what `Model` raises."""
        thread = ThreadPoolExecutor(1, "embedder")
        try:
            return cls(await asyncio.get_running_loop().run_in_executor(thread, Model, directory), thread)
        except BaseException:
            thread.shutdown(wait=False)
            raise

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """Raises PeerFault (`embedder_text`), `vectors_closed`."""
        _check(texts)
        if self._closed:
            raise error("vectors_closed", "the embedder is closed")
        asked = _Asked(list(texts), asyncio.get_running_loop().create_future())
        self._asked.append(asked)
        if self._working is None:
            self._working = asyncio.create_task(self._work())
        return await asked.done

    async def count(self, texts: Sequence[str]) -> int:
        """Raises PeerFault (`embedder_text`), `vectors_closed`."""
        _check(texts)
        if self._closed:
            raise error("vectors_closed", "the embedder is closed")
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._model.count, texts)

    async def close(self) -> None:
        """When what was asked for is done."""
        self._closed = True
        if self._working is not None:
            await self._working
        await asyncio.to_thread(self._thread.shutdown)

    async def _work(self) -> None:
        """What has come while the thread was busy is the next batch."""
        try:
            while self._asked:
                taken = self._take()
                texts = [text for asked in taken for text in asked.texts]
                try:
                    rows = await asyncio.get_running_loop().run_in_executor(self._thread, self._model.embed, texts)
                except Exception as failed:  # a fault of ours: whoever asked hears it, and the next are served
                    _answer(taken, failed)
                else:
                    _answer(taken, rows)
        finally:
            self._working = None

    def _take(self) -> list[_Asked]:
        count, texts = 0, 0
        for asked in self._asked:
            if count and texts + len(asked.texts) > BATCH:
                break
            count, texts = count + 1, texts + len(asked.texts)
        taken, self._asked = self._asked[:count], self._asked[count:]
        return taken


def _answer(taken: Sequence[_Asked], rows: Vectors | Exception) -> None:
    at = 0
    for asked in taken:
        if not asked.done.cancelled():
            if isinstance(rows, Exception):
                asked.done.set_exception(rows)
            else:
                asked.done.set_result(rows[at : at + len(asked.texts)])
        at += len(asked.texts)


def _check(texts: Sequence[str]) -> None:
    if not 1 <= len(texts) <= MAX_TEXTS:
        raise error("embedder_text", f"{len(texts)} texts, 1 to {MAX_TEXTS}")
    for position, text in enumerate(texts):
        if not text.strip():
            raise error("embedder_text", f"text {position} is empty")
        if len(text) > MAX_CHARACTERS:
            raise error("embedder_text", f"text {position} has {len(text)} characters, at most {MAX_CHARACTERS}")
        try:
            text.encode()
        except UnicodeEncodeError as cause:
            raise error("embedder_text", f"text {position} is not well-formed Unicode") from cause
