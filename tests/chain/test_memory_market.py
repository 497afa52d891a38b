"""The market in memory: the same moves as on the real contracts, and the failures that a test asks for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import msgspec
import pytest
from tests.chain.support import CIRCUIT_ID, HOST, OPERATOR, OTHER, RENTER, SESSION_KEY, Chain, mine_until, terms_for

from fabstir.chain.devnet import DEV_KEYS, DevnetControl
from fabstir.chain.market import MarketClient
from fabstir.chain.rpc import JsonRpc
from fabstir.domain.errors import ChainFault
from fabstir.domain.ids import ZERO_ADDRESS, Address, Hash32, JobId, ModelId
from fabstir.domain.money import BaseUnits, PricePerMTok, Tokens, cost
from fabstir.domain.terms import JobState, ProofPolicy, Terms
from fabstir.ops.clock import SystemClock
from fabstir.ports.chain import ClaimArgs, MarketChain, ProofArgs, SumNodeArgs
from fabstir.ports.prover import ProofBundle, ProofStatement
from fabstir.protocol.commitments import (
    Checkpoint,
    SumPath,
    challenge_seed,
    challenged_position,
    commitment_root,
    open_path,
    statement_hash,
    tree_root,
)
from fabstir.protocol.signing import Market, SigningKey, job_id, keccak
from fabstir.testing.chain import MemoryChain
from fabstir.testing.clock import ManualClock
from fabstir.testing.journal import MemoryJournal
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


def _memory_world() -> World:
    clock = ManualClock()
    chain = MemoryChain(clock, prover=Believer(), treasury=OPERATOR.address)
    chain.mint(RENTER.address, 1_000_000_000)
    chain.mint(RENTER.address, 10**18, ZERO_ADDRESS)
    chain.approve_model(MODEL)

    async def mine_to(block: int) -> None:
        chain.mine(max(0, block - chain.block))

    renter, host, treasury, other = (chain.connect(key.address) for key in (RENTER, HOST, OPERATOR, OTHER))
    return World(renter, host, treasury, other, MODEL, mine_to, clock.advance)


@pytest.fixture
async def real_world(chain: Chain, rpc: JsonRpc, control: DevnetControl) -> AsyncIterator[World]:
    """The same four accounts on anvil; blocks come only when asked for, as in memory."""
    clients = [
        await MarketClient.connect([chain.url], DEV_KEYS[index], chain.info, MemoryJournal(), SystemClock())
        for index in (1, 2, 0, 3)
    ]
    await control.automine()  # ends the block every second

    async def mine_to(block: int) -> None:
        await mine_until(control, rpc, block)

    renter, host, treasury, other = clients
    yield World(renter, host, treasury, other, chain.model, mine_to, control.advance)
    for client in clients:
        await client.close()


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
        self.events: list[str] = []
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

    async def proof(self, circuit: Hash32 = CIRCUIT_ID, *, other: bool = False) -> ProofArgs:
        """Of the challenged checkpoint, or of the `other` one."""
        seed_block = (await self.world.host.job(job_id(self.terms))).pending_block + 2
        block_hash = await self.world.host.block_hash(seed_block) or Hash32(bytes(32))
        position = challenged_position(challenge_seed(block_hash, job_id(self.terms), ROOT), TREE.tokens)
        challenged_first = position < CHECKPOINTS[0].tokens
        path = open_path(CHECKPOINTS, 0 if challenged_first != other else TREE.tokens - 1)
        return ProofArgs(
            circuit_id=circuit,
            tree_root=TREE.hash,
            head=HEAD,
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
        jobs = [await host.job(job_id(terms)) for terms in (self.terms, self.second)]
        shown = [
            (j.deposit, j.owed, j.signed, j.proven, j.closed, j.closing_at != 0, j.pending_block != 0) for j in jobs
        ]
        owners = (HOST.address, OPERATOR.address, host.info.market)
        balances = [await host.balance(usdc, owner) for owner in owners]
        earnings = [await host.earnings(usdc, owner) for owner in owners]
        return f"{shown} {balances} {earnings} {len(await host.hosts())}"


async def _play(world: World) -> list[str]:
    play = Play(world, await world.renter.timestamp())
    before = await world.renter.balance(world.renter.info.usdc, RENTER.address)
    await _moves_before_proof(play)
    await _moves_with_proof(play)
    await _moves_to_the_end(play)
    play.events.append(str(before - await world.renter.balance(world.renter.info.usdc, RENTER.address)))
    return play.events


async def _moves_before_proof(play: Play) -> None:
    renter, host, other, terms = play.world.renter, play.world.host, play.world.other, play.terms
    usdc = renter.info.usdc
    await play.note("open without approval", renter.open(play.key(), terms, DEPOSIT))
    await play.note("approve", renter.approve(play.key(), usdc, BaseUnits(3 * DEPOSIT)))
    await play.note("open another's", other.open(play.key(), terms, DEPOSIT))
    await play.note("open for nothing", renter.open(play.key(), terms, BaseUnits(0)))
    await play.note("open", renter.open(play.key(), terms, DEPOSIT))
    await play.note("open again", renter.open(play.key(), terms, DEPOSIT))
    await play.note("open second", renter.open(play.key(), play.second, DEPOSIT))
    await play.note("redeem without proof", host.redeem(play.key(), (play.claim(10),)))
    await play.note("redeem second", host.redeem(play.key(), (play.claim(10, terms=play.second),)))
    await play.note("redeem second again", host.redeem(play.key(), (play.claim(10, terms=play.second),)))
    await play.note("redeem another's", other.redeem(play.key(), (play.claim(11, terms=play.second),)))
    await play.note("redeem forged", host.redeem(play.key(), (play.claim(11, terms=play.second, by=OTHER),)))
    await play.note("redeem too much", host.redeem(play.key(), (play.claim(DEPOSIT + 1, terms=play.second),)))
    await play.note("redeem wrong amount", host.redeem(play.key(), (play.claim(11, terms=play.second, extra=1),)))
    both = (play.claim(20, terms=play.second), play.claim(20))
    await play.note("redeem one good, one bad", host.redeem(play.key(), both))


async def _moves_with_proof(play: Play) -> None:
    host, other, terms = play.world.host, play.world.other, play.terms
    await play.note("submit without commitment", host.submit_proof(play.key(), terms, await play.proof()))
    await play.note("commit another's", other.commit_proof(play.key(), terms, TREE.tokens, ROOT))
    await play.note("commit", host.commit_proof(play.key(), terms, TREE.tokens, ROOT))
    await play.note("commit again", host.commit_proof(play.key(), terms, TREE.tokens, ROOT))
    await play.note("submit early", host.submit_proof(play.key(), terms, await play.proof()))
    await play.world.mine_to((await host.job(job_id(terms))).pending_block + 2)
    await play.note("submit another circuit", host.submit_proof(play.key(), terms, await play.proof(HEAD)))
    answer = await play.proof()
    wrong = msgspec.structs.replace(answer, commitment=HEAD)
    await play.note("submit a checkpoint that is not in the tree", host.submit_proof(play.key(), terms, wrong))
    await play.note("submit the other checkpoint", host.submit_proof(play.key(), terms, await play.proof(other=True)))
    await play.note("submit, relayed", other.submit_proof(play.key(), terms, await play.proof()))
    await play.note("commit no more than that", host.commit_proof(play.key(), terms, TREE.tokens, ROOT))
    await play.note("claim tail", host.claim_proven(play.key(), terms))
    await play.note("claim tail again", host.claim_proven(play.key(), terms))
    await play.note("redeem less than claimed", host.redeem(play.key(), (play.claim(30),)))
    await play.note("claim further tail", host.claim_proven(play.key(), terms))
    await play.note("redeem", host.redeem(play.key(), (play.claim(200),)))
    await play.note("redeem beyond proof", host.redeem(play.key(), (play.claim(301),)))


async def _moves_to_the_end(play: Play) -> None:
    renter, host, other, terms = play.world.renter, play.world.host, play.world.other, play.terms
    await play.note("ask to close another's", other.request_close(play.key(), terms))
    await play.note("ask to close", renter.request_close(play.key(), terms))
    await play.note("ask to close again", renter.request_close(play.key(), terms))
    await play.note("finalize early", other.finalize(play.key(), terms))
    await play.note("close another's", other.close_by_host(play.key(), play.claim(250)))
    await play.note("close", host.close_by_host(play.key(), play.claim(250)))
    await play.note("close again", host.close_by_host(play.key(), play.claim(250)))
    agreed = play.claim(50, terms=play.second)
    forged = play.host_signature(agreed, OTHER)
    await play.note("close together, forged", renter.close_cooperative(play.key(), agreed, forged))
    unsigned = play.claim(50, terms=play.second, by=OTHER)
    signature = play.host_signature(agreed)
    await play.note("close together, by a stranger", other.close_cooperative(play.key(), unsigned, signature))
    await play.note("close together", other.close_cooperative(play.key(), agreed, signature))
    await play.note("withdraw to nobody", host.withdraw(play.key(), host.info.usdc, ZERO_ADDRESS))
    await play.note("withdraw", host.withdraw(play.key(), host.info.usdc, HOST.address))
    await play.note("withdraw again", host.withdraw(play.key(), host.info.usdc, HOST.address))
    await play.note("withdraw fees", play.world.treasury.withdraw(play.key(), host.info.usdc, OPERATOR.address))
    models = ((play.world.model, PRICE),)
    await play.note("register unknown model", host.register_host(play.key(), "http://a", ((UNKNOWN, PRICE),)))
    await play.note("register nothing", host.register_host(play.key(), "http://a", ()))
    await play.note("register nowhere", host.register_host(play.key(), "", models))
    await play.note("register twice the same", host.register_host(play.key(), "http://a", models + models))
    await play.note("register", host.register_host(play.key(), "http://a", models))
    await play.note("leave unregistered", other.unregister_host(play.key()))
    await play.note("leave", host.unregister_host(play.key()))


@pytest.mark.real
async def test_the_same_moves_have_the_same_outcome_on_the_real_contracts(real_world: World) -> None:
    """Every move, allowed or refused: the same name of the refusal, the same job, the same money, step by step."""
    in_memory, on_chain = await _play(_memory_world()), await _play(real_world)
    assert in_memory == on_chain
    assert sum(": ok" in event for event in in_memory) > 15
    assert sum("chain_reverted" in event for event in in_memory) > 25


async def test_a_renter_waits_out_the_window_in_the_clocks_time() -> None:
    """finalize follows the chain's time, and refunds to the last unit."""
    world = _memory_world()
    play = Play(world, await world.renter.timestamp())
    before = await world.renter.balance(world.renter.info.usdc, RENTER.address)
    await world.renter.approve("approve", play.terms.token, DEPOSIT)
    await world.renter.open("open", play.terms, DEPOSIT)
    await world.renter.request_close("ask", play.terms)
    with pytest.raises(ChainFault, match="TooEarly"):
        await world.other.finalize("early", play.terms)
    await world.advance(play.terms.challenge)
    await world.other.finalize("finalize", play.terms)
    assert await world.renter.balance(world.renter.info.usdc, RENTER.address) == before


