"""The circuit `spot` without the circuit: integers, rows, leaves, and how a proof lies in bytes."""

from __future__ import annotations

import math
import random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabstir.domain.ids import Hash32, ModelId
from fabstir.protocol import head_tree, spot, spot_proof
from fabstir.protocol.model_identity import ModelIdentity
from fabstir.protocol.padded_tree import HASH, PaddedTree, root_of
from fabstir.protocol.signing import keccak
from fabstir.protocol.spot_proof import SpotProof
from fabstir.protocol.transcript import RECORD_TAG, Sampler, TokenRecord, record_digest, record_preimage

SALT = Hash32(b"\x5a" * 32)
PROOF = SpotProof(
    words=bytes(range(160)) * 2, first=7, denominator=-5, record=b"r" * 67, trace_path=bytes(64), dots=(1, -2, 3, -4),
    row_paths=bytes(128), halo2=bytes(spot_proof.HALO2_BYTES),
)  # fmt: skip


def record(index: int, token: int, top: tuple[tuple[int, int], ...]) -> bytes:
    logprob = dict(top).get(token, -20_000_000)
    whole = record_preimage(SALT, index, TokenRecord(token, logprob, top), Sampler(0, 1_000_000))
    return whole[len(RECORD_TAG) :]


def listed(count: int) -> tuple[tuple[int, int], ...]:
    return tuple((10 + place, -1_000_000 * (place + 1)) for place in range(count))


def test_a_hidden_state_becomes_integers() -> None:
    """1024ths, rounded; what does not fit is refused and not cut off."""
    assert spot.quantised([1.0, -0.5, 0.00049]) == (1024, -512, 1)
    for bad in ([], [0.0] * 897, [8192.0], [-8192.0], [math.nan], [math.inf]):
        with pytest.raises(ValueError, match="hidden state"):
            spot.quantised(bad)


@given(st.floats(1e-12, 30_000))
def test_the_scale_is_the_largest_that_fits(largest: float) -> None:
    """One bit more would not, but for the bound of 30."""
    scale = head_tree.scale_for(largest)
    assert round(largest * 2**scale) <= head_tree.WEIGHT_LIMIT
    assert scale == head_tree.MAX_SCALE or round(largest * 2 ** (scale + 1)) > head_tree.WEIGHT_LIMIT


@pytest.mark.parametrize("largest", [0.0, -1.0, math.nan, math.inf, 1e9])
def test_a_head_of_nothing_or_too_much_has_no_scale(largest: float) -> None:
    """All zeros, no numbers, or weights beyond sixteen bits."""
    with pytest.raises(ValueError, match="no scale"):
        head_tree.scale_for(largest)


def test_the_drawn_token_and_three_others_are_checked() -> None:
    """Whatever the seed: the own row first, then three different ones of the list, and over seeds every one of them."""
    seen: set[int] = set()
    for number in range(200):
        rows = spot.checked_rows(record(0, 12, listed(9)), keccak(b"%d" % number))
        assert rows[0] == (12, -3_000_000) and len({row.token for row in rows}) == spot.ROWS
        assert all(row.logprob == dict(listed(9))[row.token] for row in rows)
        seen |= {row.token for row in rows}
    assert seen == {token for token, _ in listed(9)}


def test_a_token_outside_its_list_is_checked_too() -> None:
    """A sampler may draw one that is not among the most likely."""
    rows = spot.checked_rows(record(0, 99, listed(3)), SALT)
    assert rows[0] == (99, -20_000_000) and {row.token for row in rows[1:]} == {10, 11, 12}


@pytest.mark.parametrize("count", range(4))
def test_a_short_list_is_not_enough(count: int) -> None:
    """Fewer than three others: one logit alone says nothing, since the denominator is free."""
    with pytest.raises(ValueError, match="other tokens; 3 are needed"):
        spot.checked_rows(record(0, 10, listed(count)), SALT)
    assert len(spot.checked_rows(record(0, 10, listed(4)), SALT)) == spot.ROWS


def test_the_record_is_the_transcripts() -> None:
    """The digest in the leaf is the one that host and renter sign."""
    token = TokenRecord(10, -1_000_000, listed(4))
    assert spot.record_digest(record(5, 10, listed(4))) == record_digest(SALT, 5, token, Sampler(0, 1_000_000))


