"""Announcements: what is written is what the specification says, and nothing that a stranger bends is stored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.signing import SigningKey as NodeSecret

from fabstir.domain.errors import FabstirError
from fabstir.protocol.p2p import announcement as module
from fabstir.protocol.p2p.announcement import MAX_BYTES, MAX_LIFETIME, AnnouncedModel, AnnouncedPrice, read, seal
from fabstir.protocol.p2p.book import AnnouncementBook
from fabstir.protocol.signing import SigningKey
from tests.protocol.p2p.announcing import ACCOUNT, ETH, HOST, MARKET, MODEL, NODE, NOW, USDC, announcement, sealed

VECTORS = json.loads((Path(__file__).parent.parent / "vectors" / "p2p.json").read_text())["announcement"]


def book(**options: Any) -> AnnouncementBook:
    return AnnouncementBook(MARKET, **options)


def forged(said: module.Announcement, node: NodeSecret = NODE) -> bytes:
    """Signed without looking at what is signed."""
    body = msgspec.msgpack.encode(said)
    return msgspec.msgpack.encode([1, body, node.sign(b"fabstir/announce/1\n" + body).signature])


def code_of(raw: bytes, now: float = NOW + 1, registered: Any = frozenset({HOST})) -> str:
    try:
        book().take(raw, now, registered)
    except FabstirError as refusal:
        return refusal.code
    return ""


def test_golden() -> None:
    """The product writes the bytes of the independent generator, and reads them as what was meant."""
    raw = bytes.fromhex(VECTORS["raw"])
    assert sealed().hex() == VECTORS["raw"]
    said = read(raw).verified()
    assert said == announcement() and said.account.hex() == VECTORS["account"] and said.node.hex() == VECTORS["node"]
    model = said.model(MODEL)
    assert model is not None and (model.price_in(USDC), model.price_in(ETH)) == (200_000, 10**21)


CONTRADICTIONS: dict[str, dict[str, Any]] = {
    "expired before issue": {"expires_at": NOW},
    "too long a life": {"expires_at": NOW + MAX_LIFETIME + 1},
    "outlives the binding": {"bound_until": NOW + 899},
    "more free than slots": {"free": 9},
    "unsorted features": {"features": ("scores", "encrypted")},
    "a feature twice": {"features": ("scores", "scores")},
    "too many features": {"features": tuple(f"f{n:02}" for n in range(17))},
    "too many addresses": {"addresses": ("/ip4/1.2.3.4/tcp/1",) * 9},
    "a model twice": {"models": announcement().models * 2},
    "no model": {"models": ()},
    "a price of nothing": {"models": (AnnouncedModel(MODEL, "m", "", 1, (AnnouncedPrice(USDC, bytes(12)),)),)},
    "a currency twice": {"models": (AnnouncedModel(MODEL, "m", "", 1, (AnnouncedPrice(USDC, b"1" * 12),) * 2),)},
    "a long name": {"models": (AnnouncedModel(MODEL, "m" * 65, "", 1, announcement().models[0].prices),)},
    "a strange url": {"url": "javascript:alert(1)"},
    "a url with a line break": {"url": "https://host.example\nX: y"},
    "a strange region": {"region": "de"},
    "a strange feature": {"features": ("Ünïcode",)},
    "an address that is none": {"addresses": ("http://host",)},
    "a short key": {"node": b"1" * 31},
    "a short account": {"account": b"1" * 19},
    "no slots": {"slots": 0, "free": 0},
    "a negative context": {"models": (AnnouncedModel(MODEL, "m", "", -1, announcement().models[0].prices),)},
}


@pytest.mark.parametrize("what", CONTRADICTIONS)
def test_contradictions(what: str) -> None:
    """Whatever contradicts itself or breaks a bound is refused as `announcement_invalid`, however well it is signed."""
    assert code_of(forged(announcement(**CONTRADICTIONS[what]))) == "announcement_invalid"


def test_one_encoding_only() -> None:
    """The same content in another encoding is refused, so that a hash of the bytes names it."""
    body = msgspec.msgpack.encode(announcement())
    signature = NODE.sign(b"fabstir/announce/1\n" + body).signature
    assert code_of(msgspec.msgpack.encode([1, body, signature])) == ""
    longer = b"\xdc\x00\x03" + msgspec.msgpack.encode([1, body, signature])[1:]
    assert code_of(longer) == "announcement_invalid"
    wide = body.replace(b"\xcd\x7a\x69", b"\xce\x00\x00\x7a\x69", 1)
    assert (
        code_of(msgspec.msgpack.encode([1, wide, NODE.sign(b"fabstir/announce/1\n" + wide).signature]))
        == "announcement_invalid"
    )
    more = b"\xdc\x00\x10" + body[1:] + b"\x01"
    assert (
        code_of(msgspec.msgpack.encode([1, more, NODE.sign(b"fabstir/announce/1\n" + more).signature]))
        == "announcement_invalid"
    )


def test_other_version_and_size() -> None:
    """Another version and more than 4 KiB are refused unread."""
    body = msgspec.msgpack.encode(announcement())
    assert code_of(msgspec.msgpack.encode([2, body, bytes(64)])) == "announcement_invalid"
    assert code_of(bytes(MAX_BYTES + 1)) == "announcement_invalid"


def test_forgeries() -> None:
    """Nobody announces for another: neither with another node key nor with another account."""
    other, stranger = NodeSecret(bytes(32)), SigningKey(bytes([0x22]) * 32)
    assert code_of(forged(announcement(), other)) == "announcement_forged"
    bound_to_other = announcement(other, ACCOUNT, binding=announcement().binding)
    assert code_of(forged(bound_to_other, other)) == "announcement_forged"
    by_stranger = announcement(other, stranger, account=HOST)
    assert code_of(forged(by_stranger, other)) == "announcement_forged"
    assert code_of(forged(announcement(bound_until=NOW + 86_401))) == "announcement_forged"


def test_who_and_when() -> None:
    """Strangers to the registry, other markets, and what lives no more or not yet, take no place."""
    assert code_of(sealed(), registered=frozenset()) == "announcement_foreign"
    assert code_of(sealed(chain_id=1)) == "announcement_foreign"
    assert code_of(sealed(), now=NOW + 899.9) == ""
    assert code_of(sealed(), now=NOW + 900) == "announcement_stale"
    assert code_of(sealed(), now=NOW - 119.9) == ""
    assert code_of(sealed(), now=NOW - 121) == "announcement_stale"


def test_replays() -> None:
    """A later one replaces an earlier one and never the other way, also after the later one has expired."""
    known, now = book(), NOW + 1
    first, second = sealed(), sealed(issued_ms=NOW * 1000 + 8, expires_at=NOW + 100, free=0)
    known.take(first, now, {HOST})
    known.take(first, now, {HOST})  # the same again is no fault
    known.take(second, now, {HOST})
    assert (said := known.get(HOST, now)) is not None and said.free == 0
    with pytest.raises(FabstirError, match="announcement_stale"):
        known.take(first, now, {HOST})
    later = NOW + 200
    known.keep(later, {HOST})
    assert known.get(HOST, later) is None
    with pytest.raises(FabstirError, match="announcement_stale"):
        known.take(first, later, {HOST})
    assert code_of(sealed(issued_ms=NOW * 1000 + 9, slots=9), later) == ""


def test_memory_is_bounded() -> None:
    """Beyond the bound nobody new is stored; whoever unregisters is forgotten."""
    known = book(max_hosts=1)
    other = SigningKey(bytes([0x22]) * 32)
    known.take(sealed(), NOW + 1, {HOST})
    with pytest.raises(FabstirError, match="announcement_foreign"):
        known.take(sealed(of=other), NOW + 1, {HOST, other.address})
    known.keep(NOW + 1, frozenset())
    assert known.get(HOST, NOW + 1) is None


def test_signatures_come_last() -> None:
    """A flood of stale or foreign announcements costs no signature check: a broken signature is not even noticed."""
    broken = bytearray(sealed())
    broken[-1] ^= 1
    assert code_of(bytes(broken), registered=frozenset()) == "announcement_foreign"
    assert code_of(bytes(broken), now=NOW + 900) == "announcement_stale"
    assert code_of(bytes(broken)) == "announcement_forged"


def test_nobody_seals_nonsense() -> None:
    """A host that would announce what nobody believes learns it at home."""
    with pytest.raises(ValueError, match="free slots"):
        seal(announcement(free=9), NODE)
    with pytest.raises(ValueError, match="another node"):
        seal(announcement(), NodeSecret(bytes(32)))


@given(st.data())
def test_every_flipped_bit_is_refused(data: st.DataObject) -> None:
    """No single bit of an announcement can be changed unnoticed."""
    raw = bytearray(bytes.fromhex(VECTORS["raw"]))
    at = data.draw(st.integers(0, len(raw) * 8 - 1))
    raw[at // 8] ^= 1 << at % 8
    assert code_of(bytes(raw)).startswith("announcement_")


@given(st.binary(max_size=300))
def test_garbage(raw: bytes) -> None:
    """Whatever arrives, the answer is one of our errors."""
    assert code_of(raw) == "announcement_invalid"
