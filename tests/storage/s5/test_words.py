"""Where phrases come from."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import pytest

from fabstir.domain.errors import FabstirError
from fabstir.storage.s5.words import identity_of, new_phrase, read_words, words


def test_the_list_is_made_as_its_readme_says() -> None:
    """From the list of BIP-39 by the rule in data/README.md, word for word."""
    source = resources.files("eth_account").joinpath("hdaccount/wordlist/english.txt").read_text().split()
    shortest: dict[str, str] = {}
    for word in sorted((word for word in source if len(word) > 3), key=lambda word: (len(word), word)):
        shortest.setdefault(word[:3], word)
    dropped = sorted(shortest.values(), key=lambda word: (-len(word), word))[: len(shortest) - 1024]
    assert words().words == tuple(sorted(set(shortest.values()) - set(dropped)))


def test_every_phrase_is_new_and_opens() -> None:
    """Two phrases differ, and so do their keys; the same phrase gives the same keys."""
    first, second = new_phrase(), new_phrase()
    assert len(first.split()) == 15
    assert identity_of(first) == identity_of(first) != identity_of(second)


def test_a_file_that_is_not_the_list_is_refused(tmp_path: Path) -> None:
    """A list that somebody changed would give other keys, and with them nothing that was stored."""
    path = tmp_path / "words.txt"
    path.write_text("\n".join(words().words))
    for file in (path, tmp_path / "absent"):
        with pytest.raises(FabstirError) as caught:
            read_words(file)
        assert caught.value.code == "seed_phrase_invalid"
