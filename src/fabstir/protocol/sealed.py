"""Sealed content: one ciphertext that several recipients can open, and nobody can carry over to another job.

    kek_i  = BLAKE2b-256("fabstir/seal/1", key = X25519(ephemeral, recipient_i), ephemeral | recipient_i)
    header = "FSB1" | ephemeral (32) | commitment (32) | n (1) | n * XChaCha20-Poly1305(kek_i, content key) (48) | nonce (24)
    sealed = header | XChaCha20-Poly1305(content key, nonce, padded content, aad = header | binding)

The commitment is a hash of the content key, which every recipient checks: without it a sender could make one blob that opens
to one prompt for the host and to another for the arbiter, since Poly1305 commits to no key. The binding is the job's salt and
model and the kind of content, so that a blob cannot be replayed. Slots name no recipient. Padding (Padme) leaves the length
known to within 12 %. Never draws randomness: the caller gives 88 fresh random bytes. Primitives: libsodium through PyNaCl.
"""

from __future__ import annotations

import hmac
from enum import Enum
from hashlib import blake2b
from typing import Final

import msgspec
import nacl.bindings as sodium
import nacl.exceptions
from blake3 import blake3

from fabstir.domain.errors import error
from fabstir.domain.ids import Hash32, ModelId
from fabstir.domain.prompts import Cid, PromptTerms

MAGIC: Final = b"FSB1"
KEY: Final = 32
TAG: Final = 16
NONCE: Final = 24
SLOT: Final = KEY + TAG
ENTROPY: Final = KEY + KEY + NONCE
MAX_RECIPIENTS: Final = 255
MAX_CONTENT: Final = 8 << 20
"""Bytes of content: a prompt that fills a context of a million tokens fits."""
_FIXED: Final = len(MAGIC) + KEY + KEY + 1
_ONCE: Final = bytes(NONCE)
"""Each wrapping key wraps one content key, so its nonce needs not differ."""


class Content(Enum):
    """What is sealed; part of the binding, so that a prompt is never taken for a result."""

    PROMPT = b"prompt"
    RESULT = b"result"


class Binding(msgspec.Struct, frozen=True):
    """The job that sealed content belongs to."""

    content: Content
    salt: Hash32
    model_id: ModelId

    @classmethod
    def of(cls, content: Content, terms: PromptTerms) -> Binding:
        """The binding of a prompt or a result of `terms`. The prompt's own CID is part of the terms and so cannot be in it."""
        return cls(content, terms.salt, terms.model_id)

    @property
    def data(self) -> bytes:
        """As it is authenticated."""
        return b"fabstir/seal/1" + self.content.value + self.salt + self.model_id


class SealingKey:
    """An X25519 private key with its public half. Never printed."""

    def __init__(self, secret: bytes) -> None:
        """`secret` is 32 random bytes. Raises ValueError on another length."""
        if len(secret) != KEY:
            raise ValueError(f"a sealing key has {KEY} bytes")
        self._secret = secret
        self.public: Final = sodium.crypto_scalarmult_base(secret)

    def shared(self, other: bytes) -> bytes:
        """X25519 with `other`. Raises `seal_invalid` where that is a point of low order, which would make the secret known."""
        try:
            return sodium.crypto_scalarmult(self._secret, other)
        except (nacl.exceptions.CryptoError, ValueError, TypeError) as cause:
            raise error("seal_invalid", "the public key is no key") from cause

    def __repr__(self) -> str:
        return f"<SealingKey {self.public.hex()[:8]}>"


def cid(sealed: bytes) -> Cid:
    """BLAKE3-256: the address of sealed bytes, and the check of what came from there."""
    return Cid(blake3(sealed).digest())


def check_cid(sealed: bytes, expected: Cid) -> None:
    """Raises `seal_invalid` where `sealed` is not what `expected` names."""
    if not hmac.compare_digest(cid(sealed), expected):
        raise error("seal_invalid", f"content of {len(sealed)} bytes does not have the CID {expected.hex()[:16]}...")


