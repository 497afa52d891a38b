"""An encrypted channel between renter and host, under the session protocol, whoever ends TLS in between. Sans-IO.

    renter -> host  channel_open   protocol, ephemeral key E_r
    host -> renter  channel_ready  protocol, ephemeral key E_h, signature by the host's account over Channel(protocol, E_r, E_h)

    digest   = EIP-712 Channel(uint32 protocol,bytes32 renterKey,bytes32 hostKey), domain of the market
    root     = BLAKE2b-256("root" | digest | host's address, key = X25519(E_r, E_h))
    key_0    = BLAKE2b-256("renter" or "host", key = root)               one for each direction, by who sends
    key_i+1  = BLAKE2b-256("next", key = key_i)                          after each UPDATE_EVERY frames
    frame    = 0x01 | n (8) | XChaCha20-Poly1305(key, nonce = 0 (16) | n (8), aad = "fabstir/chan/1" | who sends | 0x01 | n, padded)
    padded   = kind (1) | content | 0x80 | zeros up to the bucket        kind: 0 a message, 1 the end

It decides whom a renter talks to (the account that the terms pay), and that frames arrive whole, once, in order and to the end;
the first that does not ends the channel. It never compresses, never draws randomness (the caller gives 32 fresh bytes), and
never sees what a message means. Why it is made this way: docs/explanation/encryption.md; golden vectors:
tests/protocol/vectors/channel.json. Primitives: libsodium through PyNaCl.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Final

import msgspec
import nacl.bindings as sodium
import nacl.exceptions

from fabstir.domain.errors import FabstirError, error
from fabstir.domain.ids import Address, Hash32, from_hex, to_hex
from fabstir.protocol.messages import Hex32, Signature, encode
from fabstir.protocol.signing import Market, SigningKey, recover

CHANNEL_VERSION: Final = 1
MAGIC: Final = 0x01
"""First byte of every frame; no JSON begins with it."""
UPDATE_EVERY: Final = 1024
"""Frames of one direction under one key; the key before cannot be computed from the next."""
SMALLEST_BUCKET: Final = 512
LARGEST_STEP: Final = 16_384
"""Above this size buckets no longer double: they are its multiples."""
INTEGRITY_FAULTS: Final = frozenset(("channel_tampered", "channel_replayed", "channel_gap"))
"""A frame is not the one that the peer sent next: no network does that by itself, somebody or something in between does."""
_KEY: Final = 32
_TAG: Final = 16
_HEADER: Final = 9
_PERSON: Final = b"fabstir/chan/1"
_MESSAGE: Final = b"\x00"
_END: Final = b"\x01"
_RENTER: Final = b"renter"
_HOST: Final = b"host"


class ChannelOpen(msgspec.Struct, frozen=True, kw_only=True, tag="channel_open"):
    """Begin an encrypted channel: the first message of a connection, a text frame. Answered by `channel_ready` or `error`."""

    protocol: int = CHANNEL_VERSION
    """Version of the channel; one of those in the host's offer."""
    key: Hex32
    """X25519 public key, made for this connection alone."""


class ChannelReady(msgspec.Struct, frozen=True, kw_only=True, tag="channel_ready"):
    """The channel stands: every later message, in both directions, is a frame. The last text frame of the connection."""

    protocol: int
    key: Hex32
    """X25519 public key, made for this connection alone."""
    signature: Signature
    """By the host's account (EIP-712 `Channel`): it and nobody in between made `key`, and has seen the renter's."""


_open: Final[msgspec.json.Decoder[ChannelOpen]] = msgspec.json.Decoder(ChannelOpen)
_ready: Final[msgspec.json.Decoder[ChannelReady]] = msgspec.json.Decoder(ChannelReady)


class _Tag(msgspec.Struct):
    type: str = ""


_tag: Final = msgspec.json.Decoder(_Tag)


class Ended(msgspec.Struct, frozen=True):
    """The peer sent its last frame: nothing was cut off behind it."""

    code: str


