"""Seeded mistakes in the contracts, each of which loses somebody's money or lets somebody lie: do the tests see them?

Two oracles that know nothing of each other judge every mutant: forge (units, fuzz, invariants in Solidity) and the model (hypothesis
on an EVM against `fabstir.protocol.settlement`; only for what the market itself does). A mutant that both let pass is a hole in the
tests, and the exit code is 1. `--quick` takes a handful and the model alone; all of them take about a quarter of an hour.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path
from typing import Final, NamedTuple

import build
import forge

ROOT: Final = build.CONTRACTS.parent
MODEL_EXAMPLES: Final = 300
DIFFERENCE: Final = 3
"""Exit code of judge_by_model.py; Python itself ends with 1 where something breaks."""
FORGE_SECONDS: Final = 300


class Mutant(NamedTuple):
    """One mistake: `old`, which stands exactly once in `file`, becomes `new`."""

    name: str
    file: str
    old: str
    new: str
    model: bool = True
    """False where the model knows nothing of the matter."""


TABLE: Final = tomllib.loads(Path(__file__).with_suffix(".toml").read_text())
MUTANTS: Final = tuple(Mutant(**row) for row in TABLE["mutant"])
QUICK: Final = ("over_deposit", "closed_not_set", "claim_unbounded")


def mutated(mutant: Mutant) -> str:
    """The file's text with the mistake in it. Exits where the patch does not fit exactly once."""
    text = (build.CONTRACTS / mutant.file).read_text()
    if text.count(mutant.old) != 1:
        sys.exit(f"{mutant.name}: its text stands {text.count(mutant.old)} times in {mutant.file}; mend the patch")
    return text.replace(mutant.old, mutant.new)


def killed_by_forge(mutant: Mutant) -> str | None:
    """The forge test that fails, or None where all pass."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        for name in ("src", "test", "tools"):
            shutil.copytree(build.CONTRACTS / name, copy / name)
        shutil.copy(build.CONTRACTS / "foundry.toml", copy)
        (copy / "node_modules").symlink_to(build.CONTRACTS / "node_modules")
        (copy / mutant.file).write_text(mutated(mutant))
        command = [forge.find_forge(), "test", "--fail-fast"]
        done = subprocess.run(command, cwd=copy, capture_output=True, text=True, timeout=FORGE_SECONDS, check=False)
    if "Compiler run failed" in done.stdout + done.stderr:
        sys.exit(f"{mutant.name}: does not compile\n{done.stdout[-1500:]}{done.stderr[-1500:]}")
    failed = [line for line in done.stdout.splitlines() if line.startswith("[FAIL")]
    if done.returncode != 0 and not failed:
        sys.exit(f"{mutant.name}: forge itself failed\n{done.stderr[-1500:]}")
    return failed[0].split("] ", 1)[-1].split("(")[0] if failed else None


def killed_by_model(mutant: Mutant) -> str | None:
    """What contract and model disagree about, or None where hypothesis finds nothing."""
    code = build.creation_code("JobMarketplace", {mutant.file: mutated(mutant)})
    script = Path(__file__).with_name("judge_by_model.py")
    command = [sys.executable, str(script), str(MODEL_EXAMPLES)]
    done = subprocess.run(command, cwd=ROOT, input=code.hex(), capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return None
    if done.returncode != DIFFERENCE:
        sys.exit(f"{mutant.name}: the model test itself failed\n{done.stderr[-1500:]}")
    return done.stdout.strip()


def main() -> None:
    """Judge the mutants one after the other, print a line each, exit 1 where one survives."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="mutants to judge; all where none is named")
    parser.add_argument("--quick", action="store_true", help="a handful, by the model alone")
    parser.add_argument("--oracle", choices=["both", "forge", "model", "first"], default="first",
                        help="`first` (the default) asks forge only about what the model let pass")  # fmt: skip
    options = parser.parse_args()
    names = set(options.names or (QUICK if options.quick else [m.name for m in MUTANTS]))
    chosen = [m for m in MUTANTS if m.name in names]
    if len(chosen) != len(names):
        sys.exit(f"no such mutant: {', '.join(sorted(names - {m.name for m in chosen}))}")
    survivors = [m.name for m in chosen if not judge(m, "model" if options.quick else options.oracle)]
    print(f"{len(chosen) - len(survivors)} of {len(chosen)} mutants killed")
    if survivors:
        sys.exit("Survived: " + ", ".join(survivors))


def judge(mutant: Mutant, oracle: str) -> bool:
    """Whether the mutant was killed; prints by what."""
    started = time.perf_counter()
    found: dict[str, str | None] = {}
    if oracle != "forge" and mutant.model:
        found["model"] = killed_by_model(mutant)
    if oracle in ("forge", "both") or (oracle == "first" and not any(found.values())):
        found["forge"] = killed_by_forge(mutant)
    killed = any(found.values())
    reasons = "; ".join(f"{judge}: {reason or 'let it pass'}" for judge, reason in found.items())
    print(
        f"{'killed' if killed else 'ALIVE':7} {mutant.name:30} {time.perf_counter() - started:5.1f} s  {reasons}",
        flush=True,
    )
    return killed


if __name__ == "__main__":
    main()
