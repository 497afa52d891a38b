"""Attestation put together: the host's part from its settings, the verifier's from files; a renter's asks hosts for
themselves. Fetches nothing else."""

from __future__ import annotations

import asyncio
import base64
import binascii
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import msgspec

from fabstir.domain.errors import FabstirError, error
from fabstir.domain.ids import Address, Hash32, ModelId
from fabstir.host.attestation import Attester
from fabstir.market.attestations import HttpAttestations
from fabstir.ops.clock import SystemClock
from fabstir.ops.config import Config
from fabstir.ports.attestation import QuoteProvider
from fabstir.ports.chain import HostEntry
from fabstir.proofs.attestation.configfs import REPORT_DATA, ConfigfsTdx
from fabstir.proofs.attestation.tdx import TdxVerifier
from fabstir.protocol.attestation import NONCE, AttestationClaim, Expected, WireClaim
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


class RenterAttestations:
    """As `fabstir.ports.attestation.HostAttestations`. Policy and collateral are read for each host, so that new collateral counts at
    once."""

    def __init__(self, source: HttpAttestations, policy: Path, collateral: Path, verifier: TdxVerifier) -> None:
        self._source = source
        self._policy, self._collateral = policy, collateral
        self._verifier = verifier

    def __repr__(self) -> str:
        return f"<RenterAttestations by {self._policy.name}>"

    async def require(self, entry: HostEntry, model: ModelId) -> None:
        """As the port says; what is refused is named in the error, one reason after another."""
        try:
            policy, collateral = read_policy(await _read(self._policy)), await _read(self._collateral)
        except FabstirError as wrong:  # ours: no host is to blame
            raise error("config_invalid", f"renter.attestation_policy or _collateral: {wrong.detail}") from wrong
        nonce = Hash32(os.urandom(NONCE))
        claim = _read_claim(await self._source.ask(entry.url, nonce))
        expected = Expected(nonce=nonce, host=entry.address, key=entry.encryption_key, model_id=model)
        verdict = await asyncio.to_thread(self._verifier.verify, claim, collateral, policy, expected)
        verdict.require()


@asynccontextmanager
async def renter_attestations(config: Config) -> AsyncIterator[RenterAttestations | None]:
    """What a renter verifies hosts with; None where policy or collateral is not set."""
    renter = config.renter
    if renter.attestation_policy is None or renter.attestation_collateral is None:
        yield None
        return
    source = HttpAttestations()
    try:
        files = (renter.attestation_policy, renter.attestation_collateral)
        yield RenterAttestations(source, *files, TdxVerifier(SystemClock()))
    finally:
        await source.close()


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
