"""The process that re-executes: `python -m fabstir.engines.reexecution.worker SETTINGS`, started by `Reexecutor` and by
nobody else.

SETTINGS is one JSON object (WorkerSettings). It loads the weights, listens on its UNIX socket, and answers one job for
each connection. It ends when its parent ends, leaves no core file and prints nothing but why it could not start; what
it reads is kept nowhere.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from fabstir.domain.errors import FabstirError
from fabstir.engines.reexecution.frames import (
    Fault,
    Job,
    Prefill,
    Prefilled,
    Reply,
    Trace,
    Traced,
    frame,
    read_job,
)
from fabstir.engines.reexecution.traces import traces
from fabstir.engines.reexecution.weights import Floats, Weights
from fabstir.ports.private_process import end_with_parent
from fabstir.protocol.audit_sampler import Position, positions
from fabstir.protocol.fingerprint import distance, fingerprint
from fabstir.protocol.fingerprinted import CHUNK_TOKENS
from fabstir.protocol.spot import packed

BACKLOG: Final = 16


class WorkerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What the parent decides."""

    parent: int
    model: str
    socket: str
    threads: int
    gpu_layers: int
    nice: int = 0
    """How far behind others it stands where the CPUs are busy."""


def main() -> None:
    """Serve until the parent ends."""
    settings = msgspec.json.decode(sys.argv[1], type=WorkerSettings)
    end_with_parent(settings.parent)
    os.nice(settings.nice)
    try:
        weights = Weights(settings.model, threads=settings.threads, gpu_layers=settings.gpu_layers)
    except FabstirError as fault:
        sys.stderr.write(f"{fault.code}: {fault.detail}\n")
        sys.exit(1)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        Path(settings.socket).unlink(missing_ok=True)  # of the process before this one
        listener.bind(settings.socket)
        listener.listen(BACKLOG)
        while True:
            connection, _ = listener.accept()
            with connection:
                _serve(connection, weights)


def _serve(connection: socket.socket, weights: Weights) -> None:
    """One job of one connection; a connection that breaks the rules is closed."""
    with connection.makefile("rb") as stream:
        try:
            job = read_job(stream)
            if job is not None:
                connection.sendall(frame(answer(weights, job)))
        except (OSError, EOFError, ValueError, msgspec.DecodeError):
            return


def answer(weights: Weights, job: Job) -> Reply:
    """The reply to a job."""
    try:
        if isinstance(job, Prefill):
            return prefill(weights, job)
        return trace(weights, job) if isinstance(job, Trace) else weights.described
    except FabstirError as fault:
        return Fault(fault.code, fault.detail)
    except ValueError as unfit:  # `traces`: this model or this answer has none
        return Fault("reexecution_unsupported", str(unfit))


def trace(weights: Weights, job: Trace) -> Traced:
    """Read, and keep the states from `first` on."""
    began = time.process_time()
    wanted = list(traces(weights, job.prompt, job.records))[job.first :]
    hidden, denominators = tuple(packed(one.hidden) for one in wanted), tuple(one.denominator for one in wanted)
    return Traced(hidden, denominators, time.process_time() - began)


def prefill(weights: Weights, job: Prefill) -> Prefilled:
    """Read, and keep what the job asks for."""
    began = time.process_time()
    found: list[Position] = []
    wanted = job.fingerprints or bool(job.compare)
    states: list[Floats] = []
    for step in weights.read(job.prompt, job.answer, step=job.step, states=wanted):
        part = slice(len(found), len(found) + len(step.logits))
        found += positions(step.logits, job.answer[part], job.asked[part], job.sampler, job.top)
        if step.states is not None:
            states.append(step.states)
    whole = np.concatenate(states) if states else np.empty((0, 1), np.float32)
    chunks = [whole[at : at + CHUNK_TOKENS] for at in range(0, len(whole), CHUNK_TOKENS)]
    distances = [distance(chunk, made) for chunk, made in zip(chunks, job.compare, strict=False)]
    return Prefilled(
        tuple(found),
        tuple(weights.piece(token) for token in job.answer),
        tuple(weights.ends(token) for token in job.answer),
        tuple(fingerprint(chunk) for chunk in chunks) if job.fingerprints else (),
        # One that is missing or too many agrees with nothing.
        (*distances, *(1.0 for _ in range(abs(len(chunks) - len(job.compare))))) if job.compare else (),
        time.process_time() - began,
    )


if __name__ == "__main__":
    main()
