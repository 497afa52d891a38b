"""The deployed Merkle verifiers and `fabstir.protocol.openings` say the same to every proof: right ones, spoiled ones, lies."""

from __future__ import annotations

import random
from typing import Any, Final

import msgspec
import pyrevm
import pytest
from eth_abi import abi
from hypothesis import given, settings
from hypothesis import strategies as st

from fabstir.chain import artifacts
from fabstir.domain.ids import Hash32
from fabstir.protocol import openings
from fabstir.protocol.signing import keccak
from fabstir.protocol.transcript import RECORD_TAG, SHAPED, Sampler, TokenRecord, record_preimage
from tests.protocol.recording import (
    SALT,
    SEED,
    STATEMENT,
    bind_proof,
    digests_of,
    drawn,
    preimages_of,
    sample_proof,
    spoiled,
)

SENDER: Final = "0x" + "11" * 20
GAS: Final = 1_500_000
"""What ProofSystem gives an adapter."""
VERIFY: Final = keccak(b"verify(bytes32,bytes32,bytes32,bytes)")[:4]
READERS: Final = {
    "MerkleBindVerifier": openings.read_bound,
    "MerkleSampleVerifier": openings.read_sampled,
}
SIZES: Final = (1, 2, 3, 16, 17, 100, 255, 256)


class Verifiers:
    """Both contracts in an EVM of this process."""

    def __init__(self) -> None:
        self._evm: Any = pyrevm.EVM()
        self._evm.set_balance(SENDER, 10**20)
        self._at = {name: self._evm.deploy(SENDER, artifacts.load(name).bytecode) for name in READERS}

    def chain(self, name: str, statement: Hash32, seed: Hash32, commitment: Hash32, proof: bytes) -> bool:
        """What the contract says within its gas; a revert is a no."""
        data = VERIFY + abi.encode(["bytes32", "bytes32", "bytes32", "bytes"], [statement, seed, commitment, proof])
        try:
            answer = self._evm.message_call(SENDER, self._at[name], calldata=data, gas=GAS, is_static=True)
        except RuntimeError:
            return False
        assert answer in (bytes(32), (1).to_bytes(32, "big"))
        return int.from_bytes(answer, "big") == 1

    def agreed(self, name: str, commitment: Hash32, proof: bytes, words: tuple[Hash32, Hash32] | None = None) -> bool:
        """The verdict of both, which is one."""
        statement, seed = words or (STATEMENT, SEED)
        verdict = self.chain(name, statement, seed, commitment, proof)
        assert verdict == openings.verify(statement, seed, commitment, proof, READERS[name])
        return verdict


@pytest.fixture(scope="module")
def both() -> Verifiers:
    """With the checked-in artifacts."""
    return Verifiers()


@pytest.mark.parametrize("count", SIZES)
def test_right_proofs_are_right_on_chain(both: Verifiers, count: int) -> None:
    """Every size of checkpoint, both circuits, and neither takes the other's proof."""
    preimages = preimages_of(count)
    digests = digests_of(preimages)
    commitment, bound, sampled = openings.commit(digests), bind_proof(digests), sample_proof(preimages)
    assert both.agreed("MerkleBindVerifier", commitment, bound)
    assert both.agreed("MerkleSampleVerifier", commitment, sampled)
    assert not both.agreed("MerkleBindVerifier", commitment, sampled)
    assert not both.agreed("MerkleSampleVerifier", commitment, bound)


@pytest.mark.parametrize("count", [1, 17, 100])
def test_spoiled_proofs_are_wrong_on_chain(both: Verifiers, count: int) -> None:
    """Bits, lengths, order, number."""
    preimages = preimages_of(count)
    digests = digests_of(preimages)
    commitment = openings.commit(digests)
    for what, proof in spoiled(bind_proof(digests), 32):
        assert not both.agreed("MerkleBindVerifier", commitment, proof), what
    for what, proof in spoiled(sample_proof(preimages), 91):
        assert not both.agreed("MerkleSampleVerifier", commitment, proof), what


