"""Every line that the product writes passes the guard whole: its event is a name, and its fields are on the list."""

from __future__ import annotations

import ast
import functools
from pathlib import Path

import pytest

from fabstir.ops.logging import ALLOWED, EVENT_NAME

LEVELS = {"debug", "info", "warning", "error", "exception", "critical"}
SOURCES = sorted(Path("src/fabstir").rglob("*.py"))


@functools.cache
def log_calls(source: Path) -> list[ast.Call]:
    """Calls of a method of a logger, which is called `log`, `_log` or `logger` everywhere."""
    return [
        node
        for node in ast.walk(ast.parse(source.read_text("utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in LEVELS
        and ast.unparse(node.func.value).rpartition(".")[2] in {"log", "_log", "logger"}
    ]


@pytest.mark.parametrize("source", SOURCES, ids=str)
def test_no_line_of_the_product_loses_a_field(source: Path) -> None:
    """Whoever writes a new field adds it to the list, on purpose, or finds out here."""
    for call in log_calls(source):
        place = f"{source}:{call.lineno}"
        (event,) = call.args
        assert isinstance(event, ast.Constant), place
        assert EVENT_NAME.fullmatch(str(event.value)), place
        fields = {keyword.arg for keyword in call.keywords} - {"exc_info"}
        assert fields <= ALLOWED, (place, fields - ALLOWED)


def test_the_calls_are_found() -> None:
    """A search that finds nothing would keep no promise."""
    assert sum(len(log_calls(source)) for source in SOURCES) > 5