def seal(content: bytes, recipients: tuple[bytes, ...], binding: Binding, entropy: bytes) -> bytes:
    """`content` for each of `recipients` (X25519 public keys, 32 bytes). `entropy` is ENTROPY fresh random bytes, never used again.

    Raises ValueError on a caller's mistake (no or too many or repeated recipients, content too long), `seal_invalid` on a key that is none.
    """
    if not 1 <= len(recipients) <= MAX_RECIPIENTS or len(set(recipients)) != len(recipients):
        raise ValueError(f"1 to {MAX_RECIPIENTS} different recipients")
    if len(content) > MAX_CONTENT:
        raise ValueError(f"at most {MAX_CONTENT} bytes of content")
    if len(entropy) != ENTROPY:
        raise ValueError(f"{ENTROPY} bytes of entropy")
    key, ephemeral, nonce = entropy[:KEY], SealingKey(entropy[KEY : 2 * KEY]), entropy[2 * KEY :]
    slots = [_wrap(key, _kek(ephemeral.shared(to), ephemeral.public, to)) for to in recipients]
    header = b"".join((MAGIC, ephemeral.public, _commitment(key), bytes((len(slots),)), *slots, nonce))
    return header + sodium.crypto_aead_xchacha20poly1305_ietf_encrypt(_pad(content), header + binding.data, nonce, key)


def unseal(sealed: bytes, key: SealingKey, binding: Binding) -> bytes:
    """The content. Raises `seal_not_for_us` where no slot is for `key`, `seal_invalid` where anything else is wrong."""
    if len(sealed) < _FIXED or sealed[: len(MAGIC)] != MAGIC:
        raise error("seal_invalid", f"{len(sealed)} bytes that are not sealed content")
    ephemeral, commitment = sealed[4 : 4 + KEY], sealed[4 + KEY : 4 + 2 * KEY]
    end = _FIXED + SLOT * sealed[_FIXED - 1] + NONCE
    if len(sealed) < end + TAG or len(sealed) > end + TAG + _padded(MAX_CONTENT + 1):
        raise error("seal_invalid", f"{len(sealed)} bytes with {sealed[_FIXED - 1]} recipients")
    kek = _kek(key.shared(ephemeral), ephemeral, key.public)
    content_key = _find(sealed[_FIXED : end - NONCE], kek)
    if not hmac.compare_digest(_commitment(content_key), commitment):
        raise error("seal_invalid", "the content key is not the one that all recipients were given")
    header, body = sealed[:end], sealed[end:]
    try:
        padded = sodium.crypto_aead_xchacha20poly1305_ietf_decrypt(
            body, header + binding.data, header[-NONCE:], content_key
        )
    except nacl.exceptions.CryptoError as cause:
        raise error(
            "seal_invalid", f"changed, or sealed as the {binding.content.name.lower()} of another job"
        ) from cause
    return _unpad(padded)


def _kek(shared: bytes, ephemeral: bytes, recipient: bytes) -> bytes:
    return blake2b(ephemeral + recipient, digest_size=KEY, key=shared, person=b"fabstir/seal/1").digest()


def _commitment(key: bytes) -> bytes:
    return blake2b(b"", digest_size=KEY, key=key, person=b"fabstir/commit/1").digest()


def _wrap(key: bytes, kek: bytes) -> bytes:
    return sodium.crypto_aead_xchacha20poly1305_ietf_encrypt(key, None, _ONCE, kek)


def _find(slots: bytes, kek: bytes) -> bytes:
    for at in range(0, len(slots), SLOT):
        try:
            return sodium.crypto_aead_xchacha20poly1305_ietf_decrypt(slots[at : at + SLOT], None, _ONCE, kek)
        except nacl.exceptions.CryptoError:
            continue
    raise error("seal_not_for_us", f"{len(slots) // SLOT} recipients, and none is this key")


def _padded(length: int) -> int:
    """Padme: the length rounded up so that only its leading bits vary (Nikitin et al., PURBs, PETS 2019)."""
    length = max(length, 256)
    exponent = length.bit_length() - 1
    low = exponent - exponent.bit_length()
    return (length + (1 << low) - 1) >> low << low


def _pad(content: bytes) -> bytes:
    """Content, 0x80, zeros (ISO/IEC 7816-4)."""
    marked = content + b"\x80"
    return marked.ljust(_padded(len(marked)), b"\0")


def _unpad(padded: bytes) -> bytes:
    content = padded.rstrip(b"\0")
    if content[-1:] != b"\x80":
        raise error("seal_invalid", "the padding is missing")
    return content[:-1]
