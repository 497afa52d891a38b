"""The supervisor, with children that do exactly what a test needs."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from fabstir.domain.errors import FabstirError
from fabstir.engines.child import TAIL_BYTES, ChildProcess

pytestmark = pytest.mark.real


def child(
    script: str, ready: asyncio.Event | None = None, load_seconds: float = 60, forget: bool = False
) -> ChildProcess:
    """A child that runs `script`; usable at once, or once `ready` is set."""

    async def is_ready() -> bool:
        return ready is None or ready.is_set()

    return ChildProcess(
        [sys.executable, "-c", script], dict(os.environ), is_ready, load_seconds=load_seconds, forget_when_ready=forget
    )


async def test_the_last_words_of_a_failed_start_are_told() -> None:
    """Without the frames of a traceback, and with the way it ended."""
    never = asyncio.Event()
    process = child("import sys; print('reading weights'); sys.exit('no such tensor')", never)
    with pytest.raises(FabstirError, match=r"exited with code 1 while loading: reading weights \| no such tensor"):
        await process.start()
    assert process.health.status == "down"


async def test_a_signal_is_named() -> None:
    """An abort in native code says nothing itself."""
    with pytest.raises(FabstirError, match="was killed by SIGABRT while loading: it said nothing"):
        await child("import os; os.abort()", asyncio.Event()).start()


async def test_a_start_that_never_ends_is_given_up() -> None:
    """And the child with it."""
    process = child("import time; time.sleep(600)", asyncio.Event(), load_seconds=0.2)
    with pytest.raises(FabstirError, match="was not ready after 0 s"):
        await process.start()
    assert process.pid == 0


async def test_its_output_is_bounded() -> None:
    """A child that never stops talking is read, and only the end is kept."""
    process = child("print('x' * 10_000_000, end='END', flush=True); import time; time.sleep(600)")
    await process.start()
    async with asyncio.timeout(60):
        while not process.tail.endswith(b"END"):  # noqa: ASYNC110  nothing tells
            await asyncio.sleep(0)
    assert len(process.tail) == TAIL_BYTES
    await process.stop()


async def test_what_a_serving_child_prints_can_be_forgotten(tmp_path: Path) -> None:
    """Output from before it was ready, and after, is nowhere; the pipe is still read, so that the child does not block."""
    written = tmp_path / "written"
    script = f"print('x' * 1_000_000, flush=True); open({str(written)!r}, 'w').close(); import time; time.sleep(600)"
    process = child(script, forget=True)
    await process.start()
    async with asyncio.timeout(60):
        while not written.exists():  # noqa: ASYNC110  nothing tells
            await asyncio.sleep(0)
    assert process.tail == b""
    await process.stop()


async def test_a_child_that_always_dies_is_started_again_and_again(tmp_path: Path) -> None:
    """Each start is counted; stop ends it for good."""
    count = tmp_path / "starts"
    process = child(f"open({str(count)!r}, 'a').write('x')")
    await process.start()
    async with asyncio.timeout(60):
        await process.restarted(3)
    await process.stop()
    starts = count.read_text()
    assert len(starts) >= 3
    assert (process.health.status, process.health.reason) == ("down", "stopped")


async def test_ctrl_c_does_not_reach_the_child() -> None:
    """It is in a session of its own: the parent decides when it ends."""
    process = child("import time; time.sleep(600)")
    await process.start()
    assert os.getsid(process.pid) == process.pid
    await process.stop()
