"""Spans of prompts, sent by OpenTelemetry over OTLP/HTTP to the operator's collector. Off unless `telemetry.otlp_endpoint` is set.

Manual spans, one for each prompt: automatic instrumentation of ASGI would make one for each message. Names are those of
OpenTelemetry's conventions for generative AI. Attributes are a closed set of names, numbers and codes: never a word of a prompt or of an
answer, and not the renter's name for its session, which is text of its own choice. Sending happens in a thread of the SDK; where the
collector does not answer, spans are dropped.
"""

from __future__ import annotations

from typing import Any, Final

import fabstir
from fabstir.domain.errors import error
from fabstir.ops.config_telemetry import TelemetrySection
from fabstir.ports.spans import Asked, PromptSpan

SERVICE: Final = "fabstir-host"
PROVIDER: Final = "fabstir"
STOP_MILLISECONDS: Final = 3_000
"""A host that goes down waits so long for the collector to take the last spans."""


class OtelSpans:
    """As `fabstir.ports.spans.Spans`. Memory: the SDK's queue, 2,048 spans."""

    def __init__(self, provider: Any) -> None:
        """`provider`: a `TracerProvider` of the SDK."""
        self._provider = provider
        self._tracer = provider.get_tracer("fabstir", fabstir.__version__)
        self._server = _server_kind()

    def prompt(self, asked: Asked) -> PromptSpan:
        """See the port."""
        span = self._tracer.start_span(
            f"chat {asked.model}",
            kind=self._server,
            attributes={
                "gen_ai.operation.name": "chat",
                "gen_ai.provider.name": PROVIDER,
                "gen_ai.request.model": asked.model,
                "gen_ai.request.max_tokens": asked.max_tokens,
                "gen_ai.request.temperature": asked.temperature,
                "gen_ai.request.top_p": asked.top_p,
                "fabstir.job_id": asked.job,
            },
        )
        return _OtelSpan(span)

    def close(self) -> None:
        """Send what is left. Blocks for at most STOP_MILLISECONDS."""
        self._provider.force_flush(STOP_MILLISECONDS)
        self._provider.shutdown()


class _OtelSpan:
    """As `fabstir.ports.spans.PromptSpan`."""

    __slots__ = ("_span",)

    def __init__(self, span: Any) -> None:
        self._span = span

    def admitted(self) -> None:
        self._span.add_event("fabstir.admitted")

    def first_token(self) -> None:
        self._span.add_event("gen_ai.first_token")

    def answered(self, finish_reason: str, prompt_tokens: int, tokens: int) -> None:
        self._span.set_attributes(
            {
                "gen_ai.response.finish_reasons": (finish_reason,),
                "gen_ai.usage.input_tokens": prompt_tokens,
                "gen_ai.usage.output_tokens": tokens,
            }
        )
        self._span.end()

    def failed(self, code: str) -> None:
        from opentelemetry.trace import Status, StatusCode  # noqa: PLC0415 - an extra

        self._span.set_attribute("error.type", code)
        self._span.set_status(Status(StatusCode.ERROR))
        self._span.end()


def make_spans(section: TelemetrySection) -> OtelSpans | None:
    """None where tracing is off. Raises LocalFault (`tool_missing`) where the extra is not installed."""
    if section.otlp_endpoint is None:
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415 - an extra
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    except ImportError as missing:
        raise error(
            "tool_missing",
            "OpenTelemetry, for telemetry.otlp_endpoint",
            "Install the extra `tracing`, or unset telemetry.otlp_endpoint.",
        ) from missing
    provider = provider_for(section.sample_percent)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=section.otlp_endpoint)))
    return OtelSpans(provider)


def provider_for(percent: int) -> Any:
    """Of `percent` of all prompts."""
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415 - an extra
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased  # noqa: PLC0415

    resource = Resource.create({"service.name": SERVICE, "service.version": fabstir.__version__})
    return TracerProvider(resource=resource, sampler=ParentBased(TraceIdRatioBased(percent / 100)))


def _server_kind() -> Any:
    from opentelemetry.trace import SpanKind  # noqa: PLC0415 - an extra

    return SpanKind.SERVER
