"""A seed phrase: 128 bits as thirteen words, and two words that check them.

The form is S5's: 1,024 words of which no two share their first three letters; twelve words carry ten bits each, the thirteenth eight
(so it is one of the first 256), and the last two the first twenty bits of BLAKE3(entropy). A word may be given by its first
three letters or whole; whatever follows the three letters has to fit the list's word, so that a phrase of another list is
refused rather than read as something else. Never draws randomness and never reads a file: the caller brings both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec
from blake3 import blake3

from fabstir.domain.errors import error

ENTROPY: Final = 16
WORDS: Final = 1024
PHRASE_WORDS: Final = 15
PREFIX: Final = 3
_SEED_WORDS: Final = 13
_LAST_BITS: Final = 8
_WORD_BITS: Final = 10


class WordList(msgspec.Struct, frozen=True):
    """1,024 words with distinct beginnings."""

    words: tuple[str, ...]
    by_prefix: dict[str, int]

    @classmethod
    def of(cls, words: Sequence[str]) -> WordList:
        """Raises LocalFault (`seed_phrase_invalid`) where the list has another form."""
        by_prefix = {word[:PREFIX]: index for index, word in enumerate(words)}
        if (
            len(words) != WORDS
            or len(by_prefix) != WORDS
            or any(not word.isalpha() or not word.islower() for word in words)
        ):
            raise error(
                "seed_phrase_invalid", f"a list of {len(words)} words with {len(by_prefix)} beginnings, not {WORDS}"
            )
        return cls(tuple(words), by_prefix)


def phrase_of(entropy: bytes, words: WordList) -> str:
    """The phrase of 16 bytes. They have to come from the system's randomness."""
    if len(entropy) != ENTROPY:
        raise ValueError(f"{len(entropy)} bytes of entropy, not {ENTROPY}")
    value = int.from_bytes(entropy, "big")
    last = value & ((1 << _LAST_BITS) - 1)
    value >>= _LAST_BITS
    seed = [value >> (_WORD_BITS * (11 - place)) & (WORDS - 1) for place in range(12)]
    return " ".join(words.words[index] for index in (*seed, last, *_checksum(entropy)))


def entropy_of(phrase: str, words: WordList) -> bytes:
    """The 16 bytes of a phrase. Raises LocalFault (`seed_phrase_invalid`); the detail never has a word of it."""
    given = phrase.lower().split()
    if len(given) != PHRASE_WORDS:
        raise error("seed_phrase_invalid", f"{len(given)} words, not {PHRASE_WORDS}")
    indexes = [_index(word, place, words) for place, word in enumerate(given, start=1)]
    if indexes[_SEED_WORDS - 1] >> _LAST_BITS:
        raise error("seed_phrase_invalid", f"word {_SEED_WORDS} is not one of the first {1 << _LAST_BITS}")
    value = 0
    for index in indexes[:12]:
        value = value << _WORD_BITS | index
    entropy = (value << _LAST_BITS | indexes[12]).to_bytes(ENTROPY, "big")
    if tuple(indexes[_SEED_WORDS:]) != _checksum(entropy):
        raise error("seed_phrase_invalid", "the last two words do not fit the others: one is wrong, or the order is")
    return entropy


def _index(word: str, place: int, words: WordList) -> int:
    index = words.by_prefix.get(word[:PREFIX])
    if index is None or not words.words[index].startswith(word):
        raise error("seed_phrase_invalid", f"word {place} is not in the list")
    return index


def _checksum(entropy: bytes) -> tuple[int, int]:
    bits = int.from_bytes(blake3(entropy).digest(3), "big") >> 4
    return bits >> _WORD_BITS, bits & (WORDS - 1)
