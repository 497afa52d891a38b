"""The encrypted channel against its golden vectors (made without this code), against whoever answers in the host's place, and against
frames that are not the next ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabstir.domain.errors import FabstirError, Interrupted, PeerFault, Refused
from fabstir.domain.ids import Address, address, from_hex, to_hex
from fabstir.protocol.channel import (
    UPDATE_EVERY,
    Channel,
    ChannelOpen,
    ChannelReady,
    Ended,
    RenterHandshake,
    accept,
    bucket,
    is_frame,
    largest_message,
    opens_channel,
    pad,
    unpad,
)
from fabstir.protocol.messages import Error, Ping, encode
from fabstir.protocol.signing import Market, SigningKey
from tests.protocol.make_channel_vectors import TARGET, file

GOLDEN: Final[dict[str, Any]] = json.loads(Path(TARGET).read_text("utf-8"))
MARKET: Final = Market(GOLDEN["chain_id"], address(GOLDEN["market"]))
HOST: Final = SigningKey(from_hex(GOLDEN["host_account_key"], 32))
RENTER_SECRET: Final = from_hex(GOLDEN["renter_secret"], 32)
HOST_SECRET: Final = from_hex(GOLDEN["host_secret"], 32)
Pair = tuple[Channel, Channel]


def pair(renter: bytes = RENTER_SECRET, host: bytes = HOST_SECRET, key: SigningKey = HOST) -> Pair:
    """Both ends of a channel."""
    handshake = RenterHandshake(MARKET, key.address, renter)
    answer, channel = accept(handshake.opening, MARKET, key, host)
    return handshake.finish(answer), channel


def code(channel: Channel, frame: bytes | str) -> str:
    with pytest.raises(FabstirError) as caught:
        channel.open(frame)
    assert isinstance(caught.value, Interrupted)
    return caught.value.code


# -- the golden vectors ------------------------------------------------------------------------------------------------------


def test_the_vectors_are_what_their_generator_writes() -> None:
    """Nobody changes the file by hand."""
    assert Path(TARGET).read_text("utf-8") == file()


def test_the_handshake_is_the_golden_one() -> None:
    """The same two messages from the same secrets, byte for byte."""
    handshake = RenterHandshake(MARKET, HOST.address, RENTER_SECRET)
    assert handshake.opening.decode() == GOLDEN["channel_open"]
    answer, _ = accept(GOLDEN["channel_open"], MARKET, HOST, HOST_SECRET)
    assert answer.decode() == GOLDEN["channel_ready"]
    assert to_hex(HOST.address) == GOLDEN["host"]


@pytest.mark.parametrize("sender", ["renter", "host"])
def test_every_golden_frame_is_made_and_opens(sender: str) -> None:
    """In both directions, over two updates of the key, up to the end."""
    renter, host = pair()
    sending, receiving = (renter, host) if sender == "renter" else (host, renter)
    golden = {row["n"]: row for row in GOLDEN[f"{sender}_frames"]}
    last = max(golden)
    assert last > 2 * UPDATE_EVERY
    for n in range(last + 1):
        row = golden.get(n, {"content": "ended", "kind": 1})
        frame = sending.end(row["content"]) if row["kind"] else sending.seal(row["content"].encode())
        if n in golden:
            assert to_hex(frame) == row["frame"], n
        assert receiving.open(frame) == (Ended(row["content"]) if row["kind"] else row["content"].encode())


def test_buckets_are_the_golden_ones() -> None:
    """Of the bytes that are padded, the mark included."""
    assert [[size, bucket(size)] for size, _ in GOLDEN["buckets"]] == GOLDEN["buckets"]


# -- whom we talk to ---------------------------------------------------------------------------------------------------------


def refused(answer: bytes, host: Address = HOST.address) -> FabstirError:
    with pytest.raises(FabstirError) as caught:
        RenterHandshake(MARKET, host, RENTER_SECRET).finish(answer)
    return caught.value


def ready(**changes: Any) -> bytes:
    fields = json.loads(GOLDEN["channel_ready"]) | changes
    return json.dumps(fields).encode()


def test_a_man_in_the_middle_with_a_key_of_his_own_is_noticed() -> None:
    """He can answer, but not sign as the host; and the host's signature is good for the host's key and this renter's alone."""
    opening = RenterHandshake(MARKET, HOST.address, RENTER_SECRET).opening
    stranger, _ = accept(opening, MARKET, SigningKey(bytes([9]) * 32), HOST_SECRET)
    assert refused(stranger).code == "channel_untrusted"
    assert isinstance(refused(stranger), PeerFault)
    his_key = json.loads(accept(opening, MARKET, HOST, bytes([7]) * 32)[0])["key"]
    assert refused(ready(key=his_key)).code == "channel_untrusted"
    for_another, _ = accept(RenterHandshake(MARKET, HOST.address, bytes([5]) * 32).opening, MARKET, HOST, HOST_SECRET)
    assert refused(for_another).code == "channel_untrusted"


