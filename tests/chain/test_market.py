"""MarketClient against the real contracts: every write once, every read, and the money of a whole job to the last unit."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from msgspec.structs import replace
from tests.chain.support import (
    CIRCUIT_ID,
    HOST,
    OPERATOR,
    OTHER,
    RENTER,
    SESSION_KEY,
    Chain,
    mine_until,
    offers_of,
    set_up,
    terms_for,
)

from fabstir.chain import bindings
from fabstir.chain.deploy import MINIMUM_STAKE
from fabstir.chain.devnet import DEV_KEYS, Devnet, DevnetControl
from fabstir.chain.market import MarketClient
from fabstir.chain.rpc import JsonRpc
from fabstir.domain.errors import ChainFault
from fabstir.domain.ids import ZERO_ADDRESS, ZERO_HASH, Address, Hash32, JobId, to_hex
from fabstir.domain.money import BaseUnits, PricePerMTok, Tokens, cost
from fabstir.domain.terms import ClaimStage, JobState, ProofPolicy, Terms
from fabstir.ops.clock import SystemClock
from fabstir.ports.chain import (
    NO_KEY,
    ClaimArgs,
    HostEntry,
    MarketChain,
    ProofArgs,
    RegisteredOffer,
    StakeState,
    SumNodeArgs,
)
from fabstir.protocol.authorization import authorization_digest, top_up_nonce
from fabstir.protocol.commitments import (
    Checkpoint,
    challenge_seed,
    challenged_position,
    commitment_root,
    open_path,
    tree_root,
)
from fabstir.protocol.signing import Market, SigningKey, job_id, keccak
from fabstir.testing.chain import SLASH
from fabstir.testing.journal import MemoryJournal

pytestmark = pytest.mark.real

Connect = Callable[[int], Awaitable[MarketClient]]
DEPOSIT = BaseUnits(10_000)
HEAD = keccak(b"head")
KEY = Hash32(b"\x5e" * 32)


@pytest.fixture
async def connect(chain: Chain, clock: SystemClock) -> AsyncIterator[Connect]:
    """Clients by the number of their development key, each with a store of its own."""
    opened: list[MarketClient] = []

    async def open_client(index: int) -> MarketClient:
        client = await MarketClient.connect([chain.url], DEV_KEYS[index], chain.info, MemoryJournal(), clock)
        opened.append(client)
        return client

    yield open_client
    for client in opened:
        await client.close()


def _implements(client: MarketClient) -> MarketChain:
    """Checked by mypy."""
    return client


def _claim(chain: Chain, terms: Terms, tokens: int, key: SigningKey | None = SESSION_KEY) -> ClaimArgs:
    amount, transcript = cost(Tokens(tokens), terms.price), keccak(b"transcript")
    digest = Market(chain.info.chain_id, chain.info.market).voucher_digest(
        job_id(terms), amount, Tokens(tokens), transcript
    )
    signature = key.sign(digest) if key else b""
    return ClaimArgs(terms=terms, amount=amount, tokens=Tokens(tokens), transcript=transcript, signature=signature)


async def _open(client: MarketClient, terms: Terms) -> None:
    await client.approve(f"approve:{terms.salt.hex()}", terms.token, DEPOSIT)
    await client.open(f"open:{terms.salt.hex()}", terms, DEPOSIT)


async def _prove(
    host: MarketClient, control: DevnetControl, rpc: JsonRpc, terms: Terms, sizes: tuple[int, ...]
) -> None:
    """Commit, wait for the challenge, answer it."""
    checkpoints = tuple(Checkpoint(keccak(bytes([n])), Tokens(size)) for n, size in enumerate(sizes))
    tree = tree_root(checkpoints)
    root = commitment_root(tree.hash, HEAD)
    committed = await host.commit_proof(f"commit:{terms.salt.hex()}", terms, tree.tokens, root)
    seed_block = (await host.job(job_id(terms))).pending_block + 2
    assert seed_block == committed.block + 2
    await mine_until(control, rpc, seed_block)
    block_hash = await host.block_hash(seed_block)
    assert block_hash is not None
    seed = challenge_seed(block_hash, job_id(terms), root)
    path = open_path(checkpoints, challenged_position(seed, tree.tokens))
    proof = ProofArgs(
        circuit_id=CIRCUIT_ID,
        tree_root=tree.hash,
        head=HEAD,
        tokens=tree.tokens,
        checkpoint_tokens=path.checkpoint.tokens,
        commitment=path.checkpoint.commitment,
        path=tuple(SumNodeArgs(node.hash, node.tokens, node.left) for node in path.siblings),
        proof=b"anything",
    )
    await host.submit_proof(f"prove:{terms.salt.hex()}", terms, proof)


async def test_a_job_from_deposit_to_withdrawal(
    chain: Chain, connect: Connect, control: DevnetControl, rpc: JsonRpc
) -> None:
    """Open, commit, prove, redeem, close, withdraw: host, treasury and renter end with exactly what the formula says."""
    renter, host, treasury = await connect(1), await connect(2), await connect(0)
    before = await renter.balance(chain.info.usdc, RENTER.address)
    terms = terms_for(chain, await renter.timestamp())
    await _open(renter, terms)
    assert await host.job(job_id(terms)) == JobState(deposit=DEPOSIT)

    await _prove(host, control, rpc, terms, (256, 256, 88))
    assert (await host.job(job_id(terms))).proven == 600
    await host.redeem("redeem", (_claim(chain, terms, 500),))
    assert (await host.job(job_id(terms))) == JobState(
        deposit=DEPOSIT, owed=BaseUnits(100), signed=Tokens(500), proven=Tokens(600)
    )
    await host.close_by_host("close", _claim(chain, terms, 600))
    closed = await host.job(job_id(terms))
    assert (closed.closed, closed.owed, closed.is_open) == (True, 120, False)

    assert await renter.balance(chain.info.usdc, RENTER.address) == before - 120
    assert await host.earnings(chain.info.usdc, HOST.address) == 114
    assert await host.earnings(chain.info.usdc, OPERATOR.address) == 6
    await host.withdraw("withdraw", chain.info.usdc, HOST.address)
    await treasury.withdraw("withdraw", chain.info.usdc, OTHER.address)
    assert await host.balance(chain.info.usdc, HOST.address) == 114
    assert await host.balance(chain.info.usdc, OTHER.address) == 6
    assert await host.balance(chain.info.usdc, chain.info.market) == 0


async def test_a_host_is_paid_for_proven_tokens_that_nobody_signed(
    chain: Chain, connect: Connect, control: DevnetControl, rpc: JsonRpc
) -> None:
    """claim_proven holds up to W beyond the best voucher, once; undisputed they are paid after the window, by anybody's call."""
    renter, host, other = await connect(1), await connect(2), await connect(3)
    terms = terms_for(chain, await renter.timestamp())
    await _open(renter, terms)
    await _prove(host, control, rpc, terms, (256,))
    await host.claim_proven("tail", terms)
    claimed, amount = await host.job(job_id(terms)), cost(Tokens(64), terms.price)
    assert (claimed.owed, claimed.held, claimed.held_tokens, claimed.stage) == (amount, amount, 64, ClaimStage.CLAIMED)
    assert claimed.held_until == pytest.approx(await renter.timestamp() + terms.challenge, abs=30)
    assert (await host.stake(HOST.address)).locked_until == claimed.held_until + 3 * terms.challenge
    assert await host.earnings(chain.info.usdc, HOST.address) == 0
    with pytest.raises(ChainFault, match="ClaimPending"):
        await host.claim_proven("tail again", terms)
    with pytest.raises(ChainFault, match="StageRuns"):
        await other.settle_claim("early", terms)
    await control.advance(terms.challenge)
    await other.settle_claim("settle", terms)
    assert await host.earnings(chain.info.usdc, HOST.address) == amount
    assert (await host.job(job_id(terms))).held == 0


