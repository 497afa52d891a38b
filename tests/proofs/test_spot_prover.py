"""The circuit `spot`, really proven, and judged by the contracts in an EVM: which rows, which state, which token, which model."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest
import pytest_asyncio
from tests.contracts.evm import DEPLOYER, CallReverted, Evm
from tests.proofs.spotting import ROWS, TinyHead, seed_for, statement_of, words_of

from fabstir.chain.bindings import EzklSpotVerifier, Halo2SpotVerifier, Head, ModelRegistry, ProofSystem
from fabstir.domain.errors import LocalFault
from fabstir.domain.ids import Address, Hash32, ModelId
from fabstir.ports.prover import ProofBundle, ProofStatement
from fabstir.proofs.frames import SpotProved, SpotProveJob
from fabstir.proofs.process import EzklProver
from fabstir.proofs.spot_prover import SpotProver
from fabstir.protocol import head_tree, spot, spot_proof
from fabstir.protocol.model_identity import NO_HEAD, HeadCommitment, ModelIdentity
from fabstir.protocol.spot import TokenTrace
from fabstir.protocol.spot_proof import SpotProof

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="module")]

TOKENS, BEFORE, RECORDS, PLACE = 37, 20, 5, 3
FIRST = BEFORE
"""Index of the checkpoint's first record."""


class Chain:
    """The contracts, with two models that have heads and one that has none."""

    def __init__(self, circuit: Hash32, heads: list[HeadCommitment]) -> None:
        self.evm = Evm()
        self.models = self.evm.deploy(ModelRegistry.deploy_data(DEPLOYER))
        halo2 = self.evm.deploy(Halo2SpotVerifier.deploy_data())
        self.adapter = self.evm.deploy(EzklSpotVerifier.deploy_data(halo2, self.models))
        self.proofs: Address = self.evm.deploy(ProofSystem.deploy_data(DEPLOYER))
        self.evm.call(DEPLOYER, self.proofs, ProofSystem.encode_register(circuit, self.adapter))
        self.ids = [self._approve(place, head) for place, head in enumerate(heads)]

    def _approve(self, place: int, head: HeadCommitment) -> ModelId:
        model = ModelIdentity(repository=f"org/{place}", file="m.gguf", sha256=Hash32(bytes([place + 1]) * 32))
        known = Head(head.root, head.rows, head.width, head.scale)
        names = (model.repository, model.file, model.sha256, model.tokenizer, model.template)
        made = self.evm.call(DEPLOYER, self.models, ModelRegistry.encode_propose(*names, known))
        assert ModelRegistry.decode_propose(made) == model.model_id
        self.evm.call(DEPLOYER, self.models, ModelRegistry.encode_approve(model.model_id, known))
        return model.model_id

    def accepts(self, circuit: Hash32, statement: ProofStatement, proof: bytes) -> bool:
        """What `ProofSystem` says."""
        asked = (statement.statement, statement.seed, statement.commitment, proof)
        return ProofSystem.decode_verify(self.evm.view(self.proofs, ProofSystem.encode_verify(circuit, *asked)))

    def adapter_reverts(self, statement: ProofStatement, proof: bytes) -> bool:
        asked = (statement.statement, statement.seed, statement.commitment, proof)
        try:
            self.evm.view(self.adapter, EzklSpotVerifier.encode_verify(*asked))
        except CallReverted:
            return True
        return False


