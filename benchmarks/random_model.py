"""A llama of realistic cost with random weights: what it says is noise, what it costs is not. Written by numpy and gguf in a second.

It has the tokenizer and chat template of the tiny chat model, so everything around it works as with any other model.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np

from fabstir.engines.model_file import default_model

Q8 = gguf.GGMLQuantizationType.Q8_0


def write_random_model(
    path: Path, *, dim: int = 512, layers: int = 10, heads: int = 8, kv: int = 4, ff: int = 1536
) -> int:
    """Write the file; returns the number of parameters."""
    reader = gguf.GGUFReader(default_model())
    tokens = _field(reader, "tokenizer.ggml.tokens")
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("random")
    for name, value in (("context_length", 2048), ("embedding_length", dim), ("block_count", layers)):
        getattr(writer, f"add_{name}")(value)
    writer.add_feed_forward_length(ff)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(dim // heads)
    writer.add_vocab_size(len(tokens))
    _copy_tokenizer(reader, writer, tokens)
    count = _write_tensors(writer, dim, layers, dim // heads * kv, ff, len(tokens))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return count


def _field(reader: gguf.GGUFReader, name: str) -> Any:
    field = reader.get_field(name)
    if field is None:
        raise KeyError(name)
    return field.contents()


def _copy_tokenizer(reader: gguf.GGUFReader, writer: gguf.GGUFWriter, tokens: list[str]) -> None:
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(_field(reader, "tokenizer.ggml.pre"))
    writer.add_token_list(tokens)
    writer.add_token_types(_field(reader, "tokenizer.ggml.token_type"))
    writer.add_token_merges(_field(reader, "tokenizer.ggml.merges"))
    writer.add_bos_token_id(_field(reader, "tokenizer.ggml.bos_token_id"))
    writer.add_eos_token_id(_field(reader, "tokenizer.ggml.eos_token_id"))
    writer.add_add_bos_token(False)
    writer.add_chat_template(_field(reader, "tokenizer.chat_template"))


def _write_tensors(writer: gguf.GGUFWriter, dim: int, layers: int, kv: int, ff: int, vocab: int) -> int:
    source = np.random.Generator(np.random.PCG64(7))
    count = 0

    def add(name: str, rows: int, columns: int, scale: float = 1.0) -> None:
        nonlocal count
        weights = source.standard_normal((rows, columns), dtype=np.float32) * np.float32(scale / np.sqrt(columns))
        writer.add_tensor(name, gguf.quants.quantize(weights, Q8), raw_dtype=Q8)
        count += rows * columns

    def norm(name: str) -> None:
        writer.add_tensor(name, np.ones(dim, dtype=np.float32))

    add("token_embd.weight", vocab, dim, 3.0)
    norm("output_norm.weight")
    for layer in range(layers):
        block = f"blk.{layer}."
        norm(block + "attn_norm.weight")
        norm(block + "ffn_norm.weight")
        add(block + "attn_q.weight", dim, dim)
        add(block + "attn_k.weight", kv, dim)
        add(block + "attn_v.weight", kv, dim)
        add(block + "attn_output.weight", dim, dim, 0.35)
        add(block + "ffn_gate.weight", ff, dim)
        add(block + "ffn_up.weight", ff, dim)
        add(block + "ffn_down.weight", dim, ff, 0.35)
    return count
