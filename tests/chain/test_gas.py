"""The gas that the table of rights names is the gas that the contracts take, call by call."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Final, cast

import pytest
from tests.chain.playing import CHECKPOINTS, DEPOSIT, PRICE, TREE, World
from tests.chain.support import CIRCUIT_ID, HOST, OTHER
from tests.chain.test_memory_claims import MANY, Claims
from tests.chain.test_prompt_calls import RESULT, TOKENS, PromptPlay

from fabstir.domain.money import BaseUnits, Tokens
from fabstir.domain.prompts import PromptTerms
from fabstir.domain.terms import ProofPolicy, Terms
from fabstir.host.proving import siblings_of
from fabstir.ports.chain import NO_KEY, ProofArgs, RegisteredOffer, TxResult
from fabstir.ports.prompts import PromptChain
from fabstir.protocol.commitments import challenged_position, commitment_root, open_path
from fabstir.protocol.epochs import EpochPlace, EpochSession, covering_path, drawn, epoch_seed, place_all
from fabstir.protocol.matrix import RIGHTS, Call
from fabstir.protocol.signing import job_id

LEAST: Final = 0.7
"""Of a figure: one that is far too high misleads as well."""
SIGNED: Final = Tokens(TREE.tokens - 64)
"""The last W tokens are claimed and opened."""
ELSEWHERE: Final = {Call.SUBMIT_PROOF, Call.PROVE_EPOCH}
"""The verifier of these tests believes everything, for nothing: test_real_proof.py holds these figures with the real one."""


class Measured(Claims):
    """Jobs whose calls are written down with their gas."""

    def __init__(self, world: World, now: int) -> None:
        super().__init__(world, now)
        self.gas: dict[Call, int] = {}

    async def measure(self, call: Call, move: Awaitable[TxResult]) -> None:
        """Each once: in its usual case."""
        assert call not in self.gas
        self.gas[call] = (await move).gas_used

    async def opened(self, name: bytes, policy: ProofPolicy = ProofPolicy.REQUIRED) -> Terms:
        terms = self.agree(name, arbiter=OTHER.address, policy=policy)
        await self.world.renter.open(self.key(), terms, DEPOSIT)
        return terms

    async def claimed_of(self, name: bytes) -> Terms:
        """All is proven, SIGNED tokens are signed and redeemed, and the rest is claimed."""
        host, terms = self.world.host, await self.opened(name)
        await host.commit_proof(self.key(), terms, TREE.tokens, commitment_root(TREE.hash, self.head(terms)))
        await self.prove(terms)
        await host.redeem(self.key(), (self.voucher(terms, SIGNED),))
        await host.claim_proven(self.key(), terms)
        return terms

    async def prove(self, terms: Terms) -> TxResult:
        await self.world.mine_to((await self.world.host.job(job_id(terms))).pending_block + 2)
        proof = await self.proof(terms=terms, head=self.head(terms))
        return await self.world.host.submit_proof(self.key(), terms, proof)


async def _begin(play: Measured) -> None:
    """Allowances, and a job that is over: a ledger that holds nothing yet costs 17,100 gas more, once."""
    renter, host = play.world.renter, play.world.host
    offers = (RegisteredOffer(play.world.model, renter.info.usdc, PRICE),)
    await host.register_host(play.key(), "http://a", NO_KEY, offers)
    await renter.approve(play.key(), renter.info.usdc, MANY)
    first = await play.opened(b"gas: first", ProofPolicy.FALLBACK)
    await host.close_by_host(play.key(), play.voucher(first, TREE.tokens))


async def _disputed(play: Measured) -> None:
    """From the commitment to the ruling for the renter, which also takes the slice of the stake."""
    renter, host, other = play.world.renter, play.world.host, play.world.other
    terms = await play.opened(b"gas: disputed")
    root = commitment_root(TREE.hash, play.head(terms))
    await play.measure(Call.TOP_UP, renter.top_up(play.key(), terms, BaseUnits(5)))
    await play.measure(Call.COMMIT_PROOF, host.commit_proof(play.key(), terms, TREE.tokens, root))
    await play.measure(Call.SUBMIT_PROOF, play.prove(terms))
    await play.measure(Call.REDEEM, host.redeem(play.key(), (play.voucher(terms, SIGNED),)))
    await play.measure(Call.CLAIM_PROVEN, host.claim_proven(play.key(), terms))
    await play.measure(Call.DISPUTE, renter.dispute(play.key(), terms))
    answer = host.answer_dispute(play.key(), terms, play.opening(terms, SIGNED))
    await play.measure(Call.ANSWER_DISPUTE, answer)
    await play.measure(Call.RULE, other.rule(play.key(), terms, False))


async def _other_ends(play: Measured) -> None:
    """A claim that is contradicted, one that nobody disputes; the four ways to close."""
    renter, host, other = play.world.renter, play.world.host, play.world.other
    terms = await play.claimed_of(b"gas: contradicted")
    end = play.claim(SIGNED, terms=terms)
    shown = other.contradict(play.key(), terms, end.amount, end.tokens, play.host_signature(end))
    await play.measure(Call.CONTRADICT, shown)
    terms = await play.claimed_of(b"gas: silent")
    await play.world.advance(terms.challenge)
    await play.measure(Call.SETTLE_CLAIM, other.settle_claim(play.key(), terms))
    terms = await play.opened(b"gas: closed", ProofPolicy.FALLBACK)
    await play.measure(Call.CLOSE_BY_HOST, host.close_by_host(play.key(), play.voucher(terms, TREE.tokens)))
    terms = await play.opened(b"gas: agreed", ProofPolicy.FALLBACK)
    agreed = play.voucher(terms, 100)
    together = renter.close_cooperative(play.key(), agreed, play.host_signature(agreed))
    await play.measure(Call.CLOSE_COOPERATIVE, together)
    terms = await play.opened(b"gas: left")
    await play.measure(Call.REQUEST_CLOSE, renter.request_close(play.key(), terms))
    await play.world.advance(terms.challenge)
    await play.measure(Call.FINALIZE, other.finalize(play.key(), terms))


async def _epochs(play: Measured) -> None:
    """Two sessions in one epoch, the host's second; one voucher redeemed by it."""
    host, gas = play.world.host, play.gas
    await _epoch(play, b"gas: epoch before")
    terms, places, gas[Call.COMMIT_EPOCH], gas[Call.PROVE_EPOCH] = await _epoch(play, b"gas: epoch")
    claim = play.voucher(terms[0], TREE.tokens)
    redeeming = host.redeem_by_epoch(play.key(), (claim,), (TREE.hash,), places[0].root, covering_path(places[:1]))
    await play.measure(Call.REDEEM_BY_EPOCH, redeeming)