class Spotting(NamedTuple):
    """Everything that a proof is about."""

    prover: SpotProver
    bind: EzklProver
    head: TinyHead
    other: TinyHead
    chain: Chain
    traces: tuple[TokenTrace, ...]
    points: bytes
    words: bytes
    statement: ProofStatement
    bundle: ProofBundle

    @property
    def proof(self) -> SpotProof:
        found = spot_proof.decoded(self.bundle.proof)
        assert found is not None
        return found

    async def refused(self, proof: SpotProof | bytes, statement: ProofStatement | None = None) -> bool:
        """Both sides say no."""
        data = proof if isinstance(proof, bytes) else proof.encoded()
        asked = statement or self.statement
        bundle = ProofBundle(self.prover.circuit_id, data)
        here = await self.prover.verify(asked, bundle, self.head.commitment)
        there = self.chain.accepts(self.prover.circuit_id, asked, data)
        assert here == there
        return not there


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def spotting(cache: Path) -> AsyncIterator[Spotting]:
    """One honest proof: the fourth record of a checkpoint of five."""
    bind = EzklProver(chain_id=31337, cache=cache)
    await bind.start()
    prover = SpotProver(bind, chain_id=31337)
    head, other = await TinyHead(1).commit(prover), await TinyHead(2).commit(prover)
    chain = Chain(prover.circuit_id, [head.commitment, other.commitment, NO_HEAD])
    traces = tuple(head.trace(FIRST + place) for place in range(RECORDS))
    points = await prover.points([trace.vector for trace in traces])
    words = words_of(chain.ids[0], TOKENS, BEFORE, RECORDS)
    statement = statement_of(words, seed_for(BEFORE + PLACE, TOKENS), spot.commit(traces, points))
    bundle = await prover.prove(statement, words, traces, points, head)
    yield Spotting(prover, bind, head, other, chain, traces, points, words, statement, bundle)
    await bind.stop()


async def test_both_sides_accept(spotting: Spotting) -> None:
    """What the prover made convinces verifier and contract."""
    assert not await spotting.refused(spotting.bundle.proof)
    assert len(spotting.proof.halo2) == spot_proof.HALO2_BYTES


async def test_another_proof_of_the_same_statement_is_as_good(spotting: Spotting) -> None:
    """Proofs are blinded: other bytes, same points, same verdict. What is used up is the statement, elsewhere."""
    again = await spotting.prover.prove(
        spotting.statement, spotting.words, spotting.traces, spotting.points, spotting.head
    )
    assert again.proof != spotting.bundle.proof and not await spotting.refused(again.proof)


@pytest.mark.parametrize("place", [0, 70, 140, 200, 900, 2000, spot_proof.HALO2_BYTES - 1])
async def test_a_flipped_bit_is_refused(spotting: Spotting, place: int) -> None:
    """Anywhere in the halo2 proof, its points included."""
    halo2 = bytearray(spotting.proof.halo2)
    halo2[place] ^= 1
    assert await spotting.refused(msgspec.structs.replace(spotting.proof, halo2=bytes(halo2)))


@pytest.mark.parametrize("word", range(10))
async def test_every_word_of_the_statement_is_bound(spotting: Spotting, word: int) -> None:
    """Chain, market, job, host, model, root, counts and circuit: a proof is of one statement alone."""
    words = bytearray(spotting.words)
    words[32 * word + 31] ^= 1
    assert await spotting.refused(msgspec.structs.replace(spotting.proof, words=bytes(words)))
    statement = statement_of(bytes(words), spotting.statement.seed, spotting.statement.commitment)
    assert await spotting.refused(msgspec.structs.replace(spotting.proof, words=bytes(words)), statement)


async def test_another_seed_asks_for_another_proof(spotting: Spotting) -> None:
    """One that draws the same token, so that only the circuit's public words and the choice of rows tell them apart."""
    seed = seed_for(BEFORE + PLACE, TOKENS, nonce=1)
    statement = statement_of(spotting.words, seed, spotting.statement.commitment)
    assert await spotting.refused(spotting.bundle.proof, statement)


async def test_rows_of_another_model_do_not_count(spotting: Spotting) -> None:
    """A host that ran a cheaper model opens that one's rows: they are not those of the model in the terms."""
    cheap = spotting.other
    traces = tuple(cheap.trace(FIRST + place) for place in range(RECORDS))
    points = await spotting.prover.points([trace.vector for trace in traces])
    own = words_of(spotting.chain.ids[1], TOKENS, BEFORE, RECORDS)
    seed = spotting.statement.seed
    honest = statement_of(own, seed, spot.commit(traces, points))
    bundle = await spotting.prover.prove(honest, own, traces, points, cheap)
    assert spotting.chain.accepts(spotting.prover.circuit_id, honest, bundle.proof)
    claimed = statement_of(spotting.words, seed, spot.commit(traces, points))
    made = spot_proof.decoded(bundle.proof)
    assert made is not None
    assert await spotting.refused(msgspec.structs.replace(made, words=spotting.words), claimed)
    with pytest.raises(LocalFault, match="proof_failed"):
        await spotting.prover.prove(claimed, spotting.words, traces, points, _Mixed(cheap, spotting.head))


