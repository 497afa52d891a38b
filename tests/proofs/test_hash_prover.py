"""The promises of the prover that other parts' tests run against."""

from __future__ import annotations

import msgspec
import pytest

from fabstir.domain.errors import LocalFault
from fabstir.domain.ids import Hash32
from fabstir.ports.prover import ProofStatement, Prover
from fabstir.testing.prover import WEAKER_CIRCUIT_ID, HashProver

RECORDS = tuple(bytes([n]) * 32 for n in range(1, 6))


async def _started() -> Prover:
    prover: Prover = HashProver()
    await prover.start()
    return prover


async def _statement(prover: Prover) -> ProofStatement:
    return ProofStatement(Hash32(b"s" * 32), Hash32(b"r" * 32), (await prover.commit(RECORDS)).digest)


async def test_proves_and_verifies() -> None:
    """What it proves, it accepts, and proving twice gives the same bytes."""
    prover = await _started()
    statement = await _statement(prover)
    bundle = await prover.prove(statement, RECORDS)
    assert await prover.verify(statement, bundle)
    assert bundle == await prover.prove(statement, RECORDS)


@pytest.mark.parametrize("field", ["statement", "seed", "commitment"])
async def test_every_public_word_counts(field: str) -> None:
    """A proof is rejected as soon as one public word differs."""
    prover = await _started()
    statement = await _statement(prover)
    bundle = await prover.prove(statement, RECORDS)
    assert not await prover.verify(msgspec.structs.replace(statement, **{field: Hash32(b"x" * 32)}), bundle)


async def test_other_records_cannot_be_proven() -> None:
    """Records that were not committed give `proof_failed`, as with the real prover."""
    prover = await _started()
    statement = await _statement(prover)
    with pytest.raises(LocalFault, match="proof_failed"):
        await prover.prove(statement, RECORDS[:-1])


async def test_what_it_forgot_its_weaker_circuit_proves() -> None:
    """`preimages_missing` from the circuit that opens records; the weaker one proves the same commitment, under its own id."""
    prover = HashProver(weaker=HashProver(WEAKER_CIRCUIT_ID))
    await prover.start()
    statement, prover.forgetful = await _statement(prover), True
    with pytest.raises(LocalFault, match="preimages_missing"):
        await prover.prove(statement, RECORDS)
    assert prover.weaker is not None
    bundle = await prover.weaker.prove(statement, RECORDS)
    assert bundle.circuit_id == WEAKER_CIRCUIT_ID
    assert await prover.weaker.verify(statement, bundle) and not await prover.verify(statement, bundle)


async def test_unavailable() -> None:
    """Not started, or made unavailable: `prover_unavailable`, and health says so without raising."""
    prover = HashProver()
    with pytest.raises(LocalFault, match="prover_unavailable"):
        await prover.commit(RECORDS)
    await prover.start()
    assert await prover.health() == "ok"
    prover.unavailable = True
    assert await prover.health() != "ok"
    with pytest.raises(LocalFault, match="prover_unavailable"):
        await prover.commit(RECORDS)


async def test_says_what_it_is() -> None:
    """Nobody can mistake its circuit id for that of a circuit."""
    assert HashProver().circuit_id.startswith(b"TEST DOUBLE") and len(HashProver().circuit_id) == 32