async def test_a_renter_leaves_with_and_without_the_host(
    chain: Chain, connect: Connect, control: DevnetControl
) -> None:
    """With the host's signature at once; without it after the challenge window, and then anybody may finalize."""
    renter, other = await connect(1), await connect(3)
    now = await renter.timestamp()
    market = Market(chain.info.chain_id, chain.info.market)
    agreed = terms_for(chain, now, policy=ProofPolicy.FALLBACK)
    await _open(renter, agreed)
    claim = _claim(chain, agreed, 100)
    host_signature = HOST.sign(market.close_digest(job_id(agreed), claim.amount, claim.tokens))
    await renter.close_cooperative("close", claim, host_signature)
    assert (await renter.job(job_id(agreed))).closed

    alone = terms_for(chain, now)
    await _open(renter, alone)
    await renter.request_close("leave", alone)
    asked = await renter.job(job_id(alone))
    assert asked.closing_at == pytest.approx(await renter.timestamp() + alone.challenge, abs=30)
    with pytest.raises(ChainFault, match="TooEarly"):
        await other.finalize("too early", alone)
    await control.advance(alone.challenge + 1)
    await other.finalize("finalize", alone)
    assert (await renter.job(job_id(alone))).closed


async def test_a_deposit_in_coins_needs_no_approval(chain: Chain, connect: Connect) -> None:
    """The native coin goes along with the call and comes back from the close."""
    renter, host = await connect(1), await connect(2)
    terms = terms_for(chain, await renter.timestamp(), token=ZERO_ADDRESS)
    await renter.open("open", terms, DEPOSIT)
    assert await renter.balance(ZERO_ADDRESS, chain.info.market) == DEPOSIT
    await host.close_by_host("close", _claim(chain, terms, 0, key=None))
    assert await renter.balance(ZERO_ADDRESS, chain.info.market) == 0


