"""What a weights file says about itself is read without loading it, and a damaged one is refused by name."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from fabstir.domain.errors import FabstirError
from fabstir.engines.model_file import default_model, file_sha256, model_name


def test_the_shipped_model_is_small_and_named() -> None:
    """The package brings a model of its own, under 2 MB."""
    assert default_model().stat().st_size < 2_000_000
    assert model_name(default_model()) == "tiny-chat"


def test_the_digest_follows_the_file(tmp_path: Path) -> None:
    """A file that changed has another digest, remembered or not."""
    path = tmp_path / "weights"
    path.write_bytes(b"one")
    assert file_sha256(path) == file_sha256(path) == hashlib.sha256(b"one").digest()
    path.write_bytes(b"other")
    assert file_sha256(path) == hashlib.sha256(b"other").digest()


@pytest.mark.parametrize("length", [0, 3, 4, 10, 24, 40])
def test_a_cut_off_header_is_refused(tmp_path: Path, length: int) -> None:
    """Also where the cut falls inside a number."""
    path = tmp_path / "cut.gguf"
    path.write_bytes(default_model().read_bytes()[:length])
    with pytest.raises(FabstirError, match="not a GGUF file, or its header is damaged") as caught:
        model_name(path)
    assert caught.value.code == "model_invalid"


def test_a_damaged_length_is_not_followed(tmp_path: Path) -> None:
    """A flipped byte in a length does not make us read the whole file."""
    data = bytearray(default_model().read_bytes()[:4096])
    data[31] = 0x7F
    path = tmp_path / "flipped.gguf"
    path.write_bytes(data)
    with pytest.raises(FabstirError, match="model_invalid"):
        model_name(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """The error says which path."""
    for read in (model_name, file_sha256):
        with pytest.raises(FabstirError, match="nothing here"):
            read(tmp_path / "nothing here")
