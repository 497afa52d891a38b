"""The settings of the host's API: part of the tree of `fabstir.ops.config`. Reads nothing."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from fabstir.ops.config_types import Count, Port, Section, about

Secret = Annotated[str, Meta(title="at least 16 characters", pattern=r"^[!-~]{16,256}\Z")]
HostName = Annotated[str, Meta(title="host name", pattern=r"^[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?\Z")]
Origin = Annotated[str, Meta(title="origin", pattern=r"^(\*|https?://[A-Za-z0-9.:\[\]-]{1,253})\Z")]


class ApiSection(Section, frozen=True, kw_only=True):
    """Where the host listens."""

    host: Annotated[str, about("Address to listen on.")] = "127.0.0.1"
    port: Annotated[Port, about("Port to listen on; 0 takes a free one.")] = 8080
    allow_remote: Annotated[
        bool,
        about(
            "Allow an address beyond this machine. Needs `api.operator_key`; put a reverse proxy with TLS in front first."
        ),
    ] = False
    operator_key: Annotated[
        Secret | None,
        about(
            "Whoever sends it (`Authorization: Bearer`) sees /metrics and all of /health. Unset: only callers on this machine do.",
            secret=True,
        ),
    ] = None
    allowed_hosts: Annotated[
        tuple[HostName, ...],
        Meta(max_length=64),
        about(
            "Further names under which this API is asked for. IP addresses, `localhost` and that of `host.advertise_url` are known."
        ),
    ] = ()
    allowed_origins: Annotated[
        tuple[Origin, ...],
        Meta(max_length=64),
        about("Origins of web pages that may call this API from a browser; `*`: any. Programs send no origin."),
    ] = ()
    max_message_bytes: Annotated[
        int, Meta(ge=1024, le=67_108_864), about("Largest message that is read; larger ones are refused unread.")
    ] = 1_048_576
    max_connections: Annotated[Count, about("Open WebSockets; more are answered with 503.")] = 1024
    max_per_address: Annotated[
        Count,
        about(
            "Open WebSockets from one address (an IPv6 /64 is one); more are answered with 429. Not of this machine."
        ),
    ] = 64
    requests_per_minute: Annotated[
        Count,
        about(
            "Requests and handshakes from one address in the long run; more are answered with 429. Not of this machine."
        ),
    ] = 600
    prompts_per_minute: Annotated[
        Count, about("Questions in one session in the long run; more are answered with `rate_limited`.")
    ] = 120
