"""Epochs against a reference of their own: every session is found by its place, nothing else is found at all."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest
from eth_abi.abi import encode
from eth_utils.crypto import keccak
from hypothesis import given
from hypothesis import strategies as st

from fabstir.domain.ids import Address, Hash32, JobId
from fabstir.domain.money import Tokens
from fabstir.protocol.commitments import Checkpoint, open_path, tree_root
from fabstir.protocol.epochs import (
    EpochSession,
    commitment_digest,
    covering_path,
    covers,
    drawn,
    epoch_seed,
    epoch_statement,
    place_all,
    session_leaf,
)
from tests.protocol.market import terms

words = st.binary(min_size=32, max_size=32).map(Hash32)
sessions = st.builds(EpochSession, words.map(JobId), words, words, st.integers(1, 100_000).map(Tokens))
epochs = st.lists(sessions, min_size=1, max_size=21)


def reference_root(leaves: Sequence[tuple[bytes, int]]) -> tuple[bytes, int]:
    """By recursion over the largest power of two, not row by row."""
    if len(leaves) == 1:
        return leaves[0]
    middle = 1 << (len(leaves) - 1).bit_length() - 1
    left, right = reference_root(leaves[:middle]), reference_root(leaves[middle:])
    types = ["uint8", "bytes32", "uint32", "bytes32", "uint32"]
    return keccak(encode(types, [1, *left, *right])), left[1] + right[1]


@given(epochs)
def test_the_root_is_that_of_the_decision_record(members: list[EpochSession]) -> None:
    """Leaves keccak(2, job, keccak(tree, head), tokens), weighted by their tokens."""
    leaves = [
        (keccak(encode(["uint8", "bytes32", "bytes32", "uint32"], [2, s.job, keccak(s.tree_root + s.head), s.tokens])), s.tokens)
        for s in members
    ]  # fmt: skip
    assert [(node.hash, node.tokens) for node in map(session_leaf, members)] == leaves
    places = place_all(members)
    assert {(place.root, place.total) for place in places} == {reference_root(leaves)}
    assert [place.before for place in places] == [sum(s.tokens for s in members[:n]) for n in range(len(members))]


@given(epochs, st.data())
def test_every_choice_of_sessions_is_covered(members: list[EpochSession], data: st.DataObject) -> None:
    """By the path made of their own places, whatever is known of the others."""
    places = place_all(members)
    chosen = [places[n] for n in sorted(data.draw(st.sets(st.integers(0, len(places) - 1), min_size=1)))]
    path = covering_path(chosen)
    root, total = places[0].root, places[0].total
    assert covers(root, total, [place.session for place in chosen], path)
    assert len(path) <= 4 + len(chosen) * (4 + 36 * len(chosen[0].siblings) + 36)


@given(epochs, st.data())
def test_nothing_else_is_covered(members: list[EpochSession], data: st.DataObject) -> None:
    """Another job, tree, head, count, total or path."""
    places = place_all(members)
    place = data.draw(st.sampled_from(places))
    root, total, path = place.root, place.total, covering_path([place])
    other = data.draw(sessions.filter(lambda session: session != place.session))
    for field in ("job", "tree_root", "head", "tokens"):
        spoilt = msgspec.structs.replace(place.session, **{field: getattr(other, field)})
        assert covers(root, total, [spoilt], path) == (spoilt == place.session)
    assert not covers(root, Tokens(total + 1), [place.session], path)
    assert not covers(Hash32(keccak(root)), total, [place.session], path)
    assert not covers(root, total, [], path)
    assert not covers(root, total, [place.session], path + bytes(1))
    assert not covers(root, total, [place.session], path[: data.draw(st.integers(0, len(path) - 1))])


@given(epochs, st.integers(0))
def test_every_token_is_of_one_session(members: list[EpochSession], number: int) -> None:
    """The challenge falls to each session with the weight of its tokens; of a session that is not known, nothing is opened."""
    places = place_all(members)
    position = number % places[0].total
    place = drawn(places, position)
    assert place is not None and place.before <= position < place.before + place.session.tokens
    assert drawn([other for other in places if other is not place], position) is None


def test_seed_digest_and_statement_are_those_of_the_contract() -> None:
    """Written out as the contract encodes them."""
    contract, agreed = Address(b"\xc8" * 20), terms()
    tree = (Checkpoint(Hash32(b"\1" * 32), Tokens(256)), Checkpoint(Hash32(b"\2" * 32), Tokens(9)))
    first = EpochSession(JobId(b"\3" * 32), Hash32(b"\4" * 32), Hash32(b"\5" * 32), Tokens(50))
    second = EpochSession(JobId(b"\6" * 32), tree_root(tree).hash, Hash32(b"\7" * 32), Tokens(265))
    place = place_all([first, second])[1]
    seed = ["bytes32", "uint256", "address", "address", "bytes32"]
    block_hash = Hash32(b"\x0b" * 32)
    assert epoch_seed(31337, contract, agreed.host, place.root, block_hash) == keccak(
        encode(seed, [block_hash, 31337, contract, agreed.host, place.root])
    )
    digest = int.from_bytes(keccak(encode(["bytes32", "uint32"], [place.root, place.total])), "big") & (2**216 - 1)
    assert commitment_digest(place.root, place.total) == digest
    path = open_path(tree, 260)
    words = [
        "uint256",
        "address",
        "bytes32",
        "address",
        "bytes32",
        "bytes32",
        "uint256",
        "uint256",
        "uint32",
        "bytes32",
    ]
    values = [31337, contract, second.job, agreed.host, agreed.model_id, place.root, 315, 306, 9, b"\x0c" * 32]
    statement = epoch_statement(31337, contract, agreed, place, path, Hash32(b"\x0c" * 32))
    assert statement == keccak(encode(words, values))


def test_what_is_no_epoch() -> None:
    """No sessions, a session without tokens, more than the contract counts; places of two epochs, or out of order."""
    session = EpochSession(JobId(bytes(32)), Hash32(bytes(32)), Hash32(bytes(32)), Tokens(1))
    for members in (
        [],
        [msgspec.structs.replace(session, tokens=Tokens(0))],
        [msgspec.structs.replace(session, tokens=Tokens(2**31))] * 2,
    ):
        with pytest.raises(ValueError, match="epoch"):
            place_all(members)
    two, three = place_all([session] * 2), place_all([session] * 3)
    for places in ([], [two[1], two[0]], [two[0], two[0]], [two[0], three[1]]):
        with pytest.raises(ValueError, match="one epoch"):
            covering_path(places)
