"""What goes wrong with the child process is named, ends only what it must end, and heals by itself."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
import pytest_asyncio
from tests.engines.asking import ask, collect, failure

from fabstir.domain.errors import FabstirError
from fabstir.engines.llama import LlamaEngine
from fabstir.engines.model_file import default_model
from fabstir.ports.engine import ChatMessage, GenerationEnd

pytestmark = pytest.mark.real

STORY = ask("Tell me a story.", max_tokens=240, ignore_eos=True)


@pytest_asyncio.fixture
async def engine() -> AsyncIterator[LlamaEngine]:
    """One that may be harmed: room for eight requests of 256 tokens."""
    engine = LlamaEngine(default_model(), context_size=256, parallel=8, threads=1)
    await engine.start()
    yield engine
    await engine.stop()


async def failed_start(model: Path, binary: Path | None = None) -> FabstirError:
    """The error with which a start ends; nothing is left of it."""
    before = psutil.Process().children()
    engine = LlamaEngine(model, threads=1, binary=binary)
    with pytest.raises(FabstirError) as caught:
        await engine.start()
    health = await engine.health()
    assert (health.status, health.reason) == ("down", caught.value.detail)
    assert psutil.Process().children() == before
    return caught.value


async def test_a_killed_engine_ends_requests_and_comes_back(engine: LlamaEngine) -> None:
    """kill -9 in the middle of an answer: `engine_gone` for those at work, health tells, and the next request is served."""
    started = asyncio.Event()
    codes: list[str] = []

    async def read() -> None:
        try:
            async for item in engine.generate(ask("Tell me a story.", max_tokens=100_000, ignore_eos=True)):
                started.set()
                assert not isinstance(item, GenerationEnd)
                await asyncio.sleep(0)
        except FabstirError as fault:
            codes.append(fault.code)

    readers = [asyncio.create_task(read()) for _ in range(3)]
    await started.wait()
    killed = engine.child.pid
    os.kill(killed, signal.SIGKILL)
    await asyncio.gather(*readers)
    assert codes == ["engine_gone"] * 3

    assert (await failure(engine, STORY)).code == "engine_gone"
    async with asyncio.timeout(60):
        await engine.child.restarted(1)
    health = await engine.health()
    assert (health.status, health.restarts) == ("ok", 1)
    assert engine.child.pid != killed
    assert (await collect(engine, ask("What is the capital of Peru?"))).text == "The capital of Peru is Lima."


async def test_every_crash_is_healed(engine: LlamaEngine) -> None:
    """Not only the first one; the count of restarts is told."""
    for crash in range(1, 4):
        os.kill(engine.child.pid, signal.SIGSEGV if crash == 2 else signal.SIGKILL)
        async with asyncio.timeout(60):
            await engine.child.restarted(crash)
        assert len((await collect(engine, STORY)).records) == 240
    assert (await engine.health()).restarts == 3


async def test_health_says_why_it_restarts(tmp_path: Path) -> None:
    """While the file cannot be loaded again the engine stays `restarting` with the reason, and recovers when it can."""
    model = tmp_path / "model.gguf"
    model.write_bytes(default_model().read_bytes())
    engine = LlamaEngine(model, context_size=256, threads=1)
    await engine.start()
    try:
        model.rename(tmp_path / "away.gguf")
        os.kill(engine.child.pid, signal.SIGKILL)
        async with asyncio.timeout(60):
            while "while loading" not in (health := await engine.health()).reason:  # noqa: ASYNC110
                await asyncio.sleep(0)
        assert health.status == "restarting"
        assert (await failure(engine, STORY)).code == "engine_gone"
        (tmp_path / "away.gguf").rename(model)
        async with asyncio.timeout(60):
            await engine.child.restarted(1)
        assert (await engine.health()).status == "ok"
    finally:
        await engine.stop()


async def test_a_hung_engine_is_not_called_healthy(engine: LlamaEngine) -> None:
    """A process that lives and does not answer is `down`."""
    os.kill(engine.child.pid, signal.SIGSTOP)
    try:
        async with asyncio.timeout(60):
            while (health := await engine.health()).status == "ok":  # noqa: ASYNC110
                await asyncio.sleep(0)  # the signal is on its way
    finally:
        os.kill(engine.child.pid, signal.SIGCONT)
    assert (health.status, health.reason) == ("down", "the engine does not answer")
    assert (await engine.health()).status == "ok"


async def test_stop_ends_running_requests(engine: LlamaEngine) -> None:
    """With `engine_gone`, those that wait for a place too; afterwards no process is left, and stop may be called again."""
    started = asyncio.Event()

    async def read() -> str:
        try:
            async for _ in engine.generate(ask("Tell me a story.", max_tokens=100_000, ignore_eos=True)):
                started.set()
        except FabstirError as fault:
            return fault.code
        return "finished"

    readers = [asyncio.create_task(read()) for _ in range(20)]
    await started.wait()
    child = psutil.Process(engine.child.pid)
    await engine.stop()
    assert set(await asyncio.gather(*readers)) <= {"engine_gone", "finished"}
    assert any(reader.result() == "engine_gone" for reader in readers)
    assert not child.is_running()
    assert (await engine.health()).status == "down"
    assert (await failure(engine, STORY)).code == "engine_gone"
    await engine.stop()


async def test_an_engine_can_be_started_again(engine: LlamaEngine) -> None:
    """After a stop, with the same settings."""
    await engine.stop()
    await engine.start()
    assert len((await collect(engine, STORY)).records) == 240


async def test_garbage_is_refused(tmp_path: Path) -> None:
    """A file that is no GGUF at all."""
    path = tmp_path / "garbage.gguf"
    path.write_bytes(os.urandom(100_000))
    assert (await failed_start(path)).code == "model_invalid"


@pytest.mark.parametrize("length", [20_000, 800_000, 1_697_000])
async def test_a_truncated_file_is_refused_with_the_engines_words(tmp_path: Path, length: int) -> None:
    """An interrupted download: in the middle of the header, of the tensors, and just before the end."""
    path = tmp_path / "truncated.gguf"
    path.write_bytes(default_model().read_bytes()[:length])
    fault = await failed_start(path)
    assert fault.code == "model_invalid"
    assert "error loading model" in fault.detail


async def test_damaged_numbers_are_refused(tmp_path: Path) -> None:
    """Flipped bytes in the header may make the engine abort; that is its own process, and the fault is named."""
    whole = default_model().read_bytes()
    codes: set[str] = set()
    for position in (8, 9, 16, 24, 200, 400):
        data = bytearray(whole)
        data[position] ^= 0xFF
        path = tmp_path / "damaged.gguf"
        path.write_bytes(data)
        engine = LlamaEngine(path, context_size=256, threads=1)
        try:
            await engine.start()
        except FabstirError as fault:
            codes.add(fault.code)
        finally:
            await engine.stop()
    assert codes == {"model_invalid"}


def test_a_failed_start_ends_though_native_code_will_not() -> None:
    """Destructors that wait for ever are ended by the kernel; the parent would wait for the whole loading time."""
    script = (
        "import atexit, json, os, sys, time\n"
        "from fabstir.engines import llama_worker as worker\n"
        "def refuse(*_, **__): raise RuntimeError\n"
        "worker._serve, worker.LAST_WORDS_SECONDS = refuse, 1\n"
        "atexit.register(time.sleep, 600)\n"
        "numbers = dict(parent=os.getppid(), context_size=1, parallel=1, threads=1, gpu_layers=0)\n"
        "sys.argv[1:] = [json.dumps(dict(model='', socket='', **numbers))]\n"
        "worker.main()\n"
    )
    done = subprocess.run([sys.executable, "-c", script], stderr=subprocess.PIPE, timeout=60, check=False)
    assert done.returncode == -signal.SIGALRM, done.stderr


async def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """With its path."""
    fault = await failed_start(tmp_path / "none.gguf")
    assert fault.code == "model_invalid"
    assert "none.gguf" in fault.detail


async def test_a_missing_program_is_named(tmp_path: Path) -> None:
    """A llama-server that is not there."""
    fault = await failed_start(default_model(), binary=tmp_path / "llama-server")
    assert fault.code == "tool_missing"
    assert "llama-server" in fault.detail


async def test_a_program_that_does_not_serve_is_named() -> None:
    """Its way of ending is told."""
    fault = await failed_start(default_model(), binary=Path("/bin/false"))
    assert fault.code == "model_invalid"
    assert "exited with code 1" in fault.detail


async def test_the_child_dies_with_its_parent() -> None:
    """A host that is killed leaves no engine behind."""
    script = (
        "import asyncio\n"
        "from fabstir.engines.llama import LlamaEngine\n"
        "from fabstir.engines.model_file import default_model\n"
        "async def main():\n"
        "    engine = LlamaEngine(default_model(), context_size=256, threads=1)\n"
        "    await engine.start()\n"
        "    print(engine.child.pid, flush=True)\n"
        "    await asyncio.Event().wait()\n"
        "asyncio.run(main())\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)  # noqa: ASYNC220
    assert parent.stdout is not None
    child = psutil.Process(int(await asyncio.to_thread(parent.stdout.readline)))
    assert child.is_running()
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert await asyncio.to_thread(psutil.wait_procs, [child], timeout=30) == ([child], [])


async def test_full_contexts_do_not_crowd_each_other_out(engine: LlamaEngine) -> None:
    """Every request has its own room: eight that fill their context all end by `length`, none by an error."""
    story = ask("Tell me a story.", max_tokens=5000, ignore_eos=True)
    answers = await asyncio.gather(*(collect(engine, story) for _ in range(8)))
    assert {answer.end.finish_reason for answer in answers} == {"length"}
    assert all(len(answer.records) > 230 for answer in answers)


async def test_nothing_of_a_conversation_is_printed(engine: LlamaEngine) -> None:
    """The child's output stays empty, whatever is asked and however it fails: a secret cannot reach a log."""
    secret = "zyzzyva-4711"
    messages = (ChatMessage("system", secret), ChatMessage("user", secret))
    await collect(engine, ask("", messages=messages, max_tokens=50))
    faults = [
        await failure(engine, ask(f"{secret} " * 500)),
        await failure(engine, ask(secret, messages=(ChatMessage("user", secret),), max_tokens=0)),
    ]
    await asyncio.gather(*(collect(engine, ask(secret, max_tokens=20, prefix=secret)) for _ in range(20)))
    assert [fault.code for fault in faults] == ["context_too_long", "engine_refused"]
    assert not any(secret in str(fault) for fault in faults)
    assert engine.child.tail == b""