async def test_one_row_of_other_weights_is_refused(spotting: Spotting) -> None:
    """The right tree and path, but for one row other weights in the circuit."""
    with pytest.raises(LocalFault, match="proof_failed.*is not the registered one"):
        await spotting.prover.prove(
            spotting.statement, spotting.words, spotting.traces, spotting.points, _OneRowOff(spotting.head)
        )


async def test_a_model_without_a_head_has_no_spot(spotting: Spotting) -> None:
    """Nothing can be proven about rows that nobody committed."""
    words = words_of(spotting.chain.ids[2], TOKENS, BEFORE, RECORDS)
    statement = statement_of(words, spotting.statement.seed, spotting.statement.commitment)
    proof = msgspec.structs.replace(spotting.proof, words=words)
    assert not spotting.chain.accepts(spotting.prover.circuit_id, statement, proof.encoded())
    assert not await spotting.prover.verify(
        statement, ProofBundle(spotting.prover.circuit_id, proof.encoded()), NO_HEAD
    )


@pytest.mark.parametrize(("lie", "refused"), [(0.2, False), (0.3, True)])
async def test_the_tolerance_is_a_quarter_of_a_nat(spotting: Spotting, lie: float, refused: bool) -> None:
    """Log-probabilities that are off by less pass, by more they do not: on chain, with a sound halo2 proof of the true products."""
    traces = tuple(spotting.head.trace(FIRST + place, lie=lie) for place in range(RECORDS))
    points = await spotting.prover.points([trace.vector for trace in traces])
    statement = statement_of(spotting.words, spotting.statement.seed, spot.commit(traces, points))
    proof = await _unjudged(spotting, statement, traces, points)
    assert await spotting.refused(proof, statement) is refused


async def test_another_hidden_state_or_record_is_not_the_committed_one(spotting: Spotting) -> None:
    """Made up after the challenge, both fail: the leaf holds the state's point, the record and the denominator."""
    forged = spotting.head.trace(FIRST + PLACE, salt=Hash32(bytes(32)))
    traces = (*spotting.traces[:PLACE], forged, *spotting.traces[PLACE + 1 :])
    proof = await _unjudged(spotting, spotting.statement, traces, spotting.points)
    assert await spotting.refused(proof)
    assert await spotting.refused(msgspec.structs.replace(spotting.proof, denominator=spotting.proof.denominator + 1))
    assert await spotting.refused(msgspec.structs.replace(spotting.proof, first=FIRST + 1))


async def test_a_neighbour_cannot_stand_in(spotting: Spotting) -> None:
    """Another trace of the same checkpoint, whole and true, is not the drawn one."""
    seed = seed_for(BEFORE + PLACE + 1, TOKENS)
    neighbour = statement_of(spotting.words, seed, spotting.statement.commitment)
    assert await spotting.refused(spotting.bundle.proof, neighbour)
    with pytest.raises(LocalFault, match="not in this checkpoint"):
        elsewhere = statement_of(spotting.words, seed_for(BEFORE - 1, TOKENS), spotting.statement.commitment)
        await spotting.prover.prove(elsewhere, spotting.words, spotting.traces, spotting.points, spotting.head)


async def test_products_are_not_taken_on_trust(spotting: Spotting) -> None:
    """A product within the tolerance that is not the circuit's own is refused by the pairing."""
    dots = (spotting.proof.dots[0] + 1, *spotting.proof.dots[1:])
    assert await spotting.refused(msgspec.structs.replace(spotting.proof, dots=dots))


@pytest.mark.parametrize("part", ["trace_path", "row_paths", "record", "halo2"])
async def test_a_part_that_is_too_short_or_too_long_is_refused(spotting: Spotting, part: str) -> None:
    """Whatever the length: the verdict is no, here and there."""
    whole: bytes = getattr(spotting.proof, part)
    for changed in (b"", whole[:-1], whole[:-32], whole + bytes(32), whole + bytes(128)):
        assert await spotting.refused(msgspec.structs.replace(spotting.proof, **{part: changed}))


