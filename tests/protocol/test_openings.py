"""The tree over a checkpoint's records, what a challenge picks of it, and the proof that opens it."""

from __future__ import annotations

from collections import Counter
from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fabstir.domain.ids import Hash32
from fabstir.protocol import openings
from fabstir.protocol.openings import OPENED, commit, positions, read_bound, read_sampled, verify
from fabstir.protocol.signing import keccak
from fabstir.protocol.transcript import Sampler, TokenRecord, record_preimage
from tests.protocol.recording import (
    GREEDY,
    SALT,
    SEED,
    STATEMENT,
    WARM,
    bind_proof,
    digests_of,
    preimages_of,
    sample_proof,
    spoiled,
)

OTHER = Hash32(b"\x01" * 32)
SIZES = (1, 2, 3, 15, 16, 17, 18, 31, 33, 100, 129, 255, 256)


def _word(value: int) -> bytes:
    return value.to_bytes(32, "big")


def test_the_commitment_by_hand() -> None:
    """Three records: two leaves, one and an empty one, and the number of them in the commitment."""
    a, b, c = digests_of([b"a", b"b", b"c"])
    leaves = [keccak(_word(2) + digest) for digest in (a, b, c)] + [keccak(_word(4))]
    left, right = keccak(_word(3) + leaves[0] + leaves[1]), keccak(_word(3) + leaves[2] + leaves[3])
    assert commit([a, b, c]) == keccak(_word(5) + _word(3) + keccak(_word(3) + left + right))
    assert commit([a]) == keccak(_word(5) + _word(1) + leaves[0])


@pytest.mark.parametrize("digests", [[], [bytes(32)] * 257, [bytes(31)]])
def test_no_checkpoint(digests: list[bytes]) -> None:
    """None, too many or no digests are a programmer's error."""
    with pytest.raises(ValueError, match="256"):
        commit(digests)


def test_circuit_ids_are_the_hashes_of_their_names() -> None:
    """Versioned names, written down here once more."""
    assert sha256(b"fabstir/merkle-bind/1").digest() == openings.BIND_CIRCUIT
    assert sha256(b"fabstir/merkle-sample/1").digest() == openings.SAMPLE_CIRCUIT


@given(st.binary(min_size=32, max_size=32), st.integers(1, 256))
def test_positions_are_distinct_and_in_range(seed: bytes, records: int) -> None:
    """16 different ones, ascending, or all of them."""
    picked = positions(STATEMENT, Hash32(seed), records)
    assert len(picked) == min(records, OPENED) == len(set(picked))
    assert picked == sorted(picked)
    assert picked[0] >= 0
    assert picked[-1] < records


def test_every_position_is_as_likely() -> None:
    """1,600 challenges of 40 records pick each of them 640 times, give or take what chance gives (5 standard deviations)."""
    counts = Counter(p for n in range(1_600) for p in positions(STATEMENT, Hash32(_word(n)), 40))
    assert all(540 < counts[position] < 740 for position in range(40))


def test_statement_and_seed_pick() -> None:
    """Another statement or another seed is another challenge."""
    assert positions(STATEMENT, SEED, 256) != positions(OTHER, SEED, 256)
    assert positions(STATEMENT, SEED, 256) != positions(STATEMENT, OTHER, 256)
    assert positions(STATEMENT, SEED, 256) != positions(SEED, STATEMENT, 256)


@pytest.mark.parametrize("count", SIZES)
def test_every_size_is_opened(count: int) -> None:
    """What was committed opens, in both circuits, at most 16 records and 64 siblings of it."""
    preimages = preimages_of(count)
    digests = digests_of(preimages)
    bound, sampled = bind_proof(digests), sample_proof(preimages)
    assert verify(STATEMENT, SEED, commit(digests), bound, read_bound)
    assert verify(STATEMENT, SEED, commit(digests), sampled, read_sampled)
    assert len(bound) <= 2 + 16 * 32 + 64 * 32
    assert not verify(STATEMENT, SEED, commit(digests), sampled, read_bound)
    assert not verify(STATEMENT, SEED, commit(digests), bound, read_sampled)


