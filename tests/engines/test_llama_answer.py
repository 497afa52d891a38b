"""The fold of a stream into records: nothing invented, nothing lost, nothing counted twice."""

from __future__ import annotations

from tests.engines.asking import ask

from fabstir.engines.llama_answer import SPARE, AnswerFold, Found, Gap
from fabstir.engines.llama_wire import Chunk, EventStream, Progress
from fabstir.ports.engine import TokenRecord


def token(number: int, token_id: int, text: str, data: bytes | None = None) -> Chunk:
    """The event for the `number`-th token of a stream."""
    body = text.encode() if data is None else data
    listed = ",".join(map(str, body))
    raw = (
        f'data: {{"content":"{text}","tokens_predicted":{number},"tokens_evaluated":9,"completion_probabilities":'
        f'[{{"id":{token_id},"bytes":[{listed}],"logprob":-0.5,"top_logprobs":[{{"id":{token_id},"logprob":-0.5}}]}}]}}\n\n'
    )
    return EventStream().feed(raw.encode())[0]


def end(reason: str, number: int) -> Chunk:
    """The last event."""
    return Chunk(stop_type=reason, tokens_predicted=number, tokens_evaluated=9)


def record(token_id: int) -> TokenRecord:
    """The record that `token` makes."""
    return TokenRecord(token_id, -500_000, ((token_id, -500_000),))


def handed_over(fold: AnswerFold) -> tuple[list[int], str]:
    """Ids and text of the next batch."""
    batch = fold.batch()
    return ([item.token for item in batch.records], batch.text) if batch else ([], "")


def test_every_token_is_recorded_the_end_of_turn_too() -> None:
    """An answer of two words and its end has three records and says `stop`."""
    fold = AnswerFold(ask("?"), top=1)
    for chunk in (
        Chunk(prompt_progress=Progress(4), tokens_evaluated=9),
        token(1, 5, "Hi"),
        token(2, 6, " you"),
        token(3, 2, ""),
    ):
        assert fold.take(chunk) is None
    assert handed_over(fold) == ([5, 6, 2], "Hi you")
    fold.take(end("eos", 3))
    finished = fold.end()
    assert (finished.finish_reason, finished.completion_tokens) == ("stop", 3)
    assert (finished.prompt_tokens, finished.cached_tokens) == (9, 4)


def test_a_jump_of_the_count_is_a_gap() -> None:
    """Tokens that the server counted and did not report are asked for, not skipped."""
    fold = AnswerFold(ask("?"), top=1)
    fold.take(token(1, 5, "It is "))
    gap = fold.take(token(3, 7, "€", "€".encode()))
    assert gap == Gap(hidden=1, record=record(7), data="€".encode(), text="€")
    fold.fill(gap, [Found(record(300), b"\xe2\x82"), Found(record(7), b"\xac")])
    assert handed_over(fold) == ([5, 300, 7], "It is €")
    fold.begin()
    assert fold.take(token(1, 8, "!")) is None, "the new stream counts from one"


def test_the_limit_ends_the_answer_at_once() -> None:
    """A token with text at the limit needs no further event."""
    fold = AnswerFold(ask("?", max_tokens=2), top=1)
    assert fold.wanted == 2 + SPARE
    fold.take(token(1, 5, "a"))
    fold.take(token(2, 6, "b"))
    assert fold.finish == "length"
    assert handed_over(fold) == ([5, 6], "ab")


def test_an_end_of_turn_at_the_limit_is_a_stop() -> None:
    """The last token that fits may be the end of the turn: the reason says what happened."""
    fold = AnswerFold(ask("?", max_tokens=1), top=1)
    fold.take(token(1, 2, ""))
    assert fold.finish == ""
    fold.take(end("eos", 1))
    assert (fold.finish, fold.end().completion_tokens) == ("stop", 1)


def test_a_token_beyond_the_limit_is_not_recorded() -> None:
    """It was computed to learn how the character ends; nobody pays for it."""
    fold = AnswerFold(ask("?", max_tokens=1), top=1)
    fold.take(token(1, 9, ""))
    fold.take(token(2, 5, "x"))
    assert (fold.finish, handed_over(fold)) == ("length", ([9], ""))


def test_a_limit_inside_a_character_keeps_the_tokens_that_fit() -> None:
    """Their records stand, the broken character is not shown."""
    fold = AnswerFold(ask("?", max_tokens=2), top=1)
    fold.take(token(1, 5, "a"))
    gap = fold.take(token(3, 7, " €", " €".encode()))
    assert gap is not None
    fold.fill(gap, [Found(record(300), b" \xe2\x82"), Found(record(7), b"\xac")])
    assert (fold.finish, handed_over(fold)) == ("length", ([5, 300], "a "))


def test_tokens_that_were_never_reported_are_not_counted() -> None:
    """The context ended inside a character: what has no id is neither recorded nor metered."""
    fold = AnswerFold(ask("?"), top=1)
    fold.take(token(1, 5, "a"))
    fold.take(end("limit", 3))
    assert (fold.end().finish_reason, fold.end().completion_tokens) == ("length", 1)


def test_held_text_leaves_with_the_last_record() -> None:
    """A beginning of a stop sequence at the end of the answer is shown, and never without a record."""
    fold = AnswerFold(ask("?", stop=("END",)), top=1)
    fold.take(token(1, 5, "x EN"))
    assert handed_over(fold) == ([5], "x ")
    fold.take(token(2, 2, ""))
    assert fold.batch() is None
    fold.take(end("eos", 2))
    assert handed_over(fold) == ([2], "EN")


def test_a_stop_sequence_inside_a_gap_still_stops() -> None:
    """The reason stays `stop` where the sequence and the limit meet."""
    fold = AnswerFold(ask("?", max_tokens=2, stop=("€",)), top=1)
    gap = fold.take(token(2, 7, "€", "€".encode()))
    assert gap is not None
    fold.fill(gap, [Found(record(300), b"\xe2\x82"), Found(record(7), b"\xac")])
    assert (fold.finish, handed_over(fold)) == ("stop", ([300, 7], ""))
