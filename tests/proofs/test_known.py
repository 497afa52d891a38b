"""Commitments that are known are not computed again; what is not known is, and says the same."""

from __future__ import annotations

import pytest

from fabstir.domain.ids import Hash32
from fabstir.proofs import merkle
from fabstir.proofs.known import KnownCommitments
from fabstir.proofs.merkle import MerkleProver

RECORDS = tuple(bytes([n]) * 32 for n in range(5))
OTHERS = RECORDS[:4]


def test_the_oldest_go_first() -> None:
    """What is added again is young again, and counts once."""
    known, one, two, three = KnownCommitments(2), *(Hash32(bytes([n]) * 32) for n in range(3))
    for commitment in (one, two, one, three):
        known.add(commitment)
    assert [commitment in known for commitment in (one, two, three)] == [True, False, True]
    assert repr(known) == "<KnownCommitments 2 of 2>"


@pytest.mark.parametrize("circuit", ["bind", "sample"])
async def test_what_was_committed_can_be_proven(circuit: merkle.MerkleCircuit) -> None:
    """By the process that committed it and by another one; what was committed otherwise cannot."""
    prover, other = MerkleProver(circuit), MerkleProver(circuit)
    made = (await prover.commit(RECORDS)).digest
    for one in (prover, other, other):
        assert await one.provable(made, RECORDS)
        assert not await one.provable(Hash32(bytes(32)), RECORDS)
    assert not await MerkleProver(circuit).provable(made, OTHERS)
