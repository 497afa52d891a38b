"""Bytes that the server did not assign to tokens are spelt only in ways that the server can have meant."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabstir.engines.llama_vocabulary import Vocabulary, ends_inside_character

EURO = "€".encode()
BYTES = [(number, bytes([number])) for number in range(256)]


def test_one_hidden_token_is_the_one_with_its_bytes() -> None:
    """Two tokens make a euro sign: what the second one leaves over names the first."""
    vocabulary = Vocabulary([*BYTES, (300, EURO[:2])])
    assert vocabulary.spellings(EURO, last=EURO[2], hidden=1) == [(300, EURO[2])]
    assert vocabulary.spellings(EURO, last=EURO[2], hidden=2) == [(EURO[0], EURO[1], EURO[2])]


def test_text_before_the_character_belongs_to_the_hidden_token() -> None:
    """A token may end one character and begin the next."""
    vocabulary = Vocabulary([*BYTES, (300, b" \xe2\x82")])
    assert vocabulary.spellings(b" " + EURO, last=EURO[2], hidden=1) == [(300, EURO[2])]


def test_a_token_that_would_have_been_reported_is_no_hidden_one() -> None:
    """The blank alone ends no character, so the server would have sent it."""
    assert Vocabulary(BYTES).spellings(b" " + EURO, last=EURO[2], hidden=3) == []


def test_two_spellings_are_both_found() -> None:
    """Where the bytes do not decide, the caller is told so."""
    smile = "😀".encode()
    vocabulary = Vocabulary([*BYTES, (300, smile[:2]), (301, smile[1:3])])
    assert set(vocabulary.spellings(smile, last=smile[3], hidden=2)) == {
        (300, smile[2], smile[3]),
        (smile[0], 301, smile[3]),
    }


def test_control_tokens_spell_nothing() -> None:
    """A token without bytes cannot be told from its absence: no spelling rather than a guess."""
    vocabulary = Vocabulary([(0, b""), (1, EURO[:2]), (2, EURO[2:])])
    assert vocabulary.spellings(EURO, last=2, hidden=2) == []
    assert vocabulary.spellings(EURO, last=1, hidden=1) == []


@pytest.mark.parametrize(
    ("data", "inside"),
    [
        (b"", False),
        (b"a", False),
        (EURO[:1], True),
        (EURO[:2], True),
        (EURO, False),
        (EURO + b"\xc3", True),
        ("😀".encode()[:3], True),
        (b"\xf0abc", False),
        (b"\xf0ab", True),  # not UTF-8, but so the server sees it
        (b"\x82\xac", False),
    ],
)
def test_inside_a_character_as_the_server_sees_it(data: bytes, inside: bool) -> None:
    """The same answer as llama.cpp's validate_utf8, its quirk included."""
    assert ends_inside_character(data) is inside


@given(st.text(min_size=1), st.data())
def test_every_spelling_makes_the_bytes(text: str, data: st.DataObject) -> None:
    """Joined again, the tokens give what was to be spelt, with the given last token and length."""
    whole = text.encode()
    cuts = sorted(data.draw(st.sets(st.integers(1, max(1, len(whole) - 1)), max_size=3)))
    pieces = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True) if a < b]
    vocabulary = Vocabulary([*BYTES, *((1000 + i, piece) for i, piece in enumerate(pieces))])
    last = 1000 + len(pieces) - 1
    for spelling in vocabulary.spellings(whole, last=last, hidden=len(pieces) - 1):
        assert len(spelling) == len(pieces)
        assert spelling[-1] == last
        assert b"".join(vocabulary.piece(token) for token in spelling) == whole
