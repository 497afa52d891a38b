"""The market's contracts as one account sees them: implements `fabstir.ports.chain.MarketChain`.

Reads are plain eth_calls through the failover RPC, with the generated bindings for the encoding. Writes go through the
outbox. Decides nothing: what to open, redeem or prove is decided by its callers, what is allowed by the contracts.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

from fabstir.chain import bindings
from fabstir.chain.code_check import check_code
from fabstir.chain.devnet import CHAIN_ID
from fabstir.chain.faults import translate
from fabstir.chain.follower import LogFollower
from fabstir.chain.outbox import Outbox, OutboxSettings
from fabstir.chain.rpc import JsonRpc, RpcError, quantity
from fabstir.chain.survey import Survey
from fabstir.domain.errors import ChainFault, error
from fabstir.domain.ids import ZERO_ADDRESS, Address, Hash32, JobId, ModelId, to_hex
from fabstir.domain.money import BaseUnits, PricePerMTok, Tokens
from fabstir.domain.terms import JobState, Terms
from fabstir.ports.chain import ChainCondition, ChainInfo, ClaimArgs, HostEntry, ProofArgs, TxResult
from fabstir.ports.clock import Clock
from fabstir.ports.journal import OutboxStore
from fabstir.protocol.signing import SigningKey

T = TypeVar("T")
_MARKET: Final = bindings.JobMarketplace
_REGISTRY: Final = bindings.NodeRegistry

CATCH_UP_SECONDS: Final = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2)
"""Pauses while an endpoint lacks the block of a transaction that another one has shown; three blocks of Base."""
PAGE: Final = 50
"""Hosts in one call: about 300,000 gas of storage reads with one model each, far below any node's eth_call bound."""
SUBMIT_PROOF_GAS: Final = 2_200_000
"""ProofSystem.VERIFY_GAS (1,500,000) has to be there at the adapter behind two 63/64 rules, plus calldata, path and bookkeeping."""


