"""The fuzzer in small: everything that it does to a host for ten minutes by command, for three seconds."""

from __future__ import annotations

import random
import zlib

import pytest

from tests.fuzz.attacks import ATTACKS, GOLDEN, frame, mutated
from tests.fuzz.sessions import told
from tests.fuzz.websocket import SESSIONS, fuzz, sound


@pytest.mark.real
async def test_a_host_stands_what_strangers_do() -> None:
    """Rubbish, fragments, bombs, floods, slow and vanished readers, in sessions and before: no crash, no complaint of ours in the log,
    memory and open files as before, and the sessions beside get every answer."""
    result = await fuzz(seed=7, seconds=3.0)
    assert sound(result), result
    assert result["bystander_answers"] > 0 and result["messages"] > 100
    assert result["files_after"] <= 32, result


def test_every_attack_is_tried() -> None:
    """By name; nothing that is written is left out."""
    assert set(ATTACKS) | set(SESSIONS) == {
        *("rubbish", "handshakes", "frames", "fragments", "bombs", "messages", "floods", "half_open"),
        *("session", "slow_reader"),
    }


def test_its_frames_are_frames() -> None:
    """The bytes of RFC 6455, masked or not, with lengths of each size; a bomb is a thousandth of what it unfolds to."""
    assert frame(b"abc", masked=False) == b"\x81\x03abc"
    assert frame(b"", 9, fin=False, rsv=4, masked=False) == b"\x49\x00"
    masked = frame(b"abc", 2)
    assert masked[:2] == b"\x82\x83"
    assert bytes(byte ^ masked[2 + at % 4] for at, byte in enumerate(masked[6:])) == b"abc"
    assert frame(b"x" * 126, masked=False)[:4] == b"\x81\x7e\x00\x7e"
    assert frame(b"", masked=False, length=2**63)[:10] == b"\x81\x7f\x80" + bytes(7)
    packed = zlib.compressobj(9, zlib.DEFLATED, -15)
    assert len(packed.compress(b" " * (1 << 20)) + packed.flush(zlib.Z_SYNC_FLUSH)) < 2_000


def test_its_messages_are_wrong_in_every_way() -> None:
    """The same seed gives the same ones; some are right, most are not."""
    chance = random.Random(3)
    made = [mutated(chance) for _ in range(400)]
    again = random.Random(3)
    assert made == [mutated(again) for _ in range(400)]
    right = {vector["encoded"].encode() for vector in GOLDEN}
    assert 20 < sum(message in right for message in made) < 200


def test_only_errors_are_complaints() -> None:
    """What a host logs as a warning is its business; what is no JSON is a traceback."""
    assert told('{"level":"warning","event":"x"}\n{"level":"error","event":"y"}\nTraceback\n') == [
        '{"level":"error","event":"y"}',
        "Traceback",
    ]
