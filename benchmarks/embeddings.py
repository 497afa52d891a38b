"""Claim: an embedding costs what onnxruntime costs. CPU milliseconds for a text of 12 words, alone, against tokenizer and session called
by hand in the same process on the same weights.

Ours goes through the event loop, the batching and the thread. Both sides take turns. Besides: 32 texts asked at once by 32 callers against
one call by hand with all of them, texts of about 200 tokens, and how long it takes to be ready (90 MB are hashed, the graph is built).
CPU time of the process, since what else runs on the machine is not what is measured.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import onnxruntime
from common import main
from tokenizers import Tokenizer

from fabstir.vectors.embedding import graph, weights
from fabstir.vectors.embedding.minilm import MiniLm

WORDS = ["the", "owner", "of", "a", "small", "bakery", "asks", "how", "bread", "keeps", "fresh", "longer"]


class ByHand:
    """The same model, without anything else."""

    def __init__(self) -> None:
        found = weights.find()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        model = graph.build(weights.tensors(weights.read(found, weights.WEIGHTS)))
        self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self._tokenizer = Tokenizer.from_file(str(found / weights.TOKENIZER))
        self._tokenizer.enable_truncation(256)
        self._tokenizer.enable_padding()

    def embed(self, texts: list[str]) -> Any:
        encoded = self._tokenizer.encode_batch(texts)
        ids = np.asarray([each.ids for each in encoded], np.int64)
        mask = np.asarray([each.attention_mask for each in encoded], np.int64)
        return self._session.run(None, {"input_ids": ids, "attention_mask": mask})[0]


def texts_of(count: int, words: int, seed: int) -> list[str]:
    """Different ones."""
    random = np.random.default_rng(seed)
    return [" ".join(random.choice(WORDS, words)) for _ in range(count)]


async def cpu(act: Callable[[], Awaitable[object]]) -> float:
    """Milliseconds of the whole process."""
    began = time.process_time()
    await act()
    return (time.process_time() - began) * 1e3


async def turns(embedder: MiniLm, hand: ByHand, batches: list[list[str]]) -> tuple[float, float]:
    """Median CPU milliseconds for a text: ours, each text asked for by itself at once, and by hand."""
    ours, peer = [], []

    async def by_hand(texts: list[str]) -> None:
        hand.embed(texts)

    for texts in batches:
        ours.append(await cpu(lambda: asyncio.gather(*(embedder.embed([text]) for text in texts))))  # noqa: B023
        peer.append(await cpu(lambda: by_hand(texts)))  # noqa: B023
    size = len(batches[0])
    return statistics.median(ours) / size, statistics.median(peer) / size


async def measured(quick: bool) -> dict[str, Any]:
    count = 60 if quick else 400
    began = time.perf_counter()
    embedder = await MiniLm.open()
    ready = time.perf_counter() - began
    hand = ByHand()
    await turns(embedder, hand, [texts_of(1, 12, 0)] * 5)
    ours, peer = await turns(embedder, hand, [texts_of(1, 12, seed) for seed in range(count)])
    batch, batch_peer = await turns(embedder, hand, [texts_of(32, 12, seed) for seed in range(count // 20)])
    long, long_peer = await turns(embedder, hand, [texts_of(1, 200, seed) for seed in range(count // 5)])
    await embedder.close()
    return {
        "claim": "CPU ms for one text of 12 words, against tokenizer and onnxruntime by hand",
        "ours": round(ours, 3),
        "peer": round(peer, 3),
        "ratio": round(ours / peer, 3),
        "unit": "ms",
        "n": count,
        "batch_of_32_ms_per_text": round(batch, 3),
        "batch_of_32_by_hand_ms_per_text": round(batch_peer, 3),
        "long_ms": round(long, 2),
        "long_by_hand_ms": round(long_peer, 2),
        "ready_s": round(ready, 2),
    }


def measure(quick: bool) -> dict[str, Any]:
    return asyncio.run(measured(quick))


if __name__ == "__main__":
    main(measure, (__doc__ or "").partition("\n")[0])
