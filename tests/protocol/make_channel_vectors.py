"""Writes the golden vectors of the encrypted channel: `python tests/protocol/make_channel_vectors.py` from the repository's root.

A second implementation, for whoever writes another SDK: X25519 (RFC 7748), ChaCha20 and Poly1305 (RFC 8439) and HChaCha20
(draft-irtf-cfrg-xchacha) as they are written there, BLAKE2b from hashlib, EIP-712 from eth_account; nothing of fabstir and nothing
of libsodium, so that the product is compared with the specification and not with itself. Slow, and not for secrets.
"""

from __future__ import annotations

import json
import struct
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final

from eth_account import Account
from eth_account.messages import encode_typed_data

TARGET: Final = Path(__file__).parent / "vectors" / "channel.json"
CHAIN_ID: Final = 31337
MARKET: Final = bytes([0x0A]) * 20
HOST_KEY: Final = bytes([1]) * 32
RENTER_SECRET: Final = bytes(range(32))
HOST_SECRET: Final = bytes(range(100, 132))
PERSON: Final = b"fabstir/chan/1"
UPDATE_EVERY: Final = 1024
SHOWN: Final = (0, 1, 2, 1023, 1024, 2048)
"""Frames of each direction that are written down: the first, and those around two updates of the key."""
P: Final = 2**255 - 19


def x25519(scalar: bytes, point: bytes) -> bytes:
    """RFC 7748, 5."""
    k = (int.from_bytes(scalar, "little") & ~7 & ~(1 << 255)) | 1 << 254
    x1 = int.from_bytes(point, "little") & ~(1 << 255)
    x2, z2, x3, z3, swap = 1, 0, x1, 1, 0
    for t in range(254, -1, -1):
        if swap ^ (swap := k >> t & 1):
            x2, x3, z2, z3 = x3, x2, z3, z2
        a, b, c, d = x2 + z2, x2 - z2, x3 + z3, x3 - z3
        aa, bb, da, cb = a * a % P, b * b % P, d * a % P, c * b % P
        x3, z3 = (da + cb) ** 2 % P, x1 * (da - cb) ** 2 % P
        e = aa - bb
        x2, z2 = aa * bb % P, e * (aa + 121665 * e) % P
    if swap:
        x2, z2 = x3, z3
    return (x2 * pow(z2, P - 2, P) % P).to_bytes(32, "little")


def rounds(state: list[int]) -> list[int]:
    """The twenty rounds of ChaCha20 (RFC 8439, 2.3), without the addition at their end."""
    s = list(state)

    def quarter(a: int, b: int, c: int, d: int) -> None:
        for x, y, z, turn in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
            s[x] = (s[x] + s[y]) & 0xFFFFFFFF
            s[z] ^= s[x]
            s[z] = (s[z] << turn | s[z] >> 32 - turn) & 0xFFFFFFFF

    for _ in range(10):
        for n in range(4):
            quarter(n, 4 + n, 8 + n, 12 + n)
        for n in range(4):
            quarter(n, 4 + (n + 1) % 4, 8 + (n + 2) % 4, 12 + (n + 3) % 4)
    return s


def words(data: bytes) -> list[int]:
    return list(struct.unpack(f"<{len(data) // 4}I", data))


