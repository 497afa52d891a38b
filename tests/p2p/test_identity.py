"""The identity file: made once, kept, bound to its account, and refused where anything about it is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from fabstir.domain.errors import FabstirError
from fabstir.domain.ids import Address
from fabstir.p2p.identity import NodeIdentity, identity_file, load_or_make

ACCOUNT = Address(bytes([1]) * 20)


def test_made_once(tmp_path: Path) -> None:
    """The first start makes it, readable by its owner alone; every later one finds the same."""
    path = identity_file(tmp_path / "keys" / "host.key")
    made = load_or_make(path, ACCOUNT)
    assert path.name == "host.identity" and path.stat().st_mode & 0o777 == 0o600
    assert load_or_make(path, ACCOUNT) == made and len(made.public) == 32
    assert [file.name for file in path.parent.iterdir()] == ["host.identity"]
    assert load_or_make(tmp_path / "other.identity", ACCOUNT) != made


def test_restored(tmp_path: Path) -> None:
    """A copy of the file is the whole backup."""
    path = tmp_path / "host.identity"
    made = load_or_make(path, ACCOUNT)
    backup = path.read_bytes()
    path.unlink()
    path.write_bytes(backup)
    path.chmod(0o600)
    assert load_or_make(path, ACCOUNT) == made


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"fabstir-identity 2\n0x" + b"01" * 20 + b"\n0x" + b"02" * 32 + b"\n",
        b"fabstir-identity 1\n0x" + b"01" * 20 + b"\n0x" + b"02" * 31 + b"\n",
        b"fabstir-identity 1\n0x" + b"01" * 20 + b"\n0x" + b"02" * 32 + b"\nmore\n",
        b"fabstir-identity 1\n0x" + b"03" * 20 + b"\n0x" + b"02" * 32 + b"\n",
        b"\xff\xfe",
    ],
    ids=["empty", "version", "short", "more", "another account", "no text"],
)
def test_refused(tmp_path: Path, content: bytes) -> None:
    """A file that is damaged or of another account is refused and never replaced."""
    path = tmp_path / "host.identity"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(FabstirError, match="identity_invalid"):
        load_or_make(path, ACCOUNT)
    assert path.read_bytes() == content


def test_open_to_others(tmp_path: Path) -> None:
    """A file that others may read is refused, with what to do."""
    path = tmp_path / "host.identity"
    load_or_make(path, ACCOUNT)
    path.chmod(0o640)
    with pytest.raises(FabstirError, match="identity_invalid") as refusal:
        load_or_make(path, ACCOUNT)
    assert "chmod 600" in refusal.value.next_step


def test_never_printed() -> None:
    """The representation shows who it is and not the key."""
    assert bytes([7]).hex() * 4 not in repr(NodeIdentity(bytes([7]) * 32))