async def test_coins_are_paid_without_approval() -> None:
    """And who has none is told so, as the outbox tells it."""
    world = _memory_world()
    now = await world.renter.timestamp()
    terms = terms_for(Chain("", world.renter.info, MODEL), now, token=ZERO_ADDRESS)
    await world.renter.open("open", terms, DEPOSIT)
    assert (await world.host.job(job_id(terms))).deposit == DEPOSIT
    poor = terms_for(Chain("", world.renter.info, MODEL), now, token=ZERO_ADDRESS, renter=OTHER.address)
    with pytest.raises(ChainFault, match="funds_insufficient"):
        await world.other.open("open", poor, DEPOSIT)


def _small() -> tuple[MemoryChain, MarketChain]:
    chain = MemoryChain()
    chain.approve_model(MODEL)
    return chain, chain.connect(HOST.address)


MODELS = ((MODEL, PRICE),)


async def test_a_key_is_one_transaction_also_after_a_restart() -> None:
    """Asked again, by the same account connected anew: the first result, no second block."""
    chain, host = _small()
    first = await host.register_host("register", "http://a", MODELS)
    again = await chain.connect(HOST.address).register_host("register", "http://elsewhere", MODELS)
    assert again == first
    assert chain.block == first.block
    assert [entry.url for entry in await host.hosts()] == ["http://a"]
    other = await chain.connect(OTHER.address).register_host("register", "http://b", MODELS)
    assert other != first


