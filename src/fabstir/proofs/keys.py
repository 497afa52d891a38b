"""The proving key: made once per machine and user, shared by all processes, the same bytes everywhere.

It follows from the packaged circuit (0.1 s of work) and is too large to package, so it lives in the cache, where
anything may delete or damage it at any time. Rule: a key whose hash is not the pinned one is made again; a key that was
just made and still differs is `circuit_mismatch`, because then ezkl itself is another one. Never imports ezkl: the
caller passes the function that makes keys.
"""

from __future__ import annotations

import fcntl
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from fabstir.domain.errors import error
from fabstir.proofs.circuit import Circuit, sha256_of

MakeKeys = Callable[[Path], None]
"""Writes vk.key and pk.key into the folder that it is given."""


def proving_key(circuit: Circuit, cache: Path, make: MakeKeys) -> Path:
    """Path of the proving key, after making it where it is missing or damaged.

    Processes that come at the same time wait for the first one. Raises LocalFault (`circuit_mismatch`, `prover_unavailable`).
    """
    folder = cache / "circuits" / circuit.manifest.circuit_id
    key = folder / "pk.key"
    try:
        if not _is_pinned(key, circuit):
            folder.mkdir(parents=True, exist_ok=True)
            with (folder / "lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)  # let go by the kernel when this process ends, however it ends
                if not _is_pinned(key, circuit):
                    _make(key, circuit, make)
    except OSError as problem:
        raise error("prover_unavailable", detail=f"cannot write the proving key: {problem}") from problem
    return key


def _make(key: Path, circuit: Circuit, make: MakeKeys) -> None:
    for left_over in key.parent.glob("making-*"):  # of a process that was killed here; nobody else can be at work now
        shutil.rmtree(left_over, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix="making-", dir=key.parent) as name:
        make(Path(name))
        made = Path(name) / key.name
        if not _is_pinned(made, circuit):
            raise error("circuit_mismatch", detail=f"the proving key made here has SHA-256 {sha256_of(made)}")
        made.replace(key)


def _is_pinned(key: Path, circuit: Circuit) -> bool:
    return key.is_file() and sha256_of(key) == circuit.manifest.proving_key
