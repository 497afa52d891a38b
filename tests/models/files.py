"""GGUF files for tests, written by the reference package."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np

WIDTH, ROWS = 256, 10


def weights(seed: int = 1, rows: int = ROWS, width: int = WIDTH) -> np.ndarray:
    """A head."""
    return np.random.default_rng(seed).normal(0, 0.05, (rows, width)).astype(np.float32)


def write(
    path: Path,
    *,
    kind: gguf.GGMLQuantizationType = gguf.GGMLQuantizationType.F32,
    head: np.ndarray | None = None,
    name: str = "output.weight",
    template: str | None = "{{ messages }}",
    tokens: tuple[str, ...] = ("a", "b"),
    extra: dict[str, float] | None = None,
) -> Path:
    """One file with one matrix of one kind."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("test")
    writer.add_token_list(list(tokens))
    writer.add_token_scores([0.5] * len(tokens))
    if template is not None:
        writer.add_chat_template(template)
    for key, value in (extra or {}).items():
        writer.add_float32(key, value)
    data = weights() if head is None else head
    writer.add_tensor("blk.0.other", np.ones((3, 5), np.float32))
    packed = data if kind == gguf.GGMLQuantizationType.F32 else gguf.quants.quantize(data, kind)
    writer.add_tensor(name, packed, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
