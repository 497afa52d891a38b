"""Forge's tests, compiled once, against contracts that are each compiled with a mistake in it: seconds for a mistake, not minutes.

The bench is a copy of the project whose tests load contracts by name (`dynamic_test_linking`) from forge's `out`, so what is written
there is what they deploy. Two kinds of tests do not see a mistake that way: one that inherits from the contract, and one that expects
a constructor to revert (loading by name is a cheatcode, and `vm.expectRevert` does not count those). `rebuilt` compiles everything
again, linked as usual. Decides which test fails; never touches the checkout.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

import build
import forge

FORGE_SECONDS: Final = 600
COPIED: Final = ("src", "test", "tools")
LONG: Final = "test/*Invariants*"
"""Suites that play many calls; only for what the others let pass."""
PROFILE: Final = "[profile.default]\n"


def contracts_of(file: str) -> list[str]:
    """Names of the contracts in whose bytecode `file` has a part."""
    return [name for name, path in build.PRODUCTS.items() if build.CONTRACTS / file in build.closure(path)]


def compiled(file: str, text: str) -> dict[str, str]:
    """Creation code, in hexadecimal, of every contract that `file` is part of, with `text` in its place. Exits on a compiler error."""
    names = contracts_of(file)
    output = build.compile_sources([build.PRODUCTS[name] for name in names], {file: text})["contracts"]
    return {name: output[build.PRODUCTS[name]][name]["evm"]["bytecode"]["object"] for name in names}


class Bench:
    """The compiled tests, in `folder`. Each question works on its own copy, so several may be asked at a time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        _lay_out(folder)
        settings = folder / "foundry.toml"
        settings.write_text(settings.read_text().replace(PROFILE, PROFILE + "dynamic_test_linking = true\n", 1))
        failed = _first_failure(folder, [])
        if failed:
            sys.exit(f"forge: {failed} fails without any mistake")

    def replaced(self, codes: dict[str, str], *, long: bool) -> str | None:
        """The test that fails where the contracts have these creation codes, or None; the short suites or the `long` ones."""
        with tempfile.TemporaryDirectory() as copy:
            project = self._copy(Path(copy))
            for name, code in codes.items():
                file = project / "out" / Path(build.PRODUCTS[name]).name / f"{name}.json"
                artifact = json.loads(file.read_text())
                artifact["bytecode"]["object"] = "0x" + code
                file.write_text(json.dumps(artifact))
            return _first_failure(project, ["--match-path" if long else "--no-match-path", LONG])

    def _copy(self, folder: Path) -> Path:
        return Path(shutil.copytree(self._folder, folder / "project", symlinks=True))


def rebuilt(file: str, text: str) -> str | None:
    """The test that fails where `file` says `text`, with everything compiled as `forge test` does, or None; all suites. Minutes."""
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder)
        _lay_out(project)
        (project / file).write_text(text)
        return _first_failure(project, [])


def _lay_out(folder: Path) -> None:
    for name in COPIED:
        shutil.copytree(build.CONTRACTS / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    settings = (build.CONTRACTS / "foundry.toml").read_text()
    (folder / "foundry.toml").write_text(settings + "\n[lint]\nlint_on_build = false\n")
    (folder / "node_modules").symlink_to(build.CONTRACTS / "node_modules")


def _first_failure(project: Path, selection: list[str]) -> str | None:
    """Runs the tests. Exits where forge does not get so far."""
    command = [forge.find_forge(), "test", "--fail-fast", *selection]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=FORGE_SECONDS, check=False)
    failed = [line for line in done.stdout.splitlines() if line.startswith("[FAIL")]
    if done.returncode != 0 and not failed:
        sys.exit(f"forge did not run the tests\n{done.stdout[-1500:]}{done.stderr[-1500:]}")
    return failed[0].rsplit("] ", 1)[-1].split("(")[0] if failed else None
