"""A statement that was proven before has the same proof, across restarts, and never a false one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from fabstir.domain.errors import FabstirError
from fabstir.domain.ids import Hash32
from fabstir.ports.prover import ProofBundle, ProofStatement
from fabstir.proofs import stored
from fabstir.proofs.stored import StoredProver, name_of
from fabstir.testing.prover import HashProver

RECORDS = (b"\x01" * 32, b"\x02" * 32)


class Blinded(HashProver):
    """No two of its proofs are the same, as ezkl's; both verify."""

    made = 0

    async def prove(self, statement: ProofStatement, records: tuple[bytes, ...]) -> ProofBundle:
        bundle = await super().prove(statement, records)
        Blinded.made += 1
        return ProofBundle(bundle.circuit_id, bundle.proof + bytes([Blinded.made % 256]))

    async def verify(self, statement: ProofStatement, bundle: ProofBundle) -> bool:
        return await super().verify(statement, ProofBundle(bundle.circuit_id, bundle.proof[:-1]))


@pytest.fixture
async def prover(tmp_path: Path) -> AsyncIterator[StoredProver]:
    made = StoredProver(Blinded(weaker=Blinded(Hash32(b"w" * 32))), tmp_path / "proofs")
    await made.start()
    yield made
    await made.stop()


async def statement_of(prover: StoredProver, seed: int = 1) -> ProofStatement:
    commitment = (await prover.commit(RECORDS)).digest
    return ProofStatement(Hash32(b"\x05" * 32), Hash32(bytes([seed]) * 32), commitment)


async def test_the_same_statement_has_the_same_proof(prover: StoredProver, tmp_path: Path) -> None:
    """Byte for byte, also from a new process; without it, the two differ."""
    statement = await statement_of(prover)
    first = await prover.prove(statement, RECORDS)
    assert await prover.prove(statement, RECORDS) == first
    again = StoredProver(Blinded(), tmp_path / "proofs")
    await again.start()
    assert await again.prove(statement, RECORDS) == first
    assert (await prover._prover.prove(statement, RECORDS)).proof != first.proof


async def test_every_part_of_a_statement_is_another_proof(prover: StoredProver) -> None:
    """Circuit, statement, seed, commitment."""
    statement = await statement_of(prover)
    other = Hash32(b"\x09" * 32)
    changed = [msgspec.structs.replace(statement, **{field: other}) for field in ("statement", "seed", "commitment")]
    names = {name_of(prover.circuit_id, one) for one in (statement, *changed)} | {name_of(other, statement)}
    assert len(names) == 5
    assert (await prover.prove(statement, RECORDS)).proof != (await prover.prove(changed[1], RECORDS)).proof


async def test_a_damaged_file_is_made_again(prover: StoredProver, tmp_path: Path) -> None:
    """Whatever is wrong with it: flipped, cut short, empty."""
    statement = await statement_of(prover)
    first = await prover.prove(statement, RECORDS)
    [file] = (tmp_path / "proofs").iterdir()
    for damage in (bytes([first.proof[0] ^ 1]) + first.proof[1:], first.proof[:-5], b""):
        file.write_bytes(damage)
        made = await prover.prove(statement, RECORDS)
        assert await prover.verify(statement, made) and file.read_bytes() == made.proof


async def test_a_disk_that_is_full_costs_nothing_but_the_second_proof(tmp_path: Path) -> None:
    """The proof is handed out all the same."""
    (tmp_path / "proofs").write_text("a file where the folder should be")
    prover = StoredProver(Blinded(), tmp_path / "proofs")
    await prover.start()
    statement = await statement_of(prover)
    assert await prover.verify(statement, await prover.prove(statement, RECORDS))


async def test_a_failure_is_not_kept(prover: StoredProver) -> None:
    """It is tried anew, and the weaker circuit keeps proofs of its own."""
    statement = await statement_of(prover)
    inner = prover._prover
    assert isinstance(inner, Blinded) and prover.weaker is not None
    inner.unavailable = True
    with pytest.raises(FabstirError, match="prover_unavailable"):
        await prover.prove(statement, RECORDS)
    inner.unavailable = False
    strong, weak = await prover.prove(statement, RECORDS), await prover.weaker.prove(statement, RECORDS)
    assert strong.circuit_id != weak.circuit_id
    assert await prover.weaker.prove(statement, RECORDS) == weak


async def test_only_so_many_are_kept(prover: StoredProver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest go first."""
    monkeypatch.setattr(stored, "MOST", 3)
    for seed in range(6):
        await prover.prove(await statement_of(prover, seed), RECORDS)
    assert len(list((tmp_path / "proofs").iterdir())) == 3
