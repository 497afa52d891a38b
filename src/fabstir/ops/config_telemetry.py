"""The settings of tracing: part of the tree of `fabstir.ops.config`. Reads nothing."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from fabstir.ops.config_types import Section, Url, about


class TelemetrySection(Section, frozen=True, kw_only=True):
    """Traces of a host: one span for each prompt, with names, counts and times, never with what was said. Needs the extra `tracing`."""

    otlp_endpoint: Annotated[
        Url | None,
        about(
            "Where spans are sent, by OTLP over HTTP: `http://127.0.0.1:4318/v1/traces`. Unset: none are made.",
            secret=True,
        ),
    ] = None
    sample_percent: Annotated[int, Meta(ge=0, le=100), about("So many of a hundred prompts have a span.")] = 100
