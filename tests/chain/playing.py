"""The same market twice, in memory and on anvil: four accounts, and moves that write down what came of each."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec
from tests.chain.support import CIRCUIT_ID, HOST, OPERATOR, OTHER, RENTER, SESSION_KEY, Chain, terms_for

from fabstir.domain.errors import ChainFault
from fabstir.domain.ids import ZERO_ADDRESS, Hash32, ModelId
from fabstir.domain.money import BaseUnits, PricePerMTok, Tokens, cost
from fabstir.domain.terms import ProofPolicy, Terms
from fabstir.ports.chain import ClaimArgs, MarketChain, ProofArgs, SumNodeArgs
from fabstir.ports.prover import ProofBundle, ProofStatement
from fabstir.protocol.commitments import (
    Checkpoint,
    challenge_seed,
    challenged_position,
    commitment_root,
    open_path,
    tree_root,
)
from fabstir.protocol.signing import Market, SigningKey, job_id, keccak
from fabstir.testing.chain import MemoryChain
from fabstir.testing.clock import ManualClock
from fabstir.testing.prover import HashProver

MODEL = ModelId(bytes([5]) * 32)
UNKNOWN = ModelId(bytes([6]) * 32)
DEPOSIT = BaseUnits(1_000)
PRICE = PricePerMTok(1_000_000)
HEAD = keccak(b"head")
CHECKPOINTS = (Checkpoint(keccak(b"a"), Tokens(256)), Checkpoint(keccak(b"b"), Tokens(44)))
TREE = tree_root(CHECKPOINTS)
ROOT = commitment_root(TREE.hash, HEAD)


class Believer(HashProver):
    """As the verifier that the devnet of these tests registers: every proof holds."""

    @property
    def circuit_id(self) -> Hash32:
        return CIRCUIT_ID

    async def verify(self, statement: ProofStatement, bundle: ProofBundle) -> bool:
        return True


class World(msgspec.Struct, frozen=True):
    """Four accounts on one chain, and how its time passes."""

    renter: MarketChain
    host: MarketChain
    treasury: MarketChain
    other: MarketChain
    model: ModelId
    mine_to: Callable[[int], Awaitable[None]]
    advance: Callable[[int], Awaitable[None]]


def memory_world() -> World:
    clock = ManualClock()
    chain = MemoryChain(clock, prover=Believer(), treasury=OPERATOR.address)
    chain.mint(RENTER.address, 1_000_000_000)
    chain.mint(RENTER.address, 10**18, ZERO_ADDRESS)
    chain.approve_model(MODEL)
    for owner in (HOST, OTHER):
        chain.give_stake(owner.address)

    async def mine_to(block: int) -> None:
        chain.mine(max(0, block - chain.block))

    renter, host, treasury, other = (chain.connect(key.address) for key in (RENTER, HOST, OPERATOR, OTHER))
    return World(renter, host, treasury, other, MODEL, mine_to, clock.advance)


class Play:
    """Makes moves and writes down what came of each: the refusal's name or `ok`, the job, and everybody's money."""

    def __init__(self, world: World, now: int) -> None:
        self.world = world
        info = world.renter.info
        changes = {"token": info.usdc, "model_id": world.model, "price": PRICE, "salt": keccak(b"one")}
        blank = Chain("", info, world.model)
        self.terms = terms_for(blank, now, **changes)
        self.second = terms_for(blank, now, **(changes | {"salt": keccak(b"two"), "policy": ProofPolicy.FALLBACK}))
        self.market = Market(info.chain_id, info.market)
        self.shown = [self.terms, self.second]
        self.events: list[str] = []
        self.had = 1_000_000_000
        """What the renter was given at the start, in USDC."""
        self._keys = 0

    def key(self) -> str:
        self._keys += 1
        return f"move {self._keys}"

    def claim(
        self, tokens: int, *, terms: Terms | None = None, by: SigningKey | None = SESSION_KEY, extra: int = 0
    ) -> ClaimArgs:
        terms = terms or self.terms
        amount = BaseUnits(cost(Tokens(tokens), terms.price) + extra)
        digest = self.market.voucher_digest(job_id(terms), amount, Tokens(tokens), HEAD)
        signature = by.sign(digest) if by else b""
        return ClaimArgs(terms=terms, amount=amount, tokens=Tokens(tokens), transcript=HEAD, signature=signature)

    def host_signature(self, claim: ClaimArgs, by: SigningKey = HOST) -> bytes:
        return by.sign(self.market.close_digest(job_id(claim.terms), claim.amount, claim.tokens))

    async def proof(
        self, circuit: Hash32 = CIRCUIT_ID, *, other: bool = False, terms: Terms | None = None, head: Hash32 = HEAD
    ) -> ProofArgs:
        """Of the challenged checkpoint, or of the `other` one."""
        job, root = job_id(terms or self.terms), commitment_root(TREE.hash, head)
        seed_block = (await self.world.host.job(job)).pending_block + 2
        block_hash = await self.world.host.block_hash(seed_block) or Hash32(bytes(32))
        position = challenged_position(challenge_seed(block_hash, job, root), TREE.tokens)
        challenged_first = position < CHECKPOINTS[0].tokens
        path = open_path(CHECKPOINTS, 0 if challenged_first != other else TREE.tokens - 1)
        return ProofArgs(
            circuit_id=circuit,
            tree_root=TREE.hash,
            head=head,
            tokens=TREE.tokens,
            checkpoint_tokens=path.checkpoint.tokens,
            commitment=path.checkpoint.commitment,
            path=tuple(SumNodeArgs(node.hash, node.tokens, node.left) for node in path.siblings),
            proof=b"proof",
        )

    async def note(self, name: str, move: Awaitable[object]) -> None:
        try:
            await move
            outcome = "ok"
        except ChainFault as fault:
            outcome = f"{fault.code} {fault.detail.partition('(')[0]}"
        self.events.append(f"{name}: {outcome} | {await self._money()}")

    async def _money(self) -> str:
        host, usdc = self.world.host, self.world.host.info.usdc
        jobs = [await host.job(job_id(terms)) for terms in self.shown]
        shown = [
            (
                *(j.deposit, j.owed, j.signed, j.proven, j.closed, j.closing_at != 0, j.pending_block != 0),
                *(j.held, j.held_tokens, j.held_until != 0, int(j.stage)),
            )
            for j in jobs
        ]
        owners = (HOST.address, OPERATOR.address, OTHER.address, host.info.market, host.info.stakes)
        balances = [await host.balance(usdc, owner) for owner in owners]
        earnings = [await host.earnings(usdc, owner) for owner in owners]
        paid = self.had - await host.balance(usdc, RENTER.address)
        stake = await host.stake(HOST.address)
        stakes = (stake.staked, stake.unstaking, stake.available_at != 0, stake.locked_until != 0)
        return f"{shown} {paid} {balances} {earnings} {stakes} {len(await host.hosts())}"