class MarketClient:
    """One account on one chain. `await MarketClient.connect(...)`, at the end `await client.close()`."""

    def __init__(self, rpc: JsonRpc, info: ChainInfo, outbox: Outbox, account: Address, clock: Clock) -> None:
        """Use `connect`, which checks what it is connected to."""
        self._rpc = rpc
        self._info = info
        self._outbox = outbox
        self._account = account
        self._clock = clock
        self._survey = asyncio.create_task(Survey(rpc, clock).run(), name="survey of the RPC endpoints")

    def __repr__(self) -> str:
        return f"<MarketClient {to_hex(self._account)} on {self._info.chain_id}, {self._rpc!r}>"

    @classmethod
    async def connect(
        cls,
        urls: Sequence[str],
        key: bytes,
        info: ChainInfo,
        store: OutboxStore,
        clock: Clock,
        settings: OutboxSettings = OutboxSettings(),  # noqa: B008 - frozen
    ) -> MarketClient:
        """Raises `chain_unreachable`; `chain_mismatch` where an endpoint serves another chain or an address holds no code;
        `contract_mismatch` where it holds other code than this package's.

        Sends nothing: `reconcile` takes up what an earlier process left in `store`.
        """
        signer, rpc = SigningKey(key), JsonRpc(urls, clock, chain_id=info.chain_id)
        try:
            await _check(rpc, info)
            chain = await _chain_name(rpc, info.chain_id)
        except BaseException:
            await rpc.close()
            raise
        outbox = Outbox(
            rpc,
            store,
            signer,
            clock,
            chain_id=info.chain_id,
            scope=f"{chain}:{to_hex(info.market)[2:10]}:{to_hex(signer.address)[2:10]}:",
            gas_floors={_MARKET.SUBMIT_PROOF.selector: SUBMIT_PROOF_GAS},
            settings=settings,
        )
        return cls(rpc, info, outbox, signer.address, clock)

    async def reconcile(self) -> None:
        """Finish what an earlier process left in the outbox."""
        await self._outbox.reconcile()

    async def close(self) -> None:
        """Stop following transactions, close connections."""
        self._survey.cancel()
        await asyncio.gather(self._survey, return_exceptions=True)
        await self._outbox.close()
        await self._rpc.close()

    def follow(self, start: int, *, poll: float = 1.0) -> LogFollower[Any]:
        """The events of market and registries from block `start` on, as structs of `bindings`."""
        emitters = {
            self._info.market: _MARKET.EVENTS,
            self._info.registry: _REGISTRY.EVENTS,
            self._info.models: bindings.ModelRegistry.EVENTS,
        }

        def decode(log: dict[str, Any]) -> Any:
            events = emitters[Address(bytes.fromhex(log["address"][2:]))]
            codec = events.get(bytes.fromhex(log["topics"][0][2:])) if log["topics"] else None
            return codec.decode(log) if codec is not None else None

        return LogFollower(self._rpc, self._clock, tuple(emitters), decode, start=start, poll=poll)

    @property
    def info(self) -> ChainInfo:
        """Checked against the endpoint at connect."""
        return self._info

    @property
    def account(self) -> Address:
        """Whose key signs."""
        return self._account

    def condition(self) -> ChainCondition:
        """Asks nobody."""
        sending, reason = self._outbox.state
        return ChainCondition(
            endpoints=self._rpc.describe(), sending=sending, reason=reason, waiting=self._outbox.waiting
        )

    # -- reads
    async def job(self, job_id: JobId) -> JobState:
        """Zeros where there is no such job."""
        found = await self._call(self._info.market, _MARKET.encode_jobs(job_id), _MARKET.decode_jobs)
        return JobState(
            deposit=BaseUnits(found.deposit),
            owed=BaseUnits(found.owed),
            signed=Tokens(found.signed),
            proven=Tokens(found.proven),
            closed=found.closed,
            closing_at=found.closing_at,
            pending_block=found.pending_block,
        )

    async def block_number(self) -> int:
        """Of the newest block."""
        return quantity(await _ask(self._rpc, "eth_blockNumber"))

    async def block_hash(self, number: int) -> Hash32 | None:
        """None where the block does not exist yet."""
        block = await _ask(self._rpc, "eth_getBlockByNumber", hex(number), False)
        return None if block is None else Hash32(bytes.fromhex(block["hash"][2:]))

    async def timestamp(self) -> int:
        """Of the newest block, Unix seconds."""
        return quantity((await _ask(self._rpc, "eth_getBlockByNumber", "latest", False))["timestamp"])

    async def balance(self, token: Address, owner: Address) -> BaseUnits:
        """What `owner` holds."""
        if token == ZERO_ADDRESS:
            return BaseUnits(quantity(await _ask(self._rpc, "eth_getBalance", to_hex(owner), "latest")))
        usdc = bindings.TestUSDC
        return BaseUnits(await self._call(token, usdc.encode_balance_of(owner), usdc.decode_balance_of))

    async def earnings(self, token: Address, owner: Address) -> BaseUnits:
        """What `withdraw` would pay."""
        data = _MARKET.encode_earnings(owner, token)
        return BaseUnits(await self._call(self._info.market, data, _MARKET.decode_earnings))

    async def hosts(self, model_id: ModelId | None = None) -> list[HostEntry]:
        """Active hosts, of one model where given."""
        entries: dict[Address, HostEntry] = {}
        cursor = 0
        while True:
            page, cursor = await self._hosts_page(model_id, cursor)
            entries |= {node.account: _host_entry(node) for node in page if node.active}
            if cursor == 0:
                return list(entries.values())

    async def _hosts_page(self, model_id: ModelId | None, cursor: int) -> tuple[Sequence[bindings.Node], int]:
        if model_id is None:
            every = await self._call(self._info.registry, _REGISTRY.encode_nodes(cursor, PAGE), _REGISTRY.decode_nodes)
            return every.page, every.next
        data = _REGISTRY.encode_nodes_for_model(model_id, cursor, PAGE)
        serving = await self._call(self._info.registry, data, _REGISTRY.decode_nodes_for_model)
        return serving.page, serving.next

    async def model_approved(self, model_id: ModelId) -> bool:
        """Whether hosts may offer it."""
        models = bindings.ModelRegistry
        return await self._call(self._info.models, models.encode_is_approved(model_id), models.decode_is_approved)

    # -- writes
    async def approve(self, key: str, token: Address, amount: BaseUnits) -> TxResult:
        """Let the market take `amount`."""
        return await self._send(key, token, bindings.TestUSDC.encode_approve(self._info.market, amount))

    async def open(self, key: str, terms: Terms, deposit: BaseUnits) -> TxResult:
        """Pay the deposit."""
        value = deposit if terms.token == ZERO_ADDRESS else 0
        return await self._market(key, _MARKET.encode_open(_terms(terms), deposit), value)

    async def open_with_authorization(
        self, key: str, terms: Terms, deposit: BaseUnits, valid_before: int, signature: bytes
    ) -> TxResult:
        """Relay a renter's signed deposit (EIP-3009)."""
        data = _MARKET.encode_open_with_authorization(_terms(terms), deposit, valid_before, signature)
        return await self._market(key, data)

    async def commit_proof(self, key: str, terms: Terms, tokens: Tokens, root: Hash32) -> TxResult:
        """Fix what will be proven, before the challenge is known."""
        return await self._market(key, _MARKET.encode_commit_proof(_terms(terms), tokens, root))

    async def submit_proof(self, key: str, terms: Terms, proof: ProofArgs) -> TxResult:
        """Answer the challenge."""
        return await self._market(key, _MARKET.encode_submit_proof(_terms(terms), _proof(proof)))

    async def redeem(self, key: str, claims: tuple[ClaimArgs, ...]) -> TxResult:
        """Vouchers of any number of jobs."""
        return await self._market(key, _MARKET.encode_redeem([_claim(claim) for claim in claims]))

    async def claim_proven(self, key: str, terms: Terms) -> TxResult:
        """Be paid for proven tokens that the renter did not sign, at most W."""
        return await self._market(key, _MARKET.encode_claim_proven(_terms(terms)))

    async def close_by_host(self, key: str, claim: ClaimArgs) -> TxResult:
        """Redeem the last voucher, if one is given, and refund the rest."""
        return await self._market(key, _MARKET.encode_close_by_host(_claim(claim)))

    async def close_cooperative(self, key: str, claim: ClaimArgs, host_signature: bytes) -> TxResult:
        """Close at once with the host's signature."""
        return await self._market(key, _MARKET.encode_close_cooperative(_claim(claim), host_signature))

    async def request_close(self, key: str, terms: Terms) -> TxResult:
        """Start the challenge window."""
        return await self._market(key, _MARKET.encode_request_close(_terms(terms)))

    async def finalize(self, key: str, terms: Terms) -> TxResult:
        """Close after the window."""
        return await self._market(key, _MARKET.encode_finalize(_terms(terms)))

    async def withdraw(self, key: str, token: Address, to: Address) -> TxResult:
        """Pay out this account's earnings."""
        return await self._market(key, _MARKET.encode_withdraw(token, to))

    async def register_host(self, key: str, url: str, models: tuple[tuple[ModelId, PricePerMTok], ...]) -> TxResult:
        """Appear in the registry, or replace the entry."""
        data = _REGISTRY.encode_register(url, [model for model, _ in models], [price for _, price in models])
        return await self._send(key, self._info.registry, data)

    async def unregister_host(self, key: str) -> TxResult:
        """Leave the registry."""
        return await self._send(key, self._info.registry, _REGISTRY.encode_unregister())

    async def _market(self, key: str, data: bytes, value: int = 0) -> TxResult:
        return await self._send(key, self._info.market, data, value)

    async def _send(self, key: str, to: Address, data: bytes, value: int = 0) -> TxResult:
        """Who reads next sees the effect: a plan made from a state before it would do the same again and again."""
        result = await self._outbox.send(key, to, data, value)
        with contextlib.suppress(ChainFault):  # it is mined, whatever the reading does
            for pause in CATCH_UP_SECONDS:
                if await self.block_number() >= result.block:
                    break
                await self._clock.sleep(pause)
        return result

    async def _call(self, to: Address, data: bytes, decode: Callable[[bytes], T]) -> T:
        answer = await _ask(self._rpc, "eth_call", {"to": to_hex(to), "data": to_hex(data)}, "latest")
        return decode(bytes.fromhex(answer[2:]))


