"""Tokens for reconnects: one use, one session of one job at one host, a key of this host, ten minutes; everything else is refused."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any, cast

import jwt
import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tests.host.table_chain import HOST
from tests.host.world import MARKET, SESSION, STRANGER

from fabstir.domain.errors import FabstirError
from fabstir.domain.ids import JobId, SessionId
from fabstir.host.reconnect_tokens import KEY_SECONDS, ReconnectTokens
from fabstir.ports.clock import Clock
from fabstir.protocol.session_tokens import TOKEN_SECONDS, TOKEN_SKEW_SECONDS, TOKEN_TYPE, Subject
from fabstir.protocol.signing import Market

SUBJECT = Subject(
    host=HOST.address, market=MARKET, signer=SESSION.address, job=JobId(b"\x01" * 32), session=SessionId("chat")
)


class Watch:
    """A clock that the test sets, backwards too."""

    def __init__(self) -> None:
        self.at = 1_800_000_000.0

    def now(self) -> float:
        return self.at


def tokens() -> tuple[ReconnectTokens, Watch]:
    clock = Watch()
    return ReconnectTokens(cast(Clock, clock)), clock


def refused(book: ReconnectTokens, token: str, subject: Subject = SUBJECT) -> str:
    with pytest.raises(FabstirError) as caught:
        book.redeem(token, subject)
    assert (caught.value.code, caught.value.retryable) == ("session_token_invalid", True)
    return caught.value.detail


def parts(token: str) -> tuple[dict[str, Any], dict[str, Any], str]:
    head, body, signature = token.split(".")
    opened = [json.loads(base64.urlsafe_b64decode(part + "==")) for part in (head, body)]
    return opened[0], opened[1], signature


def joined(head: dict[str, Any], body: dict[str, Any], signature: str) -> str:
    closed = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in (head, body)]
    return ".".join((*closed, signature))


def test_a_token_is_good_once() -> None:
    """A replay is refused, whoever sends it; each token is another one."""
    book, _ = tokens()
    token, other = book.issue(SUBJECT), book.issue(SUBJECT)
    book.redeem(token, SUBJECT)
    assert "used before" in refused(book, token)
    book.redeem(other, SUBJECT)


@pytest.mark.parametrize(
    "changes",
    [
        {"host": STRANGER.address},
        {"market": Market(1, MARKET.address)},
        {"market": Market(MARKET.chain_id, STRANGER.address)},
        {"signer": STRANGER.address},
        {"job": JobId(b"\x02" * 32)},
        {"session": SessionId("other")},
    ],
)
def test_it_is_worth_nothing_elsewhere(changes: dict[str, Any]) -> None:
    """At another host or market, for another key, job or session; and what was refused so is still good where it belongs."""
    book, _ = tokens()
    token = book.issue(SUBJECT)
    assert "another" in refused(book, token, msgspec.structs.replace(SUBJECT, **changes))
    book.redeem(token, SUBJECT)


def _none(head: dict[str, Any], body: dict[str, Any], _signature: str) -> str:
    return joined({**head, "alg": "none"}, body, "")


def _hmac_with_the_public_key(head: dict[str, Any], body: dict[str, Any], _signature: str) -> str:
    return jwt.encode(body, b"\x00" * 32, algorithm="HS256", headers={"kid": head["kid"], "typ": TOKEN_TYPE})


def _own_key(head: dict[str, Any], body: dict[str, Any], _signature: str) -> str:
    return jwt.encode(
        body, Ed25519PrivateKey.generate(), algorithm="EdDSA", headers={"kid": head["kid"], "typ": TOKEN_TYPE}
    )


def _own_key_brought_along(head: dict[str, Any], body: dict[str, Any], _signature: str) -> str:
    key = Ed25519PrivateKey.generate()
    own = jwt.algorithms.OKPAlgorithm.to_jwk(key.public_key(), as_dict=True)
    return jwt.encode(body, key, algorithm="EdDSA", headers={"kid": head["kid"], "typ": TOKEN_TYPE, "jwk": own})


def _with(
    change: Callable[[dict[str, Any], dict[str, Any]], Any],
) -> Callable[[dict[str, Any], dict[str, Any], str], str]:
    def changed(head: dict[str, Any], body: dict[str, Any], signature: str) -> str:
        change(head, body)
        return joined(head, body, signature)

    return changed


@pytest.mark.parametrize(
    "forge",
    [
        _none,
        _hmac_with_the_public_key,
        _own_key,
        _own_key_brought_along,
        _with(lambda head, body: head.update(alg="NONE")),
        _with(lambda head, body: head.update(alg="ES256")),
        _with(lambda head, body: head.update(kid="0" * 16)),
        _with(lambda head, body: head.update(kid="../../etc/passwd")),
        _with(lambda head, body: head.update(kid=None)),
        _with(lambda head, body: head.pop("kid")),
        _with(lambda head, body: head.update(typ="JWT")),
        _with(lambda head, body: head.update(crit=["exp"])),
        _with(lambda head, body: body.update(exp=body["exp"] + 1)),
        _with(lambda head, body: body.update(session="other")),
        lambda head, body, signature: joined(head, body, signature[:-4]),
        lambda head, body, signature: joined(head, body, ""),
        lambda *_: "",
        lambda *_: "a.b.c",
        lambda *_: "\u00e9.\x00.." * 100,
    ],
)
def test_a_forged_token_is_none(forge: Callable[[dict[str, Any], dict[str, Any], str], str]) -> None:
    """No algorithm, another algorithm, another key under this name or brought along, another name, another type, other claims, rubbish."""
    book, _ = tokens()
    refused(book, forge(*parts(book.issue(SUBJECT))))


def test_what_the_key_signed_must_say_everything() -> None:
    """A claim that is missing, of another type, or more than there are; a life that is longer: refused with a signature that is right."""
    book, _ = tokens()
    head, body, _ = parts(book.issue(SUBJECT))
    key = book._keys[-1].private

    def signed(claims: dict[str, Any]) -> str:
        return jwt.encode(claims, key, algorithm="EdDSA", headers={"kid": head["kid"], "typ": TOKEN_TYPE})

    for name in body:
        refused(book, signed({other: value for other, value in body.items() if other != name}))
        if isinstance(body[name], int):
            refused(book, signed({**body, name: -1}))
    refused(book, signed({**body, "scope": "all"}))
    assert "s, tokens live 600 s" in refused(book, signed({**body, "exp": body["exp"] + 3600}))
    book.redeem(signed(body), SUBJECT)


def test_it_ends_and_a_clock_that_was_set_is_told() -> None:
    """After ten minutes to the second; of the future by more than half a minute."""
    book, clock = tokens()
    token, late = book.issue(SUBJECT), book.issue(SUBJECT)
    clock.at += TOKEN_SECONDS - 1
    book.redeem(token, SUBJECT)
    clock.at += 1
    assert "it ended at" in refused(book, late)
    future = book.issue(SUBJECT)
    clock.at -= TOKEN_SKEW_SECONDS + 1
    assert "here it is" in refused(book, future)


def test_keys_rotate_and_overlap() -> None:
    """A new one signs after an hour; the one before is believed and published until its last token has ended, then forgotten."""
    book, clock = tokens()
    (first,) = book.public_keys()["keys"]
    assert (first["kty"], first["crv"], first["alg"], first["use"]) == (
        "OKP",
        "Ed25519",
        "EdDSA",
        "sig",
    ) and "d" not in first
    clock.at += KEY_SECONDS - 1
    old = book.issue(SUBJECT)
    clock.at += 1
    new = book.issue(SUBJECT)
    names = [key["kid"] for key in book.public_keys()["keys"]]
    assert names == [parts(old)[0]["kid"], parts(new)[0]["kid"]] and names[0] == first["kid"]
    public = jwt.PyJWK(book.public_keys()["keys"][1]).key
    assert jwt.decode(
        new, public, algorithms=["EdDSA"], options={"verify_aud": False, "verify_exp": False, "verify_iat": False}
    )
    book.redeem(old, SUBJECT)
    clock.at += TOKEN_SECONDS + TOKEN_SKEW_SECONDS
    assert [key["kid"] for key in book.public_keys()["keys"]] == names[1:]
    assert "key is not known" in refused(book, joined(*parts(old)))


@pytest.mark.parametrize("by", ["job", "session", "token_id", "all"])
def test_what_is_revoked_is_worth_nothing(by: str) -> None:
    """By job, by session, one alone, or all; tokens of others and of later stand."""
    book, clock = tokens()
    other = msgspec.structs.replace(SUBJECT, job=JobId(b"\x02" * 32), session=SessionId("other"))
    token, theirs = book.issue(SUBJECT), book.issue(other)
    named = {"job": SUBJECT.job, "session": SUBJECT.session, "token_id": parts(token)[1]["jti"]}
    book.revoke(**({by: named[by]} if by != "all" else {}))
    assert refused(book, token) == "it was revoked"
    if by == "all":
        assert refused(book, theirs, other) == "it was revoked"
    else:
        book.redeem(theirs, other)
    clock.at += 1
    book.redeem(book.issue(SUBJECT), SUBJECT)


def test_a_restart_forgets_the_keys() -> None:
    """Nothing of them is on disk: renters sign again."""
    book, _ = tokens()
    again, _ = tokens()
    assert "key is not known" in refused(again, book.issue(SUBJECT))