class Channel:
    """Both directions of one connection. Memory: two keys, two counters.

    What does not open ends it: from then on `open` raises the same fault.
    """

    def __init__(self, root: bytes, own: bytes, other: bytes) -> None:
        self._sending = _Direction(root, own)
        self._receiving = _Direction(root, other)
        self._fault: FabstirError | None = None

    def __repr__(self) -> str:
        return f"<Channel {self._sending.n} out, {self._receiving.n} in{', broken' if self._fault else ''}>"

    def seal(self, message: bytes) -> bytes:
        """The next frame, with `message` in it. Frames must be sent in the order in which they are made."""
        return self._sending.seal(_MESSAGE, message)

    def end(self, code: str) -> bytes:
        """The last frame: says that nothing follows, and why."""
        return self._sending.seal(_END, code.encode())

    def open(self, frame: bytes | str) -> bytes | Ended:
        """What the next frame holds. Raises Interrupted (`channel_replayed`, `channel_gap`, `channel_tampered`)."""
        if self._fault is None:
            try:
                return self._receiving.open(frame)
            except FabstirError as fault:
                self._fault = fault
        raise self._fault


class _Direction:
    """What one side sends: the key of now and the number of the next frame."""

    def __init__(self, root: bytes, sender: bytes) -> None:
        self.n = 0
        self._key = _derive(root, sender)
        self._label = _PERSON + sender

    def seal(self, kind: bytes, content: bytes) -> bytes:
        header = bytes((MAGIC,)) + self.n.to_bytes(8, "big")
        sealed = sodium.crypto_aead_xchacha20poly1305_ietf_encrypt(
            pad(kind + content), self._label + header, bytes(16) + header[1:], self._key
        )
        self._advance()
        return header + sealed

    def open(self, frame: bytes | str) -> bytes | Ended:
        if isinstance(frame, str) or len(frame) < _HEADER + _TAG or frame[0] != MAGIC:
            raise error("channel_tampered", f"{len(frame)} bytes that are no frame, after {self.n} frames")
        n = int.from_bytes(frame[1:_HEADER], "big")
        if n < self.n:
            raise error("channel_replayed", f"frame {n}, {self.n} is next")
        if n > self.n:
            raise error("channel_gap", f"frame {n}, {self.n} is next")
        try:
            padded = sodium.crypto_aead_xchacha20poly1305_ietf_decrypt(
                frame[_HEADER:], self._label + frame[:_HEADER], bytes(16) + frame[1:_HEADER], self._key
            )
        except nacl.exceptions.CryptoError as cause:
            raise error("channel_tampered", f"frame {n} does not open") from cause
        self._advance()
        return _content(unpad(padded), n)

    def _advance(self) -> None:
        self.n += 1
        if self.n % UPDATE_EVERY == 0:
            self._key = _derive(self._key, b"next")


class RenterHandshake:
    """The renter's side, used once: send `opening`, give the answer to `finish`."""

    def __init__(self, market: Market, host: Address, entropy: bytes) -> None:
        """`host` is the account that the terms pay; `entropy` 32 fresh random bytes."""
        self._market = market
        self._host = host
        self._secret = _secret(entropy)
        self._public = sodium.crypto_scalarmult_base(entropy)
        self.opening: Final = encode(ChannelOpen(key=to_hex(self._public)))

    def __repr__(self) -> str:
        return f"<RenterHandshake with 0x{self._host.hex()[:8]}>"

    def finish(self, answer: bytes | str) -> Channel:
        """The channel. Raises Refused (`channel_refused`) where the other side declines or answers something else, PeerFault
        (`channel_untrusted`) where it is not the host."""
        try:
            ready = _ready.decode(answer)
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            raise error("channel_refused", _declined(answer)) from None
        if ready.protocol != CHANNEL_VERSION:
            raise error("channel_refused", f"it speaks channel {ready.protocol}, asked was {CHANNEL_VERSION}")
        other = from_hex(ready.key, _KEY)
        digest = self._market.channel_digest(CHANNEL_VERSION, Hash32(self._public), Hash32(other))
        if recover(digest, from_hex(ready.signature, 65)) != self._host:
            raise error("channel_untrusted", f"not signed by {to_hex(self._host)}")
        shared = _shared(self._secret, other, "channel_untrusted")
        return Channel(_root(shared, digest, self._host), _RENTER, _HOST)


