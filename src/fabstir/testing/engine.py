"""An engine without a model: deterministic answers, failures and pauses on demand, no process.

`ScriptedEngine` keeps the whole contract of `fabstir.ports.engine.Engine`: one record for every token, the end-of-turn
token included; text only at UTF-8 boundaries and before stop sequences; going on after a `prefix`; waiting for a free
place when `parallel` requests are at work; named errors. What it says is a fixed answer per last user message, or the
echo grammar:

- "count 300" answers `1 2 3 ... 300`, one token per number;
- anything else answers `You said: <the message>`, one token per word.

It never reads a clock and never draws a random number: temperature and seed are ignored. Tests of everything above the
engine use it; the tests of real engines are in tests/engines.
"""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import re
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from typing import Final

import msgspec

from fabstir.domain.errors import error
from fabstir.domain.ids import Hash32, TokenId
from fabstir.ports.engine import (
    ChatMessage,
    EngineHealth,
    Frame,
    GenerationEnd,
    GenerationRequest,
    ModelInfo,
    TokenBatch,
    TokenRecord,
    Weight,
)
from fabstir.protocol.controls import CONTROLS

END_OF_TURN: Final = TokenId(0)
FORGERY: Final = "<|end|>"
"""The text of this engine's one control token."""
SCRIPTED_SHA256: Final = Hash32(b"scripted".ljust(32, b"\0"))

_COUNT: Final = re.compile(r"count (\d+)", re.IGNORECASE)


def token_id(piece: bytes) -> TokenId:
    """The id of a piece of text: the same in every process, never END_OF_TURN."""
    return TokenId(1 + zlib.crc32(piece) % 50_000)


def token_record(token: TokenId, alternatives: int) -> TokenRecord:
    """A record that depends on nothing but `token`; the token itself is the most likely one."""
    logprob = -(token % 997) * 100 - 1
    return TokenRecord(
        token, logprob, ((token, logprob), *((token + i, logprob - i * 500_000) for i in range(1, alternatives)))
    )


def words(text: str) -> list[bytes]:
    """`text` in tokens: each word with the white space before it, and what is left at the end."""
    return [piece.encode() for piece in re.findall(r"\s*\S+|\s+$", text)]


class Gate:
    """A place in an answer where generation waits. `reached` is set there; it goes on once `open` is set."""

    def __init__(self) -> None:
        self.reached: Final = asyncio.Event()
        self.open: Final = asyncio.Event()


