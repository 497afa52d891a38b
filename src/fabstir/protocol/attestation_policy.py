"""What a renter demands of an attested machine, and the verdict on one.

Decides, from what an authentic quote says, whether the policy allows it: what runs in the machine (the measurements), how well the
platform is kept (its TCB status) and whether it can be looked into (the debug attribute, which no policy can allow). Never judges
whether a quote is authentic: that is `fabstir.proofs.attestation`. Specification: docs/explanation/attestation.md.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from fabstir.domain.errors import error
from fabstir.protocol.attestation import Binding, Failure, Reason

REGISTER: Final = 48
Hex48 = Annotated[str, Meta(pattern=r"^[0-9a-f]{96}\Z")]
"""A measurement: SHA-384, lower-case hexadecimal."""
REGISTERS: Final = ("mr_td", "rtmr0", "rtmr1", "rtmr2", "rtmr3", "mr_config_id", "mr_owner", "mr_owner_config")

DEBUG: Final = 1 << 0
SEPT_VE_DISABLE: Final = 1 << 28
"""Without it the hypervisor can make pages vanish under the machine's feet."""
HARMLESS: Final = 1 << 27 | SEPT_VE_DISABLE | 1 << 30 | 1 << 31 | 1 << 63
"""LASS, the above, supervisor protection keys, Key Locker, PERFMON: features that the machine uses on itself. Any other bit of the
TD attributes is refused: profiling from outside, what is not known yet, and bit 29, with which a machine can be moved by another one
that a quote of version 4 does not name."""


class TcbStatus(IntEnum):
    """How Intel rates a platform, best first."""

    UpToDate = 0
    SWHardeningNeeded = 1
    ConfigurationNeeded = 2
    ConfigurationAndSWHardeningNeeded = 3
    OutOfDate = 4
    OutOfDateConfigurationNeeded = 5
    Revoked = 6


_OLD: Final = frozenset({TcbStatus.OutOfDate, TcbStatus.OutOfDateConfigurationNeeded})
_CONFIGURE: Final = frozenset(
    {
        TcbStatus.ConfigurationNeeded,
        TcbStatus.ConfigurationAndSWHardeningNeeded,
        TcbStatus.OutOfDateConfigurationNeeded,
    }
)
_HARDEN: Final = frozenset({TcbStatus.SWHardeningNeeded, TcbStatus.ConfigurationAndSWHardeningNeeded})


def worst(*statuses: TcbStatus) -> TcbStatus:
    """The status of a platform of which every part has its own: all their defects together, as far as there is a word for it."""
    parts = set(statuses)
    if TcbStatus.Revoked in parts:
        return TcbStatus.Revoked
    old, configure, harden = bool(parts & _OLD), bool(parts & _CONFIGURE), bool(parts & _HARDEN)
    if old:
        return TcbStatus.OutOfDateConfigurationNeeded if configure else TcbStatus.OutOfDate
    if configure:
        return TcbStatus.ConfigurationAndSWHardeningNeeded if harden else TcbStatus.ConfigurationNeeded
    return TcbStatus.SWHardeningNeeded if harden else TcbStatus.UpToDate


class TdMeasurements(msgspec.Struct, frozen=True, kw_only=True):
    """What an authentic TDX quote says of the virtual machine."""

    mr_td: bytes
    """The machine as it was before its first instruction: firmware."""
    rtmr: tuple[bytes, bytes, bytes, bytes]
    """Registers that software extends: by convention firmware's settings, boot loader and kernel, its command line, the application."""
    mr_config_id: bytes
    mr_owner: bytes
    mr_owner_config: bytes
    mr_seam: bytes
    """The TDX module."""
    attributes: int
    xfam: int
    report_data: bytes

    def register(self, name: str) -> bytes:
        """The one that a policy calls `name`."""
        found: bytes = self.rtmr[int(name[-1])] if name.startswith("rtmr") else getattr(self, name)
        return found


class Authentic(msgspec.Struct, frozen=True, kw_only=True):
    """What is known once all signatures hold."""

    measurements: TdMeasurements
    tcb_status: TcbStatus
    tcb_date: str
    """The last day whose advisories the platform has taken up, as Intel writes it."""
    advisories: tuple[str, ...]
    fmspc: str
    """The kind of platform."""
    valid_until: int
    """Unix seconds. When the first of certificates and collateral ends."""


