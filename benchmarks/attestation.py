"""What an attestation costs to verify: bytes and milliseconds, of a quote of the tests' own hierarchy or of a real one.

Verification is all of it: quote and collateral parsed, two chains, two revocation lists, five signatures outside of certificates, levels,
policy. Nothing is kept between rounds. A real quote comes with collateral and the Unix second at which that was valid:

    python benchmarks/attestation.py [--quick] [--json] [--quote FILE --collateral FILE --at SECONDS]

Only the time of a call is measured here; making a quote needs a TDX machine, and none was at hand.
"""

from __future__ import annotations

import argparse
import base64
import json
import statistics
import sys
import time
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.proofs.attesting import NOW, Machine, Published, verifier

from fabstir.proofs.attestation.quote import parse_quote
from fabstir.proofs.attestation.tdx import TdxVerifier
from fabstir.testing.clock import ManualClock


class Case(NamedTuple):
    """What is verified, and by whom."""

    quote: bytes
    collateral: bytes
    by: TdxVerifier


def case(arguments: argparse.Namespace) -> Case:
    """The real one where it is given."""
    if arguments.quote is None:
        return Case(Machine().quote(), Published().file(), verifier(NOW))
    clock = ManualClock(float(arguments.at))
    return Case(arguments.quote.read_bytes(), arguments.collateral.read_bytes(), TdxVerifier(clock))


def measure(given: Case, rounds: int) -> dict[str, float]:
    """Milliseconds of a verification, each round on its own."""
    given.by.authenticate(given.quote, given.collateral)
    walls, cpu = [], time.process_time()
    for _ in range(rounds):
        begin = time.perf_counter()
        given.by.authenticate(given.quote, given.collateral)
        walls.append(1000 * (time.perf_counter() - begin))
    return {
        "rounds": rounds,
        "quote_bytes": len(given.quote),
        "quote_base64_bytes": len(base64.b64encode(given.quote)),
        "chain_bytes": len(parse_quote(given.quote).pck_chain),
        "collateral_bytes": len(given.collateral),
        "median_ms": round(statistics.median(walls), 2),
        "worst_ms": round(max(walls), 2),
        "cpu_ms": round(1000 * (time.process_time() - cpu) / rounds, 2),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="20 rounds instead of 500")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quote", type=Path)
    parser.add_argument("--collateral", type=Path)
    parser.add_argument("--at", type=int, default=0)
    arguments = parser.parse_args()
    found = measure(case(arguments), 20 if arguments.quick else 500)
    print(json.dumps(found) if arguments.json else "\n".join(f"{name:20} {value:g}" for name, value in found.items()))


if __name__ == "__main__":
    main()
