"""Filters over metadata: `must`, `should` and `must_not` of conditions on one field each.

    {"must": [{"key": "year", "range": {"gte": 2020}}], "must_not": [{"key": "tags", "match": {"value": "draft"}}]}
    {"should": [{"key": "lang", "in": ["de", "fr"]}, {"must": [...]}]}

All of `must` hold, none of `must_not`, and at least one of `should` if there is any. `match` is equality in kind and value; a field
that is a list matches if one of its items does. `match: {"any": [...]}` is `in`. A key names a field, or with dots a field of an
object in a field. What is missing matches nothing. The parser is strict: anything it does not know is refused with
its place (`vector_filter`). Decides about one object at a time; indexes over many are a shell's, which asks `values_of` and
`holds`, so that both agree.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from fabstir.domain.errors import FabstirError, error

MAX_DEPTH: Final = 8
MAX_CONDITIONS: Final = 256
MAX_IN: Final = 10_000
MAX_KEY: Final = 256
_CLAUSES: Final = ("must", "should", "must_not")
_BOUNDS: Final = ("gt", "gte", "lt", "lte")

Scalar = str | int | bool
Token = tuple[str, Scalar]
"""A value with its kind, since True == 1 in Python."""


class AnyOf(msgspec.Struct, frozen=True):
    """The field, or an item of it, is one of these."""

    key: str
    tokens: frozenset[Token]


class Within(msgspec.Struct, frozen=True):
    """The field, or an item of it, is a number within the bounds."""

    key: str
    low: float
    high: float
    with_low: bool
    with_high: bool

    def takes(self, number: float) -> bool:
        """Whether `number` is within."""
        above = number >= self.low if self.with_low else number > self.low
        return above and (number <= self.high if self.with_high else number < self.high)


class Filter(msgspec.Struct, frozen=True):
    """A tree of conditions."""

    must: tuple[Condition, ...] = ()
    should: tuple[Condition, ...] = ()
    must_not: tuple[Condition, ...] = ()


Condition = AnyOf | Within | Filter


def parse(value: object) -> Filter:
    """Raises PeerFault (`vector_filter`), its detail begins with the place."""
    budget = [MAX_CONDITIONS]
    return _filter(value, "filter", MAX_DEPTH, budget)


def token(value: object) -> Token | None:
    """How equality sees a value; None for what equals nothing (null, fractions, objects)."""
    if isinstance(value, bool):
        return ("bool", value)
    if isinstance(value, int):
        return ("int", value)
    if isinstance(value, str):
        return ("str", value)
    if isinstance(value, float) and value.is_integer():
        return ("int", int(value))
    return None


def number(value: object) -> float | None:
    """How a range sees a value."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def values_of(metadata: Mapping[str, Any], key: str) -> Iterator[object]:
    """What is in the field: itself, or each item of a list. A field with the whole key's name comes before one that is reached by dots."""
    found: object = metadata.get(key)
    if key not in metadata:
        found = metadata
        for part in key.split("."):
            if not isinstance(found, Mapping) or part not in found:
                return
            found = found[part]
    if isinstance(found, list):
        yield from found
    else:
        yield found


def holds(condition: Condition, metadata: Mapping[str, Any]) -> bool:
    """Whether an object passes."""
    if isinstance(condition, AnyOf):
        return any(token(value) in condition.tokens for value in values_of(metadata, condition.key))
    if isinstance(condition, Within):
        numbers = (number(value) for value in values_of(metadata, condition.key))
        return any(each is not None and condition.takes(each) for each in numbers)
    return (
        all(holds(each, metadata) for each in condition.must)
        and not any(holds(each, metadata) for each in condition.must_not)
        and (not condition.should or any(holds(each, metadata) for each in condition.should))
    )


def _filter(value: object, place: str, depth: int, budget: list[int]) -> Filter:
    fields = _fields(value, place, _CLAUSES)
    if not fields:
        raise error("vector_filter", f"{place}: empty; leave the filter out")
    if not depth:
        raise error("vector_filter", f"{place}: nested deeper than {MAX_DEPTH}")
    clauses: dict[str, tuple[Condition, ...]] = {}
    for name, items in fields.items():
        if not isinstance(items, list) or not items:
            raise error("vector_filter", f"{place}.{name}: a list of conditions")
        clauses[name] = tuple(
            _condition(item, f"{place}.{name}[{position}]", depth, budget) for position, item in enumerate(items)
        )
    return Filter(**clauses)


def _condition(value: object, place: str, depth: int, budget: list[int]) -> Condition:
    budget[0] -= 1
    if budget[0] < 0:
        raise error("vector_filter", f"{place}: more than {MAX_CONDITIONS} conditions")
    if isinstance(value, dict) and "key" not in value and set(value) & set(_CLAUSES):
        return _filter(value, place, depth - 1, budget)
    fields = _fields(value, place, ("key", "match", "range", "in"))
    key = fields.pop("key", None)
    if not isinstance(key, str) or not 1 <= len(key) <= MAX_KEY:
        raise error("vector_filter", f"{place}.key: the name of a field, 1 to {MAX_KEY} characters")
    if len(fields) != 1:
        raise error("vector_filter", f"{place}: one of match, range and in")
    [(operator, argument)] = fields.items()
    if operator == "range":
        return _within(key, argument, f"{place}.range")
    if operator == "in":
        return _any_of(key, argument, f"{place}.in")
    given = _fields(argument, f"{place}.match", ("value", "any"))
    if len(given) != 1:
        raise error("vector_filter", f"{place}.match: one of value and any")
    if "any" in given:
        return _any_of(key, given["any"], f"{place}.match.any")
    return AnyOf(key, frozenset([_token(given["value"], f"{place}.match.value")]))


def _any_of(key: str, argument: object, place: str) -> AnyOf:
    if not isinstance(argument, list) or not 1 <= len(argument) <= MAX_IN:
        raise error("vector_filter", f"{place}: a list of 1 to {MAX_IN} values")
    return AnyOf(key, frozenset(_token(value, f"{place}[{position}]") for position, value in enumerate(argument)))


def _within(key: str, argument: object, place: str) -> Within:
    bounds: dict[str, float] = {}
    for name, value in _fields(argument, place, _BOUNDS).items():
        try:
            bound = number(value)
        except OverflowError as cause:
            raise error("vector_filter", f"{place}.{name}: beyond what a number holds") from cause
        if bound is None or not math.isfinite(bound):
            raise error("vector_filter", f"{place}.{name}: a finite number")
        bounds[name] = bound
    if not bounds or {"gt", "gte"} <= set(bounds) or {"lt", "lte"} <= set(bounds):
        raise error("vector_filter", f"{place}: at least one bound, at most one at each end")
    low = bounds.get("gte", bounds.get("gt", -math.inf))
    high = bounds.get("lte", bounds.get("lt", math.inf))
    return Within(key, low, high, with_low="gt" not in bounds, with_high="lt" not in bounds)


def _token(value: object, place: str) -> Token:
    if (found := token(value)) is None or isinstance(value, float):
        raise error("vector_filter", f"{place}: text, an integer or a boolean; fractions go by range")
    return found


def _fields(value: object, place: str, known: tuple[str, ...]) -> dict[str, object]:
    if not isinstance(value, dict):
        raise _expected(place, known)
    if unknown := sorted(str(key) for key in value if key not in known):
        raise error("vector_filter", f"{place}: {unknown[0][:40]!r} is not one of {', '.join(known)}")
    return dict(value)


def _expected(place: str, known: tuple[str, ...]) -> FabstirError:
    return error("vector_filter", f"{place}: an object of {', '.join(known)}")
