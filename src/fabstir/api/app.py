"""Puts a host's views and its WebSocket together into one ASGI application. Decides nothing; starts nothing."""

from __future__ import annotations

from litestar import Litestar

from fabstir.api.errors import HANDLERS
from fabstir.api.routes import host_routes
from fabstir.api.websocket import Door, websocket_route
from fabstir.host.node import HostNode


def host_app(node: HostNode, *, max_connections: int) -> Litestar:
    """The application of `node`. Start the node first."""
    door = Door(node, max_connections)
    return Litestar(
        [websocket_route(door), *host_routes(node)],
        exception_handlers=HANDLERS,
        openapi_config=None,
        logging_config=None,
    )