async def _epoch(play: Measured, name: bytes) -> tuple[list[Terms], tuple[EpochPlace, ...], int, int]:
    """Committed and proven; the gas of both."""
    host, info = play.world.host, play.world.host.info
    terms = [await play.opened(name + b"%d" % n) for n in range(2)]
    places = place_all([EpochSession(job_id(one), TREE.hash, play.head(one), TREE.tokens) for one in terms])
    committed = await host.commit_epoch(play.key(), places[0].root, places[0].total)
    seed_block = (await host.epoch(HOST.address)).pending_block + 2
    await play.world.mine_to(seed_block)
    block_hash = await host.block_hash(seed_block)
    assert block_hash is not None
    seed = epoch_seed(info.chain_id, info.epochs, HOST.address, places[0].root, block_hash)
    position = challenged_position(seed, places[0].total)
    place = drawn(places, position)
    assert place is not None
    path = open_path(CHECKPOINTS, position - place.before)
    proof = ProofArgs(
        circuit_id=CIRCUIT_ID,
        tree_root=TREE.hash,
        head=place.session.head,
        tokens=TREE.tokens,
        checkpoint_tokens=path.checkpoint.tokens,
        commitment=path.checkpoint.commitment,
        path=siblings_of(path.siblings),
        proof=b"proof",
    )
    proven = await host.prove_epoch(play.key(), terms[place.index], siblings_of(place.siblings), proof)
    return terms, places, committed.gas_used, proven.gas_used


async def _prompts(play: Measured) -> None:
    """An answer, a claim that is given back, an assignment, and the two ways back to the renter."""
    board = PromptPlay(play.world, await play.world.renter.timestamp())
    renter, host, other = board.renter, board.host, cast(PromptChain, play.world.other)
    await renter.approve_board(play.key(), board.terms.token, MANY)

    async def posted(name: str) -> PromptTerms:
        terms = board.another(name)
        await renter.post_prompt(play.key(), terms)
        return terms

    kept, answered, back, late = [await posted(name) for name in ("kept", "answered", "back", "late")]
    assert kept != answered  # one stays, so that the board's balance does not fall to zero
    await play.measure(Call.CLAIM, host.claim_prompt(play.key(), answered, HOST.address))
    await play.measure(Call.COMPLETE, host.complete_prompt(play.key(), answered, TOKENS, *RESULT))
    await play.measure(Call.ASSIGN, renter.assign_prompts(play.key(), ((late, HOST.address),)))
    await host.claim_prompt(play.key(), late, HOST.address)
    await play.measure(Call.RELEASE, host.release_prompt(play.key(), late))
    await play.measure(Call.CANCEL, renter.cancel_prompt(play.key(), back))
    await play.world.advance(3_600)
    await play.measure(Call.REFUND, other.refund_prompt(play.key(), late))


@pytest.mark.real
async def test_each_call_takes_the_gas_that_the_table_names(real_world: World) -> None:
    """Never more, and not less than 70 % of it: whoever plans by the table keeps enough, and not far too much."""
    play = Measured(real_world, await real_world.renter.timestamp())
    for moves in (_begin, _prompts, _epochs, _disputed, _other_ends):  # a slashed host gets no prompts
        await moves(play)
    figures = {right.call: right.gas for right in RIGHTS}
    assert set(play.gas) == set(Call)
    wrong = {
        call.value: (used, figures[call])
        for call, used in play.gas.items()
        if call not in ELSEWHERE and not LEAST * figures[call] <= used <= figures[call]
    }
    assert wrong == {}
