"""The files of one circuit, and whether they are the pinned ones.

Reads and hashes; never builds (tools/build_circuit.py does) and never imports ezkl. A circuit is a folder with a
manifest that holds the SHA-256 of each file and of the proving key that follows from them. A file that differs stops
the start with `circuit_mismatch`.
"""

from __future__ import annotations

import hashlib
from importlib.metadata import version
from pathlib import Path
from typing import Final

import msgspec

from fabstir.domain.errors import error
from fabstir.domain.ids import Hash32

BIND_V1: Final = Path(__file__).parent / "circuits" / "bind-v1"
"""The packaged circuit. Its reference string (SRS) is for development chains."""

SPOT_V1: Final = BIND_V1.with_name("spot-v1")
"""The packaged circuit `spot`, on another reference string for development chains."""


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """manifest.json, as tools/build_circuit.py writes it. Hashes are SHA-256 in hexadecimal."""

    name: str
    circuit_id: str
    """Hash of the verification key."""
    ezkl: str
    """Keys and proofs are those of this version only."""
    srs: str
    """`development`, or `ceremony` where the SRS is the public one."""
    files: dict[str, str]
    proving_key: str
    contract: str
    """Hash of the Solidity verifier's source."""


class Circuit(msgspec.Struct, frozen=True):
    """One circuit whose files were checked."""

    folder: Path
    manifest: Manifest

    @property
    def circuit_id(self) -> Hash32:
        return Hash32(bytes.fromhex(self.manifest.circuit_id))

    @property
    def for_development(self) -> bool:
        """Whoever made the SRS could forge proofs: fit for chain id 31337 only."""
        return self.manifest.srs != "ceremony"

    def file(self, name: str) -> str:
        """Path of one file, as text because ezkl takes text."""
        return str(self.folder / name)

    def check_present(self) -> None:
        """Raises LocalFault (`circuit_mismatch`) where a file has gone since it was checked."""
        gone = [name for name in self.manifest.files if not (self.folder / name).is_file()]
        if gone:
            raise error("circuit_mismatch", detail=f"{self.folder}: {', '.join(gone)} missing")


def load_circuit(folder: Path = BIND_V1) -> Circuit:
    """Read the manifest and check every file against it. Raises LocalFault (`circuit_mismatch`)."""
    try:
        manifest = msgspec.json.decode((folder / "manifest.json").read_bytes(), type=Manifest)
        found = {name: sha256_of(folder / name) for name in manifest.files}
    except (OSError, msgspec.DecodeError) as problem:
        raise error("circuit_mismatch", detail=f"{folder}: {problem}") from problem
    wrong = sorted(name for name, pin in manifest.files.items() if found[name] != pin)
    if wrong:
        raise error("circuit_mismatch", detail=f"{folder}: {', '.join(wrong)}")
    if manifest.files.get("vk.key") != manifest.circuit_id:
        raise error("circuit_mismatch", detail=f"{folder}: circuit_id is not the hash of vk.key")
    if version("ezkl") != manifest.ezkl:
        raise error("circuit_mismatch", detail=f"made for ezkl {manifest.ezkl}, installed is {version('ezkl')}")
    return Circuit(folder, manifest)


def sha256_of(path: Path) -> str:
    """Hash of a file in hexadecimal. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
