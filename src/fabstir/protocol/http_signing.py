"""A host's HTTP answers, signed by its node's identity: RFC 9421 over status, body and the request that is answered.

    content-digest    sha-256=:...:                                              RFC 9530, of the body as it is sent
    signature-input   node=("@status" "content-digest" "content-type" "@method";req "@path";req "@query";req)
                      ;created=...;keyid="...";alg="ed25519";tag="fabstir"
    signature         node=:...:

`keyid` is the node's public key in hexadecimal; who it speaks for is in the host's offer, which the account signs. The request's authority
is not covered, since proxies change it; a body that streams has no digest and is not signed. Decides whether an answer is the host's and
of now. Pure; the time is an argument. RFC 9421's base is made by `http-message-signatures`.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from http_message_signatures import (
    HTTPMessageSigner,
    HTTPMessageVerifier,
    HTTPSignatureKeyResolver,
    algorithms,
)
from http_message_signatures.exceptions import HTTPMessageSignaturesException

from fabstir.domain.errors import error
from fabstir.domain.ids import Hash32
from fabstir.protocol.node_key import NodeKey

LABEL: Final = "node"
TAG: Final = "fabstir"
_TYPE: Final = '"content-type"'
COVERED: Final = ('"@status"', '"content-digest"', _TYPE, '"@method";req', '"@path";req', '"@query";req')
"""The content type where the answer has one."""
HEADERS: Final = ("content-digest", "signature-input", "signature")
MAX_AGE_SECONDS: Final = 300
"""An answer that is older was kept by somebody; clocks may differ by as much."""


class Request:
    """What is answered. `target`: path and query as the host sees them, without the part of a base URL that a proxy takes away."""

    def __init__(self, method: str, target: str) -> None:
        self.method: Final = method
        self.url: Final = f"http://node{target}"
        self.headers: Final[dict[str, str]] = {}


class Answer:
    """An answer, in the shape that the library reads. Header names are lower case."""

    def __init__(self, request: Request, status: int, headers: Mapping[str, str]) -> None:
        self.request: Final = request
        self.status_code: Final = status
        self.headers: Final = dict(headers)

    @property
    def covered(self) -> tuple[str, ...]:
        """What of it is signed."""
        return tuple(name for name in COVERED if name != _TYPE or "content-type" in self.headers)


def digest_of(body: bytes) -> str:
    """`Content-Digest` of a body."""
    return f"sha-256=:{base64.b64encode(sha256(body).digest()).decode()}:"


def sign_answer(node: NodeKey, answer: Answer, body: bytes, now: float) -> tuple[tuple[str, str], ...]:
    """The three headers that are added to `answer`. Raises ValueError where its request cannot be named in a signature."""
    answer.headers["content-digest"] = digest_of(body)
    signer = HTTPMessageSigner(signature_algorithm=algorithms.ED25519)
    when = datetime.fromtimestamp(int(now), UTC)
    try:
        prepared = signer.prepare(
            answer, key_id=node.public.hex(), created=when, label=LABEL, tag=TAG, covered_component_ids=answer.covered
        )
        signer.apply(answer, prepared, node.sign(prepared.signature_base))
    except HTTPMessageSignaturesException as unnameable:
        raise ValueError(str(unnameable)) from unnameable
    made = {name.lower(): value for name, value in answer.headers.items()}
    return tuple((name, made[name]) for name in HEADERS)


def verify_answer(node: Hash32, answer: Answer, body: bytes, now: float) -> None:
    """Returns where `node` signed this answer, to this request, with this body, now. Raises PeerFault (`answer_untrusted`)."""
    if missing := [name for name in HEADERS if name not in answer.headers]:
        raise error("answer_untrusted", f"it has no {missing[0]}")
    if answer.headers["content-digest"] != digest_of(body):
        raise error("answer_untrusted", "its body is not the one that was signed")
    verifier = _Verifier(signature_algorithm=algorithms.ED25519, key_resolver=_Known(node))
    try:
        (found,) = verifier.verify(answer, expect_tag=TAG, max_age=None)
    except (HTTPMessageSignaturesException, ValueError) as wrong:
        raise error("answer_untrusted", f"its signature does not hold: {wrong}"[:200]) from wrong
    if uncovered := set(answer.covered) - set(found.covered_components):
        raise error("answer_untrusted", f"{min(uncovered)} is not signed")
    age = now - int(found.parameters.get("created", 0))
    if abs(age) > MAX_AGE_SECONDS:
        raise error("answer_untrusted", f"signed {age:.0f} s ago, at most {MAX_AGE_SECONDS} s are believed")


class _Verifier(HTTPMessageVerifier):
    """The library would ask the system's clock."""

    def validate_created_and_expires(self, sig_input: Any, max_age: Any = None) -> None:
        """`verify_answer` does."""


class _Known(HTTPSignatureKeyResolver):
    """One key, whose name is itself."""

    def __init__(self, node: Hash32) -> None:
        self._node = node

    def resolve_public_key(self, key_id: str) -> Any:
        """None for every other name."""
        return Ed25519PublicKey.from_public_bytes(self._node) if key_id == self._node.hex() else None
