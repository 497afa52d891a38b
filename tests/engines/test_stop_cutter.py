"""Stop sequences are never shown, and nothing else is ever lost."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fabstir.engines.stop_cutter import StopCutter


def shown(pieces: list[str], stops: tuple[str, ...]) -> tuple[str, bool]:
    """What a reader sees of `pieces`, and whether a stop sequence ended it."""
    cutter = StopCutter(stops)
    text = "".join(cutter.feed(piece) for piece in pieces)
    return text + cutter.rest(), cutter.stopped


def test_a_sequence_over_three_tokens_is_cut() -> None:
    """The sequence need not come in one piece."""
    assert shown(["Hello ", "E", "N", "D", " more"], ("END",)) == ("Hello ", True)


def test_a_sequence_that_only_begins_is_shown_at_the_end() -> None:
    """Text that was held back for a sequence that never came is not lost."""
    assert shown(["Hello E", "N"], ("END",)) == ("Hello EN", False)


def test_text_is_held_back_no_longer_than_needed() -> None:
    """As soon as the sequence cannot come any more, the text leaves."""
    cutter = StopCutter(("ab", "ac"))
    assert (cutter.feed("xa"), cutter.holding) == ("x", True)
    assert (cutter.feed("d"), cutter.holding) == ("ad", False)


def test_the_earliest_of_several_sequences_counts() -> None:
    """Whatever the order in which they were given."""
    assert shown(["one two three"], ("three", "two")) == ("one ", True)


def test_an_empty_sequence_is_none() -> None:
    """It would stop every answer before its first character."""
    assert shown(["abc"], ("",)) == ("abc", False)


@given(
    st.lists(st.text("ab", max_size=4), max_size=12),
    st.lists(st.text("ab", min_size=1, max_size=4), max_size=3).map(tuple),
)
def test_cutting_does_not_depend_on_the_pieces(pieces: list[str], stops: tuple[str, ...]) -> None:
    """However a text is split: what is shown is the text before the first completed sequence, or all of it."""
    whole = "".join(pieces)
    ends = [(at + len(stop), at) for stop in stops if (at := whole.find(stop)) >= 0]
    text, stopped = shown(pieces, stops)
    assert stopped == bool(ends)
    if not ends:
        assert text == whole
    else:
        assert whole.startswith(text)
        assert not any(stop in text for stop in stops)
