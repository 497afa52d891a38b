"""The head of the packaged model is in the package, made by `tools/commit_heads.py`, which compares all of it with `--check`."""

from __future__ import annotations

from pathlib import Path

import pytest

from fabstir.engines.model_file import default_model, file_sha256
from fabstir.models.head import PACKAGED, HeadRows, points_file, stored_head
from fabstir.proofs.process import EzklProver
from fabstir.proofs.spot_prover import SpotProver
from fabstir.protocol.head_tree import POINT

EVERY = 48
"""One row in so many is committed again: sixteen, in a fifth of a second."""


@pytest.mark.real
async def test_its_points_are_those_of_the_weights(tmp_path: Path) -> None:
    """There is one file, of the packaged weights and circuit; its points are what the prover makes of the rows."""
    rows = HeadRows(default_model())
    prover = EzklProver(chain_id=31337, cache=tmp_path)
    spot = SpotProver(prover, chain_id=31337)
    file = points_file(PACKAGED, file_sha256(default_model()), spot.circuit_id)
    assert list(PACKAGED.glob("*.points")) == [file]
    points, some = file.read_bytes(), range(0, rows.count, EVERY)
    await prover.start()
    try:
        made = await spot.points([rows.read(row, 1)[0] for row in some])
    finally:
        await prover.stop()
    assert made == b"".join(points[row * POINT : (row + 1) * POINT] for row in some)
    head = stored_head(rows, [file])
    assert head is not None and head.commitment.rows == rows.count


def test_half_a_head_is_none(tmp_path: Path) -> None:
    """A file that is not there or not whole is not taken; the next one is."""
    rows = HeadRows(default_model())
    (whole,) = PACKAGED.glob("*.points")
    half = tmp_path / "half.points"
    half.write_bytes(whole.read_bytes()[:-POINT])
    assert stored_head(rows, [half, tmp_path / "none.points"]) is None
    assert stored_head(rows, [half, whole]) is not None
