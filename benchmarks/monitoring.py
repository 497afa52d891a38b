"""What monitoring costs: CPU of metrics, of log lines and of spans, for each message of a token stream.

A session's telemetry is fed with answers of 60 messages, a token a message, as `host/session_actor` feeds it: nothing at all, metrics
alone, with two log lines for each answer (JSON, through the guard), with a span for each prompt as well. Spans go through the SDK's batch
and are encoded as OTLP, and are not sent. The peer is what instrumentation of ASGI makes by itself: one span for each message. Only CPU
seconds of this process are counted, its threads' included.

    python benchmarks/monitoring.py [--quick] [--json]
"""

from __future__ import annotations

import io
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import structlog
from common import main
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from fabstir.host.telemetry import SessionTelemetry
from fabstir.ops.config import LogSection
from fabstir.ops.logging import configure
from fabstir.ops.metrics import Metrics
from fabstir.ops.tracing import OtelSpans, provider_for
from fabstir.protocol.messages import FromHost, Prompt, Response, StreamChunk, Usage
from fabstir.protocol.transcript import TokenRecord

MESSAGES = 60
"""Of one answer, before its `response`."""
AIM_US = 20.0
Feed = Callable[[int], None]


class Encoding(SpanExporter):
    """All the work of an exporter but the sending."""

    def __init__(self) -> None:
        self.bytes = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.bytes += len(encode_spans(spans).SerializeToString())
        return SpanExportResult.SUCCESS


def stream() -> list[FromHost]:
    """One answer."""
    record = TokenRecord(7, -1_000, ((7, -1_000), (8, -9_000)))
    chunks: list[FromHost] = [
        StreamChunk(session_id="s", message_index=0, index=index, content=" word", tokens=(record,))
        for index in range(MESSAGES)
    ]
    usage = Usage(prompt_tokens=40, completion_tokens=MESSAGES)
    return [
        *chunks,
        Response(
            session_id="s",
            message_index=0,
            finish_reason="stop",
            usage=usage,
            tokens_used=MESSAGES,
            signature="0x" + "00" * 65,
        ),
    ]


PROMPT = Prompt(session_id="s", message_index=0, content="hello")
STREAM = stream()


def nothing(answers: int) -> None:
    """The loop alone."""
    for _ in range(answers):
        for message in STREAM:
            _ = message


def telemetry(spans: OtelSpans | None, *, logs: bool) -> Feed:
    """As a session has it."""
    told = SessionTelemetry(Metrics(), time.monotonic, spans, model="m", job="00" * 32)
    log = structlog.get_logger()

    def feed(answers: int) -> None:
        for _ in range(answers):
            told.prompted(PROMPT)
            with told.generation() as started:
                started()
                for message in STREAM:
                    told.sent(message)
            if logs:
                log.info("session_opened", job_id=b"\x01" * 32)
                log.info("session_closed", job_id=b"\x01" * 32, code="ended", tokens=MESSAGES, status="finished")

    return feed


def every_message(tracer: Any) -> Feed:
    """What automatic instrumentation does."""

    def feed(answers: int) -> None:
        for _ in range(answers):
            for message in STREAM:
                with tracer.start_as_current_span("websocket.send", attributes={"asgi.event.type": "websocket.send"}):
                    _ = message

    return feed


def traced() -> tuple[Any, OtelSpans, Encoding]:
    """An SDK that encodes and drops."""
    provider, exporter = provider_for(100), Encoding()
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider, OtelSpans(provider), exporter


def microseconds(feed: Feed, answers: int) -> float:
    """CPU for each message."""
    began = time.process_time()
    feed(answers)
    return (time.process_time() - began) * 1e6 / (answers * len(STREAM))


def measure(quick: bool) -> dict[str, Any]:
    """Rounds of all ways, one after the other; the median of each."""
    configure(LogSection(format="json"), io.StringIO())
    rounds, answers = (7, 200) if quick else (15, 600)
    provider, spans, exporter = traced()
    peer_provider, _, _ = traced()
    ways: dict[str, Feed] = {
        "none": nothing,
        "metrics": telemetry(None, logs=False),
        "logs": telemetry(None, logs=True),
        "all": telemetry(spans, logs=True),
        "peer": every_message(peer_provider.get_tracer("peer")),
    }
    for feed in ways.values():
        feed(20)
    figures: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, feed in ways.items():
            figures[name].append(microseconds(feed, answers))
    provider.force_flush()
    if not exporter.bytes:
        raise AssertionError("no span was encoded")
    cost = {name: statistics.median(values) for name, values in figures.items()}
    return {
        "claim": f"Metrics, logs and traces together cost less than {AIM_US:g} us of CPU a message",
        "ours": round(cost["all"] - cost["none"], 2),
        "peer": round(cost["peer"] - cost["none"], 2),
        "ratio": round((cost["all"] - cost["none"]) / (cost["peer"] - cost["none"]), 3),
        "unit": "us CPU a message; peer: a span for each message",
        "n": rounds * answers * len(STREAM),
        "none_us": round(cost["none"], 3),
        "metrics_us": round(cost["metrics"] - cost["none"], 2),
        "logs_us": round(cost["logs"] - cost["metrics"], 2),
        "traces_us": round(cost["all"] - cost["logs"], 2),
        "aim_us": AIM_US,
        "under_aim": cost["all"] - cost["none"] < AIM_US,
    }


if __name__ == "__main__":
    main(measure, (__doc__ or "").splitlines()[0])
