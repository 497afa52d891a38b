"""Attestation put together: the host's part from its settings, the verifier's from files. Fetches nothing."""

from __future__ import annotations

import asyncio
import base64
import binascii
from pathlib import Path
from typing import Final

import msgspec

from fabstir.domain.errors import error
from fabstir.domain.ids import Address, Hash32, ModelId
from fabstir.host.attestation import Attester
from fabstir.ops.clock import SystemClock
from fabstir.ops.config import Config
from fabstir.ports.attestation import QuoteProvider
from fabstir.proofs.attestation.configfs import REPORT_DATA, ConfigfsTdx
from fabstir.proofs.attestation.tdx import TdxVerifier
from fabstir.protocol.attestation import AttestationClaim, Expected, WireClaim
from fabstir.protocol.attestation_policy import AttestationPolicy, AttestationVerdict, read_policy

MAX_FILE: Final = 2 << 20


async def make_attester(
    config: Config, host: Address, key: Hash32, model_id: ModelId, provider: QuoteProvider | None = None
) -> Attester | None:
    """The host's attester; None where no provider is configured. It makes one quote to see that it can: a host does not offer what
    fails at the first question. `provider` stands in for the one that the settings name. Raises LocalFault (`attestation_unavailable`).
    """
    if config.attestation.provider is None:
        return None
    chosen = ConfigfsTdx() if provider is None else provider
    await chosen.quote(bytes(REPORT_DATA))
    return Attester(chosen, host, key, model_id)


async def verify_attestation(
    claim: Path, collateral: Path, policy: Path | None, expected: Expected, verifier: TdxVerifier | None = None
) -> AttestationVerdict:
    """The verdict on the claim in a file. `verifier` stands in for the one that trusts Intel's root.

    Raises Refused (`attestation_unsupported`), PeerFault (`request_invalid`) where a file cannot be read or the policy is none.
    """
    given = _read_claim(await _read(claim))
    demanded = AttestationPolicy() if policy is None else read_policy(await _read(policy))
    chosen = TdxVerifier(SystemClock()) if verifier is None else verifier
    return await asyncio.to_thread(chosen.verify, given, await _read(collateral), demanded, expected)


async def _read(file: Path) -> bytes:
    def read() -> bytes:
        with file.open("rb") as handle:
            return handle.read(MAX_FILE + 1)

    try:
        data = await asyncio.to_thread(read)
    except OSError as wrong:
        raise error("request_invalid", f"{file}: {wrong.strerror}", "Name a file that can be read.") from wrong
    if len(data) > MAX_FILE:
        raise error("request_invalid", f"{file} has more than {MAX_FILE} bytes", "Name the right file.")
    return data


def _read_claim(data: bytes) -> AttestationClaim:
    try:
        wire = msgspec.json.decode(data, type=WireClaim)
        quote = base64.b64decode(wire.quote, validate=True)
    except (msgspec.DecodeError, UnicodeDecodeError, binascii.Error) as wrong:
        raise error(
            "request_invalid",
            f"the claim: {wrong}",
            "Save what the host answers to `GET /v1/attestation?nonce=...`.",
        ) from wrong
    return AttestationClaim(binding=wire.binding(), quote=quote)
