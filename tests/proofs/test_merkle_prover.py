"""The Merkle back end behind the port: what it commits, proves, accepts and refuses, and what it needs for `sample`."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest
from tests.protocol.recording import GREEDY, SALT, SEED, STATEMENT, digests_of, preimages_of

from fabstir.domain.errors import LocalFault
from fabstir.domain.ids import Hash32
from fabstir.ports.prover import ProofStatement, Prover
from fabstir.proofs.merkle import CIRCUIT_IDS, MerkleCircuit, MerkleProver
from fabstir.protocol.held_records import HeldRecords
from fabstir.protocol.transcript import TokenRecord, record_preimage

PREIMAGES = preimages_of(200)
RECORDS = tuple(digests_of(PREIMAGES))
CIRCUITS: tuple[MerkleCircuit, ...] = ("bind", "sample")


def _held(preimages: Sequence[bytes]) -> HeldRecords:
    held = HeldRecords()
    for digest, preimage in zip(digests_of(preimages), preimages, strict=True):
        held.keep(digest, preimage)
    return held


def _prover(circuit: MerkleCircuit, preimages: Sequence[bytes] = PREIMAGES) -> Prover:
    return MerkleProver(circuit, _held(preimages))


async def _statement(prover: Prover, records: tuple[bytes, ...] = RECORDS) -> ProofStatement:
    return ProofStatement(STATEMENT, SEED, (await prover.commit(records)).digest)


@pytest.mark.parametrize("circuit", CIRCUITS)
async def test_what_is_proven_is_accepted(circuit: MerkleCircuit) -> None:
    """By itself, under the id of its circuit, and with the same bytes each time."""
    prover = _prover(circuit)
    await prover.start()
    statement = await _statement(prover)
    bundle = await prover.prove(statement, RECORDS)
    assert await prover.verify(statement, bundle)
    assert bundle == await prover.prove(statement, RECORDS)
    assert bundle.circuit_id == prover.circuit_id == CIRCUIT_IDS[circuit]
    assert await prover.health() == "ok"
    await prover.stop()


@pytest.mark.parametrize("circuit", CIRCUITS)
async def test_what_is_not_proven_is_refused(circuit: MerkleCircuit) -> None:
    """Another word, another circuit, another byte: False, and nothing raised."""
    prover = _prover(circuit)
    statement = await _statement(prover)
    bundle = await prover.prove(statement, RECORDS)
    for field in ("statement", "seed", "commitment"):
        for word in (b"x" * 32, b"x"):
            assert not await prover.verify(msgspec.structs.replace(statement, **{field: Hash32(word)}), bundle)
    other = CIRCUIT_IDS["bind" if circuit == "sample" else "sample"]
    assert not await prover.verify(statement, msgspec.structs.replace(bundle, circuit_id=other))
    for proof in (b"", bundle.proof[:-1], bundle.proof + b"\0", bytes([bundle.proof[0] ^ 1]) + bundle.proof[1:]):
        assert not await prover.verify(statement, msgspec.structs.replace(bundle, proof=proof))


@pytest.mark.parametrize(
    "records",
    [RECORDS[:-1], (*RECORDS[:-1], bytes(32)), (RECORDS[1], RECORDS[0], *RECORDS[2:]), (*RECORDS, RECORDS[0])],
    ids=["dropped", "changed", "swapped", "added"],
)
async def test_other_records_cannot_be_proven(records: tuple[bytes, ...]) -> None:
    """Records that were not committed give `proof_failed`, as with every back end."""
    prover = _prover("bind")
    statement = await _statement(prover)
    with pytest.raises(LocalFault, match=r"proof_failed.*do not match"):
        await prover.prove(statement, records)


@pytest.mark.parametrize("records", [(), RECORDS + RECORDS, (b"short",)])
async def test_no_checkpoint_is_a_programmers_error(records: tuple[bytes, ...]) -> None:
    """As the port says."""
    prover = _prover("bind")
    with pytest.raises(ValueError, match="256"):
        await prover.commit(records)
    with pytest.raises(ValueError, match="256"):
        await prover.prove(ProofStatement(STATEMENT, SEED, Hash32(bytes(32))), records)


async def test_after_a_restart_only_bind_is_left() -> None:
    """`sample` needs what this process served: without it, `preimages_missing`. `bind` proves the same commitment."""
    before, after = _prover("sample"), MerkleProver("sample", HeldRecords())
    statement = await _statement(before)
    assert statement == await _statement(MerkleProver("bind"))
    with pytest.raises(LocalFault, match=r"preimages_missing.*merkle/bind"):
        await after.prove(statement, RECORDS)
    bind = after.weaker
    assert bind is not None and (bind.circuit, bind.weaker) == ("merkle/bind", None)
    assert await bind.verify(statement, await bind.prove(statement, RECORDS))


async def test_one_record_that_is_gone_counts_where_it_is_challenged() -> None:
    """Only the picked records are opened, so only they are needed."""
    held = _held(PREIMAGES)
    prover = MerkleProver("sample", held)
    statement = await _statement(prover)
    bundle = await prover.prove(statement, RECORDS)
    opened = [n for n, preimage in enumerate(PREIMAGES) if preimage[16:] in bundle.proof]
    assert len(opened) == 16
    held.forget(record for n, record in enumerate(RECORDS) if n not in opened)
    assert await prover.prove(statement, RECORDS) == bundle
    held.forget([RECORDS[opened[7]]])
    with pytest.raises(LocalFault, match=f"preimages_missing.*record {opened[7]} "):
        await prover.prove(statement, RECORDS)


async def test_a_record_that_lies_is_not_sent_to_the_chain() -> None:
    """A committed record outside its sampler's bounds gives `proof_failed` and its place, and costs no gas."""
    lie = record_preimage(SALT, 3, TokenRecord(3, -1_386_294, ((7, -693_147), (3, -1_386_294))), GREEDY)
    preimages = [*preimages_of(3), lie]
    prover, records = _prover("sample", preimages), tuple(digests_of(preimages))
    with pytest.raises(LocalFault, match=r"proof_failed.*record 3 .*sampler"):
        await prover.prove(await _statement(prover, records), records)


async def test_records_of_another_place_are_not_sent_to_the_chain() -> None:
    """Records that do not follow each other give `proof_failed`."""
    preimages = [PREIMAGES[1], PREIMAGES[0], PREIMAGES[2]]
    prover, records = _prover("sample", preimages), tuple(digests_of(preimages))
    with pytest.raises(LocalFault, match=r"proof_failed.*order"):
        await prover.prove(await _statement(prover, records), records)


def test_nothing_is_shown_of_what_was_said() -> None:
    """Neither the prover nor the memory shows a record in its representation."""
    held = _held(PREIMAGES[:2])
    assert repr(MerkleProver("sample", held)) == f"<MerkleProver [sample {CIRCUIT_IDS['sample'].hex()[:8]}]>"
    assert repr(held).startswith("<HeldRecords 2 records, ")
