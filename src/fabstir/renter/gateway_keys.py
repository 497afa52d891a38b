"""The API keys of the gateway, in one file beside the renter's journal: who may ask, for how much, how often, which models.

A key is 256 random bits that are shown once; the file has its SHA-256, which leads nobody back to it. Every change replaces the
file whole, under a lock, and a running gateway sees it at the next request. Counts no money (`spending` does) and keeps a key's
id for ever apart from its name: a name that is used again begins with nothing spent.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from fabstir.domain.errors import error
from fabstir.domain.money import BaseUnits

KEYS_FILE: Final = "gateway_keys.json"
PREFIX: Final = "fabstir-"
"""Of every key, so that scanners of secrets find one that strayed."""
NAME: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z"


class KeyCard(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One key."""

    id: Annotated[str, Meta(pattern=r"^[0-9a-f]{16}\Z")]
    """Its spending is counted under this, not under the name."""
    name: Annotated[str, Meta(pattern=NAME)]
    sha256: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
    budget: Annotated[str, Meta(pattern=r"^(0|[1-9][0-9]{0,28})\Z")] | None = None
    """Base units that its requests may cost, ever; None: what the gateway has."""
    per_minute: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None
    """Requests in any 60 seconds; None: no bound."""
    models: tuple[str, ...] | None = None
    """Names or ids; None: every model."""

    @property
    def limit(self) -> BaseUnits | None:
        """The budget as an amount."""
        return None if self.budget is None else BaseUnits(int(self.budget))


class _File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    version: int = 1
    keys: tuple[KeyCard, ...] = ()


class KeyRing:
    """The keys as the file has them now. Memory: one card for each."""

    def __init__(self, path: Path) -> None:
        self._path: Final = path
        self._seen: tuple[int, int, int] | None = None
        self._cards: dict[str, KeyCard] | None = None

    def __repr__(self) -> str:
        return f"<KeyRing {self._path}, {len(self._cards or ())} keys>"

    @property
    def cards(self) -> tuple[KeyCard, ...] | None:
        """Oldest first; None where there is no file, and so no keys are asked for. Raises LocalFault (`config_invalid`): nobody is
        let in by a file that cannot be read.
        """
        try:
            state = self._path.stat()
        except FileNotFoundError:
            self._seen = self._cards = None
            return None
        except OSError as cause:
            raise error("config_invalid", f"{self._path}: {cause.strerror}") from cause
        seen = (state.st_mtime_ns, state.st_size, state.st_ino)
        if seen != self._seen or self._cards is None:
            self._cards = {card.sha256: card for card in read_cards(self._path)}
            self._seen = seen
        return tuple(self._cards.values())

    def find(self, secret: str) -> KeyCard | None:
        """Whose key `secret` is. Raises as `cards`."""
        return (self._cards or {}).get(fingerprint(secret)) if self.cards else None


def fingerprint(secret: str) -> str:
    """What the file has of a key."""
    return sha256(secret.encode()).hexdigest()


def read_cards(path: Path) -> tuple[KeyCard, ...]:
    """Raises LocalFault (`config_invalid`)."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=_File).keys
    except FileNotFoundError:
        return ()
    except (OSError, msgspec.MsgspecError) as cause:
        raise error("config_invalid", f"{path}: {cause}"[:300], "Repair the file, or restore a copy.") from cause


def add_key(
    path: Path,
    name: str,
    *,
    budget: BaseUnits | None = None,
    per_minute: int | None = None,
    models: tuple[str, ...] | None = None,
) -> tuple[KeyCard, str]:
    """Make a key; returns its card and the key itself, which is nowhere else. Raises PeerFault (`request_invalid`), LocalFault."""
    secret = PREFIX + secrets.token_urlsafe(32)
    made = {
        "id": os.urandom(8).hex(),
        "name": name,
        "sha256": fingerprint(secret),
        "budget": None if budget is None else str(budget),
        "per_minute": per_minute,
        "models": models,
    }
    try:
        card = msgspec.convert(made, KeyCard)
    except msgspec.ValidationError as wrong:
        raise error("request_invalid", str(wrong)[:200]) from wrong
    with _held(path):
        cards = read_cards(path)
        if any(other.name == name for other in cards):
            raise error("request_invalid", f"there is a key named {name}", "Choose another name, or revoke it first.")
        _replace(path, (*cards, card))
    return card, secret


def revoke_key(path: Path, name: str) -> KeyCard:
    """Take a key away. Raises PeerFault (`request_invalid`), LocalFault (`config_invalid`)."""
    with _held(path):
        cards = read_cards(path)
        gone = [card for card in cards if name in (card.name, card.id)]
        if not gone:
            raise error("request_invalid", f"there is no key named {name[:64]}", "`fabstir gateway key list` has them.")
        _replace(path, tuple(card for card in cards if card not in gone))
    return gone[0]


@contextmanager
def _held(path: Path) -> Iterator[None]:
    """Alone with the file."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as cause:
        raise error("config_invalid", f"{path}: {cause.strerror}") from cause
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _replace(path: Path, cards: tuple[KeyCard, ...]) -> None:
    new = path.with_name(path.name + ".new")
    try:
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(_File(keys=cards)), indent=2) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except OSError as cause:
        raise error("config_invalid", f"{path}: {cause.strerror}") from cause
