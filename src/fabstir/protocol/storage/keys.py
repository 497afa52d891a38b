"""Every key of a storage identity, derived from 16 secret bytes. Nothing is derived from anything public.

    derive_int(base, n) = BLAKE3(base | n as 32 bytes, little-endian)        derive_str(base, s) = BLAKE3(base | BLAKE3(s))
    main = derive_int(BLAKE3(entropy), 0)
    public = derive_int(derive_int(main, 1), 0)      -> signing 2, encryption 3, resolver 4
    private = derive_int(derive_int(main, 64), 0)    -> portal accounts 65, hidden database 66, file system root 67

as the S5 identity does. A directory has two secrets. Its *write key* is the seed of the Ed25519 key under which its pointer is
published; a child's is derive_str(parent's write key, name). Its *read key* opens its content and, by the same derivation, that of
everything below it. Whoever has a read key reads that subtree and can neither change it nor read beside or above it; a registry's
public key gives neither. Specification: docs.sfive.net/spec/key-derivation, docs/explanation/storage.md.
"""

from __future__ import annotations

from typing import Final

import msgspec
import nacl.bindings as sodium
import nacl.exceptions
from blake3 import blake3

KEY: Final = 32
ED25519: Final = 0xED
"""The byte in front of a public key in S5."""
SEAL: Final = 0x5E
"""The number by which a read key gives the key that seals a directory's blobs."""
_MAIN, _PUBLIC, _PRIVATE = 0, 1, 64
_FIRST_ROTATION: Final = 0


def derive_int(base: bytes, number: int) -> bytes:
    """A key below `base`, by number."""
    return blake3(_whole(base) + number.to_bytes(KEY, "little")).digest()


def derive_str(base: bytes, name: bytes) -> bytes:
    """A key below `base`, by name."""
    return blake3(_whole(base) + blake3(name).digest()).digest()


def _whole(base: bytes) -> bytes:
    if len(base) != KEY:
        raise ValueError(f"a key of {len(base)} bytes")
    return base


class KeyPair:
    """An Ed25519 key. `public` has S5's type byte in front. Never shows its secret."""

    def __init__(self, seed: bytes) -> None:
        """From 32 secret bytes."""
        public, self._secret = sodium.crypto_sign_seed_keypair(_whole(seed))
        self.public: Final = bytes((ED25519,)) + public

    def __repr__(self) -> str:
        return f"<KeyPair {self.public.hex()[:10]}>"

    def sign(self, message: bytes) -> bytes:
        """64 bytes."""
        return sodium.crypto_sign(message, self._secret)[: sodium.crypto_sign_BYTES]


def is_signed_by(public: bytes, message: bytes, signature: bytes) -> bool:
    """Whether `public` (with its type byte) made `signature` over `message`."""
    if len(public) != KEY + 1 or public[0] != ED25519 or len(signature) != sodium.crypto_sign_BYTES:
        return False
    try:
        sodium.crypto_sign_open(signature + message, public[1:])
    except nacl.exceptions.BadSignatureError:
        return False
    return True


class DirectoryKeys:
    """The keys of one directory. Without a write key it can only be read, and its public key has to be known otherwise."""

    __slots__ = ("_pair", "_write", "public", "read", "seal")

    def __init__(self, read: bytes, *, write: bytes | None = None, public: bytes | None = None) -> None:
        """With `write`, or with `public` alone."""
        self._write = write
        self._pair = KeyPair(write) if write is not None else None
        known = self._pair.public if self._pair else public
        if known is None:
            raise ValueError("neither a write key nor a public key")
        self.public: Final = known
        self.read: Final = _whole(read)
        self.seal: Final = derive_int(read, SEAL)

    def __repr__(self) -> str:
        return f"<DirectoryKeys {self.public.hex()[:10]} {'read and write' if self._pair else 'read only'}>"

    @property
    def pair(self) -> KeyPair | None:
        """What signs its pointer; None where the directory can only be read."""
        return self._pair

    def child(self, name: str, public: bytes | None = None) -> DirectoryKeys:
        """The keys of a directory in this one. `public`, from the entry, is needed (and used) only without a write key."""
        raw = name.encode()
        read = derive_str(self.read, raw)
        if self._write is not None:
            return DirectoryKeys(read, write=derive_str(self._write, raw))
        return DirectoryKeys(read, public=public)


class Identity(msgspec.Struct, frozen=True):
    """The keys that S5 derives for a person. `repr` shows none."""

    signing: bytes
    encryption: bytes
    portal_accounts: bytes
    hidden_database: bytes
    file_system: bytes

    @classmethod
    def of(cls, entropy: bytes) -> Identity:
        """From the 16 bytes of a seed phrase."""
        main = derive_int(blake3(entropy).digest(), _MAIN)
        public = derive_int(derive_int(main, _PUBLIC), _FIRST_ROTATION)
        private = derive_int(derive_int(main, _PRIVATE), _FIRST_ROTATION)
        return cls(
            signing=derive_int(public, 2),
            encryption=derive_int(public, 3),
            portal_accounts=derive_int(private, 65),
            hidden_database=derive_int(private, 66),
            file_system=derive_int(private, 67),
        )

    def __repr__(self) -> str:
        return f"<Identity {KeyPair(self.signing).public.hex()[:10]}>"

    def root(self) -> DirectoryKeys:
        """The keys of the root of its file system."""
        write = derive_int(self.file_system, 1)
        return DirectoryKeys(derive_int(write, 1), write=write)