async def test_a_dropped_answer_was_mined_all_the_same() -> None:
    """`transaction_lost`; the effect is there, and asking again gives the result."""
    chain, host = _small()
    chain.lost_answers = 1
    with pytest.raises(ChainFault, match="transaction_lost"):
        await host.register_host("register", "http://a", MODELS)
    assert len(await host.hosts()) == 1
    assert (await host.register_host("register", "http://a", MODELS)).block == chain.block


async def test_an_unreachable_chain_answers_nothing() -> None:
    """Reads and writes, until it comes back."""
    chain, host = _small()
    chain.unreachable = True
    for ask in (
        host.hosts(),
        host.block_number(),
        host.job(JobId(bytes(32))),
        host.register_host("r", "http://a", MODELS),
    ):
        with pytest.raises(ChainFault, match="chain_unreachable"):
            await ask
    chain.unreachable = False
    assert await host.job(JobId(bytes(32))) == JobState()


async def test_held_blocks_let_two_transactions_collide() -> None:
    """Both pass the estimate, one fails in its block, and stays failed under its key."""
    chain, host = _small()
    chain.hold_blocks()
    await _waiting(chain, host.register_host("register", "http://a", MODELS), 1)
    chain.mine()
    first = asyncio.create_task(host.unregister_host("leave"))
    second = asyncio.create_task(host.unregister_host("leave too"))
    await asyncio.sleep(0)
    chain.mine()
    await first
    with pytest.raises(ChainFault, match="NotRegistered"):
        await second
    await _waiting(chain, host.register_host("again", "http://a", MODELS), 1)
    chain.automine()
    assert len(await host.hosts()) == 1
    with pytest.raises(ChainFault, match="NotRegistered"):
        await host.unregister_host("leave too")