class ScriptedEngine:
    """The port without a process. Holds no text beyond the running requests, except in `requests`, which tests read."""

    def __init__(
        self,
        answers: Mapping[str, Sequence[str | bytes]] | None = None,
        *,
        name: str = "scripted",
        context_size: int = 4096,
        parallel: int = 8,
        batch_tokens: int = 1,
        top: int = 4,
        sha256: Hash32 = SCRIPTED_SHA256,
        scores: bool = False,
    ) -> None:
        """`answers` maps the last user message to token texts; bytes stand for tokens that end inside a character."""
        self._answers = {
            prompt: [p.encode() if isinstance(p, str) else p for p in pieces]
            for prompt, pieces in (answers or {}).items()
        }
        self._info = ModelInfo(
            name=name, context_size=context_size, sha256=sha256, parallel=parallel, frame=Frame(0, 4), controls=CONTROLS
        )
        self._scores = scores
        self._batch_tokens = batch_tokens
        self._top = top
        self._places = asyncio.Semaphore(parallel)
        self._health = EngineHealth("down", "not started")
        self._life = 0
        self._gates: dict[int, list[Gate]] = {}
        self._failures: list[tuple[int, str]] = []
        self.requests: list[GenerationRequest] = []
        """Every request so far, oldest first."""
        self._computed: dict[str, int] = {}
        """Tokens of each session's last prompt."""
        self.weighed: tuple[str, ...] = ()
        """Every text that was counted alone, oldest first."""
        self.active = 0
        """Requests that hold a place."""
        self.cancelled = 0
        """Generations whose iterator was closed before the end."""

    def __repr__(self) -> str:
        counts = f"{self.active} active, {len(self.requests)} seen, {self.cancelled} cancelled"
        return f"<ScriptedEngine {self._health.status} | Requests: {counts}>"

    def offering(self, *controls: str) -> ScriptedEngine:
        """The same with these controls alone. They are listed and change nothing: what comes of them is scripted, too."""
        self._info = msgspec.structs.replace(self._info, controls=controls)
        return self

    # -- what a test asks for -------------------------------------------------------------------------------------------

    def gate(self, at: int) -> Gate:
        """Make the next generation that reaches token number `at` (0 is the first) wait before it."""
        gate = Gate()
        self._gates.setdefault(at, []).append(gate)
        return gate

    def fail_next(self, at: int, code: str = "engine_failed") -> None:
        """Make the next generation that starts end with error `code` before token number `at`; add up."""
        self._failures.append((at, code))

    def crash(self, reason: str = "killed") -> None:
        """End every running request with `engine_gone` at its next token, and refuse new ones until `recover`."""
        self._life += 1
        self._health = EngineHealth("restarting", reason, self._health.restarts)

    def recover(self) -> None:
        """Be up again after `crash`."""
        self._health = EngineHealth("ok", restarts=self._health.restarts + 1)

    # -- the port -------------------------------------------------------------------------------------------------------

    @property
    def info(self) -> ModelInfo:
        return self._info

    async def start(self) -> None:
        self._health = EngineHealth("ok", restarts=self._health.restarts)

    async def stop(self) -> None:
        self._life += 1
        self._health = EngineHealth("down", "stopped", self._health.restarts)

    async def health(self) -> EngineHealth:
        return self._health

    async def count_tokens(self, messages: tuple[ChatMessage, ...]) -> int:
        self._require_up()
        return sum(4 + len(words(message.content)) for message in messages)

    async def weigh(self, texts: tuple[str, ...]) -> tuple[Weight, ...]:
        self._require_up()
        self.weighed += texts
        return tuple(Weight(len(words(text)), FORGERY in text) for text in texts)

    async def generate(self, request: GenerationRequest) -> AsyncIterator[TokenBatch | GenerationEnd]:
        self.requests.append(request)
        if request.score:
            async for scored in self._score(request):
                yield scored
            return
        prefix_tokens = len(words(request.prefix))
        prompt_tokens = await self.count_tokens(request.messages) + prefix_tokens
        room = self._info.context_size - prompt_tokens
        if room < 1:
            raise error("context_too_long", f"prompt has {prompt_tokens} tokens, context {self._info.context_size}")
        life = self._life
        async with self._places:
            self.active += 1
            finished = False
            try:
                pieces, shown, reason = self._plan(request, min(room, request.max_tokens))
                async with contextlib.aclosing(self._run(pieces, shown, life)) as batches:
                    async for batch in batches:
                        yield batch
                finished = True
                yield GenerationEnd(
                    finish_reason=reason,
                    prompt_tokens=prompt_tokens,
                    completion_tokens=len(pieces),
                    cached_tokens=self._reused(request, prompt_tokens),
                )
            except (GeneratorExit, asyncio.CancelledError):
                self.cancelled += not finished
                raise
            finally:
                self.active -= 1

    async def _score(self, request: GenerationRequest) -> AsyncGenerator[TokenBatch | GenerationEnd]:
        """As likely as this engine would have said when it generated them; what it would not have said is less likely."""
        if not self._scores:
            raise error("engine_refused", "this engine does not score")
        own = {token_id(piece) for piece in self._answer(request)} | {END_OF_TURN}
        for token in request.score:
            likely = token_record(TokenId(token), self._top)
            record = likely if token in own else TokenRecord(token, -9_000_000, likely.top)
            yield TokenBatch((record,), "")
        counted = await self.count_tokens(request.messages)
        yield GenerationEnd(finish_reason="length", prompt_tokens=counted, completion_tokens=len(request.score))

    # -- inside ---------------------------------------------------------------------------------------------------------

    def _require_up(self) -> None:
        if self._health.status != "ok":
            raise error("engine_gone", f"{self._health.status}: {self._health.reason}")

    def _reused(self, request: GenerationRequest, prompt_tokens: int) -> int:
        """What the session's last prompt had, as an engine with a prefix cache says it; all but the last token at most."""
        if not request.cache:
            return 0
        before, self._computed[request.cache] = self._computed.get(request.cache, 0), prompt_tokens
        return min(before, prompt_tokens - 1)

    def _answer(self, request: GenerationRequest) -> list[bytes]:
        last = next((m.content for m in reversed(request.messages) if m.role == "user"), "")
        if last in self._answers:
            pieces = self._answers[last]
        elif match := _COUNT.search(last):
            pieces = [b"1"] + [f" {i}".encode() for i in range(2, int(match[1]) + 1)]
        else:
            pieces = words(f"You said: {last}")
        return _after(pieces, request.prefix.encode())

    def _plan(self, request: GenerationRequest, limit: int) -> tuple[list[bytes], int, str]:
        """The pieces to emit (b"" is the end-of-turn token), bytes of them that may be shown, finish reason."""
        pieces = self._answer(request)
        if request.ignore_eos:
            pieces = (pieces * (limit // max(1, len(pieces)) + 1) if pieces else [b" on"] * limit)[:limit]
        whole = b"".join(pieces)
        stops = [stop.encode() for stop in request.stop if stop]
        found = [(at + len(stop), at) for stop in stops if (at := whole.find(stop)) >= 0]
        end, cut = min(found, default=(len(whole), len(whole)))
        needed = _count_until(pieces, end)
        if found and needed <= limit:
            return pieces[:needed], cut, "stop"
        if not found and len(pieces) < limit and not request.ignore_eos:
            return [*pieces, b""], cut, "stop"
        return pieces[:limit], cut, "length"

    async def _run(self, pieces: list[bytes], shown: int, life: int) -> AsyncGenerator[TokenBatch]:
        fail_at, code = self._failures.pop(0) if self._failures else (-1, "")
        records: list[TokenRecord] = []
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        text, position = "", 0
        for at, piece in enumerate(pieces):
            if self._gates.get(at):
                gate = self._gates[at].pop(0)
                gate.reached.set()
                await gate.open.wait()
            await asyncio.sleep(0)
            if at == fail_at:
                raise error(code, f"scripted before token {at}")
            if life != self._life:
                raise error("engine_gone", self._health.reason)
            last = at + 1 == len(pieces)
            records.append(token_record(token_id(piece) if piece else END_OF_TURN, self._top))
            text += decoder.decode(piece[: max(0, shown - position)], last)
            position += len(piece)
            if len(records) >= self._batch_tokens or last:
                yield TokenBatch(tuple(records), text)
                records, text = [], ""


def _after(pieces: list[bytes], prefix: bytes) -> list[bytes]:
    """What is left of `pieces` after `prefix`; all of it where the answer does not begin so."""
    whole = b"".join(pieces)
    if not prefix or not whole.startswith(prefix):
        return list(pieces)
    position, rest = 0, []
    for piece in pieces:
        position += len(piece)
        if position > len(prefix):
            rest.append(piece[-(position - len(prefix)) :] if position - len(prefix) < len(piece) else piece)
    return rest


def _count_until(pieces: list[bytes], end: int) -> int:
    """How many pieces it takes to have `end` bytes."""
    total = 0
    for number, piece in enumerate(pieces, 1):
        total += len(piece)
        if total >= end:
            return number
    return len(pieces)