async def test_a_host_relays_a_signed_deposit(chain: Chain, connect: Connect, rpc: JsonRpc) -> None:
    """EIP-3009 with the job id as nonce: the renter signs, the host pays the gas."""
    host = await connect(2)
    terms = terms_for(chain, await host.timestamp())
    valid_before = terms.expires_at
    signature = RENTER.sign(await _authorization_digest(rpc, chain, DEPOSIT, valid_before, job_id(terms)))
    await host.open_with_authorization("open", terms, DEPOSIT, valid_before, signature)
    assert (await host.job(job_id(terms))).deposit == DEPOSIT


async def _authorization_digest(rpc: JsonRpc, chain: Chain, amount: int, valid_before: int, nonce: bytes) -> Hash32:
    """As the token itself states its domain and its type."""
    usdc = bindings.TestUSDC

    async def read(data: bytes) -> bytes:
        answer = await rpc.request(
            "eth_call", {"to": "0x" + chain.info.usdc.hex(), "data": "0x" + data.hex()}, "latest"
        )
        return bytes.fromhex(answer[2:])

    separator = usdc.decode_domain_separator(await read(usdc.encode_domain_separator()))
    kind = usdc.decode_receive_with_authorization_typehash(
        await read(usdc.encode_receive_with_authorization_typehash())
    )
    words = (int.from_bytes(a, "big") for a in (RENTER.address, chain.info.market))
    numbers = (*words, amount, 0, valid_before)
    struct = kind + b"".join(n.to_bytes(32, "big") for n in numbers) + nonce
    digest = keccak(b"\x19\x01" + separator + keccak(struct))
    ours = authorization_digest(
        chain.info.chain_id, chain.info.usdc, RENTER.address, chain.info.market,
        BaseUnits(amount), valid_before, Hash32(nonce),
    )  # fmt: skip
    assert digest == ours
    return digest


async def test_a_deposit_is_topped_up(chain: Chain, connect: Connect, rpc: JsonRpc) -> None:
    """By the renter, or by anybody with its signature for this job at this deposit, which fits once."""
    renter, host = await connect(1), await connect(2)
    terms = terms_for(chain, await renter.timestamp())
    await _open(renter, terms)
    await renter.approve("approve more", chain.info.usdc, BaseUnits(500))
    await renter.top_up("more", terms, BaseUnits(500))
    assert (await host.job(job_id(terms))).deposit == DEPOSIT + 500
    nonce = top_up_nonce(job_id(terms), BaseUnits(DEPOSIT + 500))
    market = bindings.JobMarketplace
    call = {"to": to_hex(chain.info.market), "data": to_hex(market.encode_top_up_nonce(job_id(terms)))}
    assert market.decode_top_up_nonce(bytes.fromhex((await rpc.request("eth_call", call, "latest"))[2:])) == nonce
    signature = RENTER.sign(await _authorization_digest(rpc, chain, 70, terms.expires_at, nonce))
    await host.top_up_with_authorization("signed", terms, BaseUnits(70), terms.expires_at, signature)
    assert (await host.job(job_id(terms))).deposit == DEPOSIT + 570
    with pytest.raises(ChainFault, match="chain_reverted"):
        await host.top_up_with_authorization("signed again", terms, BaseUnits(70), terms.expires_at, signature)
    coins = terms_for(chain, await renter.timestamp(), token=ZERO_ADDRESS)
    await renter.open("open in coins", coins, DEPOSIT)
    await renter.top_up("more coins", coins, BaseUnits(5))
    assert await renter.balance(ZERO_ADDRESS, chain.info.market) == DEPOSIT + 5


async def test_hosts_appear_and_disappear(chain: Chain, connect: Connect) -> None:
    """Registered hosts with URL, key and a price for each model and currency; changed by registering again; gone after leaving."""
    host, other = await connect(2), await connect(3)
    offers, both = offers_of(chain), (*offers_of(chain), RegisteredOffer(chain.model, ZERO_ADDRESS, PricePerMTok(9)))
    await host.register_host("register", "http://127.0.0.1:1", KEY, both)
    await other.register_host("register", "http://127.0.0.1:2", NO_KEY, offers)
    entry = HostEntry(address=HOST.address, url="http://127.0.0.1:1", encryption_key=KEY, offers=both, active=True)
    found = {found.address: found for found in await host.hosts()}[HOST.address]
    assert found == entry
    assert (found.price_of(chain.model, ZERO_ADDRESS), found.price_of(chain.model, chain.info.usdc)) == (9, 7)
    assert {found.address for found in await host.hosts(chain.model)} == {HOST.address, OTHER.address}
    await host.register_host("move", "http://127.0.0.1:3", NO_KEY, offers)
    assert {found.url for found in await host.hosts()} == {"http://127.0.0.1:3", "http://127.0.0.1:2"}
    await host.unregister_host("leave")
    assert {found.address for found in await other.hosts(chain.model)} == {OTHER.address}
    assert await host.model_approved(chain.model)
    assert not await host.model_approved(type(chain.model)(bytes(32)))


