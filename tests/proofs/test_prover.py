"""Real proofs: what the prover accepts, what it refuses, what is deterministic and what is not."""

from __future__ import annotations

import msgspec
import pytest
import pytest_asyncio
from tests.proofs.conftest import records_of

from fabstir.domain.errors import LocalFault
from fabstir.domain.ids import Hash32
from fabstir.ports.prover import CHECKPOINT_TOKENS, ProofBundle, ProofStatement, Prover
from fabstir.proofs import bind
from fabstir.proofs.circuit import load_circuit
from fabstir.proofs.known import KnownCommitments
from fabstir.proofs.process import EzklProver

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="module")]

RECORDS = records_of(200)
Proven = tuple[ProofStatement, ProofBundle]
HIGH = Hash32(b"\xff" * 32)
"""Not a field element: halves must carry it."""


async def _proven(prover: Prover, records: tuple[bytes, ...] = RECORDS) -> tuple[ProofStatement, ProofBundle]:
    statement = ProofStatement(HIGH, Hash32(b"\x81" * 32), (await prover.commit(records)).digest)
    return statement, await prover.prove(statement, records)


def _with_bytes(bundle: ProofBundle, proof: bytes) -> ProofBundle:
    return msgspec.structs.replace(bundle, proof=proof)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def proven(prover: EzklProver) -> tuple[ProofStatement, ProofBundle]:
    """One statement and its proof."""
    return await _proven(prover)


async def test_a_proof_verifies(prover: EzklProver, proven: Proven) -> None:
    """What is proven is accepted, and health is `ok`."""
    statement, bundle = proven
    assert await prover.verify(statement, bundle)
    assert bundle.circuit_id == prover.circuit_id == load_circuit().circuit_id
    assert await prover.health() == "ok"


@pytest.mark.parametrize("count", [1, 17, CHECKPOINT_TOKENS])
async def test_every_size_of_checkpoint(prover: EzklProver, count: int) -> None:
    """One token, a part and a whole checkpoint prove alike; proofs have one length."""
    statement, bundle = await _proven(prover, records_of(count))
    assert await prover.verify(statement, bundle)
    assert len(bundle.proof) == 96 + bind.HALO2_BYTES


async def test_its_own_commitments_can_be_proven_and_no_others(prover: EzklProver, proven: Proven) -> None:
    """Whether it knows them or computes them again."""
    commitment = proven[0].commitment
    assert await prover.provable(commitment, RECORDS)
    prover._known = KnownCommitments()
    assert await prover.provable(commitment, RECORDS) and not await prover.provable(HIGH, RECORDS)


async def test_records_of_zeros(prover: EzklProver) -> None:
    """Digests that happen to be zero are records like others."""
    statement, bundle = await _proven(prover, (bytes(32),) * 3)
    assert await prover.verify(statement, bundle)


async def test_the_commitment_is_in_the_proof(prover: EzklProver, proven: Proven) -> None:
    """The committed point is, byte for byte, proof bytes 64 to 128, and the sum is the public one: the chain compares them."""
    commitment = await prover.commit(RECORDS)
    _, bundle = proven
    decoded = bind.decode_proof(bundle.proof)
    assert decoded is not None
    total, halo2 = decoded
    assert commitment.opening == halo2[64:128] + total.to_bytes(32, "big")
    assert total == bind.checksum(bind.record_values(RECORDS))


@pytest.mark.parametrize("field", ["statement", "seed", "commitment"])
@pytest.mark.parametrize("bit", [0, 127, 128, 255])
async def test_every_public_bit_counts(prover: EzklProver, proven: Proven, field: str, bit: int) -> None:
    """A proof is for its statement, seed and commitment: replayed under any other it is rejected."""
    statement, bundle = proven
    word = int.from_bytes(getattr(statement, field), "big") ^ (1 << bit)
    other = msgspec.structs.replace(statement, **{field: Hash32(word.to_bytes(32, "big"))})
    assert not await prover.verify(other, bundle)


async def test_replay_under_another_checkpoint(prover: EzklProver, proven: Proven) -> None:
    """The proof of one checkpoint does not serve another one of the same statement and seed."""
    statement, bundle = proven
    other = msgspec.structs.replace(statement, commitment=(await prover.commit(records_of(200, "other"))).digest)
    assert not await prover.verify(other, bundle)