def chacha20(key: bytes, counter: int, nonce: bytes, data: bytes) -> bytes:
    """RFC 8439, 2.4."""
    out = bytearray()
    for at in range(0, len(data), 64):
        state = [*words(b"expand 32-byte k" + key), counter + at // 64, *words(nonce)]
        stream = struct.pack("<16I", *((a + b) & 0xFFFFFFFF for a, b in zip(rounds(state), state, strict=True)))
        out += bytes(a ^ b for a, b in zip(data[at : at + 64], stream, strict=False))
    return bytes(out)


def poly1305(key: bytes, message: bytes) -> bytes:
    """RFC 8439, 2.5."""
    r = int.from_bytes(key[:16], "little") & 0x0FFFFFFC0FFFFFFC0FFFFFFC0FFFFFFF
    total = 0
    for at in range(0, len(message), 16):
        total = (total + int.from_bytes(message[at : at + 16] + b"\x01", "little")) * r % (2**130 - 5)
    return ((total + int.from_bytes(key[16:], "little")) % 2**128).to_bytes(16, "little")


def xchacha20_poly1305(key: bytes, nonce: bytes, plain: bytes, aad: bytes) -> bytes:
    """draft-irtf-cfrg-xchacha, 2.3: a key by HChaCha20 from the first 16 bytes of the nonce, then RFC 8439, 2.8."""
    state = rounds(words(b"expand 32-byte k" + key + nonce[:16]))
    subkey, short = struct.pack("<8I", *state[:4], *state[12:]), bytes(4) + nonce[16:]
    sealed = chacha20(subkey, 1, short, plain)
    filled = b"".join(part + bytes(-len(part) % 16) for part in (aad, sealed))
    lengths = struct.pack("<QQ", len(aad), len(sealed))
    return sealed + poly1305(chacha20(subkey, 0, short, bytes(32)), filled + lengths)


# -- the channel ------------------------------------------------------------------------------------------------------------------


def derive(key: bytes, label: bytes) -> bytes:
    return blake2b(label, digest_size=32, key=key, person=PERSON).digest()


def padded(content: bytes) -> bytes:
    size = 512
    while size < len(content) + 1:
        size = size * 2 if size < 16384 else size + 16384
    return content + b"\x80" + bytes(size - len(content) - 1)


def frame(key: bytes, sender: bytes, n: int, kind: int, content: bytes) -> bytes:
    header = b"\x01" + struct.pack(">Q", n)
    sealed = xchacha20_poly1305(key, bytes(16) + header[1:], padded(bytes([kind]) + content), PERSON + sender + header)
    return header + sealed


def signed(renter_key: bytes, host_key: bytes) -> tuple[bytes, bytes, bytes]:
    """Digest, signature and address of the host."""
    typed = {
        "types": {
            "EIP712Domain": [
                {"name": "name", "type": "string"},
                {"name": "version", "type": "string"},
                {"name": "chainId", "type": "uint256"},
                {"name": "verifyingContract", "type": "address"},
            ],
            "Channel": [
                {"name": "protocol", "type": "uint32"},
                {"name": "renterKey", "type": "bytes32"},
                {"name": "hostKey", "type": "bytes32"},
            ],
        },
        "primaryType": "Channel",
        "domain": {
            "name": "FabstirMarket",
            "version": "2",
            "chainId": CHAIN_ID,
            "verifyingContract": "0x" + MARKET.hex(),
        },
        "message": {"protocol": 1, "renterKey": renter_key, "hostKey": host_key},
    }
    done = Account.sign_message(encode_typed_data(full_message=typed), HOST_KEY)
    return bytes(done.message_hash), bytes(done.signature), bytes.fromhex(Account.from_key(HOST_KEY).address[2:])


def frames(root: bytes, sender: bytes) -> list[dict[str, Any]]:
    """SHOWN, and after the last of them the end."""
    key, shown = derive(root, sender), []
    for n in range(max(SHOWN) + 2):
        if n and n % UPDATE_EVERY == 0:
            key = derive(key, b"next")
        kind, text = (0, f"message {n} of the {sender.decode()} é 漢") if n in SHOWN else (1, "ended")
        if n in SHOWN or n > max(SHOWN):
            sealed = frame(key, sender, n, kind, text.encode())
            shown.append({"n": n, "key": hexed(key), "kind": kind, "content": text, "frame": hexed(sealed)})
    return shown


def hexed(value: bytes) -> str:
    return "0x" + value.hex()


def vectors() -> dict[str, Any]:
    """Everything, from two secrets and the host's key."""
    base = (9).to_bytes(32, "little")
    renter, host = x25519(RENTER_SECRET, base), x25519(HOST_SECRET, base)
    shared = x25519(RENTER_SECRET, host)
    assert shared == x25519(HOST_SECRET, renter)
    digest, signature, account = signed(renter, host)
    root = derive(shared, b"root" + digest + account)
    ready = {"type": "channel_ready", "protocol": 1, "key": hexed(host), "signature": hexed(signature)}
    return {
        "chain_id": CHAIN_ID,
        "market": hexed(MARKET),
        "host_account_key": hexed(HOST_KEY),
        "host": hexed(account),
        "renter_secret": hexed(RENTER_SECRET),
        "host_secret": hexed(HOST_SECRET),
        "channel_open": compact({"type": "channel_open", "protocol": 1, "key": hexed(renter)}),
        "channel_ready": compact(ready),
        "digest": hexed(digest),
        "shared": hexed(shared),
        "root": hexed(root),
        "renter_frames": frames(root, b"renter"),
        "host_frames": frames(root, b"host"),
        "buckets": [[size, len(padded(bytes(size - 1)))] for size in (1, 512, 513, 1024, 1025, 16384, 16385, 99999)],
    }


def compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def file() -> str:
    """The file, as it should be."""
    return json.dumps(vectors(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    TARGET.write_text(file(), "utf-8")
