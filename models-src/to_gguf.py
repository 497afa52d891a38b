"""Turn a trained tiny chat model into a GGUF file that llama.cpp loads.

    python models-src/to_gguf.py build/tiny-chat tiny-chat-f16.gguf F16

Run by hand; needs numpy and gguf (models-src/README.md). F16 is what ships: with Q8_0 one answer in a hundred, with
Q4_0 three, differ between one request and eight at a time.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from corpus import CHAT_TEMPLATE
from gguf import GGMLQuantizationType, LlamaFileType, TokenType

FILE_TYPES = {
    "F32": LlamaFileType.ALL_F32,
    "F16": LlamaFileType.MOSTLY_F16,
    "Q8_0": LlamaFileType.MOSTLY_Q8_0,
    "Q4_0": LlamaFileType.MOSTLY_Q4_0,
}
CONTEXT = 2048
LAYER_NAMES = {
    "an": "attn_norm", "fn": "ffn_norm", "q": "attn_q", "k": "attn_k", "v": "attn_v", "o": "attn_output",
    "gate": "ffn_gate", "up": "ffn_up", "down": "ffn_down",
}  # fmt: skip
"""Names in model.py and in the file."""


def add_tensor(writer: gguf.GGUFWriter, name: str, value: np.ndarray, kind: str) -> None:
    """Write one tensor; norms stay F32."""
    value = np.ascontiguousarray(value, dtype=np.float32)
    if value.ndim == 1 or kind == "F32":
        writer.add_tensor(name, value)
    elif kind == "F16":
        writer.add_tensor(name, value.astype(np.float16))
    else:
        # The embeddings are the output head too: they are not cut to four bits.
        chosen = GGMLQuantizationType["Q8_0" if name == "token_embd.weight" else kind]
        writer.add_tensor(name, gguf.quants.quantize(value, chosen), raw_dtype=chosen)


def add_shape(writer: gguf.GGUFWriter, shape: dict[str, Any], kind: str) -> None:
    """Metadata of the network."""
    writer.add_name("tiny-chat")
    writer.add_file_type(FILE_TYPES[kind])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(shape["dim"])
    writer.add_block_count(shape["layers"])
    writer.add_feed_forward_length(shape["ff"])
    writer.add_head_count(shape["heads"])
    writer.add_head_count_kv(shape["kv"])
    writer.add_layer_norm_rms_eps(shape["eps"])
    writer.add_rope_freq_base(shape["base"])
    writer.add_rope_dimension_count(shape["dim"] // shape["heads"])
    writer.add_vocab_size(shape["vocab"])


def add_tokenizer(writer: gguf.GGUFWriter, tokenizer: dict[str, Any]) -> None:
    """Byte-level BPE, special tokens and the chat template."""
    vocabulary = tokenizer["model"]["vocab"]
    tokens = sorted(vocabulary, key=vocabulary.__getitem__)
    special = {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in tokenizer["model"]["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([TokenType.CONTROL if token in special else TokenType.NORMAL for token in tokens])
    writer.add_token_merges(merges)
    writer.add_bos_token_id(special["<|endoftext|>"])
    writer.add_eos_token_id(special["<|im_end|>"])
    writer.add_pad_token_id(special["<|endoftext|>"])
    writer.add_add_bos_token(False)
    writer.add_chat_template(CHAT_TEMPLATE)


def convert(trained: Path, out: Path, kind: str) -> None:
    """Write `out`."""
    shape = json.loads((trained / "config.json").read_text())
    weights = np.load(trained / "weights.npz")
    writer = gguf.GGUFWriter(out, "llama")
    add_shape(writer, shape, kind)
    add_tokenizer(writer, json.loads((trained / "tokenizer.json").read_text()))
    add_tensor(writer, "token_embd.weight", weights["emb.weight"], kind)
    add_tensor(writer, "output_norm.weight", weights["norm.weight"], kind)
    for layer in range(shape["layers"]):
        for ours, theirs in LAYER_NAMES.items():
            add_tensor(writer, f"blk.{layer}.{theirs}.weight", weights[f"blocks.{layer}.{ours}.weight"], kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main() -> None:
    """Options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trained", type=Path, help="directory that train.py wrote")
    parser.add_argument("out", type=Path)
    parser.add_argument("kind", choices=sorted(FILE_TYPES), nargs="?", default="F16")
    options = parser.parse_args()
    convert(options.trained, options.out, options.kind)


if __name__ == "__main__":
    main()
