"""The prover process: `python -m fabstir.proofs.prover_worker`, started by `fabstir.proofs.child` and by nobody else.

Makes the keys if need be, says Ready, then answers one job after the other over the socket that it inherited, until the
other end closes. Writes nothing to stdout; what ezkl prints goes to stderr, which the supervisor reads. Dies with its
parent. Frames: `fabstir.proofs.frames`.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import signal
import socket
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from fabstir.domain.errors import FabstirError
from fabstir.proofs.circuit import load_circuit
from fabstir.proofs.ezkl_bind import EzklBind
from fabstir.proofs.frames import (
    CommitJob,
    Committed,
    Fault,
    Job,
    Proved,
    ProveJob,
    Ready,
    Reply,
    Verified,
    frame,
    read_job,
)
from fabstir.proofs.scratch import scratch_folder

_PR_SET_PDEATHSIG: Final = 1


def main() -> int:
    """Serve until the supervisor is gone. Exit code 0, or 1 where the start failed (the reason was sent)."""
    options = _options()
    _die_with_parent(options.parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the supervisor, which then ends this process in order
    os.dup2(2, 1)
    with socket.socket(fileno=options.socket) as connection, ExitStack() as stack:
        try:
            work = stack.enter_context(scratch_folder(options.cache / "prover"))
            os.environ["EZKL_REPO_PATH"] = str(work)  # else ezkl makes a folder in the home
            bind = EzklBind(load_circuit(options.circuit), options.cache, work)
            bind.prepare()
        except FabstirError as problem:
            connection.sendall(frame(Fault(problem.code, problem.detail)))
            return 1
        except OSError as problem:
            connection.sendall(frame(Fault("prover_unavailable", f"scratch folder: {problem}")))
            return 1
        _serve(connection, bind)
    return 0


def _serve(connection: socket.socket, bind: EzklBind) -> None:
    connection.sendall(frame(Ready()))
    with connection.makefile("rb") as stream:
        while (job := read_job(stream)) is not None:
            connection.sendall(frame(_answer(bind, job)))


def _answer(bind: EzklBind, job: Job) -> Reply:
    try:
        if isinstance(job, CommitJob):
            return Committed(bind.commit(job.records))
        if isinstance(job, ProveJob):
            return Proved(bind.prove(job.statement, job.records))
        return Verified(bind.verify(job.statement, job.proof))
    except FabstirError as problem:
        return Fault(problem.code, problem.detail)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="The prover process of a Fabstir host; started by the host itself.")
    parser.add_argument("--socket", type=int, required=True, help="inherited file descriptor")
    parser.add_argument("--parent", type=int, required=True, help="process id of the supervisor")
    parser.add_argument("--circuit", type=Path, required=True, help="folder of the circuit")
    parser.add_argument("--cache", type=Path, required=True, help="for proving keys and scratch files")
    return parser.parse_args()


def _die_with_parent(parent: int) -> None:
    """Where the kernel offers it (Linux), be killed when the supervisor dies; elsewhere the closed socket ends us after the job."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before the line above
        sys.exit(1)


if __name__ == "__main__":
    sys.exit(main())
