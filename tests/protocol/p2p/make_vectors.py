"""Writes the golden vectors of the peer-to-peer part: `python tests/protocol/p2p/make_vectors.py` from the repository's root.

A second implementation: a msgpack writer of thirty lines, `cryptography` for Ed25519, `eth_account` for the account's signature,
and nothing of fabstir, so that the product is compared with the specification and not with itself.
"""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from eth_account import Account
from eth_account.messages import encode_typed_data

TARGET: Final = Path(__file__).parent.parent / "vectors" / "p2p.json"
CHAIN_ID: Final = 31337
MARKET: Final = bytes([0x0A]) * 20
SEED: Final = bytes(range(32))
ACCOUNT_SECRET: Final = bytes([0x11]) * 32
NOW: Final = 1_800_000_000
MODEL: Final = bytes([5]) * 32
PROMPT: Final = bytes([8]) * 32
FEATURES: Final = ["encrypted", "rung:3", "scores"]


def pack(value: Any) -> bytes:
    """Msgpack, the shortest form of everything that is used here."""
    if isinstance(value, int):
        return _pack_int(value)
    if isinstance(value, bytes):
        return _head(len(value), (0xC4, 1), (0xC5, 2)) + value
    if isinstance(value, str):
        data = value.encode()
        return (bytes((0xA0 | len(data),)) if len(data) < 32 else _head(len(data), (0xD9, 1), (0xDA, 2))) + data
    if isinstance(value, list):
        head = bytes((0x90 | len(value),)) if len(value) < 16 else b"\xdc" + struct.pack(">H", len(value))
        return head + b"".join(map(pack, value))
    return bytes((0x80 | len(value),)) + b"".join(pack(key) + pack(item) for key, item in value.items())


def _pack_int(value: int) -> bytes:
    for bound, head, form in (
        (1 << 7, b"", ">B"),
        (1 << 8, b"\xcc", ">B"),
        (1 << 16, b"\xcd", ">H"),
        (1 << 32, b"\xce", ">I"),
    ):
        if value < bound:
            return head + struct.pack(form, value)
    return b"\xcf" + struct.pack(">Q", value)


def _head(size: int, short: tuple[int, int], long: tuple[int, int]) -> bytes:
    code, width = short if size < 256 else long
    return bytes((code,)) + size.to_bytes(width, "big")


def binding(node: bytes, valid_until: int) -> bytes:
    """The account's word for the node key, by eth_account."""
    message = encode_typed_data(
        {"name": "FabstirMarket", "version": "2", "chainId": CHAIN_ID, "verifyingContract": "0x" + MARKET.hex()},
        {"Node": [{"name": "nodeKey", "type": "bytes32"}, {"name": "validUntil", "type": "uint64"}]},
        {"nodeKey": node, "validUntil": valid_until},
    )
    return bytes(Account.sign_message(message, ACCOUNT_SECRET).signature)


def announcement() -> dict[str, str]:
    """One of a host with one model in two currencies."""
    key = Ed25519PrivateKey.from_private_bytes(SEED)
    node = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    account = bytes.fromhex(Account.from_key(ACCOUNT_SECRET).address[2:])
    prices = [[bytes([4]) * 20, (200_000).to_bytes(12, "big")], [bytes(20), (10**21).to_bytes(12, "big")]]
    body = pack(
        [
            *(CHAIN_ID, MARKET, node, account, NOW + 86_400, binding(node, NOW + 86_400)),
            *(NOW * 1000 + 7, NOW + 900, "https://host.example:8443", ["/ip4/203.0.113.7/tcp/4001"], "DE-BY"),
            *(FEATURES, 8, 3, [[MODEL, "tiny-chat", "Q4_K_M", 4096, prices]]),
        ]
    )  # fmt: skip
    raw = pack([1, body, key.sign(b"fabstir/announce/1\n" + body)])
    return {"raw": raw.hex(), "node": node.hex(), "account": account.hex(), "body": body.hex()}


def provider_keys() -> dict[str, str]:
    """Of a model and of a capability, shard 3."""
    place = b"fabstir/provider/1\n" + CHAIN_ID.to_bytes(8, "big") + MARKET + b"\x03"
    return {
        "model": "1220" + hashlib.sha256(place + b"model\n" + MODEL).hexdigest(),
        "capability": "1220" + hashlib.sha256(place + b"capability\nregion:DE").hexdigest(),
    }


def frames() -> dict[str, str]:
    """One of each message."""
    amount, transcript, signature = (5).to_bytes(12, "big"), bytes([9]) * 32, bytes([7]) * 65
    paid = {"prompt": PROMPT, "tokens": 42, "amount": amount, "transcript": transcript, "signature": signature}
    messages: list[dict[str, Any]] = [
        {"type": "ask"},
        {"type": "announced", "announcement": b"\x01\x02"},
        {"type": "fault", "code": "capacity", "detail": "full"},
        {"type": "claim", "prompt": PROMPT, "host": bytes([3]) * 20, "transaction": bytes([6]) * 32},
        {"type": "result", "prompt": PROMPT, "content": bytes([2]) * 32, "size": 70_000}
        | {k: v for k, v in paid.items() if k != "prompt"},
        {"type": "voucher"} | paid,
        {"type": "ask_status", "prompt": PROMPT},
        {"type": "status", "prompt": PROMPT, "stage": "running", "reason": "", "at_ms": NOW * 1000},
    ]
    bodies = {message["type"]: pack(message) for message in messages}
    return {name: (struct.pack(">I", len(body)) + body).hex() for name, body in bodies.items()}


def main() -> None:
    """Write the file."""
    made = {"announcement": announcement(), "provider_keys": provider_keys(), "frames": frames()}
    TARGET.write_text(json.dumps(made, indent=1) + "\n")


if __name__ == "__main__":
    main()
