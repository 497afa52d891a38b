"""Who a model is: what changes its id, and what does not."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from tests.models.files import write

from fabstir.domain.errors import LocalFault
from fabstir.models.gguf import read_header
from fabstir.models.identity import identify, template_hash, tokenizer_hash
from fabstir.protocol.model_identity import NOT_STATED


def test_words_template_and_weights_have_each_a_hash(tmp_path: Path) -> None:
    """Another vocabulary changes the tokenizer's hash alone, another template the template's alone; each is another id."""
    base = write(tmp_path / "a.gguf")
    words = write(tmp_path / "b.gguf", tokens=("a", "c"))
    template = write(tmp_path / "c.gguf", template="{{ other }}")
    hashes = [(tokenizer_hash(h), template_hash(h)) for h in map(read_header, (base, words, template))]
    assert hashes[0][0] == hashes[2][0] != hashes[1][0]
    assert hashes[0][1] == hashes[1][1] != hashes[2][1]
    assert hashes[0][1] == hashlib.sha256(b"{{ messages }}").digest()
    assert len({identify(path, "org/m").model_id for path in (base, words, template)}) == 3


def test_what_is_not_stated_is_zero(tmp_path: Path) -> None:
    """A file without a template, and one that is no GGUF file: its whole hash stands for it."""
    assert identify(write(tmp_path / "a.gguf", template=None), "org/m").template == NOT_STATED
    other = tmp_path / "model.safetensors"
    other.write_bytes(b"something else")
    found = identify(other, "org/m")
    assert found.tokenizer == found.template == NOT_STATED
    assert found.sha256 == hashlib.sha256(b"something else").digest()


def test_a_changed_file_is_another_model(tmp_path: Path) -> None:
    """Also under the same name, and right after it was looked at."""
    path = write(tmp_path / "a.gguf")
    before = identify(path, "org/m")
    write(path, template="{{ a longer one }}")
    assert identify(path, "org/m").model_id != before.model_id


@pytest.mark.parametrize("cut", [3, 4, 20, 60, 200])
def test_a_damaged_header_is_refused(tmp_path: Path, cut: int) -> None:
    """Cut off anywhere: `model_invalid`, not an error of a parser."""
    path = tmp_path / "a.gguf"
    path.write_bytes(write(tmp_path / "b.gguf").read_bytes()[:cut])
    with pytest.raises(LocalFault, match="model_invalid"):
        read_header(path)


def test_a_length_out_of_range_is_refused(tmp_path: Path) -> None:
    """A damaged length must not make us read the whole file."""
    data = bytearray(write(tmp_path / "b.gguf").read_bytes())
    data[24:32] = (1 << 40).to_bytes(8, "little")
    path = tmp_path / "a.gguf"
    path.write_bytes(data)
    with pytest.raises(LocalFault, match="model_invalid"):
        read_header(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    """By its name."""
    with pytest.raises(LocalFault, match="model_invalid.*nothing"):
        identify(tmp_path / "nothing.gguf", "org/m")