def test_every_word_counts_on_chain(both: Verifiers) -> None:
    """Another statement, seed or commitment."""
    preimages = preimages_of(200)
    digests = digests_of(preimages)
    other, commitment = Hash32(b"\x01" * 32), openings.commit(digests)
    for name, proof in (("MerkleBindVerifier", bind_proof(digests)), ("MerkleSampleVerifier", sample_proof(preimages))):
        assert not both.agreed(name, commitment, proof, (other, SEED))
        assert not both.agreed(name, commitment, proof, (STATEMENT, other))
        assert not both.agreed(name, other, proof)


@settings(max_examples=40, deadline=None)
@given(st.binary(min_size=32, max_size=32), st.binary(min_size=32, max_size=32), st.integers(1, 256))
def test_challenges_are_the_same(both: Verifiers, statement: bytes, seed: bytes, count: int) -> None:
    """Whatever statement, seed and size: the positions that Python opens are those that the contract asks for."""
    words = (Hash32(statement), Hash32(seed))
    digests = digests_of([n.to_bytes(2, "big") for n in range(count)])
    assert both.agreed("MerkleBindVerifier", openings.commit(digests), bind_proof(digests, *words), words)


def _judged(both: Verifiers, record: TokenRecord, sampler: Sampler) -> bool:
    preimage = record_preimage(SALT, 0, record, sampler)
    return both.agreed("MerkleSampleVerifier", openings.commit(digests_of([preimage])), sample_proof([preimage]))


micro_nats = st.one_of(
    st.integers(-5_000_000, 0), st.integers(-(2**31), 2**31 - 1), st.sampled_from([0, -1, 1, -(2**25)])
)
tokens = st.one_of(st.integers(0, 5), st.integers(0, 2**32 - 1))


@settings(max_examples=400, deadline=None)
@given(
    st.builds(TokenRecord, tokens, micro_nats, st.lists(st.tuples(tokens, micro_nats), max_size=6).map(tuple)),
    st.builds(Sampler, st.integers(0, 1_100), st.integers(0, 1_000_100)),
)
def test_any_record_gets_one_verdict(both: Verifiers, record: TokenRecord, sampler: Sampler) -> None:
    """The rule is the same integers on both sides, for records that no engine makes too."""
    _judged(both, record, sampler)
    ordered = sorted(dict(record.top).items(), key=lambda pair: -pair[1])
    _judged(both, msgspec.structs.replace(record, top=tuple(ordered)), sampler)


@settings(max_examples=200, deadline=None)
@given(
    st.integers(0, 2**32),
    st.integers(0, 1_500),
    st.integers(1, 1_000_000),
    st.integers(1, 20),
    st.integers(-2_000, 2_000),
)
def test_records_near_the_bounds_get_one_verdict(
    both: Verifiers, seed: int, temperature: int, top_p: int, k: int, nudge: int
) -> None:
    """Honest records hold on chain; the same with a neighbouring top_p or log-probability gets the same answer from both."""
    sampler = Sampler(temperature, top_p)
    record = drawn(random.Random(seed), sampler, k)
    assert _judged(both, record, sampler)
    _judged(both, record, msgspec.structs.replace(sampler, top_p=max(0, top_p + nudge)))
    _judged(both, msgspec.structs.replace(record, logprob=record.logprob + nudge), sampler)
    assert _judged(both, record, SHAPED), "what a sampler draws, a shaped draw may, too"


def test_the_dearest_record_fits_the_gas(both: Verifiers) -> None:
    """16 records of 20 listed tokens and every bit of every exponent: within what ProofSystem gives."""
    top = tuple((100 + n, 1 - 2**25) for n in range(20))
    dear = [record_preimage(SALT, n, TokenRecord(119, 1 - 2**25, top), Sampler(800, 950_000)) for n in range(256)]
    assert all(preimage.startswith(RECORD_TAG) for preimage in dear)
    assert both.agreed("MerkleSampleVerifier", openings.commit(digests_of(dear)), sample_proof(dear))
