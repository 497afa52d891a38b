"""Seed phrases from the system's randomness, and the word lists that they are written in.

The list that comes with this package is ours (data/README.md); a phrase of another S5 client is read with that client's list, from
a file. Never writes a phrase anywhere.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
from importlib import resources
from pathlib import Path
from typing import Final

from fabstir.domain.errors import error
from fabstir.protocol.storage.keys import Identity
from fabstir.protocol.storage.phrase import ENTROPY, WordList, entropy_of, phrase_of

WORDS_SHA256: Final = "67e66f79bf8de683322d42806413dd9f27a2fd9f7191e55d1fdbfdc9f9579984"
"""Of data/words.txt. A phrase written with one list is lost with another."""
S5_WORDS_SHA256: Final = "260836041909e645ed22dd17192e976b8bcc298eb3c370da8259c48c85d9bed7"
"""Of the list of s5.js: its 1,024 words with a line feed between two."""


@functools.cache
def words() -> WordList:
    """The list of this package."""
    text = resources.files("fabstir.storage.s5").joinpath("data/words.txt").read_bytes()
    if hashlib.sha256(text).hexdigest() != WORDS_SHA256:
        raise error("seed_phrase_invalid", "the list of words in this installation was changed")
    return WordList.of(text.decode().split())


def read_words(path: Path) -> WordList:
    """S5's own list, one word a line or as it stands between quotes in a source file. Raises `seed_phrase_invalid`."""
    try:
        text = path.read_text("utf-8")
    except (OSError, ValueError) as cause:
        raise error("seed_phrase_invalid", f"{path}: {cause}") from cause
    found = re.findall(r"[\"']([a-z]+)[\"']", text) or text.split()
    if hashlib.sha256("\n".join(found).encode()).hexdigest() != S5_WORDS_SHA256:
        raise error("seed_phrase_invalid", f"{path}: not S5's list of words")
    return WordList.of(found)


def new_phrase() -> str:
    """Fifteen words, new."""
    return phrase_of(os.urandom(ENTROPY), words())


def identity_of(phrase: str, from_list: WordList | None = None) -> Identity:
    """The keys of a phrase. Raises `seed_phrase_invalid`."""
    return Identity.of(entropy_of(phrase, from_list or words()))
