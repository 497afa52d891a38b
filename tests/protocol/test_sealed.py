"""Sealed content opens for its recipients and its job, to one and the same text, and for nothing else."""

from __future__ import annotations

import nacl.bindings as sodium
import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from fabstir.domain.errors import FabstirError
from fabstir.domain.ids import Hash32, ModelId
from fabstir.domain.prompts import Cid
from fabstir.protocol.sealed import (
    ENTROPY,
    MAX_CONTENT,
    MAX_RECIPIENTS,
    SLOT,
    Binding,
    Content,
    SealingKey,
    check_cid,
    cid,
    seal,
    unseal,
)
from tests.protocol.prompting import terms

KEYS = [SealingKey(bytes([n]) * 32) for n in (1, 2, 3)]
BINDING = Binding.of(Content.PROMPT, terms())
RANDOM = bytes(range(ENTROPY))
HEADER = 4 + 32 + 32 + 1


def sealed(content: bytes = b"What is love?", keys: list[SealingKey] = KEYS, entropy: bytes = RANDOM) -> bytes:
    return seal(content, tuple(key.public for key in keys), BINDING, entropy)


def code(data: bytes, key: SealingKey = KEYS[0], binding: Binding = BINDING) -> str:
    with pytest.raises(FabstirError) as caught:
        unseal(data, key, binding)
    return caught.value.code


@given(
    content=st.binary(max_size=3_000), count=st.integers(1, 3), entropy=st.binary(min_size=ENTROPY, max_size=ENTROPY)
)
def test_every_recipient_opens_the_same(content: bytes, count: int, entropy: bytes) -> None:
    """One ciphertext, several keys, whatever the content ends with."""
    data = sealed(content, KEYS[:count], entropy)
    assert [unseal(data, key, BINDING) for key in KEYS[:count]] == [content] * count


def test_nobody_else_opens_it() -> None:
    """A stranger is told that it is not meant, the recipients' number aside nothing."""
    assert code(sealed(keys=KEYS[:2]), KEYS[2]) == "seal_not_for_us"


@pytest.mark.parametrize(
    "other",
    [
        Binding(Content.RESULT, BINDING.salt, BINDING.model_id),
        Binding(Content.PROMPT, Hash32(b"\x01" * 32), BINDING.model_id),
        Binding(Content.PROMPT, BINDING.salt, ModelId(b"\x01" * 32)),
    ],
)
def test_it_is_not_carried_over(other: Binding) -> None:
    """Not to another job, not to another model, and a prompt is no result."""
    assert code(sealed(), binding=other) == "seal_invalid"


def test_every_bit_counts() -> None:
    """Any byte of header or body that is changed is found out."""
    data = sealed(b"x" * 10)
    for at in range(len(data)):
        broken = data[:at] + bytes((data[at] ^ 1,)) + data[at + 1 :]
        own_slot = HEADER <= at < HEADER + SLOT
        expected = {"seal_not_for_us", "seal_invalid"} if own_slot or 4 <= at < 36 or at == 68 else {"seal_invalid"}
        assert code(broken) in expected


@pytest.mark.parametrize("length", [0, 3, 4, 68, 69, 100, 200, 250])
def test_a_part_is_nothing(length: int) -> None:
    """Cut off anywhere, it is refused by name."""
    assert code(sealed()[:length]) == "seal_invalid"


def test_two_recipients_cannot_be_told_two_things() -> None:
    """A sender that wraps another content key for the second recipient is found out by it: the commitment is to one key."""
    data = sealed(keys=KEYS[:2])
    other_key, ephemeral = b"\x77" * 32, SealingKey(RANDOM[32:64])
    from fabstir.protocol.sealed import _kek, _wrap  # noqa: PLC0415 - what a dishonest sender would use

    kek = _kek(ephemeral.shared(KEYS[1].public), ephemeral.public, KEYS[1].public)
    forged = data[: HEADER + SLOT] + _wrap(other_key, kek) + data[HEADER + 2 * SLOT :]
    assert code(forged, KEYS[1]) == "seal_invalid"


