"""Spans of prompts: the field's names, every ending, and nothing that was said."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from tests.host.world import World

from fabstir.domain.errors import LocalFault
from fabstir.ops.config_telemetry import TelemetrySection
from fabstir.ops.tracing import OtelSpans, make_spans, provider_for
from fabstir.protocol.messages import Cancel, Error, Response

SECRET = "xyzzy-plugh"


class Traced:
    """Spans that are kept for the test."""

    def __init__(self, percent: int = 100) -> None:
        self.exporter = InMemorySpanExporter()
        provider = provider_for(percent)
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.spans = OtelSpans(provider)

    @property
    def finished(self) -> tuple[ReadableSpan, ...]:
        return self.exporter.get_finished_spans()


@pytest.fixture
def traced() -> Iterator[Traced]:
    made = Traced()
    yield made
    made.spans.close()


async def _world(traced: Traced) -> World:
    world = World()
    world.node.spans = traced.spans
    return world


async def test_each_prompt_has_a_span_with_the_names_of_the_field(traced: Traced) -> None:
    """Model, bounds, tokens and why it ended; one span for each prompt; when it was admitted and when its first token left."""
    world = await _world(traced)
    async with world.running():
        renter = await world.renter()
        await renter.chat(f"say {SECRET}", max_tokens=7, temperature=0.5)
        await renter.chat("again")
    first, second = traced.finished
    assert (first.name, second.name) == ("chat scripted", "chat scripted")
    told: dict[str, Any] = dict(first.attributes or {})
    assert told == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "fabstir",
        "gen_ai.request.model": "scripted",
        "gen_ai.request.max_tokens": 7,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.top_p": 0.95,
        "fabstir.job_id": renter.job.hex(),
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.usage.input_tokens": 6,
        "gen_ai.usage.output_tokens": 5,
    }
    assert [event.name for event in first.events] == ["fabstir.admitted", "gen_ai.first_token"]


async def test_nothing_that_was_said_is_in_a_span(traced: Traced) -> None:
    """Neither prompt nor answer nor the renter's name for its session, however the answer ends."""
    world = await _world(traced)
    async with world.running():
        renter = await world.renter()
        await renter.chat(f"say {SECRET}")
        world.engine.fail_next(1)
        await renter.ask(f"fail {SECRET}")
        assert isinstance((await renter.hear())[1], Error)
        gate = world.engine.gate(1)
        await renter.ask(f"{SECRET} one two")
        await gate.reached.wait()
        await renter.send(Cancel(session_id="chat", message_index=renter.message_index - 1))
        gate.open.set()
        _, end = await renter.hear()
        assert isinstance(end, Error | Response)
        last = world.engine.gate(1)
        await renter.ask(f"{SECRET} three four")
        await last.reached.wait()
    spans = traced.finished
    assert len(spans) == 4
    ended = [dict(span.attributes or {}) for span in spans]
    assert [each.get("error.type") for each in ended] == [None, "engine_failed", None, "draining"]
    assert ended[2]["gen_ai.response.finish_reasons"] == ("cancelled",)
    text = "".join(span.to_json() for span in spans)
    assert (
        SECRET not in text
        and "You said" not in text
        and '"chat"' not in text.replace('"gen_ai.operation.name": "chat"', "")
    )


async def test_nothing_is_made_of_what_is_not_sampled() -> None:
    """A host with much to do traces a part of it."""
    traced = Traced(percent=0)
    world = await _world(traced)
    async with world.running():
        await (await world.renter()).chat("hello")
    assert traced.finished == ()


def test_tracing_is_off_unless_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """And asked for without its extra it stops the start, rather than doing nothing."""
    assert make_spans(TelemetrySection()) is None
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(LocalFault, match="tool_missing"):
        make_spans(TelemetrySection(otlp_endpoint="http://127.0.0.1:4318/v1/traces"))
