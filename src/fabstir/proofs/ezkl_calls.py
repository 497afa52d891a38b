"""How ezkl is spoken to, for every circuit: its errors as ours, its numbers as ours. Imports no ezkl itself.

ezkl raises RuntimeError, and Rust panics as a BaseException that pyo3 exports under no importable name.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from fabstir.domain.errors import error


@contextmanager
def translated(code: str) -> Iterator[None]:
    """ezkl's RuntimeErrors, and its panics, as `code`."""
    try:
        yield
    except OSError as problem:
        raise error("prover_unavailable", detail=f"scratch files: {problem}") from problem
    except Exception as problem:
        raise error(code, detail=_first_line(problem)) from problem
    except BaseException as problem:
        if type(problem).__name__ != "PanicException":
            raise
        raise error(code, detail=f"panic: {_first_line(problem)}") from problem


def felt(value: int) -> str:
    """A field element as ezkl reads it: 32 bytes, little-endian, hexadecimal."""
    return value.to_bytes(32, "little").hex()


def big_endian(text: str) -> bytes:
    """The other way, as the chain has it."""
    return bytes.fromhex(text)[::-1]


def _first_line(problem: BaseException) -> str:
    return str(problem).partition("\n")[0][:200]
