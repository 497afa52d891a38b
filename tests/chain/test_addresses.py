"""The address book: one entry per chain, written whole, never guessed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from msgspec.structs import replace

from fabstir.chain import addresses
from fabstir.domain.errors import LocalFault
from fabstir.domain.ids import Address
from fabstir.ports.chain import ChainInfo

INFO = ChainInfo(
    chain_id=31337,
    market=Address(bytes([1]) * 20),
    registry=Address(bytes([2]) * 20),
    models=Address(bytes([3]) * 20),
    proofs=Address(bytes([4]) * 20),
    usdc=Address(bytes([5]) * 20),
    stakes=Address(bytes([6]) * 20),
    board=Address(bytes([10]) * 20),
    delegation=Address(bytes([8]) * 20),
    epochs=Address(bytes([11]) * 20),
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "addresses.json"


def test_entries_are_kept_by_chain(path: Path) -> None:
    """Saving one chain leaves the others; nothing else is left in the directory."""
    assert addresses.load(path, 31337) is None
    other = replace(INFO, chain_id=8453, market=Address(bytes([9]) * 20))
    for info in (INFO, other, replace(INFO, usdc=Address(bytes([7]) * 20))):
        addresses.save(path, info)
    assert addresses.load(path, 31337) == replace(INFO, usdc=Address(bytes([7]) * 20))
    assert addresses.load(path, 8453) == other
    assert [file.name for file in path.parent.iterdir()] == ["addresses.json"]


@pytest.mark.parametrize(
    "content", ["", "[]", '{"31337": {}}', '{"31337": {"market": "0x1"}}', "\xff", '{"31337": 5}'], ids=repr
)
def test_a_file_that_cannot_be_read_is_named(path: Path, content: str) -> None:
    """Never an empty book in the place of a broken one: the next save would lose what is in it."""
    path.parent.mkdir()
    path.write_bytes(content.encode("latin-1"))
    for attempt in (lambda: addresses.load(path, 31337), lambda: addresses.save(path, INFO)):
        with pytest.raises(LocalFault) as refused:
            attempt()
        assert refused.value.code == "config_invalid"
        assert str(path) in refused.value.detail
    assert path.read_bytes() == content.encode("latin-1")


def test_an_address_that_is_none_is_named(path: Path) -> None:
    """With the chain it belongs to."""
    addresses.save(path, INFO)
    path.write_text(path.read_text().replace("0x" + "01" * 20, "0x01"))
    with pytest.raises(LocalFault, match="chain 31337"):
        addresses.load(path, 31337)


def test_a_book_of_earlier_contracts_is_refused_with_the_next_step(path: Path) -> None:
    """It knows no stake, no board, no delegation and no epochs: nothing is guessed for them, and the file stays as it is."""
    addresses.save(path, INFO)
    book = json.loads(path.read_text())
    for name in ("stakes", "board", "delegation", "epochs"):
        del book["31337"][name]
    old = json.dumps(book)
    path.write_text(old)
    with pytest.raises(LocalFault) as refused:
        addresses.load(path, 31337)
    assert refused.value.code == "config_invalid"
    assert str(path) in refused.value.detail and "stakes" in refused.value.detail
    assert "`fabstir devnet`" in refused.value.next_step
    assert path.read_text() == old
