"""Filters: the strict parser, and that one object and an index of many objects give the same answer."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabstir.domain.errors import PeerFault
from fabstir.protocol.vectors.filters import holds, parse
from fabstir.vectors.fields import Fields, mask_of_few

BOOK = {"year": 1999, "tags": ["a", "b"], "author": {"name": "Ada"}, "draft": False, "a.b": 7, "price": 9.5}


@pytest.mark.parametrize(
    ("wanted", "passes"),
    [
        ({"must": [{"key": "year", "match": {"value": 1999}}]}, True),
        ({"must": [{"key": "year", "match": {"value": "1999"}}]}, False),
        ({"must": [{"key": "draft", "match": {"value": False}}]}, True),
        ({"must": [{"key": "draft", "match": {"value": 0}}]}, False),
        ({"must": [{"key": "tags", "match": {"value": "b"}}]}, True),
        ({"must": [{"key": "author.name", "in": ["Bob", "Ada"]}]}, True),
        ({"must": [{"key": "author.name", "match": {"any": ["Bob"]}}]}, False),
        ({"must": [{"key": "a.b", "match": {"value": 7}}]}, True),
        ({"must": [{"key": "year", "range": {"gte": 1999, "lt": 2000}}]}, True),
        ({"must": [{"key": "year", "range": {"gt": 1999}}]}, False),
        ({"must": [{"key": "price", "range": {"lte": 9.5}}]}, True),
        ({"must": [{"key": "draft", "range": {"gte": 0}}]}, False),
        ({"must": [{"key": "missing", "range": {"gte": 0}}]}, False),
        ({"must_not": [{"key": "missing", "match": {"value": 1}}]}, True),
        ({"must_not": [{"key": "tags", "match": {"value": "a"}}]}, False),
        ({"should": [{"key": "year", "match": {"value": 1}}, {"key": "year", "match": {"value": 1999}}]}, True),
        ({"should": [{"key": "year", "match": {"value": 1}}]}, False),
        ({"must": [{"should": [{"key": "year", "match": {"value": 1999}}]}]}, True),
    ],
)
def test_what_passes(wanted: dict[str, Any], passes: bool) -> None:
    """Equality is of kind and value, a list matches by its items, what is missing matches nothing."""
    assert holds(parse(wanted), BOOK) is passes


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({}, "filter: empty"),
        ([], "filter: an object"),
        ({"must": []}, "filter.must: a list"),
        ({"all": [1]}, "'all' is not one of must, should, must_not"),
        ({"must": [{"key": "a"}]}, "filter.must[0]: one of match, range and in"),
        ({"must": [{"key": "a", "match": {"value": 1}, "in": [1]}]}, "filter.must[0]: one of"),
        ({"must": [{"key": "a", "regex": "x"}]}, "'regex' is not one of"),
        ({"must": [{"key": "", "in": [1]}]}, "filter.must[0].key"),
        ({"must": [{"key": 1, "in": [1]}]}, "filter.must[0].key"),
        ({"must": [{"key": "a", "match": {"text": "x"}}]}, "filter.must[0].match: 'text'"),
        ({"must": [{"key": "a", "match": {"value": 1.5}}]}, "fractions go by range"),
        ({"must": [{"key": "a", "match": {"value": None}}]}, "filter.must[0].match.value"),
        ({"must": [{"key": "a", "in": []}]}, "filter.must[0].in"),
        ({"must": [{"key": "a", "in": [[1]]}]}, "filter.must[0].in[0]"),
        ({"must": [{"key": "a", "range": {}}]}, "at least one bound"),
        ({"must": [{"key": "a", "range": {"gt": 1, "gte": 1}}]}, "at most one at each end"),
        ({"must": [{"key": "a", "range": {"gt": float("nan")}}]}, "filter.must[0].range.gt: a finite number"),
        ({"must": [{"key": "a", "range": {"gt": True}}]}, "a finite number"),
        ({"must": [{"key": "a", "range": {"gt": 10**400}}]}, "beyond what a number holds"),
        ({"must": [{"key": "a", "range": {"above": 1}}]}, "'above' is not one of"),
        ({"must": [{"key": "a", "match": {"value": 1}}] * 300}, "more than 256 conditions"),
    ],
)
def test_anything_unknown_is_refused_with_its_place(wrong: object, says: str) -> None:
    """An operator that is ignored would answer another question than was asked."""
    with pytest.raises(PeerFault, match="vector_filter") as refused:
        parse(wrong)
    assert says in refused.value.detail


def test_depth_is_bounded() -> None:
    """A filter cannot exhaust the stack."""
    deep: dict[str, Any] = {"must": [{"key": "a", "in": [1]}]}
    for _ in range(8):
        deep = {"must": [deep]}
    with pytest.raises(PeerFault, match="vector_filter"):
        parse(deep)


VALUES = st.one_of(st.integers(-3, 3), st.booleans(), st.sampled_from(["x", "y"]), st.floats(-3, 3), st.none())
OBJECTS = st.dictionaries(st.sampled_from("ab"), st.one_of(VALUES, st.lists(VALUES, max_size=3)), max_size=2)
LEAVES = st.one_of(
    st.builds(
        lambda key, values: {"key": key, "in": values},
        st.sampled_from("ab"),
        st.lists(st.one_of(st.integers(-3, 3), st.booleans(), st.sampled_from("xy")), min_size=1, max_size=3),
    ),
    st.builds(
        lambda key, low, high: {"key": key, "range": {low[0]: low[1], high[0]: high[1]}},
        st.sampled_from("ab"),
        st.tuples(st.sampled_from(["gt", "gte"]), st.integers(-3, 3)),
        st.tuples(st.sampled_from(["lt", "lte"]), st.integers(-3, 3)),
    ),
)
TREES = st.recursive(
    LEAVES,
    lambda inner: st.dictionaries(
        st.sampled_from(["must", "should", "must_not"]), st.lists(inner, min_size=1, max_size=3), min_size=1
    ),
    max_leaves=6,
).filter(lambda tree: "key" not in tree)


@given(st.lists(OBJECTS, min_size=1, max_size=12), TREES)
def test_an_index_answers_as_each_object_does(objects: list[dict[str, Any]], tree: dict[str, Any]) -> None:
    """Frozen segments answer from an index of fields, the growing one row by row; nobody may see a difference."""
    condition, packed = parse(tree), [msgspec.json.encode(each) for each in objects]
    truth = [holds(condition, each) for each in objects]
    assert Fields(packed).mask(condition).tolist() == truth
    assert mask_of_few(packed, condition).tolist() == truth
    assert Fields(packed).mask(condition).dtype == np.bool_
