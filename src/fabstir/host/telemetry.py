"""What one session adds to the node's metrics and traces: counts and times of its answers. Sees messages, keeps no text and no ids."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from fabstir.ops.metrics import FINISH_REASONS, Metrics
from fabstir.ports.spans import Asked, PromptSpan, Spans
from fabstir.protocol.generation import GenerationEnd
from fabstir.protocol.messages import Error, FromHost, Prompt, Response, StreamChunk


class SessionTelemetry:
    """One per session; times are of the monotonic clock that it is given."""

    def __init__(
        self,
        metrics: Metrics,
        monotonic: Callable[[], float],
        spans: Spans | None = None,
        *,
        model: str = "",
        job: str = "",
    ) -> None:
        self._metrics = metrics
        self._monotonic = monotonic
        self._spans = spans
        self._model, self._job = model, job
        self._span: PromptSpan | None = None
        self._asked_at: float | None = None
        self._last_token: float | None = None

    def prompted(self, prompt: Prompt) -> None:
        """A prompt arrived."""
        self._asked_at = self._monotonic()
        self._last_token = None
        if self._spans is not None:
            self.left()
            self._span = self._spans.prompt(
                Asked(
                    model=self._model,
                    job=self._job,
                    max_tokens=prompt.max_tokens,
                    temperature=prompt.temperature,
                    top_p=prompt.top_p,
                )
            )

    def sent(self, message: FromHost) -> None:
        """A message went out."""
        if isinstance(message, StreamChunk):
            self._tokens(len(message.tokens))
        elif isinstance(message, Response):
            known = message.finish_reason in FINISH_REASONS
            self._metrics.success(message.finish_reason if known else "interrupted")
            self._metrics.prompt_tokens.inc(message.usage.prompt_tokens)
            self._ended()
            if (span := self._span) is not None:
                self._span = None
                span.answered(message.finish_reason, message.usage.prompt_tokens, message.usage.completion_tokens)
        elif isinstance(message, Error):
            self._metrics.failure(message.code)
            if message.message_index is not None:  # this one ends an answer
                self._ended()
                self.left(message.code)

    def left(self, code: str = "cancelled") -> None:
        """An answer that is under way ends without its end."""
        if self._span is not None:
            span, self._span = self._span, None
            span.failed(code)

    def computed(self, end: GenerationEnd) -> None:
        """The engine is done with an answer."""
        self._metrics.prefix_cache_hits.inc(end.cached_tokens)

    def acknowledged(self, tokens: int) -> None:
        """So many more tokens are signed for."""
        self._metrics.acknowledged_tokens.inc(tokens)

    @contextlib.contextmanager
    def generation(self) -> Iterator[Callable[[], None]]:
        """Around one generation; call what it gives when it has its place at an engine."""
        metrics, waiting = self._metrics, True
        metrics.requests_waiting.inc()

        def started() -> None:
            nonlocal waiting
            if waiting:
                waiting = False
                metrics.requests_waiting.dec()
                metrics.requests_running.inc()
                if self._span is not None:
                    self._span.admitted()
                if self._asked_at is not None:
                    metrics.queue_time.observe(self._monotonic() - self._asked_at)

        try:
            yield started
        finally:
            (metrics.requests_waiting if waiting else metrics.requests_running).dec()

    def _tokens(self, count: int) -> None:
        now, metrics = self._monotonic(), self._metrics
        metrics.generation_tokens.inc(count)
        if self._last_token is not None:
            metrics.inter_token_latency.observe((now - self._last_token) / count)
        elif self._asked_at is not None:
            metrics.time_to_first_token.observe(now - self._asked_at)
            if self._span is not None:
                self._span.first_token()
        self._last_token = now

    def _ended(self) -> None:
        if self._asked_at is not None:
            self._metrics.request_latency.observe(self._monotonic() - self._asked_at)
            self._asked_at = None
