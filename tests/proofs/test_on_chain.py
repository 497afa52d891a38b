"""The EVM and the prover agree: the deployed verifier and adapter accept what the prover made, and nothing else."""

from __future__ import annotations

import json
from importlib import resources
from itertools import permutations
from typing import Any

import msgspec
import pyrevm
import pytest
import pytest_asyncio
from eth_abi import abi
from eth_utils.crypto import keccak
from tests.proofs.conftest import records_of

from fabstir.domain.ids import Hash32
from fabstir.ports.prover import ProofBundle, ProofStatement
from fabstir.proofs import bind
from fabstir.proofs.process import EzklProver

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="module")]

SENDER = "0x" + "11" * 20
GAS_CAP = 1_500_000
"""What ProofSystem gives an adapter."""
RECORDS = records_of(256)
VERIFY = keccak(b"verify(bytes32,bytes32,bytes32,bytes)")[:4]
Proven = tuple[ProofStatement, ProofBundle]


def _creation_code(name: str) -> bytes:
    artifact = json.loads(resources.files("fabstir.chain.artifacts").joinpath(f"{name}.json").read_text())
    return bytes.fromhex(artifact["bytecode"].removeprefix("0x"))


class Chain:
    """Verifier and adapter in an EVM of this process."""

    def __init__(self) -> None:
        self.evm: Any = pyrevm.EVM()
        self.evm.set_balance(SENDER, 10**20)
        verifier = self.evm.deploy(SENDER, _creation_code("Halo2BindVerifier"))
        self.adapter = self.evm.deploy(SENDER, _creation_code("EzklBindVerifier") + abi.encode(["address"], [verifier]))

    def accepts(self, statement: ProofStatement, proof: bytes) -> bool:
        """What `verify` of the adapter says, within the gas that it will get; a revert is a no."""
        words = [statement.statement, statement.seed, statement.commitment, proof]
        data = VERIFY + abi.encode(["bytes32", "bytes32", "bytes32", "bytes"], words)
        try:
            answer = self.evm.message_call(SENDER, self.adapter, calldata=data, gas=GAS_CAP, is_static=True)
        except RuntimeError:
            return False
        return int.from_bytes(answer, "big") == 1


@pytest.fixture(scope="module")
def chain() -> Chain:
    """An EVM with the checked-in artifacts."""
    return Chain()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def proven(prover: EzklProver) -> Proven:
    """A proof over a whole checkpoint, under words that are no field elements and whose halves differ."""
    high_first, low_first = bytes(range(255, 223, -1)), bytes(range(224, 256))
    statement = ProofStatement(Hash32(high_first), Hash32(low_first), (await prover.commit(RECORDS)).digest)
    return statement, await prover.prove(statement, RECORDS)


async def test_the_chain_accepts(chain: Chain, proven: Proven) -> None:
    """A real proof is true on chain, within the gas cap of ProofSystem."""
    statement, bundle = proven
    assert chain.accepts(statement, bundle.proof)


@pytest.mark.parametrize("field", ["statement", "seed", "commitment"])
async def test_the_chain_binds_every_word(chain: Chain, prover: EzklProver, proven: Proven, field: str) -> None:
    """Under any other statement, seed or commitment chain and prover both say no."""
    statement, bundle = proven
    for bit in (0, 100, 128, 255):
        word = int.from_bytes(getattr(statement, field), "big") ^ (1 << bit)
        other = msgspec.structs.replace(statement, **{field: Hash32(word.to_bytes(32, "big"))})
        assert not chain.accepts(other, bundle.proof)
        assert not await prover.verify(other, bundle)


async def test_the_order_of_the_words_counts(chain: Chain, prover: EzklProver, proven: Proven) -> None:
    """Statement, seed and commitment in any other order, and the halves of a word exchanged, are other public inputs: both say no."""
    statement, bundle = proven
    words = (statement.statement, statement.seed, statement.commitment)
    orders = [ProofStatement(*order) for order in permutations(words) if order != words]
    turned = [Hash32(word[16:] + word[:16]) for word in words]
    names = ("statement", "seed", "commitment")
    halves = [msgspec.structs.replace(statement, **{name: turned[n]}) for n, name in enumerate(names)]
    assert len(set(orders + halves)) == 8
    for other in orders + halves:
        assert not chain.accepts(other, bundle.proof)
        assert not await prover.verify(other, bundle)


async def test_tampered_proofs_revert(chain: Chain, prover: EzklProver, proven: Proven) -> None:
    """A bit flipped in any 32-byte word after the offset and length is refused by both."""
    statement, bundle = proven
    for position in [0, *range(96, len(bundle.proof), 32)]:
        tampered = bytearray(bundle.proof)
        tampered[position + 31] ^= 1
        assert not chain.accepts(statement, bytes(tampered)), position
        assert not await prover.verify(statement, msgspec.structs.replace(bundle, proof=bytes(tampered))), position


async def test_the_checksum_has_one_form(chain: Chain, proven: Proven) -> None:
    """The checksum plus the field's order is the same element but other bytes: refused."""
    statement, bundle = proven
    decoded = bind.decode_proof(bundle.proof)
    assert decoded is not None
    total, halo2 = decoded
    assert not chain.accepts(statement, bind.encode_proof(total + bind.FIELD, halo2))


@pytest.mark.parametrize("length", [0, 31, 96, 224, 2559])
async def test_truncated_proofs_are_refused(chain: Chain, proven: Proven, length: int) -> None:
    """A proof cut anywhere is refused."""
    statement, bundle = proven
    assert not chain.accepts(statement, bundle.proof[:length])