async def _waiting(chain: MemoryChain, move: Awaitable[object], expected: int) -> None:
    task = asyncio.ensure_future(move)
    await asyncio.sleep(0)
    assert f"waiting={expected}" in repr(chain)
    task.add_done_callback(lambda done: done.exception())


async def test_a_caller_that_leaves_does_not_take_its_transaction_along() -> None:
    """Cancelled while it waits for its block; the block has it."""
    chain, host = _small()
    chain.hold_blocks()
    task = asyncio.create_task(host.register_host("register", "http://a", MODELS))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    chain.mine()
    assert len(await host.hosts()) == 1


async def test_a_real_proof_is_asked_for() -> None:
    """With a prover behind the circuit, a made-up proof is refused and the right one is not; the supply never changes."""
    prover = HashProver()
    await prover.start()
    clock = ManualClock()
    chain = MemoryChain(clock, prover=prover)
    chain.mint(RENTER.address, 5_000)
    renter, host = chain.connect(RENTER.address), chain.connect(HOST.address)
    terms = terms_for(Chain("", chain.info, MODEL), chain.now(), token=chain.info.usdc)
    await renter.approve("approve", chain.info.usdc, DEPOSIT)
    await renter.open("open", terms, DEPOSIT)
    records = tuple(keccak(bytes([n])) for n in range(100))
    checkpoint = Checkpoint((await prover.commit(records)).digest, Tokens(100))
    tree = tree_root((checkpoint,))
    committed = await host.commit_proof("commit", terms, Tokens(100), commitment_root(tree.hash, HEAD))
    chain.mine(2)
    proof = ProofArgs(
        circuit_id=prover.circuit_id,
        tree_root=tree.hash,
        head=HEAD,
        tokens=Tokens(100),
        checkpoint_tokens=Tokens(100),
        commitment=checkpoint.commitment,
        path=(),
        proof=b"made up",
    )
    with pytest.raises(ChainFault, match="ProofInvalid"):
        await host.submit_proof("lie", terms, proof)
    block_hash = await host.block_hash(committed.block + 2)
    assert block_hash is not None
    bundle = await prover.prove(_statement(chain, terms, proof, block_hash), records)
    await host.submit_proof("prove", terms, msgspec.structs.replace(proof, proof=bundle.proof))
    assert (await host.job(job_id(terms))).proven == 100
    assert chain.supply() == 5_000


def _statement(chain: MemoryChain, terms: Terms, proof: ProofArgs, block_hash: Hash32) -> ProofStatement:
    job, root = job_id(terms), commitment_root(proof.tree_root, proof.head)
    path = SumPath(0, Checkpoint(proof.commitment, proof.checkpoint_tokens), Tokens(0), ())
    market = Market(chain.info.chain_id, chain.info.market)
    statement = statement_hash(market, terms, job, root, proof.tokens, path, proof.circuit_id)
    return ProofStatement(statement, challenge_seed(block_hash, job, root), proof.commitment)


async def test_a_deposit_is_relayed_with_the_renters_signature_only() -> None:
    """EIP-3009: the right signature opens, another one does not, and neither after its time."""
    chain = MemoryChain()
    chain.mint(RENTER.address, 5_000)
    host = chain.connect(HOST.address)
    terms = terms_for(Chain("", chain.info, MODEL), chain.now(), token=chain.info.usdc)
    digest = host._authorization_digest(terms, DEPOSIT, terms.expires_at)
    with pytest.raises(ChainFault, match="SignatureInvalid"):
        await host.open_with_authorization("forged", terms, DEPOSIT, terms.expires_at, OTHER.sign(digest))
    with pytest.raises(ChainFault, match="AuthorizationExpired"):
        await host.open_with_authorization("late", terms, DEPOSIT, chain.now(), RENTER.sign(digest))
    await host.open_with_authorization("open", terms, DEPOSIT, terms.expires_at, RENTER.sign(digest))
    assert await host.balance(chain.info.usdc, RENTER.address) == 4_000
    assert await host.balance(chain.info.usdc, chain.info.market) == DEPOSIT
    assert await host.balance(chain.info.usdc, Address(bytes(20))) == 0
