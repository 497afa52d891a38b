"""Which rows of a segment pass a filter: an index of each field that anybody has filtered by, made at its first use.

A frozen segment's metadata never changes, so its index is right for ever; which rows are deleted is known elsewhere. The growing
segment has none: its few thousand rows are looked at one by one. What a value is, `protocol.vectors.filters` decides.
Memory: for each field that is filtered by, four bytes a row and a little for each value.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from fabstir.protocol.vectors.filters import Condition, Filter, Token, Within, holds, number, token, values_of

Mask = npt.NDArray[np.bool_]
_OBJECT = msgspec.json.Decoder(dict[str, Any])


def object_of(metadata: bytes) -> dict[str, Any]:
    """Metadata as it was given."""
    return _OBJECT.decode(metadata)


class _Field(msgspec.Struct, frozen=True):
    """One field of all rows."""

    rows_of: dict[Token, npt.NDArray[np.int32]]
    numbers: npt.NDArray[np.float64]
    """Ascending."""
    rows_of_numbers: npt.NDArray[np.int32]


class Fields:
    """Of one frozen segment. Used from several threads: at worst a field is indexed twice."""

    def __init__(self, metadata: Sequence[bytes]) -> None:
        self._metadata = metadata
        self._fields: dict[str, _Field] = {}

    def mask(self, condition: Condition) -> Mask:
        """The rows that pass."""
        if isinstance(condition, Filter):
            return self._tree(condition)
        field = self._field(condition.key)
        mask = np.zeros(len(self._metadata), np.bool_)
        if isinstance(condition, Within):
            mask[_within(field, condition)] = True
        else:
            for each in condition.tokens:
                if (rows := field.rows_of.get(each)) is not None:
                    mask[rows] = True
        return mask

    def _tree(self, condition: Filter) -> Mask:
        mask = np.ones(len(self._metadata), np.bool_)
        for each in condition.must:
            mask &= self.mask(each)
        for each in condition.must_not:
            mask &= np.logical_not(self.mask(each))
        if condition.should:
            mask &= np.logical_or.reduce([self.mask(each) for each in condition.should])
        return mask

    def _field(self, key: str) -> _Field:
        if (found := self._fields.get(key)) is None:
            found = self._fields[key] = _indexed(self._metadata, key)
        return found


def mask_of_few(metadata: Sequence[bytes], condition: Condition) -> Mask:
    """Row by row."""
    return np.fromiter((holds(condition, object_of(each)) for each in metadata), np.bool_, len(metadata))


def _indexed(metadata: Sequence[bytes], key: str) -> _Field:
    rows_of: dict[Token, list[int]] = {}
    numbers: list[tuple[float, int]] = []
    for row, each in enumerate(metadata):
        for value in values_of(object_of(each), key):
            if (known := token(value)) is not None:
                rows_of.setdefault(known, []).append(row)
            if (amount := number(value)) is not None:
                numbers.append((amount, row))
    numbers.sort()
    return _Field(
        {known: np.asarray(rows, np.int32) for known, rows in rows_of.items()},
        np.asarray([amount for amount, _ in numbers], np.float64),
        np.asarray([row for _, row in numbers], np.int32),
    )


def _within(field: _Field, condition: Within) -> npt.NDArray[np.int32]:
    low, high = 0, len(field.numbers)
    if not math.isinf(condition.low):
        low = int(np.searchsorted(field.numbers, condition.low, "left" if condition.with_low else "right"))
    if not math.isinf(condition.high):
        high = int(np.searchsorted(field.numbers, condition.high, "right" if condition.with_high else "left"))
    return field.rows_of_numbers[low:high]
