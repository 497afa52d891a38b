"""The ladder of verification as something that is chosen and priced: which rung a session is on, and what it costs more.

A rung is chosen by the renter for each session and priced by the host, in percent of the model's price. The policy of the terms is the
only part of it that the contract knows; the rung itself is named in `session_init`. Decides prices, verifies nothing: what a rung shows
and what it does not is docs/explanation/ladder.md.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum
from typing import Final

import msgspec

from fabstir.domain.errors import error
from fabstir.domain.money import PricePerMTok
from fabstir.domain.terms import ProofPolicy


class Rung(IntEnum):
    """What a renter can have of a host's word beside the word."""

    RECEIPT = 0
    """Signatures over what was asked and served."""
    SCORES = 1
    """Records with log-probabilities and alternatives, which other hosts can check against the weights."""
    FINGERPRINTS = 2
    """After each answer, signed fingerprints of the activations behind it."""
    PROOF = 3
    """Nothing is redeemed without a proof on chain: policy `required`."""
    ATTESTATION = 4
    """A CPU vendor's word for the machine, to be had before anything is paid; with either policy."""


MAX_SURCHARGE: Final = 1_000
"""Percent."""
_POLICIES: Final = {
    Rung.RECEIPT: ProofPolicy.FALLBACK,
    Rung.SCORES: ProofPolicy.FALLBACK,
    Rung.FINGERPRINTS: ProofPolicy.FALLBACK,
    Rung.PROOF: ProofPolicy.REQUIRED,
}


class RungOffer(msgspec.Struct, frozen=True):
    """One rung that a host serves, and by how many percent of the model's price it is dearer."""

    rung: Rung
    surcharge: int = 0


def policy_at(rung: Rung | None, otherwise: ProofPolicy) -> ProofPolicy:
    """The policy that terms must have on `rung`; `otherwise` where the rung leaves it open."""
    return otherwise if rung is None else _POLICIES.get(rung, otherwise)


def surcharge(rungs: Iterable[RungOffer], policy: ProofPolicy, rung: Rung | None) -> int:
    """Percent that terms with `policy` cost more on `rung`. None: what the policy alone implies."""
    percent = {listed.rung: listed.surcharge for listed in rungs}
    proof = percent.get(Rung.PROOF, 0) if policy is ProofPolicy.REQUIRED else 0
    return proof + (percent.get(rung, 0) if rung in (Rung.FINGERPRINTS, Rung.ATTESTATION) else 0)


def highest_surcharge(rungs: Iterable[RungOffer]) -> int:
    """Percent of the dearest terms that a host with `rungs` takes."""
    listed = tuple(rungs)
    attested = max(surcharge(listed, policy, Rung.ATTESTATION) for policy in ProofPolicy)
    return max(attested, surcharge(listed, ProofPolicy.FALLBACK, Rung.FINGERPRINTS))


def dearer(price: PricePerMTok, percent: int) -> PricePerMTok:
    """`price` with `percent` more, rounded up: to the base unit the same number for both sides, and never less than asked."""
    return PricePerMTok(-(-price * (100 + percent) // 100))


def rung_of(number: int) -> Rung:
    """The rung with this number. Raises PeerFault (`request_invalid`)."""
    try:
        return Rung(number)
    except ValueError:
        known = ", ".join(str(rung.value) for rung in Rung)
        raise error("request_invalid", f"rung {number}", f"One of {known}; see docs/explanation/ladder.md.") from None
