"""Key files: one secp256k1 key in one file of mode 0600.

Two forms. Encrypted: Web3 Secret Storage (JSON, scrypt), which every Ethereum wallet reads. Plain: 0x-prefixed
hexadecimal, allowed on the devnet only, where money is play money. Raises `key_missing`, `key_invalid`. Never logs,
prints or returns a key to anybody but its caller. Who sends with a key holds its file (`held`), so that a second
program on this machine is refused before it sends anything.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from fabstir.domain.errors import error
from fabstir.protocol.signing import SigningKey

KEY_BYTES: Final = 32
DEVNET_ID: Final = 31337
OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


def load_key(path: Path, password: str | None = None, *, chain_id: int) -> bytes:
    """The key in `path`. An encrypted one takes about a second (scrypt): call it in a thread from a running loop."""
    try:
        mode = path.stat().st_mode
        content = path.read_text(encoding="utf-8").strip()
    except FileNotFoundError as cause:
        raise error("key_missing", detail=str(path)) from cause
    except (OSError, UnicodeDecodeError) as cause:
        raise error("key_invalid", detail=f"{path}: {cause}") from cause
    if mode & OTHERS:
        detail = f"{path} may be read by others (mode {stat.S_IMODE(mode):04o})"
        raise error("key_invalid", detail=detail, next_step=f"Run: chmod 600 {path}")
    if content.startswith("{"):
        return _checked(_decrypt(path, content, password), path)
    if chain_id != DEVNET_ID:
        detail = f"{path} is not encrypted, which is for chain {DEVNET_ID} only; this is {chain_id}"
        raise error("key_invalid", detail=detail, next_step="Make one with `fabstir wallet new`, or encrypt yours.")
    return _checked(_hexadecimal(path, content), path)


@contextlib.contextmanager
def held(path: Path) -> Iterator[None]:
    """Hold the file against every other holder on this machine. Raises `key_in_use`, `key_missing`, `key_invalid`.

    The lock is on the key file itself, whatever its name or mount, and the kernel drops it when the process ends.
    """
    try:
        file = os.open(path, os.O_RDONLY)
    except FileNotFoundError as cause:
        raise error("key_missing", detail=str(path)) from cause
    except OSError as cause:
        raise error("key_invalid", detail=f"{path}: {cause}") from cause
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as cause:
            raise error("key_in_use", detail=f"{path} is held by another process on this machine") from cause
        except OSError as cause:
            raise error("key_invalid", detail=f"{path} cannot be locked: {cause}") from cause
        yield
    finally:
        os.close(file)


def new_key(path: Path, password: str | None = None, *, chain_id: int) -> bytes:
    """Make a random key and write it, encrypted where a password is given. Never replaces a file."""
    key = secrets.token_bytes(KEY_BYTES)
    save_key(path, key, password, chain_id=chain_id)
    return key


def save_key(path: Path, key: bytes, password: str | None = None, *, chain_id: int) -> None:
    """Write `key`, encrypted where a password is given; plain only on the devnet. Never replaces a file."""
    _checked(key, path)
    if password is None and chain_id != DEVNET_ID:
        raise error("key_invalid", detail=f"chain {chain_id} needs an encrypted key file", next_step="Give a password.")
    content = f"0x{key.hex()}\n" if password is None else _encrypt(key, password)
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError as cause:
        detail = f"{path} exists and is not replaced"
        raise error("key_invalid", detail=detail, next_step="Use it, or name another file.") from cause
    except OSError as cause:
        raise error("key_invalid", detail=f"{path}: {cause}") from cause


def _hexadecimal(path: Path, content: str) -> bytes:
    try:
        return bytes.fromhex(content.removeprefix("0x"))
    except ValueError as cause:
        raise error("key_invalid", detail=f"{path} is neither hexadecimal nor Web3 Secret Storage") from cause


def _checked(key: bytes, path: Path) -> bytes:
    try:
        if len(key) != KEY_BYTES:
            raise ValueError(f"{len(key)} bytes")
        SigningKey(key)
    except ValueError as cause:
        raise error("key_invalid", detail=f"{path} holds no secp256k1 key") from cause
    return key


def _decrypt(path: Path, content: str, password: str | None) -> bytes:
    from eth_keyfile.keyfile import decode_keyfile_json  # noqa: PLC0415 - 0.7 s, and most commands read no key

    if password is None:
        raise error("key_invalid", detail=f"{path} is encrypted and no password was given")
    try:
        return bytes(decode_keyfile_json(json.loads(content), password.encode()))
    except (ValueError, KeyError, TypeError, NotImplementedError) as cause:
        raise error("key_invalid", detail=f"{path}: wrong password, or no Web3 Secret Storage of version 3") from cause


def _encrypt(key: bytes, password: str) -> str:
    from eth_keyfile.keyfile import create_keyfile_json  # noqa: PLC0415 - as above

    return json.dumps(create_keyfile_json(key, password.encode(), kdf="scrypt"), indent=2) + "\n"
