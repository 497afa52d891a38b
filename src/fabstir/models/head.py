"""The output head of a model: its rows as integers, their points and tree, and the commitment that the registry gets to know.

The head is the tensor `output.weight`, or `token_embd.weight` where a model has tied them. Its points are computed elsewhere (10 ms a
row, 25 minutes for 152,000) and kept in one file that grows row by row, so that the work goes on where it stopped; the file belongs to the
weights whose SHA-256 is its name. Refused is a model whose logits are more than rows times state.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from fabstir.domain.errors import error
from fabstir.domain.ids import Hash32
from fabstir.models.gguf import read_header
from fabstir.models.weights import Rows
from fabstir.protocol import head_tree
from fabstir.protocol.head_tree import POINT, WEIGHT_LIMIT
from fabstir.protocol.model_identity import HeadCommitment
from fabstir.protocol.padded_tree import PaddedTree
from fabstir.protocol.spot import COLUMNS, SpotVector

NAMES: Final = ("output.weight", "token_embd.weight")
UNFIT: Final = ("final_logit_softcapping", "logit_scale")
"""Keys of architectures that do something to a logit after the product."""
BATCH: Final = 64
"""Rows between two writes: what a process that is killed loses."""

MakePoints = Callable[[Sequence[SpotVector]], Awaitable[bytes]]
"""KZG points, 64 bytes for each vector (`fabstir.proofs.spot_prover`)."""


class HeadRows:
    """The rows of one file as integers."""

    def __init__(self, path: Path) -> None:
        """Reads all weights once, for their scale: a second for each gigabyte. Raises LocalFault (`model_invalid`)."""
        header = read_header(path)
        unfit = next((key for key in header.values if key.split(".", 1)[-1] in UNFIT), None)
        name = next((name for name in NAMES if name in header.tensors), None)
        if unfit is not None or name is None or "output.bias" in header.tensors:
            raise error(
                "model_invalid", f"{path}: {unfit or 'output.bias' if name else 'no output head'}: not for `spot`"
            )
        self._rows = Rows(path, header.tensors[name])
        self.count, self.width = self._rows.count, self._rows.width
        if self.width > COLUMNS:
            raise error("model_invalid", f"{path}: hidden states of {self.width} values; `spot` takes {COLUMNS}")
        try:
            self.scale = head_tree.scale_for(max(float(np.abs(rows).max()) for rows in self._rows.chunks()))
        except ValueError as fault:
            raise error("model_invalid", f"{path}: {fault}") from fault

    def read(self, first: int, count: int) -> list[SpotVector]:
        """Some rows, as the circuit takes them."""
        whole = np.rint(self._rows.read(first, count).astype(np.float64) * 2.0**self.scale)
        if np.abs(whole).max() > WEIGHT_LIMIT:
            raise error("model_invalid", "the weights changed while they were read")
        return [SpotVector(tuple(row)) for row in whole.astype(np.int64).tolist()]


class CommittedHead:
    """The rows with their tree: what a proof is made from. Memory: 64 bytes for each row."""

    def __init__(self, rows: HeadRows, points: bytes) -> None:
        """Raises LocalFault (`model_invalid`) where the points are not as many as the rows."""
        if len(points) != rows.count * POINT:
            raise error("model_invalid", f"{len(points) // POINT} of {rows.count} rows are committed")
        self._rows = rows
        self._tree: PaddedTree = head_tree.tree_of(points)

    @property
    def commitment(self) -> HeadCommitment:
        """As the registry has it."""
        return head_tree.commitment(self._tree, self._rows.width, self._rows.scale)

    def row(self, token: int) -> tuple[int, ...]:
        """Quantised weights. Raises IndexError."""
        if not 0 <= token < self._rows.count:
            raise IndexError(f"row {token} of {self._rows.count}")
        return self._rows.read(token, 1)[0].values

    def path(self, token: int) -> bytes:
        """Siblings in the tree. Raises IndexError."""
        return self._tree.path(token)


PACKAGED: Final = Path(__file__).parent / "heads"
"""The points of the packaged model's head, made and checked by tools/commit_heads.py."""


def points_file(folder: Path, sha256: Hash32, circuit: Hash32) -> Path:
    """Where the points of a file of weights are kept. They follow from the weights and from the reference string of the circuit."""
    return folder / f"{sha256.hex()}-{circuit.hex()[:16]}.points"


def stored_head(rows: HeadRows, files: Iterable[Path]) -> CommittedHead | None:
    """The head from the first of these files that holds all of its points; None where none does. Computes no point. Raises OSError."""
    for file in files:
        if file.exists() and file.stat().st_size == rows.count * POINT:
            return CommittedHead(rows, file.read_bytes())
    return None


async def commit_head(
    rows: HeadRows, file: Path, make: MakePoints, progress: Callable[[int], None] = lambda _: None
) -> CommittedHead:
    """Compute what is not in `file` yet, tell `progress` how many rows are done, return the whole.

    One process at a time. Raises LocalFault (`model_invalid`, and what `make` raises).
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a+b") as kept:
            fcntl.flock(kept, fcntl.LOCK_EX | fcntl.LOCK_NB)
            size = os.fstat(kept.fileno()).st_size
            done = min(size // POINT, rows.count)
            if size != done * POINT:  # a part of a point, where a process was killed at it
                kept.truncate(done * POINT)
            progress(done)
            while done < rows.count:
                count = min(BATCH, rows.count - done)
                kept.write(await make(rows.read(done, count)))
                kept.flush()
                done += count
                progress(done)
            kept.seek(0)
            return CommittedHead(rows, kept.read())
    except BlockingIOError as held:
        raise error("model_invalid", f"{file}: another process commits this head", "Wait for it.") from held
    except OSError as fault:
        raise error("model_invalid", f"{file}: {fault.strerror}") from fault
