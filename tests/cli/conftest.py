"""Runs the command line in this process, as a shell would see it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from fabstir.cli.app import run


class Ran(NamedTuple):
    """What a shell sees."""

    code: int
    out: str
    err: str

    def json(self) -> dict[str, Any]:
        """stdout as the one JSON object that it must be."""
        loaded: dict[str, Any] = json.loads(self.out)
        assert isinstance(loaded, dict)
        return loaded


Fabstir = Callable[..., Ran]


@pytest.fixture
def fabstir(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Fabstir:
    """`fabstir("version", "--json")`: exit code, stdout, stderr."""
    monkeypatch.setenv("COLUMNS", "200")

    def call(*arguments: str) -> Ran:
        code = run(arguments)
        out, err = capsys.readouterr()
        return Ran(code, out, err)

    return call
