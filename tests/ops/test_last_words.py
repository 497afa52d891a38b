"""A process that fails says where, and never what it was holding."""

from __future__ import annotations

import subprocess
import sys

import pytest

SAID = "Xylophone"
FAILING = """
import asyncio, gc, sys, threading
from fabstir.ops import logging
from fabstir.ops.config import LogSection
from fabstir.ops.last_words import guard_last_words, guard_tasks
from fabstir.ports.private_process import is_private, leave_no_core
logging.configure(LogSection(format="json"))
guard_last_words()
leave_no_core()
assert is_private()
said = "Xylo" + "phone"
class Broken:
    def __del__(self): raise ValueError(said)
async def task():
    loop = asyncio.get_running_loop()
    guard_tasks(loop)
    lost = loop.create_future()
    lost.set_exception(ValueError(said))
    del lost
    gc.collect()
    loop.call_soon(lambda: int(said))
    await asyncio.sleep(0)
def thread():
    raise ValueError(said)
threading.Thread(target=thread).start()
Broken()
asyncio.run(task())
try:
    raise KeyError(said)
except KeyError as cause:
    cause.add_note(said)
    raise ValueError(said) from cause
"""


@pytest.mark.real
def test_no_exception_that_ends_something_tells_its_message() -> None:
    """A thread, a finaliser, a task, a callback and the process: five lines with types and places; and the process leaves no core."""
    done = subprocess.run([sys.executable, "-c", FAILING], check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert SAID not in done.stdout + done.stderr
    for event in ("thread_failed", "cleanup_failed", "task_failed", "process_failed"):
        assert f'"event":"{event}"' in done.stderr, done.stderr
    assert len(done.stderr.splitlines()) == 5
    assert done.stderr.count('"exception":"ValueError') == 5
