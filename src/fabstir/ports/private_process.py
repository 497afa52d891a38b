"""A process whose memory no other program is shown: it leaves no core file, and no debugger of the same user attaches.

What is being said passes through the memory of a host, its engine and its prover; a crash must not write it down. Each process says so
for itself at its start, since a program that is executed begins readable again. Root still reads everything.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
from typing import Final

_PR_SET_PDEATHSIG: Final = 1
_PR_GET_DUMPABLE: Final = 3
_PR_SET_DUMPABLE: Final = 4
NO_CORE: Final = 1
"""Bytes that a core file may have. Less than any has, so none is written; and unlike 0 it also stops Linux from piping one to a program
(`core_pattern` with `|`), which is what holds for a program that takes this process over."""


def leave_no_core() -> None:
    """From now on, for this process; the limit for its children too."""
    resource.setrlimit(resource.RLIMIT_CORE, (NO_CORE, NO_CORE))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def is_private() -> bool:
    """Whether `leave_no_core` holds for this process."""
    if sys.platform == "linux" and ctypes.CDLL(None).prctl(_PR_GET_DUMPABLE, 0, 0, 0, 0) != 0:
        return False
    return resource.getrlimit(resource.RLIMIT_CORE) == (NO_CORE, NO_CORE)


def end_with_parent(parent: int) -> None:
    """For a child process: be killed when its parent ends, also where it ended before this line; and leave no core. Where the kernel
    does not offer it, the closed connection ends the child."""
    leave_no_core()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)
