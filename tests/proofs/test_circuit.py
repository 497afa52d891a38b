"""The packaged circuit is the pinned one, and any other is refused."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from pathlib import Path

import pytest

from fabstir.domain.errors import LocalFault
from fabstir.proofs import circuit as module
from fabstir.proofs.circuit import BIND_V1, SPOT_V1, load_circuit
from fabstir.proofs.process import EzklProver

ROOT = Path(__file__).parents[2]
CONTRACT = ROOT / "contracts/src/generated/Halo2BindVerifier.sol"
SPOT_CONTRACT = ROOT / "contracts/src/generated/Halo2SpotVerifier.sol"


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """A copy of the packaged circuit that a test may damage."""
    return Path(shutil.copytree(BIND_V1, tmp_path / "circuit"))


def test_circuit_id_is_the_hash_of_the_verification_key() -> None:
    """The id that the chain pins names the key, nothing else."""
    assert load_circuit().circuit_id == hashlib.sha256((BIND_V1 / "vk.key").read_bytes()).digest()


def test_the_contract_belongs_to_the_circuit() -> None:
    """The checked-in Solidity verifier is the one that was made with the packaged keys."""
    for folder, contract in ((BIND_V1, CONTRACT), (SPOT_V1, SPOT_CONTRACT)):
        assert load_circuit(folder).manifest.contract == hashlib.sha256(contract.read_bytes()).hexdigest()


def test_artefacts_say_nothing_about_their_making() -> None:
    """No path of a machine and no date stands in a checked-in file, so that every build gives the same bytes."""
    for file in [*BIND_V1.iterdir(), *SPOT_V1.iterdir(), CONTRACT, SPOT_CONTRACT]:
        assert not re.search(rb"/(tmp|home|root|work|Users)/|timestamp|20\d\d-\d\d-\d\d", file.read_bytes()), file.name


@pytest.mark.parametrize("name", ["bind.onnx", "settings.json", "circuit.ezkl", "vk.key", "kzg.srs"])
@pytest.mark.parametrize("damage", ["changed", "missing"])
def test_a_damaged_file_is_named(copied: Path, name: str, damage: str) -> None:
    """One changed bit or a missing file stops the start with `circuit_mismatch`, and the detail names the file."""
    file = copied / name
    if damage == "missing":
        file.unlink()
    else:
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    with pytest.raises(LocalFault, match=f"circuit_mismatch.*{re.escape(name)}"):
        load_circuit(copied)


@pytest.mark.parametrize("text", ["", "{}", "[1]"])
def test_an_unreadable_manifest_is_refused(copied: Path, text: str) -> None:
    """A manifest that is none gives `circuit_mismatch`, not an error of a parser."""
    (copied / "manifest.json").write_text(text)
    with pytest.raises(LocalFault, match="circuit_mismatch"):
        load_circuit(copied)


def test_the_id_in_the_manifest_must_be_the_keys(copied: Path) -> None:
    """A manifest cannot give the key another name."""
    manifest = json.loads((copied / "manifest.json").read_text()) | {"circuit_id": "00" * 32}
    (copied / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(LocalFault, match=r"circuit_mismatch.*vk\.key"):
        load_circuit(copied)


def test_another_ezkl_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys of one ezkl are not used with another."""
    monkeypatch.setattr(module, "version", lambda name: "23.0.6")
    with pytest.raises(LocalFault, match=r"circuit_mismatch.*23\.0\.6"):
        load_circuit()


@pytest.mark.parametrize("chain_id", [1, 8453, 84532])
def test_development_srs_stays_on_the_devnet(chain_id: int, tmp_path: Path) -> None:
    """Off chain id 31337 there is no prover with the packaged SRS."""
    with pytest.raises(LocalFault, match="srs_development_only"):
        EzklProver(chain_id=chain_id, cache=tmp_path)


def test_a_ceremony_circuit_may_go_anywhere(copied: Path, tmp_path: Path) -> None:
    """The refusal hangs on what the manifest says about the SRS, nothing else."""
    manifest = json.loads((copied / "manifest.json").read_text()) | {"srs": "ceremony"}
    (copied / "manifest.json").write_text(json.dumps(manifest))
    assert (
        EzklProver(chain_id=8453, cache=tmp_path, circuit=load_circuit(copied)).circuit_id == load_circuit().circuit_id
    )
