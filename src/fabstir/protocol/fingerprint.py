"""Fingerprints of activations: 258 bytes that stand for the final hidden states of 32 tokens (after TOPLOC, arXiv
2501.16007). Pure (numpy).

The 128 largest entries by absolute value, as 16-bit floats, are the values of a polynomial over GF(65497) at their
places; its coefficients are the fingerprint, with the modulus in front that keeps the places apart. Whoever recomputes
the states evaluates it at the places of their own 128 largest entries: where both agree, so do the values; elsewhere
the polynomial says something random.

`distance` is a number from 0 (the same) to 1 (nothing in common), made for averaging; what is too much is calibrated
(`fabstir.protocol.audit`). A fingerprint shows that its maker had these weights and read these tokens with them, not
that the tokens were drawn from them.
"""

from __future__ import annotations

import struct
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fabstir.protocol.fingerprinted import CHUNK_TOKENS, ENTRIES

PRIME: Final = 65497
"""Above the pattern of every finite bfloat16 (0xFF7F at most) and below 2 ** 16, so that a coefficient takes two bytes."""
States = NDArray[np.floating[Any]]
Residues = NDArray[np.int64]


def fingerprints(states: States) -> tuple[bytes, ...]:
    """One for each 32 rows of `states` (tokens x width) and one for what is left over."""
    return tuple(fingerprint(states[at : at + CHUNK_TOKENS]) for at in range(0, len(states), CHUNK_TOKENS))


def fingerprint(states: States) -> bytes:
    """At most SIZE bytes for up to 32 tokens. Raises ValueError where there are no states, too many, or ones that are not finite."""
    places, patterns = _largest(states)
    modulus = _modulus(places)
    coefficients = _interpolate(places % modulus, patterns)
    return struct.pack(f">H{len(coefficients)}H", modulus, *(int(value) for value in coefficients))


def distance(states: States, made: bytes) -> float:
    """How far recomputed `states` are from a fingerprint: the mean relative difference of their largest entries, each at most 1."""
    places, patterns = _largest(states)
    if len(made) != 2 + 2 * len(places):
        return 1.0
    modulus, *coefficients = struct.unpack(f">{1 + len(places)}H", made)
    if modulus == 0 or max(coefficients) >= PRIME:
        return 1.0
    said = _values(_evaluate(np.array(coefficients, np.int64), places % modulus))
    own = _values(patterns)
    with np.errstate(invalid="ignore", over="ignore"):
        apart = np.abs(said - own) / np.maximum(np.abs(own), np.finfo(np.float32).tiny)
    return float(np.where(np.isfinite(apart), np.minimum(apart, 1.0), 1.0).mean())


def _largest(states: States) -> tuple[Residues, Residues]:
    """Places and 16-bit patterns of the largest entries, by place."""
    flat = np.ascontiguousarray(states, np.float32).ravel()
    if not 0 < len(states) <= CHUNK_TOKENS or not np.isfinite(flat).all():
        raise ValueError("states of 1 to 32 tokens, all finite")
    count = min(ENTRIES, len(flat))
    places = np.sort(np.argsort(-np.abs(flat), kind="stable")[:count]).astype(np.int64)
    return places, _patterns(flat[places])


def _patterns(values: NDArray[np.float32]) -> Residues:
    """The upper halves, rounded to the nearest: bfloat16."""
    bits = values.view(np.uint32).astype(np.int64)
    return (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16


def _values(patterns: Residues) -> NDArray[np.float32]:
    return (patterns.astype(np.uint32) << 16).view(np.float32)


def _modulus(places: Residues) -> int:
    """The largest number up to PRIME by which no two places have the same remainder."""
    for modulus in range(PRIME, 0, -1):
        if len(np.unique(places % modulus)) == len(places):
            return modulus
    raise ValueError("places are not distinct")


def _interpolate(points: Residues, values: Residues) -> Residues:
    """Coefficients, lowest power first, of the polynomial with these values at these points (Newton's divided differences)."""
    count = len(points)
    differences = values.copy()
    for order in range(1, count):
        gaps = (points[order:] - points[:-order]) % PRIME
        differences[order:] = (differences[order:] - differences[order - 1 : -1]) % PRIME * _inverse(gaps) % PRIME
    coefficients = np.zeros(count, np.int64)
    for order in range(count - 1, -1, -1):
        shifted = np.concatenate(([0], coefficients[:-1]))
        coefficients = (shifted - points[order] * coefficients) % PRIME
        coefficients[0] = (coefficients[0] + differences[order]) % PRIME
    return coefficients


def _evaluate(coefficients: Residues, points: Residues) -> Residues:
    result = np.zeros(len(points), np.int64)
    for coefficient in coefficients[::-1]:
        result = (result * points + coefficient) % PRIME
    return result


def _inverse(values: Residues) -> Residues:
    """By Fermat: values ** (PRIME - 2)."""
    result, power, exponent = np.ones_like(values), values.copy(), PRIME - 2
    while exponent:
        if exponent & 1:
            result = result * power % PRIME
        power = power * power % PRIME
        exponent >>= 1
    return result
