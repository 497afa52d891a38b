"""`fabstir verify attestation`: what a host's attestation shows of the machine that it runs in."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

from cyclopts import Parameter

from fabstir.cli.frame import COMMON, Common, address_argument
from fabstir.domain.errors import error
from fabstir.domain.ids import Hash32, hash32, to_hex

if TYPE_CHECKING:
    from fabstir.protocol.attestation_policy import AttestationVerdict, Authentic

REFUSED: Final = 3
"""Exit code where the attestation is not accepted, as of the other `fabstir verify` commands."""


def attestation(
    file: Annotated[Path, Parameter(help="What the host answered to `GET /v1/attestation?nonce=...`.")],
    /,
    *,
    collateral: Annotated[
        Path, Parameter(help="Intel's TCB info, QE identity, revocation lists and their chains, as JSON.")
    ],
    policy: Annotated[
        Path | None, Parameter(help="What is demanded, as JSON. Without it nothing is accepted, and all is shown.")
    ] = None,
    nonce: Annotated[
        str | None, Parameter(help="The nonce that you asked with. Without it: an old quote passes.")
    ] = None,
    host: Annotated[str | None, Parameter(help="The host's address, from your terms or the registry.")] = None,
    key: Annotated[str | None, Parameter(help="The host's encryption key, from the registry.")] = None,
    model: Annotated[str | None, Parameter(help="The model's id, from your terms.")] = None,
    common: Common = COMMON,
) -> int:
    """Verify the attestation of a host, down to Intel's root key. Nothing is fetched.

    Exit code 0: accepted. 3: not accepted, with every reason. 1: a file cannot be read, or the format has no verifier here. What it
    shows and what it does not: docs/explanation/attestation.md.
    """
    from fabstir.bootstrap.attestation import verify_attestation
    from fabstir.cli.running import run
    from fabstir.domain.ids import ModelId
    from fabstir.protocol.attestation import Expected

    model_id = _hash("--model", model)
    expected = Expected(
        nonce=_hash("--nonce", nonce),
        host=None if host is None else address_argument("--host", host),
        key=_hash("--key", key),
        model_id=None if model_id is None else ModelId(model_id),
    )
    verdict = run(verify_attestation(file, collateral, policy, expected))
    common.show(as_data(verdict), lambda: "\n".join(lines_of(verdict)))
    return 0 if verdict.accepted else REFUSED


def _hash(option: str, text: str | None) -> Hash32 | None:
    if text is None:
        return None
    digits = text.lower()
    try:
        return hash32(digits if digits.startswith("0x") else f"0x{digits}")
    except ValueError as wrong:
        raise error("request_invalid", f"{option}: {wrong}", "Give 64 hexadecimal digits.") from wrong


def as_data(verdict: AttestationVerdict) -> dict[str, Any]:
    """For programs."""
    bound = verdict.binding
    return {
        "accepted": verdict.accepted,
        "fresh": verdict.fresh,
        "failures": [{"reason": each.reason.value, "detail": each.detail} for each in verdict.failures],
        "format": bound.format.value,
        "host": to_hex(bound.host),
        "key": to_hex(bound.key),
        "model_id": to_hex(bound.model_id),
        "nonce": to_hex(bound.nonce),
        "machine": None if verdict.authentic is None else _machine(verdict.authentic),
    }


def _machine(found: Authentic) -> dict[str, Any]:
    measured = found.measurements
    return {
        "mr_td": measured.mr_td.hex(),
        **{f"rtmr{n}": value.hex() for n, value in enumerate(measured.rtmr)},
        "mr_config_id": measured.mr_config_id.hex(),
        "mr_owner": measured.mr_owner.hex(),
        "mr_owner_config": measured.mr_owner_config.hex(),
        "mr_seam": measured.mr_seam.hex(),
        "attributes": f"{measured.attributes:016x}",
        "xfam": f"{measured.xfam:016x}",
        "tcb_status": found.tcb_status.name,
        "tcb_date": found.tcb_date,
        "advisories": list(found.advisories),
        "fmspc": found.fmspc,
        "valid_until": found.valid_until,
    }


def lines_of(verdict: AttestationVerdict) -> list[str]:
    """For people."""
    lines = ["ACCEPTED" if verdict.accepted else "NOT ACCEPTED"]
    lines += [f"  {each.reason.value}: {each.detail}" for each in verdict.failures]
    bound = verdict.binding
    lines += [f"Claimed by host {to_hex(bound.host)} for model {to_hex(bound.model_id)}, nonce {to_hex(bound.nonce)}"]
    if verdict.accepted and not verdict.fresh:
        lines.append("The nonce was not compared with yours: this may be an old quote. Give --nonce.")
    found = verdict.authentic
    if found is None:
        lines.append("The quote is not authentic, or that cannot be seen: nothing in it is shown.")
        return lines
    until = datetime.fromtimestamp(found.valid_until, UTC).strftime("%Y-%m-%d %H:%M UTC")
    lines.append("The machine, by a quote whose signatures hold up to Intel's root:")
    lines += [f"  {name:<15} {value}" for name, value in _machine(found).items() if isinstance(value, str)]
    lines.append(f"  {'advisories':<15} {', '.join(found.advisories) or 'none'}")
    lines.append(f"  {'valid until':<15} {until}")
    return lines
