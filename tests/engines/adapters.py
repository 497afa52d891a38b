"""A LoRA adapter for the tiny chat model, made of random numbers: small enough to change nothing but what is said. By gguf and numpy."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np

RANK, WIDTH, INNER, LAYERS = 4, 128, 352, 4


def write_adapter(path: Path, *, strength: float = 0.3) -> None:
    """Added to what each layer's feed-forward network writes."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_string("general.type", "adapter")
    writer.add_string("general.name", path.stem)
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", float(RANK))
    chance = np.random.Generator(np.random.PCG64(7))
    for layer in range(LAYERS):
        for end, shape in (("a", (RANK, INNER)), ("b", (WIDTH, RANK))):
            values = chance.standard_normal(shape, dtype=np.float32) * np.float32(strength)
            writer.add_tensor(f"blk.{layer}.ffn_down.weight.lora_{end}", values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
