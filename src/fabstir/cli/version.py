"""`fabstir version`: what runs here. Reads nothing but the package and the interpreter."""

from __future__ import annotations

import platform

import fabstir
from fabstir.cli.frame import COMMON, Common


def version(*, common: Common = COMMON) -> None:
    """The version of this package, and of the Python that runs it."""
    data = {"version": fabstir.__version__, "python": platform.python_version(), "platform": platform.platform()}
    common.show(data, lambda: f"fabstir {data['version']} (Python {data['python']}, {data['platform']})")
