"""The node's identity: an Ed25519 key in a file of mode 0600 beside the account's key, `host.key` -> `host.identity`.

The file says whose it is: `fabstir-identity 1`, the account, the seed. So both files are backed up and restored as one folder, and an
identity that came back with another account's key is refused instead of announced. Losing it costs nothing but the name under which
peers know the node: a new one is bound to the account by a signature. Never logged, never an argument of a process.
"""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path
from typing import Final

import msgspec
from nacl.signing import SigningKey as NodeSecret

from fabstir.domain.errors import error
from fabstir.domain.ids import Address, address, from_hex, to_hex

SEED_BYTES: Final = 32
_HEADER: Final = "fabstir-identity 1"
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
_LARGEST: Final = 1_024


class NodeIdentity(msgspec.Struct, frozen=True):
    """Never printed."""

    seed: bytes

    def __repr__(self) -> str:
        return f"<NodeIdentity {self.public.hex()[:8]}>"

    @property
    def secret(self) -> NodeSecret:
        """What announcements are signed with."""
        return NodeSecret(self.seed)

    @property
    def public(self) -> bytes:
        """The Ed25519 public key."""
        return bytes(self.secret.verify_key)


def identity_file(key_file: Path) -> Path:
    """Where the identity that belongs to the account in `key_file` lies."""
    return key_file.with_suffix(".identity")


def load_or_make(path: Path, account: Address) -> NodeIdentity:
    """The identity in `path`, made at the first start. Raises LocalFault (`identity_invalid`)."""
    try:
        return NodeIdentity(_read(path, account))
    except FileNotFoundError:
        return _make(path, account)


def _read(path: Path, account: Address) -> bytes:
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            lines = file.read(_LARGEST).decode().split("\n")
    except FileNotFoundError:
        raise
    except (OSError, UnicodeDecodeError) as unreadable:
        raise error("identity_invalid", f"{path}: {unreadable}") from unreadable
    if mode & _OTHERS:
        detail = f"{path} may be read by others (mode {stat.S_IMODE(mode):04o})"
        raise error("identity_invalid", detail, f"Run: chmod 600 {path}")
    try:
        header, owner, seed, rest = lines
        if header != _HEADER or rest:
            raise ValueError("not an identity file")
        whose, key = address(owner), from_hex(seed, SEED_BYTES)
    except ValueError as wrong:
        raise error("identity_invalid", f"{path} holds no identity") from wrong
    if whose != account:
        raise error("identity_invalid", f"{path} belongs to the account {owner}, this node's is {to_hex(account)}")
    return key


def _make(path: Path, account: Address) -> NodeIdentity:
    """Written whole or not at all; never replaces a file."""
    seed = secrets.token_bytes(SEED_BYTES)
    text = f"{_HEADER}\n{to_hex(account)}\n{to_hex(seed)}\n"
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.write(file, text.encode())
            os.fsync(file)
        finally:
            os.close(file)
        os.link(draft, path)  # fails where another process was quicker
    except FileExistsError:
        return NodeIdentity(_read(path, account))
    except OSError as problem:
        raise error("identity_invalid", f"{path}: {problem}") from problem
    finally:
        draft.unlink(missing_ok=True)
    return NodeIdentity(seed)
