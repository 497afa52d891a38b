"""Which prover a configuration stands for, and which configurations stand for none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fabstir.bootstrap.parts import circuit_to_prove, deployed_circuit, deployed_spot, make_held, make_prover
from fabstir.domain.errors import LocalFault
from fabstir.domain.ids import Hash32
from fabstir.ops.config import Config
from fabstir.ops.settings import from_tree
from fabstir.proofs.merkle import CIRCUIT_IDS, MerkleProver
from fabstir.proofs.process import EzklProver

OPENAI: Any = {"kind": "openai", "base_url": "http://127.0.0.1:8000", "model": "/m.gguf", "repository": "org/m"}


def _config(chain_id: int = 31337, top_logprobs: int = 5, **proofs: Any) -> Config:
    return from_tree({"chain": {"chain_id": chain_id}, "engine": {"top_logprobs": top_logprobs}, "proofs": proofs})


def test_ezkl_is_what_nobody_chose() -> None:
    """And it holds no records."""
    assert isinstance(make_prover(Config()), EzklProver)
    assert make_held(Config()) is None


@pytest.mark.parametrize("circuit", ["bind", "sample"])
def test_merkle_works_on_every_chain(circuit: Any) -> None:
    """It has no reference string that anybody could know the secret of; only `sample` holds what records are made of."""
    config = _config(8453, backend="merkle", circuit=circuit)
    prover = make_prover(config, make_held(config))
    assert isinstance(prover, MerkleProver)
    assert prover.circuit_id == CIRCUIT_IDS[circuit]
    assert (make_held(config) is not None) == (circuit == "sample")
    with pytest.raises(LocalFault, match="srs_development_only"):
        make_prover(_config(8453))


def test_spot_holds_the_words_too() -> None:
    """Its circuit is its own, and what it has no traces of is proven by `bind`, in the same process."""
    config = _config(circuit="spot")
    held = make_held(config)
    assert held is not None and held.begin((), "", Hash32(bytes(32))) is not None
    assert isinstance(make_prover(config, held), EzklProver)
    assert circuit_to_prove(config) == deployed_spot() != circuit_to_prove(Config()) == deployed_circuit(config)
    with pytest.raises(LocalFault, match="srs_development_only"):
        make_prover(_config(8453, circuit="spot"))


def test_noir_names_the_tools_that_are_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Those that are not on PATH; with all of them there is still no prover, and that is said."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LocalFault, match=r"tool_missing.*nargo and bb"):
        make_prover(_config(backend="noir"))
    for name, fault in (("bb", "tool_missing.*nargo, for"), ("nargo", "config_invalid.*no prover")):
        (tmp_path / name).touch(mode=0o755)
        with pytest.raises(LocalFault, match=fault):
            make_prover(_config(backend="noir"))


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (_config(circuit="sample"), "only `merkle` has"),
        (_config(backend="merkle", circuit="spot"), "only `ezkl` has"),
        (_config(circuit="spot", top_logprobs=3), "top_logprobs must be at least 4"),
        (from_tree({"engine": OPENAI, "proofs": {"circuit": "spot"}}), "engine.kind must be `llama`"),
        (_config(backend="merkle", circuit_folder="/somewhere"), "has no files"),
        (_config(backend="merkle", circuit="sample", top_logprobs=0), "top_logprobs"),
    ],
)
def test_what_does_not_go_together_is_refused(config: Config, words: str) -> None:
    """Nothing is chosen in its place."""
    with pytest.raises(LocalFault, match=f"config_invalid.*{words}"):
        make_prover(config)


def test_another_circuit_is_read_from_its_folder(tmp_path: Path) -> None:
    """A folder without a circuit is an error, not the packaged one."""
    with pytest.raises(LocalFault, match="circuit_mismatch"):
        make_prover(_config(circuit_folder=str(tmp_path)))
