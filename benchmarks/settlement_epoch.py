"""Steps of `settlement_gas` with epochs: a hundred sessions under the policy `required`, one real proof for all, one redemption.

Each session has one checkpoint of 256 records of its own; the sessions are opened before, so that their gas is counted elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from settlement_sides import HOST, SIGNER, TOKENS, Chain, Measurement, Ours

from fabstir.chain.bindings import EpochClaim, EpochProofs, JobMarketplace, Proof, Shared, SumNode
from fabstir.chain.bindings import Terms as AbiTerms
from fabstir.chain.devnet import CHAIN_ID
from fabstir.chain.rpc import quantity
from fabstir.domain.ids import ZERO_ADDRESS, Address, Hash32
from fabstir.domain.money import Tokens, cost
from fabstir.domain.terms import ProofPolicy, Terms
from fabstir.ports.prover import ProofStatement
from fabstir.proofs.process import EzklProver
from fabstir.protocol import commitments
from fabstir.protocol.commitments import Checkpoint, challenged_position, open_path
from fabstir.protocol.epochs import (
    EpochPlace,
    EpochSession,
    covering_path,
    drawn,
    epoch_seed,
    epoch_statement,
    place_all,
)
from fabstir.protocol.settlement import SEED_DELAY
from fabstir.protocol.signing import Market, compact, keccak

SESSIONS: Final = 100
DISTINCT: Final = 4
"""Checkpoints that are really committed; sessions share them, which changes no gas."""


class Epoch:
    """One epoch over new jobs."""

    def __init__(self, run: Measurement, prover: EzklProver) -> None:
        self.run = run
        self.prover = prover
        self.market = Market(CHAIN_ID, run.side.address)
        self.epochs = run.chain.info.epochs

    async def serve(self, token: Address, kind: str) -> None:
        """Open the jobs, commit to what was served."""
        self.records = [tuple(keccak(b"record%d-%d" % (k, n)) for n in range(TOKENS)) for k in range(DISTINCT)]
        digests = [(await self.prover.commit(records)).digest for records in self.records]
        self.abi = [AbiTerms(*await self.run.opened(token, kind)) for _ in range(SESSIONS)]
        self.checkpoints = [(Checkpoint(digests[n % DISTINCT], Tokens(TOKENS)),) for n in range(SESSIONS)]
        sessions = []
        for n, (terms, checkpoints) in enumerate(zip(self.abi, self.checkpoints, strict=True)):
            tree = commitments.tree_root(checkpoints)
            sessions.append(EpochSession(self.run.job(terms), tree.hash, keccak(b"head%d" % n), tree.tokens))
        self.places = place_all(sessions)

    async def prove(self) -> None:
        """Commit, wait for the challenge, answer it with a real proof."""
        run, root, total = self.run, self.places[0].root, self.places[0].total
        commit = EpochProofs.encode_commit_epoch(root, total)
        made_at = quantity((await run.note("epoch_commit", HOST, commit, to=self.epochs))["blockNumber"])
        await run.chain.control.mine(SEED_DELAY + 1)
        block_hash = Hash32(bytes.fromhex((await run.chain.block(hex(made_at + SEED_DELAY)))["hash"][2:]))
        seed = epoch_seed(CHAIN_ID, self.epochs, HOST.address, root, block_hash)
        place = drawn(self.places, challenged_position(seed, total))
        if place is None:
            raise SystemExit("the challenge falls to no session")
        data = await self.answer(place, seed)
        await run.note("epoch_prove", HOST, data, to=self.epochs)

    async def answer(self, place: EpochPlace, seed: Hash32) -> bytes:
        """The call that opens the drawn session."""
        abi, session = self.abi[place.index], place.session
        named: dict[str, Any] = dict(zip(Terms.__struct_fields__, abi, strict=True))
        path = open_path(self.checkpoints[place.index], challenged_position(seed, place.total) - place.before)
        circuit, opened = self.prover.circuit_id, path.checkpoint
        statement = epoch_statement(CHAIN_ID, self.epochs, Terms(**named), place, path, circuit)
        records = self.records[place.index % DISTINCT]
        bundle = await self.prover.prove(ProofStatement(statement, seed, opened.commitment), records)
        proof = Proof(
            circuit, session.tree_root, session.head, session.tokens, opened.tokens, opened.commitment, [], bundle.proof
        )
        return EpochProofs.encode_prove_epoch(abi, [SumNode(s.hash, s.tokens, s.left) for s in place.siblings], proof)

    def claim(self, place: EpochPlace) -> EpochClaim:
        """The renter's voucher over exactly what the epoch holds."""
        session, abi = place.session, self.abi[place.index]
        amount = cost(session.tokens, abi.price_per_m_tok)  # type: ignore[arg-type]
        digest = self.market.voucher_digest(session.job, amount, session.tokens, session.head)
        return EpochClaim(
            abi.renter, abi.signer, abi.arbiter, abi.price_per_m_tok, abi.bond, abi.expires_at, abi.challenge, abi.exposure,
            abi.salt, session.tokens, session.tree_root, session.head, *compact(SIGNER.sign(digest)),
        )  # fmt: skip

    def redemption(self, places: Sequence[EpochPlace]) -> bytes:
        """The call that redeems these."""
        abi, claims = self.abi[0], [self.claim(place) for place in places]
        shared = Shared(abi.token, abi.policy, abi.model_id)
        return JobMarketplace.encode_redeem_by_epoch(shared, claims, places[0].root, covering_path(places))

    async def redeem(self, kind: str, places: tuple[EpochPlace, ...]) -> None:
        """In one transaction."""
        await self.run.note(f"redeem_by_epoch_{len(places)}_{kind}", HOST, self.redemption(places), share=len(places))


async def epochs(chain: Chain, prover: EzklProver) -> Measurement:
    """In both currencies: all hundred at once; of a second epoch the first 25, each tenth, and one."""
    run = Measurement(chain, Ours(chain.info.market, ProofPolicy.REQUIRED))
    currencies = ((ZERO_ADDRESS, "eth"), (chain.info.usdc, "usdc"))
    for token, kind in currencies:
        epoch = Epoch(run, prover)
        await epoch.serve(token, kind)
        await epoch.prove()
        await epoch.redeem(kind, epoch.places)
        await epoch.serve(token, kind)
        await epoch.prove()
        for places in (epoch.places[:25], epoch.places[30:100:7], epoch.places[25:26]):
            await epoch.redeem(kind, places)
    return run
