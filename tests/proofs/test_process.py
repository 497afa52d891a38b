"""The prover process under supervision: crashes, silence, shortage, shutdown. Nothing is lost silently, nothing is left behind."""

from __future__ import annotations

import asyncio
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio
from tests.proofs.conftest import DEVNET, records_of

from fabstir.domain.errors import LocalFault
from fabstir.domain.ids import Hash32
from fabstir.ports.prover import ProofStatement
from fabstir.proofs import bind
from fabstir.proofs.child import Child
from fabstir.proofs.circuit import BIND_V1, load_circuit
from fabstir.proofs.frames import CommitJob, Committed, Job, Proved, ProveJob, Ready, Reply, frame, read_reply
from fabstir.proofs.process import EzklProver

pytestmark = pytest.mark.real

RECORDS = records_of(40)
WORD = Hash32(b"w" * 32)


@pytest_asyncio.fixture
async def own(cache: Path) -> AsyncIterator[EzklProver]:
    """A prover that the test may hurt."""
    prover = EzklProver(chain_id=DEVNET, cache=cache)
    await prover.start()
    yield prover
    await prover.stop()


async def _until(condition: Callable[[], bool]) -> None:
    """Let the event loop turn until `condition` holds."""
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - nothing tells us what another process does
            await asyncio.sleep(0)


async def _wait_for_end(pid: int) -> None:
    """Return when the process has ended."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        ended, _, _ = await asyncio.to_thread(select.select, [descriptor], [], [], 60)
        assert ended, f"process {pid} did not end"
    finally:
        os.close(descriptor)


def _names(folder: Path, pattern: str) -> list[str]:
    return [path.name for path in folder.rglob(pattern)]


def _cut_key(cache: Path) -> None:
    (key,) = cache.rglob("pk.key")
    key.write_bytes(key.read_bytes()[:1000])


def _pid(prover: EzklProver) -> int:
    assert prover.pid is not None
    return prover.pid


async def test_a_killed_worker_is_replaced_and_the_proof_is_made(own: EzklProver) -> None:
    """kill -9 in the middle of a proof: another process makes it, and the caller notices nothing."""
    statement = ProofStatement(WORD, WORD, (await own.commit(RECORDS)).digest)
    first = _pid(own)
    os.kill(first, signal.SIGSTOP)  # so that the proof is certainly at work, not done, when the kill comes
    proving = asyncio.create_task(own.prove(statement, RECORDS))
    await _until(lambda: "1 at work" in repr(own))
    os.kill(first, signal.SIGKILL)
    assert await own.verify(statement, await proving)
    assert own.pid != first and "1 restarts" in repr(own) and await own.health() == "ok"


async def test_a_job_that_kills_twice_fails(own: EzklProver) -> None:
    """A job is retried once: after a second crash it fails with `prover_unavailable`, and the next job is served."""

    async def kill_at_work(restarts: int) -> None:
        await _until(lambda: f"1 at work, 0 waiting, {restarts} restarts" in repr(own) and own.pid is not None)
        pid = _pid(own)
        os.kill(pid, signal.SIGKILL)
        await _until(lambda: own.pid != pid)

    proving = asyncio.create_task(own.prove(ProofStatement(WORD, WORD, WORD), RECORDS))
    await kill_at_work(restarts=0)
    await kill_at_work(restarts=1)
    with pytest.raises(LocalFault, match=r"prover_unavailable.*SIGKILL"):
        await proving
    assert (await own.commit(RECORDS)).digest


async def test_a_worker_that_dies_idle_is_replaced(own: EzklProver) -> None:
    """Nobody has to ask first: the process is restarted when it ends, and health says why meanwhile."""
    first = _pid(own)
    os.kill(first, signal.SIGKILL)
    await _until(lambda: "SIGKILL" in repr(own))
    assert "SIGKILL" in await own.health()
    await _until(lambda: own.pid not in (None, first))
    assert await own.health() == "ok"


async def test_a_silent_worker_is_killed(cache: Path) -> None:
    """A worker that does not answer within the deadline is killed; the caller gets `prover_unavailable`."""
    prover = EzklProver(chain_id=DEVNET, cache=cache, deadline_seconds=3)
    await prover.start()
    first = _pid(prover)
    os.kill(first, signal.SIGSTOP)
    with pytest.raises(LocalFault, match=r"prover_unavailable.*within 3 s"):
        await prover.commit(RECORDS)
    await _wait_for_end(first)
    await _until(lambda: prover.pid not in (None, first))
    assert (await prover.commit(RECORDS)).digest
    await prover.stop()


async def test_callers_wait_for_room(cache: Path) -> None:
    """At most `capacity` jobs are inside; the others wait outside, and all of them are served."""
    prover = EzklProver(chain_id=DEVNET, cache=cache, capacity=2)
    await prover.start()
    os.kill(_pid(prover), signal.SIGSTOP)
    asking = [asyncio.create_task(prover.commit(records_of(n))) for n in range(1, 9)]
    await _until(lambda: "1 at work, 1 waiting" in repr(prover))
    await asyncio.sleep(0)
    assert "1 at work, 1 waiting" in repr(prover)
    os.kill(_pid(prover), signal.SIGCONT)
    assert len({made.digest for made in await asyncio.gather(*asking)}) == 8
    await prover.stop()


async def test_commitments_overtake_proofs(own: EzklProver) -> None:
    """A session that closes a checkpoint waits for at most one proof, not for the queue."""
    statement = ProofStatement(WORD, WORD, (await own.commit(RECORDS)).digest)
    os.kill(_pid(own), signal.SIGSTOP)
    order: list[str] = []
    jobs: list[asyncio.Task[object]] = [
        asyncio.create_task(own.prove(statement, RECORDS), name=f"prove {n}") for n in range(2)
    ]
    await _until(lambda: "1 at work, 1 waiting" in repr(own))
    jobs.append(asyncio.create_task(own.commit(RECORDS), name="commit"))
    for job in jobs:
        job.add_done_callback(lambda done: order.append(done.get_name()))
    await _until(lambda: "1 at work, 2 waiting" in repr(own))
    os.kill(_pid(own), signal.SIGCONT)
    await asyncio.gather(*jobs)
    assert order == ["prove 0", "commit", "prove 1"]


async def test_a_caller_who_leaves_holds_nobody_up(own: EzklProver, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job whose caller left while it waited is not worked on, and its place is free again."""
    sent: list[Job] = []
    exchange = Child.exchange

    async def recorded(child: Child, job: Job) -> Reply:
        sent.append(job)
        return await exchange(child, job)

    monkeypatch.setattr(Child, "exchange", recorded)
    os.kill(_pid(own), signal.SIGSTOP)
    leaving = [asyncio.create_task(own.commit(RECORDS)) for _ in range(3)]
    await _until(lambda: "1 at work, 2 waiting" in repr(own))
    for task in leaving:
        task.cancel()
    await asyncio.gather(*leaving, return_exceptions=True)
    os.kill(_pid(own), signal.SIGCONT)
    assert (await own.commit(records_of(1))).digest
    assert sent == [CommitJob(RECORDS), CommitJob(records_of(1))]


