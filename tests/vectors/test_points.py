"""What comes in: ids, vectors, metadata, descriptions. Whatever is wrong has its own name, and nothing wrong gets in."""

from __future__ import annotations

import uuid

import numpy as np
import pytest

from fabstir.domain.errors import FabstirError, PeerFault
from fabstir.protocol.vectors.collection import check_embedder, describe, spec_of
from fabstir.protocol.vectors.points import MAX_METADATA, batch_of, matrix_of, metadata_bytes, point_id, vector_of

SPEC = describe("notes", 3)
DOT = describe("notes", 3, "dot")
HALF = describe("notes", 3, "dot", precision="f16")


@pytest.mark.parametrize("good", [0, (1 << 64) - 1, "a", "ä/ö #1", "x" * 256])
def test_ids_stay_what_they_are(good: int | str) -> None:
    """An integer does not become text, nor text an integer."""
    assert point_id(good) == good and type(point_id(good)) is type(good)


def test_two_spellings_of_a_uuid_are_one_point() -> None:
    """As an object, in capitals, or as text."""
    number = uuid.uuid4()
    assert point_id(number) == point_id(str(number).upper()) == str(number)


@pytest.mark.parametrize("bad", [-1, 1 << 64, True, None, 1.0, "", "x" * 257, "a\n", "\ud800", b"a", ["a"]])
def test_other_ids_are_refused(bad: object) -> None:
    """By name."""
    with pytest.raises(PeerFault, match="vector_id"):
        point_id(bad)


def test_a_cosine_vector_is_kept_at_length_one() -> None:
    """And its direction is what was given, however long or short it was."""
    rows = matrix_of(SPEC, [[3, 0, 4], [1e-20, 0, 0], [3e15, 0, 4e15]])
    assert np.allclose(rows, np.asarray([[0.6, 0, 0.8], [1, 0, 0], [0.6, 0, 0.8]]))
    assert np.array_equal(matrix_of(DOT, [[3, 0, 4]]), np.asarray([[3, 0, 4]], np.float32))


@pytest.mark.parametrize(
    ("vectors", "code"),
    [
        ([[1, 2]], "vector_dimension"),
        ([[1, 2, 3, 4]], "vector_dimension"),
        ([1, 2, 3], "vector_invalid"),
        ([[1, 2, 3], [1, 2]], "vector_invalid"),
        ([[1, 2, "3"]], "vector_invalid"),
        ([[1, 2, None]], "vector_invalid"),
        ([[True, False, True]], "vector_invalid"),
        ([[1, 2, float("nan")]], "vector_invalid"),
        ([[1, 2, float("inf")]], "vector_invalid"),
        ([[1, 2, 1e60]], "vector_invalid"),
        ([[1, 2, -2e16]], "vector_invalid"),
    ],
)
@pytest.mark.parametrize("spec", [SPEC, DOT, HALF])
def test_other_vectors_are_refused(spec, vectors: object, code: str) -> None:
    """For every metric."""
    with pytest.raises(PeerFault, match=code):
        matrix_of(spec, vectors)


def test_which_vector_is_wrong_is_told() -> None:
    """One of a batch of thousands has to be found."""
    with pytest.raises(PeerFault) as refused:
        matrix_of(SPEC, [[1, 2, 3], [0, 0, 0]])
    assert refused.value.detail == "vector 1 has no direction"


def test_half_precision_rounds_when_it_comes_in() -> None:
    """So that every tier sees the same numbers; what does not fit is refused."""
    assert matrix_of(HALF, [[1.0001, 0, 0]])[0, 0] == np.float32(np.float16(1.0001))
    with pytest.raises(PeerFault, match="half precision"):
        matrix_of(HALF, [[1e6, 0, 0]])


@pytest.mark.parametrize(
    "bad",
    [
        [],
        "text",
        {"a": float("nan")},
        {"a": [float("inf")]},
        {"a": b"bytes"},
        {1: "a"},
        {"a": {2: 3}},
        {"a": 1 << 64},
        {"a": "\ud800"},
        {"a": "x" * MAX_METADATA},
        {"a": {"b": {"c": {"d": {"e": {"f": {"g": {"h": {"i": 1}}}}}}}}},
    ],
)
def test_other_metadata_is_refused(bad: object) -> None:
    """Too large, too deep, or not JSON."""
    with pytest.raises(PeerFault, match="vector_metadata"):
        metadata_bytes(bad)


def test_a_batch_has_as_many_of_each() -> None:
    """Rows, ids and metadata belong together."""
    for ids, vectors, metadata in (([], [], None), ([1], [[1, 2, 3]] * 2, None), ([1], [[1, 2, 3]], [{}, {}])):
        with pytest.raises(PeerFault, match=r"vector_batch|vector_invalid"):
            batch_of(SPEC, ids, vectors, metadata)
    assert batch_of(SPEC, [1, "b"], [[1, 2, 3], [1, 2, 4]]).metadata == [b"{}", b"{}"]


def test_a_query_is_one_vector() -> None:
    """Not a list of them."""
    assert vector_of(SPEC, [0, 0, 2]).tolist() == [0, 0, 1]
    with pytest.raises(PeerFault, match="vector_invalid"):
        vector_of(SPEC, [[0, 0, 2]])


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "Ä"},
        {"name": ""},
        {"name": "../up"},
        {"dimension": 0},
        {"dimension": 5000},
        {"dimension": True},
        {"metric": "manhattan"},
        {"embedder": ""},
        {"embedder": "A"},
        {"precision": "i8"},
    ],
)
def test_other_descriptions_are_refused(wrong: dict[str, object]) -> None:
    """A name is also that of a directory."""
    with pytest.raises(PeerFault, match="vector_collection"):
        describe(**({"name": "a", "dimension": 3} | wrong))  # type: ignore[arg-type]


def test_a_stored_description_is_checked_again() -> None:
    """It comes from a file."""
    for value in (None, {}, {"name": 1, "dimension": 3, "metric": "cosine", "embedder": "raw", "precision": "f32"}):
        with pytest.raises(PeerFault, match="vector_collection"):
            spec_of(value)


def test_embedders_do_not_mix() -> None:
    """Whatever the dimension."""
    spec = describe("a", 384, embedder="minilm-l6-v2/f32/onnx")
    check_embedder(spec, "minilm-l6-v2/f32/onnx")
    with pytest.raises(FabstirError, match="vector_embedder"):
        check_embedder(spec, "minilm-l6-v2/i8/onnx")
