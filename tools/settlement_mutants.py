"""Seeded mistakes in the Python core that decides about money, each judged by the unit tests of its file: do they see it?

A mistake is put into a copy of the package, which the tests import instead of the one in the checkout; the first test that fails kills
it. One that every test lets pass is a hole in the tests, and the exit code is 1. Starts no node, no chain and no prover; the
contracts' own mistakes are judged by `contracts/tools/mutants.py`.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).resolve().parent.parent
PACKAGE: Final = ROOT / "src/fabstir"
TABLE: Final = tomllib.loads(Path(__file__).with_suffix(".toml").read_text())
SELECTED: Final = "not real and not scenario"
TEST_FAILED: Final = 1
"""pytest's exit code; others say that it did not get so far."""
SECONDS: Final = 600


class Mutant(NamedTuple):
    """One mistake: `old`, which stands exactly once in `file` (below the package), becomes `new`."""

    name: str
    file: str
    old: str
    new: str


MUTANTS: Final = tuple(Mutant(**row) for row in TABLE["mutant"])
TESTS: Final[dict[str, list[str]]] = TABLE["tests"]
"""File -> the test files that judge it, the quickest first."""


def mutated(mutant: Mutant) -> str:
    """The file's text with the mistake in it. Exits where the patch does not fit exactly once."""
    text = (PACKAGE / mutant.file).read_text()
    if text.count(mutant.old) != 1:
        sys.exit(f"{mutant.name}: its text stands {text.count(mutant.old)} times in {mutant.file}; mend the patch")
    return text.replace(mutant.old, mutant.new)


def failing_test(package_root: Path, tests: list[str]) -> str | None:
    """The first test that fails with the package below `package_root`, or None. Exits where pytest itself does not work."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-m", SELECTED, *tests]
    changed = {"PYTHONPATH": str(package_root), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, **changed},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    if done.returncode == 0:
        return None
    failed = re.search(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
    if done.returncode != TEST_FAILED or failed is None:
        sys.exit(f"pytest did not run the tests\n{done.stdout[-1500:]}{done.stderr[-1500:]}")
    return failed[1]


def imported_from(package_root: Path) -> Path:
    """Where Python finds the package when told to look below `package_root`."""
    ask = [sys.executable, "-c", "import fabstir; print(fabstir.__file__)"]
    env = {**os.environ, "PYTHONPATH": str(package_root)}
    return Path(subprocess.run(ask, env=env, capture_output=True, text=True, check=True).stdout.strip())


def copied(folder: Path) -> Path:
    """A copy of the package below `folder`. Exits where Python would not import that copy: then no mistake would ever be seen."""
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(PACKAGE, folder / "fabstir", ignore=ignored)
    if not imported_from(folder).is_relative_to(folder):
        sys.exit(
            "Python does not import the package from a copy; is it installed in another way than `make install` does?"
        )
    return folder


def judge(mutant: Mutant) -> bool:
    """Whether a test sees it; prints which."""
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        copy = copied(Path(folder).resolve())
        (copy / "fabstir" / mutant.file).write_text(mutated(mutant))
        found = failing_test(copy, TESTS[mutant.file])
    word, seconds = "killed" if found else "ALIVE", time.perf_counter() - started
    print(f"{word:7}{mutant.name:42} {seconds:5.1f} s  {found or 'all let it pass'}", flush=True)
    return found is not None


def main() -> None:
    """Judge, `--jobs` at a time, and print a line each; exit 1 where one survives."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="mutants to judge; all where none is named")
    parser.add_argument("--jobs", type=int, default=2, help="so many at a time (2)")
    options = parser.parse_args()
    names = set(options.names or [m.name for m in MUTANTS])
    chosen = [m for m in MUTANTS if m.name in names]
    if len(chosen) != len(names):
        sys.exit(f"no such mutant: {', '.join(sorted(names - {m.name for m in chosen}))}")
    with ThreadPoolExecutor(options.jobs) as pool:
        killed = list(pool.map(judge, chosen))
    print(f"{sum(killed)} of {len(chosen)} mutants killed")
    if not all(killed):
        sys.exit("Survived: " + ", ".join(m.name for m, seen in zip(chosen, killed, strict=True) if not seen))


if __name__ == "__main__":
    main()
