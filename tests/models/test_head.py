"""The head of a model: its rows as integers, its commitment, and a work that goes on where it stopped."""

from __future__ import annotations

import fcntl
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from tests.models.files import ROWS, WIDTH, weights, write

from fabstir.domain.errors import LocalFault, error
from fabstir.models.head import BATCH, CommittedHead, HeadRows, commit_head
from fabstir.protocol import head_tree
from fabstir.protocol.padded_tree import root_of
from fabstir.protocol.signing import keccak
from fabstir.protocol.spot import SpotVector


class Points:
    """Stands for the prover: a point that the vector decides; stops after so many calls."""

    def __init__(self, stop_after: int = 1_000) -> None:
        self.rows = 0
        self._left = stop_after

    async def __call__(self, vectors: Sequence[SpotVector]) -> bytes:
        if self._left == 0:
            raise error("prover_unavailable")
        self._left -= 1
        self.rows += len(vectors)
        return b"".join(keccak(b"x" + repr(v).encode()) + keccak(b"y" + repr(v).encode()) for v in vectors)


def test_weights_become_integers_of_sixteen_bits(tmp_path: Path) -> None:
    """At the largest scale at which all of them fit, rounded."""
    rows = HeadRows(write(tmp_path / "m.gguf"))
    largest = float(np.abs(weights()).max())
    assert (rows.count, rows.width, rows.scale) == (ROWS, WIDTH, head_tree.scale_for(largest))
    assert largest * 2**rows.scale <= head_tree.WEIGHT_LIMIT < largest * 2 ** (rows.scale + 1)
    expected = head_tree.quantised([float(w) for w in weights()[3]], rows.scale)
    assert rows.read(3, 1)[0].values == expected


def test_tied_weights_are_the_head(tmp_path: Path) -> None:
    """Where a file has no `output.weight`, the embeddings are it."""
    assert HeadRows(write(tmp_path / "m.gguf", name="token_embd.weight")).count == ROWS
    with pytest.raises(LocalFault, match="no output head"):
        HeadRows(write(tmp_path / "n.gguf", name="other.weight"))


@pytest.mark.parametrize("key", ["gemma2.final_logit_softcapping", "command-r.logit_scale"])
def test_logits_that_are_more_than_a_product_are_refused(tmp_path: Path, key: str) -> None:
    """The circuit would refuse every honest host."""
    with pytest.raises(LocalFault, match=f"model_invalid.*{key}"):
        HeadRows(write(tmp_path / "m.gguf", extra={key: 30.0}))


def test_a_wide_model_is_refused(tmp_path: Path) -> None:
    """The circuit has 896 columns."""
    with pytest.raises(LocalFault, match="897 values; `spot` takes 896"):
        HeadRows(write(tmp_path / "m.gguf", head=weights(rows=2, width=897)))


async def test_every_row_leads_to_the_root(tmp_path: Path) -> None:
    """The commitment is the tree's; a row's path, leaf and number give the root, another number does not."""
    rows = HeadRows(write(tmp_path / "m.gguf"))
    head = await commit_head(rows, tmp_path / "points", Points())
    points = (tmp_path / "points").read_bytes()
    for row in range(ROWS):
        leaf = head_tree.leaf(row, points[64 * row : 64 * row + 64])
        assert root_of(row, leaf, head.path(row)) == head.commitment.root
        assert root_of(row ^ 1, leaf, head.path(row)) != head.commitment.root
    assert head.row(4) == rows.read(4, 1)[0].values
    with pytest.raises(IndexError):
        head.row(ROWS)


async def test_it_goes_on_where_it_stopped(tmp_path: Path) -> None:
    """Killed between two writes or in the middle of one, no row is computed twice and the root is the same."""
    path = write(tmp_path / "m.gguf", head=weights(rows=BATCH * 2 + 5))
    whole = (await commit_head(HeadRows(path), tmp_path / "whole", Points())).commitment
    file = tmp_path / "points"
    with pytest.raises(LocalFault, match="prover_unavailable"):
        await commit_head(HeadRows(path), file, Points(stop_after=1))
    assert file.stat().st_size == BATCH * 64
    file.write_bytes(file.read_bytes() + b"half a point")
    rest, told = Points(), list[int]()
    again = await commit_head(HeadRows(path), file, rest, told.append)
    assert again.commitment == whole
    assert rest.rows == BATCH + 5 and told == [BATCH, BATCH * 2, BATCH * 2 + 5]


async def test_one_process_at_a_time(tmp_path: Path) -> None:
    """Two that append would interleave."""
    rows = HeadRows(write(tmp_path / "m.gguf"))
    with (tmp_path / "points").open("wb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(LocalFault, match="another process"):
            await commit_head(rows, tmp_path / "points", Points())


def test_points_of_too_few_rows_are_refused(tmp_path: Path) -> None:
    """A head is committed whole or not at all."""
    with pytest.raises(LocalFault, match="9 of 10 rows"):
        CommittedHead(HeadRows(write(tmp_path / "m.gguf")), bytes(64 * 9))