def test_everything_of_a_trace_is_in_its_leaf() -> None:
    """Record, point and denominator, each; and the first index in the commitment."""
    base = spot.leaf_of(bytes(32), bytes(64), 0)
    others = {
        spot.leaf_of(b"\1" * 32, bytes(64), 0),
        spot.leaf_of(bytes(32), b"\1" * 64, 0),
        spot.leaf_of(bytes(32), bytes(64), -1),
    }
    assert len({base, *others}) == 4
    assert spot.commitment_of(0, base) != spot.commitment_of(1, base)


def test_records_of_a_checkpoint_follow_each_other() -> None:
    """A gap, a repetition and none at all are refused: each position has its one record."""
    traces = [spot.TokenTrace((1,), 0, record(index, 10, listed(4)), b"") for index in (4, 5, 7)]
    with pytest.raises(ValueError, match="follow each other"):
        spot.commit(traces, bytes(192))
    with pytest.raises(ValueError, match="follow each other"):
        spot.first_index([traces[0], traces[0]])
    with pytest.raises(ValueError, match="follow each other"):
        spot.first_index([])
    assert spot.first_index(traces[:2]) == 4


def test_salts_are_of_one_token_and_one_connection() -> None:
    """Hidden states of two tokens, or of two sessions, are hidden by different numbers below the field's order."""
    salts = {spot.hidden_salt(salt, index) for salt in (SALT, Hash32(bytes(32))) for index in range(3)}
    assert len(salts) == 6 and {len(salt) for salt in salts} == {31}


@given(st.integers(1, 40), st.data())
def test_every_leaf_has_one_path(size: int, data: st.DataObject) -> None:
    """It leads to the root from its own place only, and its length follows from the size."""
    leaves = [keccak(b"%d" % place) for place in range(size)]
    tree = PaddedTree(b"".join(leaves))
    place = data.draw(st.integers(0, size - 1))
    path = tree.path(place)
    assert len(path) == HASH * (size - 1).bit_length()
    assert root_of(place, leaves[place], path) == tree.root
    if size > 1:
        assert root_of(place ^ 1, leaves[place], path) != tree.root


def test_a_tree_has_whole_leaves() -> None:
    """And at least one."""
    for bad in (b"", bytes(33)):
        with pytest.raises(ValueError, match="whole leaves"):
            PaddedTree(bad)
    with pytest.raises(IndexError):
        PaddedTree(bytes(64)).path(2)
    with pytest.raises(ValueError, match="whole points"):
        head_tree.tree_of(bytes(65))


def test_a_proof_is_what_it_encodes_to() -> None:
    """Read back it is the same; with anything after its end, or cut off, it is none."""
    data = PROOF.encoded()
    assert spot_proof.decoded(data) == PROOF
    assert PROOF.model_id == ModelId(PROOF.words[128:160])
    for bad in (data + bytes(32), data[:-32], b"", bytes(64), b"\xff" * 640):
        assert spot_proof.decoded(bad) is None


def test_a_part_that_does_not_fit_is_refused() -> None:
    """A programmer's mistake shows where it is made."""
    for wrong in ({"first": 2**32}, {"denominator": 2**63}, {"words": bytes(32)}, {"dots": (1,)}):
        with pytest.raises(ValueError, match=".+"):
            msgspec.structs.replace(PROOF, **wrong).encoded()


def test_the_error_is_that_of_the_logit() -> None:
    """In exact integers: 2^(scale + 10) units to a micro-nat, to the last one."""
    draw = random.Random(4)
    hidden = spot.quantised([draw.gauss(0, 1) for _ in range(64)])
    row = head_tree.quantised([draw.gauss(0, 0.1) for _ in range(64)], 14)
    product, unit = spot.dot(hidden, row), 1 << 24
    logit = round(product * 1_000_000 / unit)
    claimed = spot.CheckedRow(1, logit - 3_000_000)
    assert abs(spot.error_of(product, claimed, 3_000_000, 14)) <= unit
    edge = spot.error_of(0, spot.CheckedRow(1, -spot.TOLERANCE), 0, 14)
    assert spot.tolerated(edge, 14) and spot.tolerated(-edge, 14)
    assert not spot.tolerated(edge + 1, 14) and not spot.tolerated(-edge - 1, 14)


def test_a_models_id_is_of_all_five() -> None:
    """Each of them changes it."""
    base = ModelIdentity(repository="a/b", file="c", sha256=SALT, tokenizer=SALT, template=SALT)
    other = Hash32(bytes(32))
    changed = [
        msgspec.structs.replace(base, **{name: other if isinstance(getattr(base, name), bytes) else "x"})
        for name in base.__struct_fields__
    ]
    assert len({model.model_id for model in [base, *changed]}) == 6
