"""Key files of the roles, and where the password of an encrypted one comes from. Prints no key and no password.

The password is $FABSTIR_KEY_PASSWORD (for services), or it is asked for on a terminal. On the devnet a key is plain
unless one is given.
"""

from __future__ import annotations

import getpass
import os
import sys
from pathlib import Path
from typing import Final

from fabstir.chain.keys import DEVNET_ID, load_key, new_key
from fabstir.domain.errors import error
from fabstir.ops.config import Config, Role

PASSWORD_VARIABLE: Final = "FABSTIR_KEY_PASSWORD"  # noqa: S105 - the name of the variable


def key_file(config: Config, role: Role) -> Path:
    """Where the role's key is, by the settings."""
    files = {"host": config.host.key_file, "renter": config.renter.key_file, "arbiter": config.arbiter.key_file}
    return files[role]


def read_key(config: Config, role: Role) -> bytes:
    """The role's key. Takes about a second where it is encrypted. Raises LocalFault (`key_missing`, `key_invalid`)."""
    return read_key_file(key_file(config, role), config.chain.chain_id)


def read_key_file(path: Path, chain_id: int) -> bytes:
    """The key in `path`, as `read_key`."""
    return load_key(path, _password(path) if _is_encrypted(path) else None, chain_id=chain_id)


def make_key(config: Config, role: Role) -> bytes:
    """A new key in the role's file; never replaces one. Raises LocalFault (`key_invalid`)."""
    return make_key_file(key_file(config, role), config.chain.chain_id)


def make_key_file(path: Path, chain_id: int) -> bytes:
    """A new key in `path`, as `make_key`."""
    if path.exists():
        raise error(
            "key_invalid", f"{path} exists and is not replaced", "Use it, or name another file in the settings."
        )
    encrypt = chain_id != DEVNET_ID or bool(os.environ.get(PASSWORD_VARIABLE))
    return new_key(path, _password(path, twice=True) if encrypt else None, chain_id=chain_id)


def _is_encrypted(path: Path) -> bool:
    """Whether `load_key` will want a password; whatever else is wrong with the file, it says."""
    try:
        with path.open("rb") as file:
            return file.read(1) == b"{"
    except OSError:
        return False


def _password(path: Path, *, twice: bool = False) -> str:
    given = os.environ.get(PASSWORD_VARIABLE)
    if given:
        return given
    if not sys.stdin.isatty():
        detail = f"{path} needs a password and there is no terminal to ask on"
        raise error("key_invalid", detail, f"Set ${PASSWORD_VARIABLE}.")
    password = getpass.getpass(f"Password of {path}: ")
    if twice and getpass.getpass("The same again: ") != password:
        raise error("key_invalid", "the two passwords differ", "Nothing was written; run it again.")
    return password
