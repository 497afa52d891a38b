"""all-MiniLM-L6-v2 once more, in numpy alone and one text at a time: what the graph is compared with."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from fabstir.vectors.embedding.weights import Tensors

Array = npt.NDArray[np.float64]
_erf = np.vectorize(math.erf)


def embed(tensors: Tensors, ids: list[int]) -> Array:
    """At length one."""

    def get(name: str) -> Array:
        return np.asarray(tensors[name], np.float64)

    def linear(x: Array, name: str) -> Array:
        return x @ get(f"{name}.weight").T + get(f"{name}.bias")

    def norm(x: Array, name: str) -> Array:
        x = x - x.mean(-1, keepdims=True)
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-12) * get(f"{name}.weight") + get(f"{name}.bias")

    count = len(ids)
    table = get("embeddings.word_embeddings.weight")[ids] + get("embeddings.position_embeddings.weight")[:count]
    x = norm(table + get("embeddings.token_type_embeddings.weight")[0], "embeddings.LayerNorm")
    for layer in range(6):
        at = f"encoder.layer.{layer}"
        heads = {
            name: linear(x, f"{at}.attention.self.{name}").reshape(count, 12, 32).transpose(1, 0, 2)
            for name in ("query", "key", "value")
        }
        weights = np.exp(heads["query"] @ heads["key"].transpose(0, 2, 1) / math.sqrt(32))
        weights /= weights.sum(-1, keepdims=True)
        context = (weights @ heads["value"]).transpose(1, 0, 2).reshape(count, 384)
        x = norm(linear(context, f"{at}.attention.output.dense") + x, f"{at}.attention.output.LayerNorm")
        wide = linear(x, f"{at}.intermediate.dense")
        x = norm(
            linear(wide * 0.5 * (1 + _erf(wide / math.sqrt(2))), f"{at}.output.dense") + x, f"{at}.output.LayerNorm"
        )
    mean = x.mean(0)
    return np.asarray(mean / np.linalg.norm(mean))
