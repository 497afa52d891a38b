"""An offer is believed where its account signed all of it, for now, and named the node's key; anything else is refused by name."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from nacl.signing import SigningKey as NodeSecret

from fabstir.domain.errors import FabstirError
from fabstir.domain.ids import Hash32, to_hex
from fabstir.host.settings import HostSettings
from fabstir.protocol.node_key import BINDING_SECONDS, NodeKey, signed_by
from fabstir.protocol.offer import Offer
from fabstir.protocol.signed_offer import CLOCK_SKEW, VALID_SECONDS, read_offer, sign_offer
from fabstir.protocol.signing import SigningKey, keccak
from tests.host.table_chain import HOST, INFO
from tests.host.world import MODEL, PRICE

NOW = 1_800_000_000.0
OFFER = HostSettings(model_id=MODEL, price=PRICE).offer(HOST.address, INFO, {MODEL: ("scripted", 4096)})
NODE = NodeKey(NodeSecret(b"\x08" * 32), HOST, OFFER.market)
STRANGER = SigningKey(b"\x66" * 32)
canonical = msgspec.json.Encoder(order="sorted").encode


def published(now: float = NOW) -> dict[str, Any]:
    """As text."""
    tree: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(sign_offer(OFFER, HOST, NODE, now)))
    return tree


def signed(tree: dict[str, Any], key: SigningKey = HOST) -> dict[str, Any]:
    """The same, with a signature of `key` that is right for it."""
    unsigned = {name: value for name, value in tree.items() if name != "signature"}
    digest = OFFER.market.offer_digest(keccak(canonical(unsigned)), tree["valid_until"])
    return {**unsigned, "signature": to_hex(key.sign(digest))}


def read(tree: Any, now: float = NOW) -> Offer:
    return read_offer(msgspec.json.encode(tree), now)


def refused(tree: Any, now: float = NOW) -> str:
    """Why it is not believed."""
    with pytest.raises(FabstirError) as caught:
        read(tree, now)
    assert caught.value.code == "offer_untrusted", caught.value
    return caught.value.detail


def test_what_was_signed_is_read() -> None:
    """The whole offer, and the node's key with it, in any order of the keys."""
    expected = msgspec.structs.replace(OFFER, node=NODE.public)
    assert read(published()) == expected
    assert read(dict(reversed(published().items()))) == expected


def changed(value: Any) -> Any:
    """Another value of the same shape."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, str):
        return value[:-1] + ("1" if value[-1:] != "1" else "2")
    if isinstance(value, dict):
        name = next(iter(value))
        return {**value, name: changed(value[name])}
    return [*value[1:], *[changed(one) for one in value[:1]]] if value else [to_hex(bytes(20))]


@pytest.mark.parametrize("field", sorted(set(published()) - {"valid_until", "issued_at"}))
def test_no_field_can_be_changed(field: str) -> None:
    """Each in turn: the signature does not fit any more, or nothing can be read."""
    tree = published()
    with pytest.raises(FabstirError) as caught:
        read({**tree, field: changed(tree[field])})
    assert caught.value.code in ("offer_untrusted", "message_malformed")


def test_the_encrypted_channel_cannot_be_taken_out_of_an_offer() -> None:
    """Nor can anything be left out, or put in: what this version does not know is signed with the rest."""
    tree = published()
    assert tree["channel"] == [1]
    refused({**tree, "channel": []})
    refused({name: value for name, value in tree.items() if name != "channel"})
    refused({name: value for name, value in tree.items() if name != "signature"})
    refused({**tree, "later": 1})
    assert read(signed({**tree, "later": {"x": [1.5, "\u00e9"]}})).channel == (1,)


def test_only_the_account_itself_signs() -> None:
    """A stranger's signature over the same words is none; over its own address it is an offer of the stranger."""
    assert "not signed by" in refused(signed(published(), STRANGER))
    refused({**published(), "signature": "0x" + "00" * 65})


def test_an_offer_is_of_now() -> None:
    """It ends, and one from the future or for ever is not believed, however well it is signed."""
    tree = published()
    assert read(tree, NOW + VALID_SECONDS - 1).host == HOST.address
    assert "it was valid until" in refused(tree, NOW + VALID_SECONDS)
    assert read(tree, NOW - CLOCK_SKEW).host == HOST.address
    assert "a clock is wrong" in refused(tree, NOW - CLOCK_SKEW - 1)
    assert "at most 600 s" in refused(signed({**tree, "valid_until": int(NOW) + 10 * VALID_SECONDS}))


def test_the_node_key_speaks_for_the_account_only_with_its_word() -> None:
    """Another's word, another key, or a word that has ended: the offer is refused, since the node's signatures would mean nothing."""
    tree = published()
    for node in (
        {**tree["node"], "key": to_hex(bytes(32))},
        {
            **tree["node"],
            "binding": to_hex(STRANGER.sign(OFFER.market.node_digest(NODE.public, tree["node"]["bound_until"]))),
        },
    ):
        assert "did not name this node key" in refused(signed({**tree, "node": node}))
    ended = int(NOW) - 1
    word = to_hex(HOST.sign(OFFER.market.node_digest(NODE.public, ended)))
    assert "ended at" in refused(signed({**tree, "node": {**tree["node"], "bound_until": ended, "binding": word}}))


def test_the_word_is_renewed_before_it_ends() -> None:
    """With half a day in hand; until then it is the same."""
    first = NODE.binding(NOW)
    assert NODE.binding(NOW + BINDING_SECONDS // 2) == first
    later = NODE.binding(NOW + BINDING_SECONDS // 2 + 1)
    assert later.bound_until > first.bound_until and not later.objection(OFFER.market, HOST.address, NOW)


@pytest.mark.parametrize("signature", [b"", bytes(63), bytes(64), bytes(65)])
def test_a_signature_of_any_shape_is_only_true_or_false(signature: bytes) -> None:
    """What a stranger sends never raises."""
    assert not signed_by(NODE.public, b"x", signature)
    assert not signed_by(Hash32(b""), b"x", signature)
    assert signed_by(NODE.public, b"x", NODE.sign(b"x"))
