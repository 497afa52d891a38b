"""Seeded mistakes in the contracts, each of which loses somebody's money or lets somebody lie: do the tests see them?

Two oracles that know nothing of each other judge: forge (units, fuzz, invariants in Solidity) and the model (hypothesis on an EVM
against `fabstir.protocol.settlement`; only for what the market itself does). A mistake that both let pass is a hole in the tests, and
the exit code is 1, as it is for one that does not compile. `--quick` takes a handful and the model alone, within seconds.
"""

from __future__ import annotations

import argparse
import functools
import subprocess
import sys
import tempfile
import threading
import time
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, NamedTuple

import build
from mutant_bench import Bench, compiled, rebuilt

ROOT: Final = build.CONTRACTS.parent
MODEL_EXAMPLES: Final = 300
DIFFERENCE: Final = 3
"""Exit code of judge_by_model.py; Python itself ends with 1 where something breaks."""


class Mutant(NamedTuple):
    """One mistake: `old`, which stands exactly once in `file`, becomes `new`."""

    name: str
    file: str
    old: str
    new: str
    model: bool = True
    """False where the model knows nothing of the matter."""


class Verdict(NamedTuple):
    """What became of one: killed `by` an oracle, or alive; `broken` where it could not be judged."""

    name: str
    by: str = ""
    found: str = ""
    broken: str = ""


TABLE: Final = tomllib.loads(Path(__file__).with_suffix(".toml").read_text())
MUTANTS: Final = tuple(Mutant(**row) for row in TABLE["mutant"])
QUICK: Final = ("over_deposit", "closed_not_set", "claim_unbounded")
Question = tuple[str, Callable[[], str | None]]
"""An oracle's name, and what it finds."""


def mutated(mutant: Mutant) -> str:
    """The file's text with the mistake in it. Exits where the patch does not fit exactly once."""
    text = (build.CONTRACTS / mutant.file).read_text()
    if text.count(mutant.old) != 1:
        sys.exit(f"its text stands {text.count(mutant.old)} times in {mutant.file}; mend the patch")
    return text.replace(mutant.old, mutant.new)


def found_by_model(market_code: str) -> str | None:
    """What contract and model disagree about, or None where hypothesis finds nothing."""
    script = Path(__file__).with_name("judge_by_model.py")
    command = [sys.executable, str(script), str(MODEL_EXAMPLES)]
    done = subprocess.run(command, cwd=ROOT, input=market_code, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return None
    if done.returncode != DIFFERENCE:
        sys.exit(f"the model test itself failed\n{done.stderr[-1500:]}")
    return done.stdout.strip()


class Court:
    """The oracles, asked from the cheapest on; the bench is made when forge is asked first."""

    def __init__(self, folder: Path, oracle: str) -> None:
        self._folder = folder
        self._oracle = oracle
        self._lock = threading.Lock()

    @functools.cached_property
    def _made(self) -> Bench:
        return Bench(self._folder)

    @property
    def _bench(self) -> Bench:
        with self._lock:
            return self._made

    def questions(self, mutant: Mutant) -> Iterator[Question]:
        """All that may be asked about one mistake, in order."""
        text = mutated(mutant)
        codes = compiled(mutant.file, text)
        forge, model = self._oracle != "model", self._oracle != "forge" and mutant.model
        if forge:
            yield "units", lambda: self._bench.replaced(codes, long=False)
        if model:
            yield "model", lambda: found_by_model(codes["JobMarketplace"])
        if forge:
            yield "invariants", lambda: self._bench.replaced(codes, long=True)
            yield "recompiled", lambda: rebuilt(mutant.file, text)

    def judge(self, mutant: Mutant) -> Verdict:
        """Ask until one finds it; prints by what, and how long it took."""
        started = time.perf_counter()
        try:
            verdict = self._ask(mutant)
        except SystemExit as reason:
            verdict = Verdict(mutant.name, broken=str(reason))
        word = "BROKEN" if verdict.broken else "killed" if verdict.by else "ALIVE"
        seconds = f"{time.perf_counter() - started:5.1f} s"
        print(f"{word:7}{mutant.name:42} {seconds}  {verdict.by} {verdict.found}{verdict.broken}", flush=True)
        return verdict

    def _ask(self, mutant: Mutant) -> Verdict:
        for oracle, answer in self.questions(mutant):
            if found := answer():
                return Verdict(mutant.name, oracle, found)
        return Verdict(mutant.name)


def chosen(options: argparse.Namespace) -> list[Mutant]:
    """The mistakes that were asked for, in the order of the list. Exits on a name that is not in it."""
    names = set(options.names or (QUICK if options.quick else [m.name for m in MUTANTS]))
    found = [m for m in MUTANTS if m.name in names]
    if len(found) != len(names):
        sys.exit(f"no such mutant: {', '.join(sorted(names - {m.name for m in found}))}")
    return found


def report(verdicts: list[Verdict]) -> None:
    """Counts by oracle; exits 1 where one survives or could not be judged."""
    by = Counter(v.by for v in verdicts if v.by)
    print(f"{by.total()} of {len(verdicts)} mutants killed ({', '.join(f'{n} by {who}' for who, n in by.items())})")
    if left := [v.name for v in verdicts if not v.by]:
        sys.exit("Survived, or could not be judged: " + ", ".join(left))


def main() -> None:
    """Judge the mutants, `--jobs` at a time, and print a line each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="mutants to judge; all where none is named")
    parser.add_argument("--quick", action="store_true", help="a handful, by the model alone")
    parser.add_argument("--jobs", type=int, default=2, help="so many at a time (2)")
    parser.add_argument("--oracle", choices=["first", "forge", "model"], default="first",
                        help="`first` (the default) asks the cheapest first, and stops at what finds the mistake")  # fmt: skip
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(options.jobs) as pool:
        court = Court(Path(folder), "model" if options.quick else options.oracle)
        report(list(pool.map(court.judge, chosen(options))))


if __name__ == "__main__":
    main()
