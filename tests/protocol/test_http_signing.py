"""An answer over HTTP is believed where the node signed it, whole, for this request and now."""

from __future__ import annotations

import msgspec
import pytest
from nacl.signing import SigningKey as NodeSecret

from fabstir.domain.errors import FabstirError
from fabstir.domain.ids import Hash32
from fabstir.protocol.http_signing import MAX_AGE_SECONDS, Answer, Request, sign_answer, verify_answer
from fabstir.protocol.node_key import NodeKey
from tests.host.table_chain import HOST
from tests.host.world import MARKET

NOW = 1_800_000_000.0
NODE, OTHER = (NodeKey(NodeSecret(bytes([n]) * 32), HOST, MARKET) for n in (8, 9))
BODY = b'{"stage":"made"}'
TARGET = "/v1/prompts/0xab?after=1-2"


def answered(node: NodeKey = NODE, target: str = TARGET, body: bytes = BODY, **headers: str) -> Answer:
    """As it leaves a host."""
    answer = Answer(Request("GET", target), 200, headers or {"content-type": "application/json"})
    return Answer(answer.request, 200, {**answer.headers, **dict(sign_answer(node, answer, body, NOW))})


def refused(answer: Answer, body: bytes = BODY, now: float = NOW, node: Hash32 = NODE.public) -> str:
    with pytest.raises(FabstirError) as caught:
        verify_answer(node, answer, body, now)
    assert caught.value.code == "answer_untrusted"
    return caught.value.detail


def test_what_the_node_signed_is_believed() -> None:
    """With a body, without one, and within the time."""
    verify_answer(NODE.public, answered(), BODY, NOW)
    verify_answer(NODE.public, answered(body=b"", x="y"), b"", NOW)
    for late in (-MAX_AGE_SECONDS, MAX_AGE_SECONDS):
        verify_answer(NODE.public, answered(), BODY, NOW + late)


def test_nothing_of_it_can_be_changed() -> None:
    """Body, digest, status, type, the request, the signature, its time, its key; and nothing can be left out."""
    good = answered()
    assert "not the one that was signed" in refused(good, BODY + b" ")
    for change in (
        {"content-type": "text/html"},
        {"signature": good.headers["signature"].replace("=:A", "=:B").replace("=:e", "=:f").swapcase()},
        {"signature-input": good.headers["signature-input"].replace("created=18", "created=19")},
        {"signature-input": good.headers["signature-input"].replace('tag="fabstir"', 'tag="other"')},
        {"signature-input": "node=()"},
        {"signature-input": "\x00"},
        {"signature": "node=:AAAA:"},
    ):
        refused(Answer(good.request, 200, {**good.headers, **change}))
    refused(Answer(good.request, 404, good.headers))
    refused(Answer(Request("POST", TARGET), 200, good.headers))
    refused(Answer(Request("GET", TARGET.replace("1-2", "1-3")), 200, good.headers))
    refused(Answer(Request("GET", TARGET.replace("ab", "ac")), 200, good.headers))
    for name in ("content-digest", "signature-input", "signature"):
        kept = {key: value for key, value in good.headers.items() if key != name}
        assert name in refused(Answer(good.request, 200, kept))
    refused(Answer(good.request, 200, {key: value for key, value in good.headers.items() if key != "content-type"}))


def test_another_node_signs_nothing_for_this_one() -> None:
    """Under its own name or under this one's."""
    refused(answered(OTHER))
    forged = answered(OTHER)
    renamed = forged.headers["signature-input"].replace(OTHER.public.hex(), NODE.public.hex())
    refused(Answer(forged.request, 200, {**forged.headers, "signature-input": renamed}))


def test_an_old_answer_is_none() -> None:
    """Kept by somebody and shown again, or of a clock that is wrong."""
    assert f"signed {MAX_AGE_SECONDS + 1} s ago" in refused(answered(), now=NOW + MAX_AGE_SECONDS + 1)
    refused(answered(), now=NOW - MAX_AGE_SECONDS - 1)


def test_a_signature_that_covers_less_is_none() -> None:
    """The node's own signature over the status alone says nothing about the body."""
    from http_message_signatures import HTTPMessageSigner, algorithms  # noqa: PLC0415

    answer = answered()
    signer = HTTPMessageSigner(signature_algorithm=algorithms.ED25519)
    prepared = signer.prepare(
        answer, key_id=NODE.public.hex(), label="node", tag="fabstir", covered_component_ids=("@status",)
    )
    signer.apply(answer, prepared, NODE.sign(prepared.signature_base))
    assert "is not signed" in refused(Answer(answer.request, 200, {k.lower(): v for k, v in answer.headers.items()}))
    assert msgspec.json.decode(BODY) == {"stage": "made"}