async def _ask(rpc: JsonRpc, method: str, *params: object) -> Any:
    try:
        return await rpc.request(method, *params)
    except RpcError as fault:
        raise translate(fault) from fault


async def _chain_name(rpc: JsonRpc, chain_id: int) -> str:
    """Names the chain in the outbox. A devnet that was started afresh is another chain under the same id, so its outbox starts
    empty; of other chains not every endpoint keeps block 0, and a name that changes would send again."""
    if chain_id != CHAIN_ID:
        return str(chain_id)
    genesis = await _ask(rpc, "eth_getBlockByNumber", "0x0", False)
    return f"{chain_id}-{genesis['hash'][2:18]}"


async def _check(rpc: JsonRpc, info: ChainInfo) -> None:
    await _ask(rpc, "eth_chainId")
    await rpc.everywhere("eth_chainId")  # each that answers says which chain it serves
    wrong = [state.reason for state in rpc.describe() if state.state == "wrong_chain"]
    if wrong:
        raise error("chain_mismatch", detail="; ".join(wrong))
    ours = {
        "JobMarketplace": info.market,
        "NodeRegistry": info.registry,
        "ModelRegistry": info.models,
        "ProofSystem": info.proofs,
    }
    await check_code(rpc, info.chain_id, ours, {"USDC": info.usdc})


def _terms(terms: Terms) -> bindings.Terms:
    return bindings.Terms(
        renter=terms.renter,
        signer=terms.signer,
        host=terms.host,
        token=terms.token,
        price_per_m_tok=terms.price,
        expires_at=terms.expires_at,
        challenge=terms.challenge,
        exposure=terms.exposure,
        policy=terms.policy,
        model_id=terms.model_id,
        salt=terms.salt,
    )


def _claim(claim: ClaimArgs) -> bindings.Claim:
    return bindings.Claim(_terms(claim.terms), claim.amount, claim.tokens, claim.transcript, claim.signature)


def _proof(proof: ProofArgs) -> bindings.Proof:
    return bindings.Proof(
        circuit_id=proof.circuit_id,
        tree_root=proof.tree_root,
        head=proof.head,
        tokens=proof.tokens,
        checkpoint_tokens=proof.checkpoint_tokens,
        commitment=proof.commitment,
        path=[bindings.SumNode(node.hash, node.tokens, node.left) for node in proof.path],
        proof=proof.proof,
    )


def _host_entry(node: bindings.Node) -> HostEntry:
    models = tuple((ModelId(m), PricePerMTok(p)) for m, p in zip(node.models, node.prices, strict=True))
    return HostEntry(address=node.account, url=node.url, models=models, active=node.active)
