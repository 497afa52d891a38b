"""Puts a host's views and its WebSocket together into one ASGI application. Decides nothing; starts nothing."""

from __future__ import annotations

from litestar import Litestar
from litestar.types import ASGIApp

from fabstir.api.attestation import attestation_routes
from fabstir.api.errors import HANDLERS
from fabstir.api.host_answers import answer_routes
from fabstir.api.host_guard import ApiRules, HostGuard
from fabstir.api.host_openapi import document
from fabstir.api.host_sessions import session_routes
from fabstir.api.openapi import openapi_route
from fabstir.api.prompts import prompt_routes
from fabstir.api.relay import relay_routes
from fabstir.api.routes import host_routes
from fabstir.api.signed_answers import SignedAnswers
from fabstir.api.websocket import Door, websocket_route
from fabstir.host.attestation import Attester
from fabstir.host.http_sessions import HttpSessions
from fabstir.host.node import HostNode
from fabstir.host.prompts import PromptDesk


def host_app(
    node: HostNode,
    *,
    max_connections: int,
    rules: ApiRules = ApiRules(),  # noqa: B008 - frozen
    desk: PromptDesk | None = None,
    attester: Attester | None = None,
) -> ASGIApp:
    """The application of `node`, of its `desk` of prompt jobs and of its `attester` where it has them. Start them first."""
    door, sessions = Door(node, max_connections), HttpSessions(node)
    app = Litestar(
        [
            websocket_route(door),
            openapi_route(document()),
            *host_routes(node),
            *session_routes(node, sessions),
            *answer_routes(node, sessions),
            *relay_routes(node),
            *prompt_routes(desk),
            *attestation_routes(attester),
        ],
        exception_handlers=HANDLERS,
        debug=False,  # never by an environment variable: its pages show what was asked
        openapi_config=None,
        logging_config=None,
    )
    return SignedAnswers(HostGuard(app, rules, node.clock, node.metrics), lambda: node.node_key, node.clock)
