#!/usr/bin/env python3
"""Makes the points of the packaged model's output head, so that a devnet registers it and a host proves with `spot` without computing
them: src/fabstir/models/heads. `--check` makes them again and compares.

They follow from the weights and from the reference string of the circuit `spot`; both are in the file's name. A new model or circuit
has another name, and the old file is taken away. About ten seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

from fabstir.engines.model_file import default_model, file_sha256
from fabstir.models.head import PACKAGED, HeadRows, commit_head, points_file
from fabstir.proofs.process import DEVELOPMENT_CHAIN, EzklProver
from fabstir.proofs.spot_prover import SpotProver


async def make(folder: Path) -> Path:
    """The file, made in `folder`."""
    prover = EzklProver(chain_id=DEVELOPMENT_CHAIN, cache=folder)
    spot = SpotProver(prover, chain_id=DEVELOPMENT_CHAIN)
    model = default_model()
    file = points_file(folder / "heads", file_sha256(model), spot.circuit_id)
    await prover.start()
    try:
        await commit_head(HeadRows(model), file, spot.points)
    finally:
        await prover.stop()
    return file


def main() -> int:
    """Write, or compare; 1 where the package holds anything else."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="heads-") as folder:
        made = asyncio.run(make(Path(folder)))
        known = {file.name: file.read_bytes() for file in PACKAGED.glob("*.points")}
        if known == {made.name: made.read_bytes()}:
            return 0
        if options.check:
            print("src/fabstir/models/heads does not hold the head of the packaged model: run tools/commit_heads.py")
            return 1
        for name in known:
            (PACKAGED / name).unlink()
        PACKAGED.mkdir(exist_ok=True)
        (PACKAGED / made.name).write_bytes(made.read_bytes())
    return 0


if __name__ == "__main__":
    sys.exit(main())