@pytest.mark.parametrize(
    "records",
    [RECORDS[:-1], (*RECORDS[:-1], bytes(32)), (RECORDS[1], RECORDS[0], *RECORDS[2:]), (*RECORDS, RECORDS[0])],
    ids=["dropped", "changed", "swapped", "added"],
)
async def test_other_records_cannot_be_proven(prover: EzklProver, records: tuple[bytes, ...]) -> None:
    """Records dropped, changed, reordered or added after the commitment give `proof_failed`."""
    statement = ProofStatement(HIGH, HIGH, (await prover.commit(RECORDS)).digest)
    with pytest.raises(LocalFault, match=r"proof_failed.*do not match"):
        await prover.prove(statement, records)


async def test_tampered_bytes_are_false(prover: EzklProver, proven: Proven) -> None:
    """A bit flipped in any 32-byte word of the proof, or in the checksum, gives False, never an exception."""
    statement, bundle = proven
    for position in range(0, len(bundle.proof), 32):
        tampered = bytearray(bundle.proof)
        tampered[position + 31] ^= 1
        assert not await prover.verify(statement, _with_bytes(bundle, bytes(tampered))), position
    assert await prover.health() == "ok"


@pytest.mark.parametrize("length", [0, 1, 96, 96 + 64, 96 + bind.HALO2_BYTES - 32, 96 + bind.HALO2_BYTES - 1])
async def test_truncated_bytes_are_false(prover: EzklProver, proven: Proven, length: int) -> None:
    """A proof cut anywhere gives False."""
    statement, bundle = proven
    assert not await prover.verify(statement, _with_bytes(bundle, bundle.proof[:length]))


@pytest.mark.parametrize("word", [0, bind.FIELD - 1, bind.FIELD, 2**256 - 1])
async def test_words_outside_the_field_are_false(prover: EzklProver, proven: Proven, word: int) -> None:
    """Extreme words where ezkl expects points and scalars give False."""
    statement, bundle = proven
    for position in (96, 96 + 128, len(bundle.proof) - 32):
        tampered = bundle.proof[:position] + word.to_bytes(32, "big") + bundle.proof[position + 32 :]
        assert not await prover.verify(statement, _with_bytes(bundle, tampered))


async def test_another_circuit_is_false(prover: EzklProver, proven: Proven) -> None:
    """A bundle of another circuit is not this prover's."""
    statement, bundle = proven
    assert not await prover.verify(statement, msgspec.structs.replace(bundle, circuit_id=HIGH))


async def test_what_is_deterministic(prover: EzklProver) -> None:
    """Commitments repeat; proofs are blinded and differ, and both of them verify."""
    assert await prover.commit(RECORDS) == await prover.commit(RECORDS)
    statement, first = await _proven(prover)
    _, second = await _proven(prover)
    assert first.proof != second.proof
    assert await prover.verify(statement, first) and await prover.verify(statement, second)


async def test_commitments_differ(prover: EzklProver) -> None:
    """Order and count of the records are part of the commitment."""
    variants = [RECORDS, RECORDS[:-1], RECORDS[::-1], (*RECORDS, RECORDS[0])]
    assert len({(await prover.commit(records)).digest for records in variants}) == len(variants)


@pytest.mark.parametrize("records", [(), (bytes(32),) * 257, (b"short",)])
async def test_wrong_records_are_the_caller_s_mistake(prover: EzklProver, records: tuple[bytes, ...]) -> None:
    """Wrong count or size raises ValueError before anything is sent to the process."""
    with pytest.raises(ValueError, match="1 to 256"):
        await prover.commit(records)


async def test_a_word_of_another_size(prover: EzklProver, proven: Proven) -> None:
    """A statement with a short word cannot be proven and verifies nothing."""
    statement, bundle = proven
    short = msgspec.structs.replace(statement, seed=Hash32(bytes(31)))
    with pytest.raises(ValueError, match="32 bytes"):
        await prover.prove(short, RECORDS)
    assert not await prover.verify(short, bundle)