async def test_without_its_stake_a_host_is_not_active(chain: Chain, connect: Connect, control: DevnetControl) -> None:
    """Asked back, the stake does not count at once and leaves after the delay; staked again, the host is listed again."""
    host, renter = await connect(2), await connect(1)
    rules = await host.stake_rules()
    assert (rules.token, rules.minimum, rules.slash) == (chain.info.usdc, MINIMUM_STAKE, SLASH)
    assert await host.stake(HOST.address) == StakeState(staked=MINIMUM_STAKE)
    await host.register_host("register", "http://127.0.0.1:1", NO_KEY, offers_of(chain))
    await host.request_unstake("ask", MINIMUM_STAKE)
    asked = await host.stake(HOST.address)
    assert asked.unstaking == MINIMUM_STAKE and asked.available_at > await host.timestamp() + 86_400
    assert await renter.hosts(chain.model) == []
    with pytest.raises(ChainFault, match="TooEarly"):
        await host.withdraw_stake("early", HOST.address)
    await control.advance(asked.available_at - await host.timestamp())
    await host.withdraw_stake("take", HOST.address)
    assert await host.balance(chain.info.usdc, HOST.address) == MINIMUM_STAKE
    with pytest.raises(ChainFault, match="StakeTooLow"):
        await host.register_host("poor", "http://127.0.0.1:4", NO_KEY, offers_of(chain))
    await host.approve_stake("allow", MINIMUM_STAKE)
    await host.add_stake("stake", MINIMUM_STAKE)
    assert [entry.url for entry in await renter.hosts(chain.model)] == ["http://127.0.0.1:1"]


async def test_the_contracts_own_error_names_the_refusal(chain: Chain, connect: Connect) -> None:
    """A voucher without the proof that the terms require is refused before anything is sent, with the contract's word for it."""
    renter, host = await connect(1), await connect(2)
    terms = terms_for(chain, await renter.timestamp())
    await _open(renter, terms)
    with pytest.raises(ChainFault) as refused:
        await host.redeem("early", (_claim(chain, terms, 10),))
    assert refused.value.code == "chain_reverted"
    assert refused.value.detail == "ProofMissing(0, 10)"
    with pytest.raises(ChainFault, match="NotOpen"):
        await renter.finalize("unknown", terms_for(chain, 2_000_000_000))


async def test_a_block_that_does_not_exist_has_no_hash(connect: Connect) -> None:
    """Asking for a later block is how the host waits for its challenge."""
    client = await connect(1)
    number = await client.block_number()
    assert await client.block_hash(number) is not None
    assert await client.block_hash(number + 1_000) is None
    assert await client.job(JobId(ZERO_HASH)) == JobState()


async def test_another_chain_or_an_empty_address_is_refused(chain: Chain, clock: SystemClock) -> None:
    """Before anything is signed: a wrong chain id, and a contract that is not there, named."""
    for wrong in (replace(chain.info, chain_id=8453), replace(chain.info, market=Address(bytes([9]) * 20))):
        with pytest.raises(ChainFault) as refused:
            await MarketClient.connect([chain.url], DEV_KEYS[1], wrong, MemoryJournal(), clock)
        assert refused.value.code == "chain_mismatch"
        assert ("8453" in refused.value.detail) or ("JobMarketplace at 0x0909" in refused.value.detail)


async def test_a_devnet_that_was_started_afresh_is_another_chain(chain: Chain, anvil: Path, clock: SystemClock) -> None:
    """The same journal, the same key, the same addresses, a new genesis: what the old chain mined was not mined here."""
    store = MemoryJournal()
    offers = offers_of(chain)
    first = await MarketClient.connect([chain.url], DEV_KEYS[2], chain.info, store, clock)
    await first.register_host("register", "http://127.0.0.1:1", NO_KEY, offers)
    await first.close()
    async with Devnet(anvil) as net:
        fresh = await set_up(net.url)
        assert fresh.info == chain.info
        second = await MarketClient.connect([net.url], DEV_KEYS[2], fresh.info, store, clock)
        await second.reconcile()
        assert await second.hosts() == []
        await second.register_host("register", "http://127.0.0.1:1", NO_KEY, offers)
        assert len(await second.hosts()) == 1
        await second.close()