class Image(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One virtual machine that is allowed. A register that is not named is not looked at."""

    mr_td: Hex48
    rtmr0: Hex48 | None = None
    rtmr1: Hex48 | None = None
    rtmr2: Hex48 | None = None
    rtmr3: Hex48 | None = None
    mr_config_id: Hex48 | None = None
    mr_owner: Hex48 | None = None
    mr_owner_config: Hex48 | None = None

    def mismatches(self, found: TdMeasurements) -> tuple[str, ...]:
        """The registers that differ."""
        wanted = ((name, getattr(self, name)) for name in REGISTERS)
        return tuple(name for name, value in wanted if value is not None and found.register(name).hex() != value)


class AttestationPolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is demanded. The default demands an image and allows none: nothing passes by being forgotten."""

    images: tuple[Image, ...] = ()
    any_image: bool = False
    """Allow whatever runs. Then the verdict shows a genuine platform and nothing about the program."""
    minimum: str = TcbStatus.UpToDate.name
    """The worst TCB status that is allowed. `Revoked` can not be allowed."""
    advisories_allowed: tuple[str, ...] | None = None
    """Where set: an advisory that applies to the platform and is not in here is refused."""

    @property
    def minimum_status(self) -> TcbStatus:
        """As a status. Raises PeerFault (`request_invalid`)."""
        allowed = [status.name for status in TcbStatus if status is not TcbStatus.Revoked]
        if self.minimum not in allowed:
            raise error("request_invalid", f"policy.minimum is {self.minimum!r}", f"One of {', '.join(allowed)}.")
        return TcbStatus[self.minimum]


def read_policy(data: bytes) -> AttestationPolicy:
    """The policy that a file holds. Raises PeerFault (`request_invalid`)."""
    try:
        policy = msgspec.json.decode(data, type=AttestationPolicy)
    except (msgspec.DecodeError, UnicodeDecodeError) as wrong:
        raise error("request_invalid", f"the policy: {wrong}", "See docs/explanation/attestation.md.") from wrong
    policy.minimum_status  # noqa: B018 - refused when it is read, not when a quote comes
    return policy


class AttestationVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome. Accepted where there is no failure; `authentic` is None where a signature or an earlier step failed."""

    binding: Binding
    failures: tuple[Failure, ...]
    authentic: Authentic | None
    fresh: bool
    """Whether the nonce was compared with one that the verifying side drew."""

    @property
    def accepted(self) -> bool:
        """Whether the quote is authentic, tied to the claim, and allowed by the policy."""
        return self.authentic is not None and not self.failures

    def require(self) -> Authentic:
        """What was shown. Raises PeerFault (`attestation_refused`) where the attestation is not accepted."""
        if self.authentic is None or self.failures:
            raise error(
                "attestation_refused", "; ".join(f"{each.reason.value}: {each.detail}" for each in self.failures)
            )
        return self.authentic


def appraise(binding: Binding, found: Authentic, policy: AttestationPolicy) -> tuple[Failure, ...]:
    """Everything for which an authentic quote is not accepted; all of it, so that a person sees it at once."""
    measured = found.measurements
    failures: list[Failure] = []
    if measured.report_data != binding.report_data:
        failures.append(
            Failure(Reason.REPORT_DATA, "the quote is not tied to this host, key, model and nonce together")
        )
    failures += _attributes(measured.attributes)
    failures += _tcb(found, policy)
    failures += _images(measured, policy)
    return tuple(failures)


def _attributes(attributes: int) -> list[Failure]:
    if attributes & DEBUG:
        return [Failure(Reason.TD_DEBUG, "the virtual machine runs with the debug attribute")]
    if attributes & ~HARMLESS:
        return [Failure(Reason.TD_ATTRIBUTES, f"bits that are not allowed are set: {attributes & ~HARMLESS:#x}")]
    if not attributes & SEPT_VE_DISABLE:
        return [Failure(Reason.TD_ATTRIBUTES, "SEPT_VE_DISABLE is not set")]
    return []


def _tcb(found: Authentic, policy: AttestationPolicy) -> list[Failure]:
    status = found.tcb_status
    if status is TcbStatus.Revoked:
        return [Failure(Reason.TCB_REVOKED, f"Intel revoked this level of {found.tcb_date}")]
    if status > policy.minimum_status:
        named = ", ".join(found.advisories) or "none named"
        text = f"the platform is {status.name} ({found.tcb_date}; advisories: {named}), allowed is {policy.minimum}"
        return [Failure(Reason.TCB_STATUS, text)]
    if policy.advisories_allowed is not None:
        left = [each for each in found.advisories if each not in policy.advisories_allowed]
        if left:
            return [Failure(Reason.TCB_STATUS, f"advisories that the policy does not allow: {', '.join(left)}")]
    return []


def _images(measured: TdMeasurements, policy: AttestationPolicy) -> list[Failure]:
    if policy.any_image:
        return []
    if not policy.images:
        return [Failure(Reason.POLICY_EMPTY, "the policy names no image; `any_image` allows all")]
    nearest = min((image.mismatches(measured) for image in policy.images), key=len)
    if not nearest:
        return []
    found = ", ".join(f"{name} {measured.register(name).hex()}" for name in nearest)
    return [Failure(Reason.MEASUREMENT, f"no allowed image; the nearest differs in {found}")]
