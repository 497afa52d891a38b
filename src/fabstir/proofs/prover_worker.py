"""The prover process: `python -m fabstir.proofs.prover_worker`, started by `fabstir.proofs.child` and by nobody else.

Makes the keys if need be, says Ready, then answers one job after the other over the socket that it inherited, until the
other end closes. Writes nothing to stdout; what ezkl prints goes to stderr, which the supervisor reads. Dies with its
parent. Frames: `fabstir.proofs.frames`.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
from contextlib import ExitStack
from pathlib import Path

from fabstir.domain.errors import FabstirError
from fabstir.ports.private_process import end_with_parent
from fabstir.proofs.circuit import SPOT_V1, load_circuit
from fabstir.proofs.ezkl_bind import EzklBind
from fabstir.proofs.ezkl_spot import EzklSpot
from fabstir.proofs.frames import (
    CommitJob,
    Committed,
    Fault,
    Job,
    Proved,
    ProveJob,
    Ready,
    Reply,
    SpotCommitJob,
    SpotCommitted,
    SpotJob,
    SpotProved,
    SpotProveJob,
    Verified,
    frame,
    read_job,
)
from fabstir.proofs.scratch import scratch_folder


def main() -> int:
    """Serve until the supervisor is gone. Exit code 0, or 1 where the start failed (the reason was sent)."""
    options = _options()
    end_with_parent(options.parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the supervisor, which then ends this process in order
    os.dup2(2, 1)
    with socket.socket(fileno=options.socket) as connection, ExitStack() as stack:
        try:
            work = stack.enter_context(scratch_folder(options.cache / "prover"))
            os.environ["EZKL_REPO_PATH"] = str(work)  # else ezkl makes a folder in the home
            desk = _Desk(EzklBind(load_circuit(options.circuit), options.cache, work), options.cache, work)
            desk.bind.prepare()
        except FabstirError as problem:
            connection.sendall(frame(Fault(problem.code, problem.detail)))
            return 1
        except OSError as problem:
            connection.sendall(frame(Fault("prover_unavailable", f"scratch folder: {problem}")))
            return 1
        _serve(connection, desk)
    return 0


class _Desk:
    """The circuits. `spot` is loaded, and its key made, with the first job for it: most hosts never have one."""

    def __init__(self, bind: EzklBind, cache: Path, work: Path) -> None:
        self.bind = bind
        self._cache, self._work = cache, work
        self._spot: EzklSpot | None = None

    @property
    def spot(self) -> EzklSpot:
        """Raises LocalFault (`circuit_mismatch`, `prover_unavailable`)."""
        if self._spot is None:
            self._spot = EzklSpot(load_circuit(SPOT_V1), self._cache, self._work)
        return self._spot


def _serve(connection: socket.socket, desk: _Desk) -> None:
    connection.sendall(frame(Ready()))
    with connection.makefile("rb") as stream:
        while (job := read_job(stream)) is not None:
            connection.sendall(frame(_answer(desk, job)))


def _answer(desk: _Desk, job: Job) -> Reply:
    try:
        if isinstance(job, CommitJob):
            return Committed(desk.bind.commit(job.records))
        if isinstance(job, ProveJob):
            return Proved(desk.bind.prove(job.statement, job.records))
        if isinstance(job, SpotJob):
            return _answer_spot(desk.spot, job)
        return Verified(desk.bind.verify(job.statement, job.proof))
    except FabstirError as problem:
        return Fault(problem.code, problem.detail)


def _answer_spot(spot: EzklSpot, job: SpotJob) -> Reply:
    if isinstance(job, SpotCommitJob):
        return SpotCommitted(b"".join(spot.commit(vector) for vector in job.vectors))
    if isinstance(job, SpotProveJob):
        return SpotProved(*spot.prove(job.statement, job.hidden, job.rows))
    return Verified(spot.verify(job.statement, job.dots, job.halo2))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="The prover process of a Fabstir host; started by the host itself.")
    parser.add_argument("--socket", type=int, required=True, help="inherited file descriptor")
    parser.add_argument("--parent", type=int, required=True, help="process id of the supervisor")
    parser.add_argument("--circuit", type=Path, required=True, help="folder of the circuit")
    parser.add_argument("--cache", type=Path, required=True, help="for proving keys and scratch files")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
