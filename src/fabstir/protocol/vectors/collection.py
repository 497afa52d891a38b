"""What a collection is: a name, a dimension, a metric, the precision that its vectors are kept in, and the embedder they come from.

Decides which descriptions are valid and that vectors of two embedders never meet in one collection. All of it is fixed when the
collection is made: scores of one collection are on one scale. Specification: docs/explanation/vectors.md.
"""

from __future__ import annotations

import re
from typing import Any, Final, Literal, get_args

import msgspec

from fabstir.domain.errors import error

Metric = Literal["cosine", "dot", "euclidean"]
Precision = Literal["f32", "f16"]

RAW: Final = "raw"
"""The embedder of vectors that come from outside: whoever sends them vouches that they are of one kind."""
MAX_DIMENSION: Final = 4096
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_EMBEDDER: Final = re.compile(r"[a-z0-9][a-z0-9._/-]{0,63}")


class CollectionSpec(msgspec.Struct, frozen=True):
    """Checked when it is made by `describe`."""

    name: str
    dimension: int
    metric: Metric = "cosine"
    embedder: str = RAW
    precision: Precision = "f32"
    """`f16` halves disk and memory; components are rounded to 11 bits when they arrive, so that every tier sees the same numbers."""

    @property
    def row_bytes(self) -> int:
        """Bytes of a vector at rest."""
        return self.dimension * (4 if self.precision == "f32" else 2)


def describe(
    name: str, dimension: int, metric: str = "cosine", embedder: str = RAW, precision: str = "f32"
) -> CollectionSpec:
    """Raises PeerFault (`vector_collection`)."""
    if not _NAME.fullmatch(name):
        raise error("vector_collection", "a name is 1 to 64 of a-z, 0-9, - and _, and begins with a letter or a digit")
    if type(dimension) is not int or not 1 <= dimension <= MAX_DIMENSION:
        raise error("vector_collection", f"a dimension is from 1 to {MAX_DIMENSION}")
    if metric not in get_args(Metric):
        raise error("vector_collection", f"a metric is one of {', '.join(get_args(Metric))}")
    if not _EMBEDDER.fullmatch(embedder):
        raise error("vector_collection", "an embedder's tag is 1 to 64 of a-z, 0-9, ., _, / and -")
    if precision not in get_args(Precision):
        raise error("vector_collection", f"a precision is one of {', '.join(get_args(Precision))}")
    return CollectionSpec(name, dimension, metric, embedder, precision)  # type: ignore[arg-type]


def spec_of(value: Any) -> CollectionSpec:
    """From what `msgspec.to_builtins` made of one. Raises PeerFault (`vector_collection`)."""
    if not isinstance(value, dict) or set(value) != set(CollectionSpec.__struct_fields__):
        raise error("vector_collection", "its fields are not those of a description")
    if not all(isinstance(value[each], str) for each in ("name", "metric", "embedder", "precision")):
        raise error("vector_collection", "a name, metric, embedder or precision that is no text")
    return describe(**value)


def check_embedder(spec: CollectionSpec, embedder: str) -> None:
    """Raises Refused (`vector_embedder`)."""
    if embedder != spec.embedder:
        raise error("vector_embedder", f"{spec.name} holds vectors of {spec.embedder}, these are of {embedder}")
