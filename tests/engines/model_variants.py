"""Other weights made from the tiny chat model: coarser ones, and damaged ones that stand for a smaller model. By gguf
and numpy.

Tokenizer, template and shapes stay, so that only the numbers differ: what a host would serve that wants to pass for
another.
"""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np

from fabstir.engines.model_file import default_model

Kind = gguf.GGMLQuantizationType
VALUE = gguf.GGUFValueType


def write_variant(
    path: Path, kind: gguf.GGMLQuantizationType, *, noise: float = 0.0, source: Path | None = None
) -> None:
    """The model with its matrices as `kind`. `noise`: random numbers added to them, in parts of each matrix's own spread."""
    reader = gguf.GGUFReader(source or default_model())
    writer = gguf.GGUFWriter(path, "llama")
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name in ("general.architecture", "general.file_type"):
            continue
        sub_type = field.types[-1] if field.types[0] == VALUE.ARRAY else None
        writer.add_key_value(field.name, field.contents(), field.types[0], sub_type=sub_type)
    chance = np.random.Generator(np.random.PCG64(7))
    for tensor in reader.tensors:
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        if values.ndim < 2:
            writer.add_tensor(tensor.name, values)
            continue
        values += chance.standard_normal(values.shape, dtype=np.float32) * np.float32(noise * values.std())
        writer.add_tensor(tensor.name, gguf.quants.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
