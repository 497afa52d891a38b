"""A real host writes down nothing of what was said, however it ends: its folders, its log, its metrics and its core files are searched."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import tempfile
import urllib.request
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import psutil
import pytest

from fabstir.bootstrap.renter import renter_market
from fabstir.ports.private_process import NO_CORE
from fabstir.renter.session import Session
from tests.host.world import eventually
from tests.scenarios.test_merkle_host import place

pytestmark = [pytest.mark.real, pytest.mark.scenario]

SECRET = "Xylophonia Quetzalcoatl"
WINDOW = 24
"""Characters of an answer that nothing writes by chance."""


async def said(session: Session, heard: list[str], tokens: int = 40) -> None:
    """A question with the secret in it; what is answered goes to `heard`, also where it breaks off."""
    async for piece in session.prompt(f"My name is {SECRET}. Write about bees.", max_tokens=tokens, stop=(SECRET,)):
        heard.append(piece)


def files(*roots: Path) -> Iterator[Path]:
    """Whatever lies there."""
    return (path for root in roots for path in root.rglob("*") if path.is_file())


def page(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return bytes(answer.read())


def searched(written: bytes, heard: str) -> list[str]:
    """What of it was written down: the secret's words, and any stretch of an answer."""
    found = [word for word in SECRET.split() if word.encode() in written]
    return found + [
        piece
        for n in range(0, len(heard) - WINDOW, WINDOW // 2)
        if (piece := heard[n : n + WINDOW]).encode() in written
    ]


def leaves_no_core(pid: int) -> bool:
    """Of a process that runs."""
    limits = Path(f"/proc/{pid}/limits").read_text()
    (line,) = [line for line in limits.splitlines() if line.startswith("Max core file size")]
    return line.split()[4:6] == [str(NO_CORE)] * 2


async def test_a_host_that_crashes_in_every_way_has_written_nothing_of_what_was_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Answers that end; an engine that is killed and one that aborts in the middle of an answer; a host that is killed and one that
    aborts. No word of prompt or answer, no core file, in anything that the host wrote, at the most talkative level."""
    scratch, work = Path(tempfile.mkdtemp()), tmp_path / "work"  # short: sockets lie in it
    work.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    monkeypatch.setenv("FABSTIR_LOG_LEVEL", "debug")
    monkeypatch.setenv("PYTHONFAULTHANDLER", "1")
    monkeypatch.setenv("FABSTIR_ENGINE_SCORING", "true")
    monkeypatch.chdir(work)  # where a core file would be
    heard: list[str] = []
    told = b""
    async with place(tmp_path / "market", "bind") as now, renter_market(now.renter) as market:

        async def well(restarts: int = 0) -> bool:
            with contextlib.suppress(OSError):
                health = await now.ask("/health")
                engine = health["engine"]
                return bool(
                    engine["status"] == health["registration"]["status"] == "ok" and engine["restarts"] >= restarts
                )
            return False

        async def cut_off(session: Session, end: Callable[[], None]) -> None:
            """Something ends in the middle of an answer."""
            before = len(heard)
            talk = asyncio.create_task(said(session, heard, 400))
            await eventually(lambda: len(heard) > before or talk.done())
            assert not talk.done()
            end()
            await asyncio.gather(talk, return_exceptions=True)

        for ending in (signal.SIGKILL, signal.SIGABRT):
            await eventually(well)
            host = psutil.Process(now.host.pid)
            async with market.session("tiny-chat") as session:
                await said(session, heard)
                assert all(leaves_no_core(process.pid) for process in (host, *host.children(recursive=True)))
                engine = next(one for one in host.children() if "fabstir.engines.llama_worker" in one.cmdline())
                await cut_off(session, partial(engine.send_signal, ending))
            await eventually(partial(well, 1))
            told += page(now.host.url + "/metrics") + page(now.host.url + "/health") + page(now.host.url + "/v1/offer")
            async with market.session("tiny-chat") as session:
                await cut_off(session, partial(host.send_signal, ending))
            await now.host.ended()
            await now.host.start()
        await now.host.stop()
        written = {path: path.read_bytes() for path in files(now.host.config.parent, scratch, work)}
    shutil.rmtree(scratch)
    assert len("".join(heard)) > 10 * WINDOW
    assert b"session_opened" in written[now.host.config.parent / "log"]
    assert [path for path in written if "core" in path.name] == []
    for path, content in (*written.items(), (Path("pages"), told)):
        assert searched(content, "".join(heard)) == [], path