@pytest.mark.parametrize("market", [Market(1, MARKET.address), Market(MARKET.chain_id, Address(b"\x0b" * 20))])
def test_a_signature_for_another_market_is_none(market: Market) -> None:
    """Chain and contract are part of what is signed."""
    opening = RenterHandshake(MARKET, HOST.address, RENTER_SECRET).opening
    assert refused(accept(opening, market, HOST, HOST_SECRET)[0]).code == "channel_untrusted"


def test_the_host_that_is_paid_is_the_one_that_must_sign() -> None:
    """Another host of the market, with a good signature of its own, is not it."""
    assert refused(GOLDEN["channel_ready"].encode(), Address(b"\x01" * 20)).code == "channel_untrusted"
    RenterHandshake(MARKET, HOST.address, RENTER_SECRET).finish(GOLDEN["channel_ready"])


@pytest.mark.parametrize(
    "answer",
    [
        encode(Error(code="message_unknown", category="refused", message="m", retryable=False)),
        b"{}",
        b"not JSON",
        b"\xff",
        ready(protocol=2),
        ready(key="0x00"),
        ready(signature="0x"),
    ],
)
def test_a_host_that_opens_no_channel_is_refused(answer: bytes) -> None:
    """An error, an older program, another version, nonsense: nothing is said to it, and its words are not repeated."""
    fault = refused(answer)
    assert fault.code == "channel_refused" and isinstance(fault, Refused)


LOW_ORDER: Final = ["0x" + "00" * 32, "0x01" + "00" * 31, "0x" + (2**255 - 19).to_bytes(32, "little").hex()]


@pytest.mark.parametrize("key", LOW_ORDER)
def test_keys_that_make_the_secret_known_are_refused(key: str) -> None:
    """Points of low order, by either side, even signed ones."""
    with pytest.raises(PeerFault, match="message_malformed"):
        accept(encode(ChannelOpen(key=key)), MARKET, HOST, HOST_SECRET)
    public = json.loads(RenterHandshake(MARKET, HOST.address, RENTER_SECRET).opening)["key"]
    digest = MARKET.channel_digest(1, from_hex(public, 32), from_hex(key, 32))  # type: ignore[arg-type]
    signature = to_hex(HOST.sign(digest))
    assert refused(encode(ChannelReady(protocol=1, key=key, signature=signature))).code == "channel_untrusted"


@pytest.mark.parametrize("opening", [b'{"type":"channel_open"}', b'{"type":"channel_open","key":"0x"}', b"{"])
def test_an_opening_that_is_none_is_told(opening: bytes) -> None:
    """By the host, before it signs anything."""
    with pytest.raises(PeerFault, match="message_malformed"):
        accept(opening, MARKET, HOST, HOST_SECRET)


def test_another_version_is_refused_by_the_host() -> None:
    """With what it speaks."""
    with pytest.raises(Refused, match="channel_refused.*speaks channel 1"):
        accept(encode(ChannelOpen(protocol=2, key="0x" + "11" * 32)), MARKET, HOST, HOST_SECRET)


@pytest.mark.parametrize("message", [encode(Ping()), b"nonsense", b"[1]", b"\x01\xff", "{", '{"type":7}'])
def test_only_an_opening_opens_a_channel(message: bytes | str) -> None:
    """Whatever else a connection begins with is left to the session protocol."""
    assert not opens_channel(message)


def test_a_wrong_length_of_entropy_is_a_mistake_of_the_caller() -> None:
    """On both sides."""
    with pytest.raises(ValueError, match="32 bytes"):
        RenterHandshake(MARKET, HOST.address, b"short")
    with pytest.raises(ValueError, match="32 bytes"):
        accept(GOLDEN["channel_open"], MARKET, HOST, b"short")


# -- frames ------------------------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.booleans(), st.binary(max_size=3_000)), max_size=40))
def test_what_is_sealed_opens_in_order_in_both_directions(said: list[tuple[bool, bytes]]) -> None:
    """Whatever is said, by whom, and with whatever bytes at its end."""
    renter, host = pair()
    for by_renter, content in said:
        sender, reader = (renter, host) if by_renter else (host, renter)
        assert reader.open(sender.seal(content)) == content


Source = Literal["sent", "other direction", "other connection"]
deliveries = st.lists(
    st.tuples(
        st.sampled_from(["sent", "sent", "sent", "other direction", "other connection"]),
        st.integers(0, 7),
        st.one_of(st.none(), st.none(), st.tuples(st.sampled_from(["flip", "cut", "grow"]), st.integers(0, 10**6))),
    ),
    max_size=12,
)