async def test_stop_answers_everyone(cache: Path) -> None:
    """Stopping fails waiting and working jobs with `prover_unavailable`; it is idempotent, and a later start works."""
    prover = EzklProver(chain_id=DEVNET, cache=cache, capacity=2)
    with pytest.raises(LocalFault, match=r"prover_unavailable.*not started"):
        await prover.commit(RECORDS)
    await prover.start()
    pid = _pid(prover)
    os.kill(pid, signal.SIGSTOP)
    asking = [asyncio.create_task(prover.commit(RECORDS)) for _ in range(5)]
    await _until(lambda: "1 at work, 1 waiting" in repr(prover))
    await prover.stop()
    await prover.stop()
    for outcome in await asyncio.gather(*asking, return_exceptions=True):
        assert isinstance(outcome, LocalFault) and outcome.code == "prover_unavailable" and outcome.detail == "stopped"
    await _wait_for_end(pid)
    assert await prover.health() == "stopped"
    await prover.start()
    assert (await prover.commit(RECORDS)).digest and await prover.health() == "ok"
    await prover.stop()


async def test_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a crash and a stop the cache holds the key and no scratch files, and the home was never touched."""
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    prover = EzklProver(chain_id=DEVNET, cache=tmp_path / "cache")
    await prover.start()
    os.kill(_pid(prover), signal.SIGKILL)
    statement = ProofStatement(WORD, WORD, (await prover.commit(RECORDS)).digest)
    await prover.prove(statement, RECORDS)
    assert len(_names(tmp_path / "cache", "work-*")) == 1, "the killed process's folder is removed by its successor"
    await prover.stop()
    assert _names(tmp_path / "cache/prover", "*") == ["lock"]
    assert _names(tmp_path / "cache/circuits", "*.*") == ["pk.key"]
    assert _names(tmp_path / "home", "*") == []


async def test_the_key_is_healed_while_running(tmp_path: Path) -> None:
    """A cache that is damaged or emptied under a running prover costs the next proof a tenth of a second, nothing else."""
    prover = EzklProver(chain_id=DEVNET, cache=tmp_path)
    await prover.start()
    statement = ProofStatement(WORD, WORD, (await prover.commit(RECORDS)).digest)
    _cut_key(tmp_path)
    assert await prover.verify(statement, await prover.prove(statement, RECORDS))
    shutil.rmtree(tmp_path / "circuits")
    assert await prover.verify(statement, await prover.prove(statement, RECORDS))
    await prover.stop()


async def test_a_circuit_that_changed_stops_the_start(tmp_path: Path) -> None:
    """The worker checks the files too: a change after the supervisor's check is `circuit_mismatch`, with nothing left running."""
    folder = Path(shutil.copytree(BIND_V1, tmp_path / "circuit"))
    circuit = load_circuit(folder)
    (folder / "kzg.srs").write_bytes(b"")
    prover = EzklProver(chain_id=DEVNET, cache=tmp_path, circuit=circuit)
    with pytest.raises(LocalFault, match=r"circuit_mismatch.*kzg\.srs"):
        await prover.start()
    assert prover.pid is None and await prover.health() == "not started"


