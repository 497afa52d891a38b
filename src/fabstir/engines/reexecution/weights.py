"""A loaded GGUF file that reads a prompt and an answer at once and keeps what it thought of every token of the answer.

The prompt is read in steps of the engine's own (`llama_worker.CPU_BATCH`), the answer in steps of 32
(`frames.Prefill.step`): below 64 rows the attention of a CPU takes the path that generation takes, and the weights of
most quantisations give bit for bit what they gave then. Memory: the weights, one context's KV cache, and one step's
logits (128 x vocabulary floats); never the logits of a whole answer. Only ever in the worker's process: native code
that may abort.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fabstir.domain.errors import error
from fabstir.engines.llama_worker import CPU_BATCH
from fabstir.engines.reexecution import capi
from fabstir.engines.reexecution.frames import Described

CONTEXT_STEP: Final = 256
"""Contexts are made in multiples of this, so that answers of similar length share one."""
ROOM: Final = 512
"""Bytes of the longest piece; a longer one is asked for again."""

Floats = NDArray[np.float32]


class Step(NamedTuple):
    """What the model thought after some tokens: one row each."""

    logits: Floats
    states: Floats | None


class Weights:
    """One model and one context. Never freed: the process ends instead."""

    def __init__(self, path: str, *, threads: int, gpu_layers: int) -> None:
        """Raises LocalFault (`model_invalid`, `reexecution_unsupported`)."""
        self._api: Any = capi.library()
        self._threads = threads
        self._log = capi.LogCallback(
            lambda _level, _text, _data: None
        )  # nothing of a conversation is logged, but nothing else either
        self._api.llama_log_set(self._log, None)
        self._api.llama_backend_init()
        params = self._api.llama_model_default_params()
        params.n_gpu_layers = gpu_layers if gpu_layers >= 0 else 999
        self._model = self._api.llama_model_load_from_file(path.encode(), params)
        if not self._model:
            raise error("model_invalid", "llama.cpp cannot load it")
        self._vocab = self._api.llama_model_get_vocab(self._model)
        self._width = self._api.llama_model_n_embd(self._model)
        self._batch = self._api.llama_batch_init(CPU_BATCH, 0, 1)
        self._context: Any = None
        self._room = 0
        self.described: Final = Described(
            self._description(),
            self._api.llama_vocab_n_tokens(self._vocab),
            self._api.llama_model_n_ctx_train(self._model),
        )

    def read(self, prompt: Sequence[int], answer: Sequence[int], *, step: int, states: bool) -> Iterator[Step]:
        """Steps whose rows belong to the answer's tokens, one each, in order; a row says what was thought before its token.

        With `states` a row also has the final hidden state of the token itself. Raises Refused (`context_too_long`), PeerFault
        (`token_unknown`), LocalFault (`model_invalid`).
        """
        self._require_known([*prompt, *answer])
        self._begin(len(prompt) + len(answer))
        for at in range(0, len(prompt), CPU_BATCH):
            part = prompt[at : at + CPU_BATCH]
            self._decode(part, at, rows=1 if at + len(part) == len(prompt) else 0)
        before = self._logits([(len(prompt) - 1) % CPU_BATCH])
        step = max(1, min(step, CPU_BATCH))
        self._api.llama_set_embeddings(self._context, states)
        for at in range(0, len(answer), step):
            part = answer[at : at + step]
            self._decode(part, len(prompt) + at, rows=len(part))
            after = self._logits(range(len(part)))
            yield Step(np.concatenate((before, after[:-1])), self._states(len(part)) if states else None)
            before = after[-1:]

    def piece(self, token: int) -> bytes:
        """The bytes that a token stands for; none for a control token."""
        buffer = ctypes.create_string_buffer(ROOM)
        length = self._api.llama_token_to_piece(self._vocab, token, buffer, len(buffer), 0, False)
        if length < 0:
            buffer = ctypes.create_string_buffer(-length)
            length = self._api.llama_token_to_piece(self._vocab, token, buffer, len(buffer), 0, False)
        return buffer.raw[: max(0, length)]

    def ends(self, token: int) -> bool:
        """Whether it ends a turn."""
        return bool(self._api.llama_vocab_is_eog(self._vocab, token))

    # -- inside --------------------------------------------------------------------------------------------------------

    def _description(self) -> str:
        buffer = ctypes.create_string_buffer(ROOM)
        self._api.llama_model_desc(self._model, buffer, len(buffer))
        return buffer.value.decode("utf-8", "replace")

    def _require_known(self, tokens: Sequence[int]) -> None:
        """The library would read beyond its tables."""
        foreign = next((token for token in tokens if not 0 <= token < self.described.vocabulary), None)
        if foreign is not None:
            raise error("token_unknown", f"token {foreign}, the vocabulary has {self.described.vocabulary}")

    def _begin(self, tokens: int) -> None:
        """An empty context with room for `tokens`."""
        if tokens > self.described.context_size:
            raise error("context_too_long", f"{tokens} tokens, the model reads {self.described.context_size}")
        if self._context is None or tokens > self._room:
            self._make_context(-(-tokens // CONTEXT_STEP) * CONTEXT_STEP)
        self._api.llama_memory_clear(self._api.llama_get_memory(self._context), True)
        self._api.llama_set_embeddings(self._context, False)

    def _make_context(self, room: int) -> None:
        if self._context is not None:
            self._api.llama_free(self._context)
        params = self._api.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch, params.n_seq_max = room, CPU_BATCH, CPU_BATCH, 1
        params.n_threads = params.n_threads_batch = self._threads
        params.pooling_type, params.kv_unified = capi.POOLING_NONE, True
        self._context = self._api.llama_init_from_model(self._model, params)
        if not self._context:
            raise error("model_invalid", f"llama.cpp cannot make a context of {room} tokens")
        self._room = room

    def _decode(self, tokens: Sequence[int], position: int, *, rows: int) -> None:
        """Read `tokens`; the last `rows` of them give logits."""
        batch, count = self._batch, len(tokens)
        batch.n_tokens = count
        for place, token in enumerate(tokens):
            batch.token[place], batch.pos[place] = token, position + place
            batch.n_seq_id[place], batch.seq_id[place][0] = 1, 0
            batch.logits[place] = place >= count - rows
        result = self._api.llama_decode(self._context, batch)
        if result != 0:
            raise error("model_invalid", f"llama.cpp cannot read a step of {count} tokens: {result}")

    def _logits(self, rows: Sequence[int]) -> Floats:
        return self._copy(self._api.llama_get_logits_ith, rows, self.described.vocabulary)

    def _states(self, count: int) -> Floats:
        return self._copy(self._api.llama_get_embeddings_ith, range(count), self._width)

    def _copy(self, get: Any, rows: Sequence[int], width: int) -> Floats:
        found = np.empty((len(rows), width), np.float32)
        for place, row in enumerate(rows):
            pointer = get(self._context, row)
            if not pointer:
                raise error("reexecution_unsupported", "llama.cpp gives no values for a token that was asked for")
            found[place] = np.ctypeslib.as_array(pointer, (width,))
        return found