async def test_what_is_no_proof_at_all_is_refused(spotting: Spotting) -> None:
    """Empty, noise, cut off."""
    for data in (b"", bytes(31), bytes(32), b"\xff" * 5_000, spotting.bundle.proof[:-32], spotting.bundle.proof[32:]):
        assert await spotting.refused(data)


async def test_a_proof_of_bind_is_none_of_spot(spotting: Spotting) -> None:
    """Circuits do not stand in for each other, in neither direction."""
    records = tuple(spot.record_digest(trace.record) for trace in spotting.traces)
    commitment = (await spotting.bind.commit(records)).digest
    statement = msgspec.structs.replace(spotting.statement, commitment=commitment)
    bound = await spotting.bind.prove(statement, records)
    assert await spotting.refused(bound.proof, statement)
    assert not await spotting.bind.verify(
        spotting.statement, ProofBundle(spotting.bind.circuit_id, spotting.bundle.proof)
    )
    assert spotting.chain.adapter_reverts(statement, bound.proof)


async def test_narrow_models_take_the_same_circuit(spotting: Spotting) -> None:
    """64 columns, filled up with zeros; and the record of a temperature, whose token is not the likeliest listed one."""
    head = await TinyHead(3, width=64).commit(spotting.prover)
    traces = tuple(head.trace(place, listed=ROWS) for place in range(2))
    points = await spotting.prover.points([trace.vector for trace in traces])
    words = words_of(spotting.chain.ids[0], 2, 0, 2)
    statement = statement_of(words, seed_for(1, 2), spot.commit(traces, points))
    bundle = await spotting.prover.prove(statement, words, traces, points, head)
    assert await spotting.prover.verify(statement, bundle, head.commitment)
    assert not await spotting.prover.verify(statement, bundle, spotting.head.commitment)


async def test_commitments_are_the_same_everywhere(spotting: Spotting) -> None:
    """The point of a vector follows from the vector: whoever has the weights makes the same root."""
    vectors = [trace.vector for trace in spotting.traces]
    assert await spotting.prover.points(vectors) == spotting.points
    assert len(set(_split(spotting.points))) == RECORDS


async def test_it_stays_on_the_devnet(spotting: Spotting) -> None:
    """Whoever drew the packaged reference string could forge."""
    with pytest.raises(LocalFault, match="srs_development_only"):
        SpotProver(spotting.bind, chain_id=8453)


class _Mixed:
    """Rows of one model under the tree of another."""

    def __init__(self, rows: TinyHead, tree: TinyHead) -> None:
        self._rows, self._tree = rows, tree

    @property
    def commitment(self) -> HeadCommitment:
        return self._tree.commitment

    def row(self, token: int) -> tuple[int, ...]:
        return self._rows.row(token)

    def path(self, token: int) -> bytes:
        return self._tree.path(token)


class _OneRowOff(_Mixed):
    """The last digit of one weight of every row is another one."""

    def __init__(self, head: TinyHead) -> None:
        super().__init__(head, head)

    def row(self, token: int) -> tuple[int, ...]:
        row = self._rows.row(token)
        return (row[0] ^ 1, *row[1:])


def _split(points: bytes) -> list[bytes]:
    return [points[at : at + head_tree.POINT] for at in range(0, len(points), head_tree.POINT)]


async def _unjudged(
    spotting: Spotting, statement: ProofStatement, traces: tuple[TokenTrace, ...], points: bytes
) -> SpotProof:
    """A sound halo2 proof in a whole proof, without the prover's own look at it."""
    drawn, tree = traces[PLACE], spot.tree_of(traces, _split(points))
    rows = spot.checked_rows(drawn.record, statement.seed)
    weights = tuple(spot.SpotVector(spotting.head.row(row.token)) for row in rows)
    made = await spotting.bind.ask(SpotProveJob(statement, drawn.vector, weights), SpotProved)
    return SpotProof(
        words=spotting.words,
        first=FIRST,
        denominator=drawn.denominator,
        record=drawn.record,
        trace_path=tree.path(PLACE),
        dots=made.dots,
        row_paths=b"".join(spotting.head.path(row.token) for row in rows),
        halo2=made.halo2,
    )