async def test_a_restart_that_fails_is_told(tmp_path: Path) -> None:
    """When the process cannot be restarted, whoever asks gets the reason, and health has it; it recovers with the files."""
    folder = Path(shutil.copytree(BIND_V1, tmp_path / "circuit"))
    prover = EzklProver(chain_id=DEVNET, cache=tmp_path, circuit=load_circuit(folder))
    await prover.start()
    (folder / "kzg.srs").rename(folder / "away")
    os.kill(_pid(prover), signal.SIGKILL)
    with pytest.raises(LocalFault, match=r"circuit_mismatch.*kzg\.srs"):
        await prover.commit(RECORDS)
    assert "circuit_mismatch" in await prover.health()
    (folder / "away").rename(folder / "kzg.srs")
    await _until(lambda: prover.pid is not None)
    assert (await prover.commit(RECORDS)).digest
    await prover.stop()


PARENT = """
import asyncio, sys
from pathlib import Path
from fabstir.proofs.process import EzklProver
async def main():
    prover = EzklProver(chain_id=31337, cache=Path(sys.argv[1]))
    await prover.start()
    print(prover.pid, file=sys.stderr, flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""


async def test_the_worker_dies_with_its_parent(cache: Path) -> None:
    """kill -9 of the host leaves no prover process."""
    parent = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", PARENT, str(cache)),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    assert parent.stderr is not None
    worker = int(await parent.stderr.readline())
    os.kill(worker, signal.SIGSTOP)  # a closed socket alone would not end it now
    parent.kill()
    await parent.wait()
    await _wait_for_end(worker)


async def test_stdout_of_the_worker_is_silent(cache: Path) -> None:
    """Whatever ezkl prints, nothing comes on stdout; a closed socket ends the worker with exit code 0."""
    ours, theirs = socket.socketpair()
    with theirs:
        worker = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "fabstir.proofs.prover_worker", f"--socket={theirs.fileno()}"),
            *(f"--parent={os.getpid()}", f"--circuit={BIND_V1}", f"--cache={cache}"),
            pass_fds=[theirs.fileno()],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
    reader, writer = await asyncio.open_unix_connection(sock=ours)
    try:
        ready = await read_reply(reader)
    except asyncio.IncompleteReadError:
        pytest.fail((await worker.communicate())[1].decode())
    assert ready == Ready()
    writer.write(frame(CommitJob(RECORDS)))
    committed = await read_reply(reader)
    assert isinstance(committed, Committed)
    digest = bind.digest(committed.opening)
    writer.write(frame(ProveJob(ProofStatement(WORD, WORD, digest), RECORDS)))
    assert isinstance(await read_reply(reader), Proved)
    writer.close()
    stdout, stderr = await worker.communicate()
    assert (worker.returncode, stdout) == (0, b"")
    assert stderr, "ezkl is expected to say something, or this test shows nothing"
