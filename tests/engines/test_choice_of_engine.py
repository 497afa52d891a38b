"""Which engine a host's configuration stands for, and what it may not ask for. Nothing is started here."""

from __future__ import annotations

from typing import Any

import pytest

from fabstir.bootstrap.parts import make_engine, make_fingerprinter
from fabstir.domain.errors import LocalFault
from fabstir.engines.llama import LlamaEngine
from fabstir.engines.scoring import ScoringEngine
from fabstir.ops.settings import from_tree

OPENAI: Any = {"kind": "openai", "base_url": "http://127.0.0.1:8000", "model": "/m.gguf", "repository": "org/m"}


def test_weights_are_loaded_twice_only_where_somebody_needs_that() -> None:
    """For scores, for fingerprints, or once for both; only who is to make fingerprints does."""
    for scoring, fingerprints in ((False, False), (True, False), (False, True), (True, True)):
        config = from_tree({"engine": {"scoring": scoring, "fingerprints": fingerprints}})
        engine = make_engine(config)
        assert isinstance(engine, ScoringEngine if scoring or fingerprints else LlamaEngine)
        assert make_fingerprinter(config, engine) is (engine if fingerprints else None)


def test_fingerprints_need_own_weights() -> None:
    """Nobody knows what another server thought."""
    with pytest.raises(LocalFault, match=r"config_invalid.*engine.fingerprints is for `llama`"):
        make_engine(from_tree({"engine": OPENAI | {"fingerprints": True}}))


def test_fingerprints_need_the_policy_of_their_rung() -> None:
    """Else nobody could ask for them, and the weights would be loaded for nothing."""
    tree = {"engine": {"fingerprints": True}, "proofs": {"accepted": ["required"]}}
    with pytest.raises(LocalFault, match=r"config_invalid.*rung 2 needs `fallback`"):
        make_engine(from_tree(tree))
