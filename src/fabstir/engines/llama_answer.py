"""One answer of llama.cpp's server, folded from the events of its stream into records and text. Pure; `llama_client` does the talking.

It decides what becomes a record, what text may be shown, when the answer is over and why, and notices where the server left tokens out:

- An event shows one token. Where `tokens_predicted` jumps by more than one, the tokens between ended inside a UTF-8 character: a `Gap`.
- Nothing is recorded that the server did not report. A gap is filled by asking (`llama_client`), never by guessing; tokens after the last
  complete character when an answer ends (at most a few, only at the end of the context) are neither shown nor recorded nor counted.
- The limit is kept here, with `SPARE` more tokens asked for, so that a character which the limit cuts still has ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from fabstir.engines.llama_wire import Chunk, raw_bytes, token_record
from fabstir.engines.stop_cutter import StopCutter
from fabstir.ports.engine import GenerationEnd, GenerationRequest, TokenBatch, TokenRecord

SPARE: Final = 3
"""A UTF-8 character has at most four bytes."""


class Gap(msgspec.Struct, frozen=True):
    """Tokens that the server counted and did not report, and the token with which their character became complete."""

    hidden: int
    record: TokenRecord
    """Of the last one, as the server reported it."""
    data: bytes
    """Bytes of all of them."""
    text: str


class Found(msgspec.Struct, frozen=True):
    """A token of a gap, found out afterwards."""

    record: TokenRecord
    data: bytes


class AnswerFold:
    """Call `begin` for each stream, `take` for each event, `batch` to hand over. Holds the ids of the answer, no text that was shown."""

    def __init__(self, request: GenerationRequest, top: int) -> None:
        self.ids: list[int] = []
        """Every token of the answer so far."""
        self.finish = ""
        """`stop` or `length` once the answer is over."""
        self._limit = request.max_tokens
        self._top = top
        self._cutter = StopCutter(request.stop)
        self._records: list[TokenRecord] = []
        self._text = ""
        self._reported = 0
        self._undecided = False
        self._prompt_tokens = 0
        self._cached_tokens = 0

    def __repr__(self) -> str:
        return f"<AnswerFold {len(self.ids)} of {self._limit} tokens, {self.finish or 'going on'}>"

    @property
    def wanted(self) -> int:
        """How many tokens to ask for in the next stream."""
        return self._limit - len(self.ids) + SPARE

    def begin(self) -> None:
        """A new stream starts, which counts its tokens from one."""
        self._reported = 0

    def take(self, chunk: Chunk) -> Gap | None:
        """Fold one event. A gap must be filled, and a new stream begun, before the next event is taken."""
        if chunk.prompt_progress is not None and not self.ids:
            self._cached_tokens = chunk.prompt_progress.cache
        if not self._prompt_tokens:
            self._prompt_tokens = chunk.tokens_evaluated
        if chunk.stop_type:
            self._finish("stop" if chunk.stop_type in ("eos", "word") else "length")
        elif chunk.completion_probabilities:
            return self._token(chunk)
        return None

    def _token(self, chunk: Chunk) -> Gap | None:
        if self._undecided:
            self._finish("length")
            return None
        probability = chunk.completion_probabilities[0]
        hidden = chunk.tokens_predicted - self._reported - 1
        self._reported = chunk.tokens_predicted
        record = token_record(probability, self._top)
        if hidden:
            return Gap(hidden, record, raw_bytes(probability), chunk.content)
        self._add(record, chunk.content)
        return None

    def fill(self, gap: Gap, found: Sequence[Found]) -> None:
        """Add the tokens of a gap: each gets its record, the last one brings the text."""
        kept = found[: self._limit - len(self.ids)]
        whole = len(kept) == len(found)
        text = gap.text if whole else b"".join(item.data for item in kept).decode("utf-8", "ignore")
        for item in kept[:-1]:
            self._add(item.record, "")
        self._add(kept[-1].record, text)
        if not whole:
            self.cut()

    def cut(self) -> None:
        """No more tokens fit."""
        if not self.finish:
            self._finish("length")

    def _add(self, record: TokenRecord, text: str) -> None:
        self.ids.append(record.token)
        self._records.append(record)
        self._text += self._cutter.feed(text)
        if self._cutter.stopped:
            self.finish = "stop"
        elif len(self.ids) >= self._limit:
            # A token without text may be the end of the turn: the next event says so, and the reason is then `stop`.
            self._undecided = not text
            if text:
                self._finish("length")

    def _finish(self, reason: str) -> None:
        self._text += self._cutter.rest()
        self.finish = reason

    def batch(self) -> TokenBatch | None:
        """What came since the last call, if it can be handed over."""
        if not self._records:
            return None
        if not self.finish and not self._text and self._cutter.holding:
            return None  # a record stays back, so that held text can leave with it if the answer ends here
        batch = TokenBatch(tuple(self._records), self._text)
        self._records, self._text = [], ""
        return batch

    def end(self) -> GenerationEnd:
        """The last item."""
        return GenerationEnd(
            finish_reason=self.finish,
            prompt_tokens=self._prompt_tokens,
            completion_tokens=len(self.ids),
            cached_tokens=self._cached_tokens,
        )