def test_a_key_of_low_order_is_refused() -> None:
    """A public key that makes the shared secret known is none, for whoever seals and whoever opens."""
    with pytest.raises(FabstirError, match="seal_invalid"):
        seal(b"", (bytes(32),), BINDING, RANDOM)
    data = sealed()
    assert code(data[:4] + bytes(32) + data[36:]) == "seal_invalid"


def test_the_length_tells_little() -> None:
    """Short prompts all look alike; longer ones are known to within an eighth."""
    assert len({len(sealed(b"x" * n)) for n in range(255)}) == 1
    for length in (300, 1_000, 5_000, 100_000):
        extra = len(sealed(b"x" * length, KEYS[:1])) - len(sealed(b"", KEYS[:1])) + 256 - length
        assert 1 <= extra <= length / 8 + 1


def test_the_longest_content() -> None:
    """It opens again; one byte more is refused before it is sealed."""
    content = b"\0" * MAX_CONTENT
    assert unseal(sealed(content), KEYS[0], BINDING) == content
    with pytest.raises(ValueError, match="bytes of content"):
        sealed(content + b"x")


def test_callers_mistakes() -> None:
    """No, repeated or too many recipients; entropy or keys of another length."""
    public = KEYS[0].public
    for recipients in ((), (public, public), tuple(bytes([2, n]) + bytes(30) for n in range(MAX_RECIPIENTS + 1))):
        with pytest.raises(ValueError, match="recipients"):
            seal(b"", recipients, BINDING, RANDOM)
    with pytest.raises(ValueError, match="entropy"):
        seal(b"", (public,), BINDING, RANDOM[1:])
    with pytest.raises(ValueError, match="sealing key"):
        SealingKey(b"short")


def test_the_most_recipients() -> None:
    """255, and the last one opens it."""
    keys = [SealingKey(bytes([n]) * 32) for n in range(MAX_RECIPIENTS)]
    assert unseal(sealed(b"hi", keys), keys[-1], BINDING) == b"hi"


def test_the_key_is_not_printed() -> None:
    """Its repr shows the beginning of the public half only."""
    assert (b"\x01" * 32).hex() not in repr(KEYS[0]) and KEYS[0].public.hex()[:8] in repr(KEYS[0])


def test_the_primitives_are_the_named_ones() -> None:
    """Opened step by step with hashlib and libsodium alone, from the format in the module's text."""
    from hashlib import blake2b  # noqa: PLC0415

    data = sealed(b"hello", KEYS[:1])
    ephemeral, slot, end = data[4:36], data[HEADER : HEADER + SLOT], HEADER + SLOT + 24
    shared = sodium.crypto_scalarmult(b"\x01" * 32, ephemeral)
    kek = blake2b(ephemeral + KEYS[0].public, digest_size=32, key=shared, person=b"fabstir/seal/1").digest()
    key = sodium.crypto_aead_xchacha20poly1305_ietf_decrypt(slot, None, bytes(24), kek)
    aad = data[:end] + b"fabstir/seal/1" + b"prompt" + terms().salt + terms().model_id
    content = sodium.crypto_aead_xchacha20poly1305_ietf_decrypt(data[end:], aad, data[end - 24 : end], key)
    assert content == b"hello\x80" + bytes(250)
    assert data[36:68] == blake2b(b"", digest_size=32, key=key, person=b"fabstir/commit/1").digest()


def test_a_cid_is_blake3() -> None:
    """Of the sealed bytes; content that does not match it is refused."""
    data = sealed()
    assert cid(data) == blake3(data).digest()
    check_cid(data, cid(data))
    with pytest.raises(FabstirError, match="seal_invalid"):
        check_cid(data, Cid(bytes(32)))
