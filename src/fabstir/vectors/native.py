"""The libraries of the extra `vectors`, loaded when they are first needed and named where they are missing (`tool_missing`).

faiss is told to use one thread: what runs beside it here is a node that answers. Their calls release the interpreter's lock, so that
builds in a thread of their own do not stop the event loop (measured: research/store.md, section 3).
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Any

from fabstir.domain.errors import error


def library(name: str) -> Any:
    """Raises LocalFault (`tool_missing`)."""
    try:
        return import_module(name)
    except ImportError as cause:
        raise error("tool_missing", f"{name.partition('.')[0]}; install fabstir-llm-node[vectors]") from cause


@cache
def faiss() -> Any:
    """With one thread."""
    found = library("faiss")
    found.omp_set_num_threads(1)
    return found


@cache
def usearch() -> Any:
    """Its index module."""
    return library("usearch.index")