def opens_channel(message: bytes | str) -> bool:
    """Whether a connection's first message asks for a channel."""
    try:
        return _tag.decode(message).type == "channel_open"
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return False


def accept(opening: bytes | str, market: Market, key: SigningKey, entropy: bytes) -> tuple[bytes, Channel]:
    """The host's side: what is answered, and the channel. `key` is the account's, `entropy` 32 fresh random bytes.

    Raises PeerFault (`message_malformed`), Refused (`channel_refused`).
    """
    try:
        asked = _open.decode(opening)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as fault:
        raise error("message_malformed", f"channel_open: {fault}"[:200]) from None
    if asked.protocol != CHANNEL_VERSION:
        raise error("channel_refused", f"this host speaks channel {CHANNEL_VERSION}")
    other, public = from_hex(asked.key, _KEY), sodium.crypto_scalarmult_base(_secret(entropy))
    shared = _shared(entropy, other, "message_malformed")
    digest = market.channel_digest(CHANNEL_VERSION, Hash32(other), Hash32(public))
    ready = ChannelReady(protocol=CHANNEL_VERSION, key=to_hex(public), signature=to_hex(key.sign(digest)))
    return encode(ready), Channel(_root(shared, digest, key.address), _HOST, _RENTER)


def is_frame(message: bytes) -> bool:
    """Whether `message` travels as a binary frame."""
    return message[:1] == bytes((MAGIC,))


def bucket(length: int) -> int:
    """Bytes that `length` bytes (kind, content and the mark) are padded to: 512, doubled up to 16 KiB, then multiples of that."""
    if length > LARGEST_STEP:
        return -(-length // LARGEST_STEP) * LARGEST_STEP
    return max(SMALLEST_BUCKET, 1 << (length - 1).bit_length())


def largest_message(frame_bytes: int) -> int:
    """Bytes of the largest message whose frame has at most `frame_bytes`; 0 where none fits."""
    room = frame_bytes - _HEADER - _TAG
    whole = room // LARGEST_STEP * LARGEST_STEP if room >= LARGEST_STEP else 1 << max(room, 1).bit_length() - 1
    return whole - 2 if whole >= SMALLEST_BUCKET else 0


def pad(content: bytes) -> bytes:
    """Content, 0x80, zeros up to the bucket (ISO/IEC 7816-4)."""
    return (content + b"\x80").ljust(bucket(len(content) + 1), b"\0")


def unpad(padded: bytes) -> bytes:
    """The content of `pad`. Raises Interrupted (`channel_tampered`)."""
    content = padded.rstrip(b"\0")
    if content[-1:] != b"\x80" or len(padded) != bucket(len(content)):
        raise error("channel_tampered", "a frame is not padded as it must be")
    return content[:-1]


def _content(data: bytes, n: int) -> bytes | Ended:
    kind, content = data[:1], data[1:]
    if kind == _MESSAGE:
        return content
    if kind != _END:
        raise error("channel_tampered", f"frame {n} is of no known kind")
    return Ended(content.decode("utf-8", "replace")[:64])


def _declined(answer: bytes | str) -> str:
    """What the other side said instead, in our words: its own are a stranger's."""
    try:
        kind = _tag.decode(answer).type
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return "it answered with no message"
    return f"it answered {kind[:40]!r} to channel_open"


def _secret(entropy: bytes) -> bytes:
    if len(entropy) != _KEY:
        raise ValueError(f"{_KEY} bytes of entropy")
    return entropy


def _shared(secret: bytes, other: bytes, code: str) -> bytes:
    """X25519. A point of low order, which would make the result known to everybody, is refused."""
    try:
        return sodium.crypto_scalarmult(secret, other)
    except (nacl.exceptions.CryptoError, RuntimeError) as cause:
        raise error(code, "the public key is no key") from cause


def _root(shared: bytes, digest: bytes, host: Address) -> bytes:
    return _derive(shared, b"root" + digest + host)


def _derive(key: bytes, label: bytes) -> bytes:
    return blake2b(label, digest_size=_KEY, key=key, person=_PERSON).digest()
