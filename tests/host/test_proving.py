"""By which circuit a host proves: its own where it can open what it served, the weaker one where it cannot, and never in silence."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

import pytest
from structlog.testing import capture_logs
from tests.host.settler_world import World

from fabstir.domain.errors import LocalFault
from fabstir.domain.ids import JobId
from fabstir.host.proving import prove_by
from fabstir.ops.metrics import Metrics
from fabstir.ports.prover import ProofStatement, Prover
from fabstir.protocol.signing import keccak
from fabstir.testing.chain import INFO
from fabstir.testing.prover import CIRCUIT_ID, WEAKER_CIRCUIT_ID, HashProver

RECORDS = (keccak(b"a"), keccak(b"b"))


async def statement_by(prover: Prover) -> ProofStatement:
    digest = (await prover.commit(RECORDS)).digest
    return ProofStatement(keccak(b"statement" + prover.circuit_id), keccak(b"seed"), digest)


@pytest.mark.parametrize(("forgetful", "circuit"), [(False, CIRCUIT_ID), (True, WEAKER_CIRCUIT_ID)])
async def test_the_statement_is_that_of_the_circuit_that_proves(forgetful: bool, circuit: bytes) -> None:
    """Its own circuit while the records can be opened, else the weaker one; each is asked for the statement that names it."""
    prover = HashProver(weaker=HashProver(WEAKER_CIRCUIT_ID))
    await prover.start()
    statements = {one.circuit_id: await statement_by(one) for one in (prover, prover.weaker) if one is not None}
    prover.forgetful = forgetful
    bundle = await prove_by(prover, lambda one: statements[one.circuit_id], RECORDS)
    assert bundle.circuit_id == circuit
    proven = prover.weaker if forgetful else prover
    assert proven is not None and await proven.verify(statements[proven.circuit_id], bundle)


@pytest.mark.parametrize("code", ["proof_failed", "prover_unavailable"])
async def test_no_other_fault_changes_the_circuit(code: str) -> None:
    """A proof that fails, or a prover that is down, is not answered with a weaker proof."""
    prover = HashProver(weaker=HashProver(WEAKER_CIRCUIT_ID))
    await prover.start()
    statement = await statement_by(prover)
    prover.unavailable = code == "prover_unavailable"
    with pytest.raises(LocalFault, match=code):
        await prove_by(prover, lambda _: statement, RECORDS if prover.unavailable else RECORDS[:1])


async def test_without_a_weaker_circuit_the_reason_stays() -> None:
    """`preimages_missing`, as the port says."""
    prover = HashProver()
    await prover.start()
    statement, prover.forgetful = await statement_by(prover), True
    with pytest.raises(LocalFault, match="preimages_missing"):
        await prove_by(prover, lambda _: statement, RECORDS)


def weaker_of(logs: list[MutableMapping[str, Any]]) -> list[tuple[object, object]]:
    return [(row["job_id"], row["circuit"]) for row in logs if row["event"] == "proof_weaker"]


async def test_each_job_that_is_proven_weaker_is_named_and_counted_once() -> None:
    """A job alone and two in one epoch, all three paid; the log names each job with the circuit, the counter has three. What can be opened
    is proven by the host's own circuit, and nothing is said."""
    market, metrics = World(), Metrics(INFO.usdc)
    market.settler.count_in(metrics)
    said: list[tuple[object, object]] = []

    async def settled(*salts: int) -> list[JobId]:
        ledgers = [await market.job(served=30, signed=30, salt=salt) for salt in salts]
        with capture_logs() as logs:
            await market.settle()
        said.extend(weaker_of(logs))
        for ledger in ledgers:
            state = await market.state(ledger)
            assert (state.closed, state.owed) == (True, ledger.amount(ledger.acknowledged))
        return [ledger.job for ledger in ledgers]

    await settled(1)
    assert said == [] and market.settler.proven_weaker() == 0
    market.prover.forgetful = True
    jobs = [*await settled(2), *await settled(3, 4)]
    assert sorted(said) == sorted((job, "test/hash") for job in jobs)
    assert market.settler.proven_weaker() == 3
    assert metrics.registry.get_sample_value("fabstir_weaker_proofs_total") == 3
    assert market.settler.problems == {}


async def test_a_job_that_is_proven_twice_counts_once() -> None:
    """A running job is proven, goes on, and is proven again at its end."""
    market = World(redeem_above=1)
    market.prover.forgetful = True
    ledger = await market.job(served=60, signed=30, finished=False)
    await market.settle()
    assert (await market.state(ledger)).proven == 30 and market.settler.proven_weaker() == 1
    await market.sign(ledger, 60)
    await market.settle()
    assert (await market.state(ledger)).proven == 60 and market.settler.proven_weaker() == 1