def changed(frame: bytes, change: tuple[str, int] | None) -> bytes:
    """`frame` after one bit was flipped, its end cut off, or something was added."""
    if change is None:
        return frame
    how, where = change
    if how == "flip":
        at = where % (8 * len(frame))
        return frame[: at // 8] + bytes((frame[at // 8] ^ 1 << at % 8,)) + frame[at // 8 + 1 :]
    return frame[: where % len(frame)] if how == "cut" else frame + bytes(1 + where % 40)


@given(deliveries)
def test_only_the_next_frame_is_opened_and_nothing_after_another_one(
    delivered: list[tuple[Source, int, tuple[str, int] | None]],
) -> None:
    """Scrambled, replayed, reordered, dropped, truncated, mirrored, carried over from another connection: what comes out is always a
    beginning of what was sent, and after the first frame that is not the next one nothing comes out at all."""
    (renter, host), (other, _) = pair(), pair(bytes([8]) * 32, bytes([9]) * 32)
    words = [b"message %d" % n for n in range(8)]
    frames = {
        "sent": [renter.seal(word) for word in words],
        "other direction": [host.seal(word) for word in words],
        "other connection": [other.seal(word) for word in words],
    }
    opened: list[bytes] = []
    broken = None
    for source, n, change in delivered:
        frame = changed(frames[source][n], change)
        genuine = broken is None and frame == frames["sent"][len(opened) % 8] and len(opened) < 8
        if genuine:
            opened.append(host.open(frame))  # type: ignore[arg-type]
            continue
        found = code(host, frame)
        assert found in ("channel_tampered", "channel_replayed", "channel_gap")
        if broken is None and change is None:
            by_number = "channel_replayed" if n < len(opened) else "channel_gap" if n > len(opened) else None
            assert found == (by_number or "channel_tampered")
        assert broken in (None, found), "a broken channel says the same for ever"
        broken = found
    assert opened == words[: len(opened)]


def test_text_and_nothing_are_no_frames() -> None:
    """In a channel nothing is taken in plain."""
    for nothing in (encode(Ping()).decode(), encode(Ping()), b"", b"\x01", b"\x01" + bytes(24)):
        assert code(pair()[1], nothing) == "channel_tampered"


def test_the_end_is_told_from_a_message_and_cannot_be_forged() -> None:
    """A message with the words of an end is a message; an end of another connection ends nothing."""
    renter, host = pair()
    assert host.open(renter.seal(b"ended")) == b"ended"
    assert code(host, pair(bytes([8]) * 32)[0].end("ended")) == "channel_replayed"
    renter, host = pair()
    assert host.open(renter.end("draining")) == Ended("draining")


def test_a_key_that_is_stolen_now_opens_nothing_of_before_its_update() -> None:
    """The key of the next 1024 frames is a hash of the one before."""
    rows = {row["n"]: row["key"] for row in GOLDEN["renter_frames"]}
    assert rows[0] == rows[UPDATE_EVERY - 1] != rows[UPDATE_EVERY] != rows[2 * UPDATE_EVERY]


@given(st.binary(max_size=40_000))
def test_padding_comes_off_again(content: bytes) -> None:
    """Whatever the content ends with; its length is one of a few."""
    padded = pad(content)
    assert unpad(padded) == content
    assert len(padded) == bucket(len(content) + 1) and (len(padded) % 16_384 == 0 or len(padded).bit_count() == 1)


@pytest.mark.parametrize("padded", [b"", bytes(512), b"x" * 512, b"x\x80" + bytes(100), b"x\x80" + bytes(1022)])
def test_padding_that_this_code_does_not_make_is_refused(padded: bytes) -> None:
    """One encoding of each content, so that a length says nothing but the bucket."""
    with pytest.raises(Interrupted, match="channel_tampered"):
        unpad(padded)


@given(st.integers(0, 3 << 20))
def test_the_largest_message_fits_and_one_more_byte_does_not(bound: int) -> None:
    """Into a frame of so many bytes: a host drops the connection over a larger one."""
    size = largest_message(bound)
    header_and_tag = 9 + 16
    if size:
        assert header_and_tag + bucket(size + 2) <= bound < header_and_tag + bucket(size + 3)
    else:
        assert bound < header_and_tag + 512


def test_a_frame_is_never_taken_for_text() -> None:
    """Its first byte begins no JSON."""
    assert is_frame(pair()[0].seal(b"x"))
    assert not is_frame(encode(Ping())) and not is_frame(b"")


def test_no_word_is_in_what_is_printed_about_a_channel() -> None:
    """Nor a key."""
    renter, host = pair()
    host.open(renter.seal(b"secret"))
    assert repr(host) == "<Channel 0 out, 1 in>"
    assert RENTER_SECRET.hex() not in repr(RenterHandshake(MARKET, HOST.address, RENTER_SECRET))
