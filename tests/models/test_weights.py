"""Rows of an output head, read from every kind of file that is read here."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest
from tests.models.files import ROWS, WIDTH, weights, write

from fabstir.domain.errors import LocalFault
from fabstir.models.gguf import read_header
from fabstir.models.weights import KINDS, Rows

KIND = gguf.GGMLQuantizationType


def _rows(path: Path) -> Rows:
    return Rows(path, read_header(path).tensors["output.weight"])


@pytest.mark.parametrize("kind", [KIND.F32, KIND.F16, KIND.BF16, KIND.Q8_0, KIND.Q4_0])
def test_weights_are_those_of_the_reference(tmp_path: Path, kind: KIND) -> None:
    """Bit by bit what the reference package makes of the same bytes."""
    path = write(tmp_path / "m.gguf", kind=kind)
    expected = gguf.quants.dequantize(gguf.quants.quantize(weights(), kind), kind)
    assert np.array_equal(_rows(path).read(0, ROWS), expected)


def test_six_bits_are_those_of_the_reference(tmp_path: Path) -> None:
    """Q6_K, in which the common 4-bit files keep their heads: the reference reads it but does not write it, so the bytes are noise."""
    noise = np.random.default_rng(3).integers(0, 256, (ROWS, 210), dtype=np.uint8)
    noise[:, 208:] = np.frombuffer(np.float16(0.01).tobytes(), np.uint8)
    blocks = KINDS[14].decode(noise).reshape(ROWS, WIDTH)
    assert np.array_equal(blocks, gguf.quants.dequantize(noise, KIND.Q6_K))


def test_some_rows_are_the_same_rows(tmp_path: Path) -> None:
    """Read alone, read in pieces, read whole."""
    rows = _rows(write(tmp_path / "m.gguf", kind=KIND.Q8_0))
    whole = rows.read(0, ROWS)
    assert np.array_equal(rows.read(4, 2), whole[4:6])
    assert np.array_equal(np.concatenate(list(rows.chunks())), whole)


def test_an_unknown_kind_is_named(tmp_path: Path) -> None:
    """What is not read here is refused, never guessed."""
    path = write(tmp_path / "m.gguf")
    tensor = read_header(path).tensors["output.weight"]
    with pytest.raises(LocalFault, match=r"model_invalid.*type 13 are not read here; known are BF16, F16"):
        Rows(path, tensor._replace(kind=13))
    with pytest.raises(LocalFault, match="no matrix"):
        Rows(path, tensor._replace(shape=(4,)))
    with pytest.raises(LocalFault, match="blocks of 32"):
        Rows(path, tensor._replace(kind=8, shape=(33, 2)))


def test_a_file_that_ends_early_is_refused(tmp_path: Path) -> None:
    """Half a head is none."""
    path = write(tmp_path / "m.gguf")
    rows = _rows(path)
    path.write_bytes(path.read_bytes()[: -WIDTH * 8])
    with pytest.raises(LocalFault, match="ends inside the output head"):
        rows.read(ROWS - 1, 1)
