"""Fingerprints from the end of an answer to the renter's file: of the right answer, signed by the host, and never in anybody's way."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from fabstir.domain.errors import FabstirError
from fabstir.domain.ids import to_hex
from fabstir.protocol.effects import RunFingerprints
from fabstir.protocol.host_session import FingerprintsMade
from fabstir.protocol.messages import ChatMessage, Fingerprints, SessionReady
from fabstir.protocol.renter_items import Ask, Finish, StopAnswer
from fabstir.protocol.renter_session import RenterState
from fabstir.protocol.signing import SigningKey
from fabstir.protocol.transcript_file import check, encode_file, read_transcript
from tests.protocol.market import HOST_KEY, MARKET, World, changed, named, opened

STRANGER = SigningKey(b"\x09" * 32)


def answered(*counts: int, **world: Any) -> World:
    """On rung 2; everything arrived but the fingerprints."""
    made = opened(rung=2, **world)
    for count in counts:
        made.answer(count)
    return made


def sent(world: World) -> Fingerprints:
    """The next ones, on the way to the renter."""
    [message] = world.fingerprint()
    assert isinstance(message, Fingerprints)
    return message


def left_for(world: World, message: Fingerprints, **fields: object) -> list[str]:
    """What the renter does about `message` with other fields."""
    scrambled = msgspec.json.decode(changed(message, **fields), type=Fingerprints)
    return named(world.renter.receive(scrambled, 0.0))


def signed(world: World, message: Fingerprints, key: SigningKey, **fields: Any) -> str:
    """A signature over `message` with other fields."""
    said = msgspec.structs.replace(message, **fields)
    digest = MARKET.fingerprints_digest(
        world.renter.ledger.job,
        said.message_index,
        said.first,  # type: ignore[arg-type]
        said.tokens,  # type: ignore[arg-type]
        bytes.fromhex(said.transcript[2:]),  # type: ignore[arg-type]
        said.fingerprints,
    )
    return to_hex(key.sign(digest))


# -- the host ------------------------------------------------------------------------------------------------------------


def test_an_answer_that_is_over_is_read_again_with_what_it_answered() -> None:
    """The tokens that were served, the conversation before them, and the place that both sides know."""
    world = answered(40, 33)
    first, second = world.reading
    assert (len(first.answer), len(second.answer)) == (40, 33)
    assert (second.of.message_index, second.of.first, second.of.tokens) == (1, 40, 33)
    assert second.of.transcript == world.host.ledger.head == world.renter.ledger.voucher.transcript  # type: ignore[union-attr]
    assert [message.role for message in second.messages] == ["user", "assistant", "user"]
    assert second.messages[-1] == ChatMessage("user", "q")


def test_a_cancelled_answer_has_them_too() -> None:
    """Of what was served of it."""
    world = opened(rung=2)
    world.ask()
    world.say(10)
    world.renter_in(StopAnswer())
    world.flow()
    assert [run.of.tokens for run in world.reading] == [10]


@pytest.mark.parametrize("rung", [None, 0, 1, 3, 4])
def test_only_who_pays_for_rung_2_has_them(rung: int | None) -> None:
    """The host says that it can; an answer on another rung is not read again, and fingerprints that come all the same are nobody's."""
    world = opened(rung=rung)
    world.answer(40)
    assert not world.reading
    assert not world.renter.awaits_fingerprints


def test_neither_scores_nor_empty_answers_are_read_again() -> None:
    """The first are about another host's tokens, the second have none."""
    world = opened(rung=2)
    world.host._core.offer = msgspec.structs.replace(world.offer, scores=True)
    world.renter_in(Ask(content="q", score=(0, 1, 2)))
    world.flow()
    world.generate(3)
    world.finish_generation("length")
    world.flow()
    world.answer(0)
    assert world.renter.state is RenterState.READY
    assert not world.reading and not world.renter.awaits_fingerprints


def test_they_are_dropped_with_the_connection() -> None:
    """No renter is there, or one that came by another connection with another session."""
    world = answered(40)
    [run] = world.reading
    world.cut()
    assert world.fingerprint() == []
    world.connect(world.renter.context)
    world.flow()
    late = FingerprintsMade(msgspec.structs.replace(run.of, session="another"), (b"f", b"f"))
    assert world.host_in(late) == []


def test_they_come_between_other_messages() -> None:
    """While the next answer streams, while the conversation is replaced, and after the renter said goodbye."""
    world = answered(40, 40)
    world.ask()
    world.generate(10)
    world.fingerprint()
    world.flow()
    assert world.kept[0].fingerprints
    world.finish_generation()
    world.flow()
    world.fingerprint()
    world.connect(world.renter.context)
    world.flow()
    assert world.kept[1].fingerprints
    world.fingerprint()
    world.renter_in(Finish())
    world.flow()
    assert world.renter.state is RenterState.ENDED
    assert world.kept[2].fingerprints
    assert world.errors == []


