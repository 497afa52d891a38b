"""Identifiers of blobs and the texts that they are written as."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabstir.domain.errors import FabstirError
from fabstir.protocol.storage import multibase
from fabstir.protocol.storage.blob_id import BlobId
from fabstir.protocol.storage.multibase import Base

HELLO = b"Hello, world!"
HELLO_HASH = "ede5c0b10f2ec4979c69b52f61e42ff5b413519ce09be0f14d098dcfe5f6f98d"
GOLDEN: dict[Base, str] = {
    "f": "f5b821e" + HELLO_HASH + "0d",
    "b": "blobb53pfycyq6lwes6ogtnjpmhsc75nucnizzye34dyu2cmnz7s7n6mnbu",
    "z": "zhJTU2Mz5tATfj9rc5xorsXiadvYq3idS4CznEfW9Zg9zfksX2",
    "u": "uW4Ie7eXAsQ8uxJecabUvYeQv9bQTUZzgm-DxTQmNz-X2-Y0N",
}


def test_the_identifier_of_hello_world() -> None:
    """The specification's example, byte for byte."""
    assert BlobId.of(HELLO).to_bytes().hex() == "5b821e" + HELLO_HASH + "0d"


@pytest.mark.parametrize("base", ["f", "b", "z", "u"])
def test_each_base_reads_back(base: Base) -> None:
    """The same identifier in each of the four bases."""
    assert BlobId.of(HELLO).to_text(base) == GOLDEN[base]
    assert BlobId.parse(GOLDEN[base]) == BlobId.of(HELLO)


@given(st.binary(max_size=80), st.sampled_from(["f", "b", "z", "u"]))
def test_bytes_survive_every_base(data: bytes, base: Base) -> None:
    """Leading zeros, the empty string and everything else."""
    assert multibase.decode(multibase.encode(data, base)) == data


@given(st.text(max_size=40))
def test_what_is_no_multibase_is_refused_by_name(text: str) -> None:
    """No text raises anything else, and what is read is written the same way again."""
    try:
        data = multibase.decode(text)
    except FabstirError as refused:
        if refused.code != "storage_id_malformed":
            raise
        return
    assert multibase.encode(data, text[0]) == text  # type: ignore[arg-type]


@given(st.integers(0, 2**64 - 1))
def test_sizes_are_trimmed_and_read_back(size: int) -> None:
    """Little-endian without zero bytes at the end; 0 means that nobody said."""
    blob = BlobId(BlobId.of(HELLO).hash, size)
    assert BlobId.parse(blob.to_bytes()).size == (size or None)


@pytest.mark.parametrize(
    "form",
    ["261f" + HELLO_HASH + "0d", "5b821f" + HELLO_HASH + "0d", "1f" + HELLO_HASH, "1e" + HELLO_HASH],
)
def test_older_forms_are_read(form: str) -> None:
    """What portals of the classic network return names the same blob."""
    assert BlobId.parse(bytes.fromhex(form)).hash.hex() == HELLO_HASH


@pytest.mark.parametrize(
    "form",
    [
        "",
        "5b82",
        "26",
        "1e",
        "5b8212" + HELLO_HASH + "0d",
        "5b821e" + HELLO_HASH[:-2],
        "5b821e" + HELLO_HASH + "0d00",
        "5b821e" + HELLO_HASH + "01" * 9,
        "1e" + HELLO_HASH + "0d",
        "0155" + HELLO_HASH,
    ],
)
def test_other_bytes_are_refused(form: str) -> None:
    """Another hash, a cut hash, a size with zeros at its end, a long size, another kind."""
    with pytest.raises(FabstirError) as caught:
        BlobId.parse(bytes.fromhex(form))
    assert caught.value.code == "storage_id_malformed"


def test_on_the_wire_the_legacy_byte() -> None:
    """Peers are asked with 1f; tools of the IPFS kind get a CIDv1."""
    blob = BlobId.of(HELLO)
    assert blob.wire_hash().hex() == "1f" + HELLO_HASH
    assert multibase.decode(blob.cid_v1()).hex() == "01551e20" + HELLO_HASH
