"""What every tracked file keeps to: no place of one machine, no address of a package index, one direction of imports."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import check_lock

TEXT_LIMIT = 5_000_000

# Written in pieces, so that this file does not hold what it looks for.
REGISTRY = re.compile(
    "|".join(
        re.escape(first + "." + second)
        for first, second in [
            ("pypi", "org"),
            ("pythonhosted", "org"),
            ("npmjs", "org"),
            ("npmjs", "com"),
            ("yarnpkg", "com"),
            ("crates", "io"),
            ("proxy.golang", "org"),
            ("deb.debian", "org"),
        ]
    )
)
MACHINE_PATH = re.compile(
    r"(?<![\w.$}~:/-])/(?:wor" + r"k|roo" + r"t|hom" + r"e/[a-z][a-z0-9_-]*|Users/[A-Za-z]+)(?=/|\b(?![\w-]))"
)
UNFINISHED = re.compile(r"\b(?:TO" + r"DO|FIX" + r"ME|XX" + r"X)\b")


def tracked() -> list[Path]:
    """Every file that git knows here, and would know after the next commit."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], capture_output=True, text=True, check=True
    )
    return [path for path in map(Path, listed.stdout.splitlines()) if path.is_file()]


def found(pattern: re.Pattern[str], paths: list[Path]) -> list[str]:
    """`path:line: match` for each place, text files only."""
    places = []
    for path in paths:
        data = path.read_bytes()
        if len(data) > TEXT_LIMIT or b"\0" in data[:8192]:
            continue
        for number, line in enumerate(data.decode("utf-8", "replace").splitlines(), 1):
            places += [f"{path}:{number}: {match[0]}" for match in pattern.finditer(line)]
    return places


def test_no_tracked_file_names_a_package_index() -> None:
    """Lock files included: which index serves a package is the business of whoever installs it."""
    assert found(REGISTRY, tracked()) == []


def test_no_tracked_file_names_a_place_of_one_machine() -> None:
    """A path that exists on one machine only works there."""
    assert found(MACHINE_PATH, tracked()) == []


def test_nothing_shipped_is_marked_as_unfinished() -> None:
    """What is not done is an issue, not a comment."""
    assert (
        found(UNFINISHED, [path for path in tracked() if path.parts[0] in {"src", "contracts", "tools", "docs"}]) == []
    )


@pytest.mark.parametrize(
    ("pattern", "line"),
    [
        (REGISTRY, "https://registry." + "npmjs" + ".org/x"),
        (MACHINE_PATH, "see /" + "work/main/x"),
        (MACHINE_PATH, '"/' + 'root/.cache"'),
        (MACHINE_PATH, "cd /" + "home/alice/src"),
        (UNFINISHED, "# TO" + "DO: later"),
    ],
)
def test_the_patterns_find_what_they_should(pattern: re.Pattern[str], line: str, tmp_path: Path) -> None:
    """A pattern that matches nothing would keep no promise."""
    file = tmp_path / "file.txt"
    file.write_text(line)
    assert len(found(pattern, [file])) == 1


@pytest.mark.parametrize(
    "line", ["https://example.org/work/x", "$HOME/root", "~/work", "GET /workers", "a/root/b", "/homework"]
)
def test_the_machine_pattern_leaves_urls_and_relative_paths_alone(line: str) -> None:
    """Otherwise it would be switched off one day."""
    assert MACHINE_PATH.search(line) is None


@pytest.mark.real
def test_imports_point_downwards() -> None:
    """The contracts of pyproject.toml hold (import-linter)."""
    ran = subprocess.run(
        [Path(sys.executable).parent / "lint-imports", "--no-logo"], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stdout


def test_the_lock_is_what_pyproject_asks_for() -> None:
    """Offline: the direct requirements, their pins and hashes."""
    assert check_lock.problems(Path("pyproject.toml").read_text(), Path("requirements.lock").read_text()) == []


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            lambda pyproject, lock: (pyproject.replace('"psutil>=7.2",', '"psutil>=7.2", "attrs",'), lock),
            "attrs is in pyproject",
        ),
        (lambda pyproject, lock: (pyproject.replace('"psutil>=7.2",', ""), lock), "psutil is in the lock"),
        (
            lambda pyproject, lock: (pyproject.replace('"psutil>=7.2"', '"psutil>=99"'), lock),
            "pyproject.toml wants >=99",
        ),
        (lambda pyproject, lock: (pyproject, re.sub(r" *--hash=sha256:\w+ ?\\?\n", "", lock)), "psutil has no hash"),
        (lambda pyproject, lock: (pyproject, "--index-url https://example.org\n" + lock), "address of a package index"),
    ],
)
def test_a_lock_that_does_not_fit_is_told(change: Callable[[str, str], tuple[str, str]], says: str) -> None:
    """Each way in which the two can part."""
    texts = change(Path("pyproject.toml").read_text(), Path("requirements.lock").read_text())
    assert says in "\n".join(check_lock.problems(*texts))