# -- the renter ----------------------------------------------------------------------------------------------------------


def test_what_is_kept_holds_together() -> None:
    """Through the bytes of a file; one that was tampered with does not."""
    world = answered(40, 64)
    for _ in range(2):
        world.fingerprint()
    world.flow()
    assert [len(turn.fingerprints) for turn in world.kept] == [2, 2]
    file = world.transcript()
    assert read_transcript(encode_file(file)) == file
    assert check(file).tokens == 104
    one, other = world.kept
    for tampered in (
        msgspec.structs.replace(one, fingerprints=(b"f", *one.fingerprints[1:])),
        msgspec.structs.replace(one, fingerprints=one.fingerprints[:1]),
        msgspec.structs.replace(
            one, fingerprints=other.fingerprints, fingerprints_signature=other.fingerprints_signature
        ),
        msgspec.structs.replace(one, fingerprints_signature=None),
        msgspec.structs.replace(one, fingerprints=()),
    ):
        with pytest.raises(FabstirError, match=r"receipt_file_invalid.*fingerprints"):
            check(msgspec.structs.replace(file, turns=(tampered, other)))
    bare = tuple(msgspec.structs.replace(turn, fingerprints=(), fingerprints_signature=None) for turn in (one, other))
    assert check(msgspec.structs.replace(file, turns=bare)).tokens == 104


def test_a_file_of_before_still_reads() -> None:
    """It has no place for fingerprints, and needs none."""
    world = opened()
    world.answer(40)
    file = world.transcript()
    tree = msgspec.json.decode(encode_file(file))
    for turn in tree["turns"]:
        del turn["fingerprints"], turn["fingerprints_signature"]
    assert read_transcript(msgspec.json.encode(tree)) == file


def test_an_answer_that_is_cut_short_loses_them() -> None:
    """They were of all of it."""
    world = answered(40)
    world.fingerprint()
    world.flow()
    [turn] = world.kept
    assert turn.until(40) == turn
    assert (turn.until(39).fingerprints, turn.until(39).fingerprints_signature) == ((), None)


@pytest.mark.parametrize(
    "fields",
    [
        {"first": 1},
        {"tokens": 41},
        {"transcript": "0x" + "ab" * 32},
        {"fingerprints": (b"only one",)},
        {"fingerprints": (b"one", b"two", b"three")},
        {"fingerprints": (b"one", b"two")},
    ],
    ids=repr,
)
def test_a_host_that_sends_others_is_left(fields: dict[str, Any]) -> None:
    """Signed by the host, they are not of what arrived; as many as there should be, it did not sign these. Nothing more is signed."""
    world = answered(40)
    message = sent(world)
    if len(fields.get("fingerprints", ())) != 2:
        fields["signature"] = signed(world, message, HOST_KEY, **fields)
    assert left_for(world, message, **fields) == ["LeaveHost fingerprints_invalid"]
    assert world.renter.state is RenterState.OFFLINE


def test_a_signature_of_somebody_else_is_refused() -> None:
    """As of a receipt: also while an answer streams, which then is broken off."""
    world = answered(40)
    message = sent(world)
    world.to_renter.clear()
    world.ask()
    got = left_for(world, message, signature=signed(world, message, STRANGER))
    assert got[-2:] == ["AnswerBroken fingerprints_invalid", "LeaveHost fingerprints_invalid"]


def test_of_an_answer_that_is_not_waited_for_they_are_ignored() -> None:
    """An unknown index, another session, and the same ones again."""
    world = answered(40)
    message = sent(world)
    assert left_for(world, message, message_index=7) == []
    assert left_for(world, message, session_id="another") == []
    assert left_for(world, message) == ["FingerprintsKept"]
    assert left_for(world, message) == []


def test_after_a_new_connection_none_are_waited_for() -> None:
    """What was being made for the old one is gone with it."""
    world = answered(40)
    assert world.renter.awaits_fingerprints
    world.cut()
    world.connect(world.renter.context)
    world.flow()
    assert not world.renter.awaits_fingerprints


def test_a_host_that_makes_none_is_not_waited_for() -> None:
    """It does not say that it does."""
    world = World(opened().terms, 1_000_000, rung=2)
    world.host._core.offer = msgspec.structs.replace(world.offer, fingerprints=False)
    world.connect()
    world.deliver_to_host()
    [ready] = world.on_the_way()
    assert isinstance(ready, SessionReady) and "fingerprints" not in ready.capabilities
    world.flow()
    world.answer(40)
    assert not world.renter.awaits_fingerprints


def test_what_is_read_again_is_an_effect_of_the_end_alone() -> None:
    """After everything that the renter waits for: the receipt and the response are on their way before."""
    world = opened(rung=2)
    world.ask()
    world.say(10)
    world.finish_generation()
    assert [type(message).__name__ for message in world.on_the_way()] == ["Receipt", "Response"]
    assert isinstance(world.reading[0], RunFingerprints)
