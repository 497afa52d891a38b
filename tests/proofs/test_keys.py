"""The proving key: made once, healed when damaged, never another one."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from fabstir.domain.errors import LocalFault
from fabstir.proofs.circuit import Circuit, load_circuit, sha256_of
from fabstir.proofs.keys import proving_key

KEY = b"the key"


@pytest.fixture
def circuit() -> Circuit:
    """The packaged circuit, with the pin of a key that is quick to make."""
    real = load_circuit()
    return Circuit(real.folder, msgspec.structs.replace(real.manifest, proving_key=hashlib.sha256(KEY).hexdigest()))


class Maker:
    """Makes the right key, or what it is told to; counts."""

    def __init__(self, content: bytes = KEY) -> None:
        self.content = content
        self.made = 0

    def __call__(self, folder: Path) -> None:
        self.made += 1
        (folder / "pk.key").write_bytes(self.content)


def test_made_once(circuit: Circuit, tmp_path: Path) -> None:
    """The first call makes the key, later ones find it."""
    make = Maker()
    paths = {proving_key(circuit, tmp_path, make) for _ in range(3)}
    assert make.made == 1 and [path.read_bytes() for path in paths] == [KEY]


@pytest.mark.parametrize("damage", [b"", b"the kez", None])
def test_a_damaged_key_is_made_again(circuit: Circuit, tmp_path: Path, damage: bytes | None) -> None:
    """Cut, changed or deleted: the next call heals it."""
    make = Maker()
    path = proving_key(circuit, tmp_path, make)
    if damage is None:
        path.unlink()
    else:
        path.write_bytes(damage)
    assert proving_key(circuit, tmp_path, make).read_bytes() == KEY
    assert make.made == 2


def test_a_wrong_key_is_never_installed(circuit: Circuit, tmp_path: Path) -> None:
    """A fresh key that is not the pinned one is `circuit_mismatch`, and the cache stays without a key."""
    with pytest.raises(LocalFault, match="circuit_mismatch"):
        proving_key(circuit, tmp_path, Maker(b"another"))
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["lock"]


def test_what_a_killed_process_left_is_removed(circuit: Circuit, tmp_path: Path) -> None:
    """A half-made key of a process that died does not stay in the cache."""
    left = tmp_path / "circuits" / circuit.manifest.circuit_id / "making-1"
    left.mkdir(parents=True)
    (left / "pk.key").write_bytes(b"half")
    proving_key(circuit, tmp_path, Maker())
    assert not left.exists()


def test_a_cache_that_cannot_be_written(circuit: Circuit, tmp_path: Path) -> None:
    """A file where the folder should be is `prover_unavailable` with the reason."""
    (tmp_path / "circuits").write_text("")
    with pytest.raises(LocalFault, match="prover_unavailable"):
        proving_key(circuit, tmp_path, Maker())


RACER = """
import os, sys
from pathlib import Path
from fabstir.proofs.circuit import load_circuit
from fabstir.proofs.ezkl_bind import EzklBind
cache, work = map(Path, sys.argv[1:])
os.environ["EZKL_REPO_PATH"] = str(work)
bind = EzklBind(load_circuit(), cache, work)
make = bind._make_keys
bind._make_keys = lambda folder: (make(folder), print("made"))
print("up", flush=True)
sys.stdin.readline()
bind.prepare()
"""


@pytest.mark.real
def test_a_race_makes_one_key(tmp_path: Path) -> None:
    """Of processes that come at the same moment one makes the key and the others use it; it is the pinned one."""
    racers = []
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
        racers.append(
            subprocess.Popen(
                [sys.executable, "-c", RACER, str(tmp_path / "cache"), str(tmp_path / name)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        )
    for racer in racers:
        assert racer.stdout is not None and racer.stdout.readline() == "up\n"
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    said = [racer.communicate()[0] for racer in racers]
    assert [racer.returncode for racer in racers] == [0, 0, 0]
    assert sorted(said) == ["", "", "made\n"]
    pinned = load_circuit().manifest
    assert sha256_of(tmp_path / "cache/circuits" / pinned.circuit_id / "pk.key") == pinned.proving_key
