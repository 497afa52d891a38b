"""What every test gets: a profile for hypothesis and a home of its own.

A test never reads or writes the configuration and data of the person who runs it. The cache (programs, proving keys) is shared, since
everything in it is pinned by hash.
"""

from __future__ import annotations

import gc
import importlib.util
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
import structlog
from hypothesis import settings

EVM = importlib.util.find_spec("pyrevm") is not None
"""The in-process EVM has wheels up to Python 3.12. Elsewhere the contracts are tested by forge and on anvil only."""
collect_ignore = [] if EVM else ["contracts", "proofs/test_on_chain.py", "scenarios/test_settlement_matrix.py"]


def pytest_report_header() -> str:
    """Say what this interpreter cannot run."""
    return "in-process EVM: " + ("pyrevm" if EVM else "none for this Python; tests that need it are left out")


settings.register_profile("dev", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "dev"))


LONG: Final = (
    "scenarios/test_crash",
    "scenarios/test_prompt_jobs",
    "p2p/test_hardening",
    "p2p/test_network",
    "scenarios",
    "p2p",
    "engines",
)
"""Beginnings of the files that take longest. They come first, so that no process is left with one of them when the others have ended."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files in the order of `LONG`, then as they were found."""
    here = str(Path(__file__).parent) + os.sep

    def place(item: pytest.Item) -> int:
        name = str(item.path).removeprefix(here)
        return next((at for at, start in enumerate(LONG) if name.startswith(start)), len(LONG))

    items.sort(key=place)


def pytest_collection_finish() -> None:
    """What was imported and collected stays to the end: the garbage collector walks it no more, which saves a tenth of the run, and
    looks less often at what tests make."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)


@pytest.fixture(scope="session", autouse=True)
def _home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Configuration and data of the test run lie in a temporary directory; settings of the environment are set aside."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("FABSTIR_")]:
            patch.delenv(name)
        home = tmp_path_factory.mktemp("home")
        patch.setenv("XDG_CONFIG_HOME", str(home / "config"))
        patch.setenv("XDG_DATA_HOME", str(home / "data"))
        yield


@pytest.fixture(autouse=True)
def _log() -> Iterator[None]:
    """A test that sets up the log, as every command does, leaves none behind that writes to its closed stream."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    if structlog.is_configured():
        structlog.reset_defaults()
        root.handlers[:], root.level = handlers, level


@pytest.fixture
def quick_scrypt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Key files that a test makes cost a millisecond to open, not a second. How hard the real ones are: tests/chain/test_keys.py."""
    from eth_keyfile import keyfile  # noqa: PLC0415 - 0.7 s, and few tests need it

    monkeypatch.setattr(keyfile, "get_default_work_factor_for_kdf", lambda kdf: {"scrypt": 1 << 10}[kdf])
