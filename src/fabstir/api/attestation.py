"""Attestation over HTTP: a renter's nonce in, the host's claim with its quote out. Decides nothing.

Specification: docs/reference/http.md.
"""

from __future__ import annotations

import base64

from litestar import get
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromQuery

from fabstir.domain.errors import error
from fabstir.domain.ids import hash32
from fabstir.host.attestation import Attester
from fabstir.protocol.attestation import WireClaim


def attestation_routes(attester: Attester | None) -> list[HTTPRouteHandler]:
    """The route of one attester; without one it answers `attestation_off`."""

    @get("/v1/attestation")
    async def attestation(nonce: FromQuery[str]) -> WireClaim:
        """A quote that ties this host, its key, its model and `nonce` (0x and 64 hexadecimal digits) to the machine that it runs in."""
        if attester is None:
            raise error("attestation_off")
        try:
            asked = hash32(nonce)
        except ValueError as wrong:
            raise error("request_invalid", f"nonce: {wrong}") from wrong
        claim = await attester.claim(asked)
        return WireClaim.of(claim, base64.b64encode(claim.quote).decode())

    return [attestation]
