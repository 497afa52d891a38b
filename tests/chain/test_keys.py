"""Key files: what was saved is loaded, for the owner only, plain only where the money is play money."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from fabstir.chain.keys import load_key, new_key, save_key
from fabstir.domain.errors import LocalFault

KEY = bytes.fromhex("ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80")
BASE = 8453
DEVNET = 31337


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "config" / "host.key"


def _refused(code: str, path: Path, password: str | None = None, chain_id: int = DEVNET) -> str:
    with pytest.raises(LocalFault) as refused:
        load_key(path, password, chain_id=chain_id)
    assert refused.value.code == code
    assert KEY.hex() not in str(refused.value)
    return str(refused.value)


@pytest.mark.usefixtures("quick_scrypt")
@pytest.mark.parametrize(("password", "chain_id"), [(None, DEVNET), ("correct horse", DEVNET), ("correct horse", BASE)])
def test_a_new_key_is_loaded_again(path: Path, password: str | None, chain_id: int) -> None:
    """Random, mode 0600, the same when loaded; encrypted where there is a password."""
    key = new_key(path, password, chain_id=chain_id)
    assert load_key(path, password, chain_id=chain_id) == key
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert (key.hex() in path.read_text()) == (password is None)
    other = path.with_name("other.key")
    assert new_key(other, chain_id=DEVNET) != key


def test_the_encrypted_form_is_the_one_that_wallets_read(path: Path) -> None:
    """Web3 Secret Storage version 3, scrypt as hard as wallets make it; eth_account opens it."""
    from eth_account import Account  # noqa: PLC0415 - slow, and only here

    save_key(path, KEY, "pass", chain_id=BASE)
    stored = json.loads(path.read_text())
    assert (stored["version"], stored["crypto"]["kdf"]) == (3, "scrypt")
    assert stored["crypto"]["kdfparams"]["n"] == 1 << 18
    assert bytes(Account.decrypt(stored, "pass")) == KEY


def test_an_existing_file_is_never_replaced(path: Path) -> None:
    """A lost key is lost money."""
    save_key(path, KEY, chain_id=DEVNET)
    with pytest.raises(LocalFault, match="not replaced"):
        new_key(path, chain_id=DEVNET)
    assert load_key(path, chain_id=DEVNET) == KEY


def test_plain_keys_are_for_the_devnet_only(path: Path) -> None:
    """Neither written nor read for another chain."""
    with pytest.raises(LocalFault, match="key_invalid"):
        save_key(path, KEY, chain_id=BASE)
    assert not path.exists()
    save_key(path, KEY, chain_id=DEVNET)
    assert "not encrypted" in _refused("key_invalid", path, chain_id=BASE)


@pytest.mark.usefixtures("quick_scrypt")
def test_a_wrong_or_missing_password_is_refused(path: Path) -> None:
    """And says so."""
    save_key(path, KEY, "right", chain_id=BASE)
    assert "wrong password" in _refused("key_invalid", path, "wrong", BASE)
    assert "no password" in _refused("key_invalid", path, None, BASE)


def test_a_file_that_others_may_read_is_refused(path: Path) -> None:
    """With the command that mends it."""
    save_key(path, KEY, chain_id=DEVNET)
    path.chmod(0o640)
    assert f"chmod 600 {path}" in _refused("key_invalid", path)


@pytest.mark.parametrize(
    "content", ["", "0x12", "0x" + "00" * 32, "0x" + "ff" * 32, "words", "{}", '{"version": 3}', "[1]", b"\xff\xfe\x00"]
)
def test_what_is_no_key_is_refused(path: Path, content: str | bytes) -> None:
    """Too short, zero, above the order, text, broken JSON, binary."""
    path.parent.mkdir()
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    path.chmod(0o600)
    _refused("key_invalid", path, "password")


def test_a_missing_file_has_a_code_of_its_own(path: Path) -> None:
    """`key_missing` tells how to make one."""
    assert "fabstir wallet new" in _refused("key_missing", path)