@settings(max_examples=30)
@given(st.binary(min_size=32, max_size=32), st.binary(min_size=32, max_size=32), st.integers(1, 256))
def test_every_challenge_is_answered(statement: bytes, seed: bytes, count: int) -> None:
    """No choice of positions that cannot be opened."""
    digests, words = digests_of([_word(n) for n in range(count)]), (Hash32(statement), Hash32(seed))
    assert verify(*words, commit(digests), bind_proof(digests, *words), read_bound)


@pytest.mark.parametrize("count", [1, 2, 17, 100, 256])
def test_spoiled_proofs_are_refused(count: int) -> None:
    """Bits, lengths, order, number: nothing but the one proof is accepted."""
    preimages = preimages_of(count)
    digests = digests_of(preimages)
    commitment = commit(digests)
    for what, proof in spoiled(bind_proof(digests), 32):
        assert not verify(STATEMENT, SEED, commitment, proof, read_bound), what
    for what, proof in spoiled(sample_proof(preimages), 91):
        assert not verify(STATEMENT, SEED, commitment, proof, read_sampled), what


def test_another_challenge_or_commitment_is_refused() -> None:
    """A proof is for its statement, its seed and its checkpoint."""
    digests = digests_of([_word(n) for n in range(200)])
    commitment, proof = commit(digests), bind_proof(digests)
    assert not verify(OTHER, SEED, commitment, proof, read_bound)
    assert not verify(STATEMENT, OTHER, commitment, proof, read_bound)
    assert not verify(STATEMENT, SEED, OTHER, proof, read_bound)
    assert not verify(STATEMENT, SEED, commit(digests[:-1]), proof, read_bound)
    assert not verify(STATEMENT, SEED, commit([*digests, digests[0]]), proof, read_bound)


def test_the_number_of_records_is_committed() -> None:
    """A tree of three records and one that holds an empty leaf's preimage in the fourth place are not the same."""
    digests = digests_of([_word(n) for n in range(3)])
    assert commit(digests) != commit([*digests, keccak(_word(4))])


def _checkpoint(record: TokenRecord, sampler: Sampler) -> tuple[Hash32, bytes]:
    preimages = [*preimages_of(4), record_preimage(SALT, 4, record, sampler)]
    return commit(digests_of(preimages)), sample_proof(preimages)


@pytest.mark.parametrize(
    ("record", "sampler"),
    [
        pytest.param(TokenRecord(3, -1_386_294, ((7, -693_147), (3, -1_386_294))), GREEDY, id="temperature lie"),
        pytest.param(TokenRecord(3, -1_386_294, ((3, -1_386_294), (7, -693_147))), WARM, id="top not sorted"),
        pytest.param(TokenRecord(5, -3_000_000, ((7, -1_000),)), WARM, id="nucleus violated"),
    ],
)
def test_a_committed_lie_cannot_be_opened(record: TokenRecord, sampler: Sampler) -> None:
    """A record outside its sampler's bounds is committed like any other, and `sample` refuses it where it is opened."""
    assert not verify(STATEMENT, SEED, *_checkpoint(record, sampler), read_sampled)
    assert verify(STATEMENT, SEED, *_checkpoint(TokenRecord(7, -1_000, ((7, -1_000),)), GREEDY), read_sampled)


def test_records_must_follow_each_other() -> None:
    """A record of another place of the job does not stand in this checkpoint, under whatever index it was made."""
    preimages = preimages_of(8, first=256)
    assert verify(STATEMENT, SEED, commit(digests_of(preimages)), sample_proof(preimages), read_sampled)
    swapped = [preimages[1], preimages[0], *preimages[2:]]
    assert not verify(STATEMENT, SEED, commit(digests_of(swapped)), sample_proof(swapped), read_sampled)
    early = [preimages_of(8)[0], *preimages_of(8)[:-1]]
    assert not verify(STATEMENT, SEED, commit(digests_of(early)), sample_proof(early), read_sampled)


def test_a_wrong_salt_is_another_record() -> None:
    """The salt is part of what was committed."""
    preimages = preimages_of(3)
    proof = sample_proof(preimages)
    salted = proof[:2] + bytes(32) + proof[34:]
    assert not verify(STATEMENT, SEED, commit(digests_of(preimages)), salted, read_sampled)
