"""The market's contracts as one account sees them: implements `fabstir.ports.prompts.PromptChain`, which is `MarketChain` and
the prompt board.

Reads are plain eth_calls through the failover RPC, with the generated bindings for the encoding. Writes go through the
outbox. Decides nothing: what to open, redeem or prove is decided by its callers, what is allowed by the contracts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

from fabstir.chain import bindings
from fabstir.chain.calls import ask
from fabstir.chain.claim_calls import ClaimCalls
from fabstir.chain.code_check import check_code
from fabstir.chain.conversion import abi_claim, abi_proof, abi_terms, job_state
from fabstir.chain.devnet import CHAIN_ID
from fabstir.chain.epoch_calls import EpochCalls
from fabstir.chain.follower import LogFollower
from fabstir.chain.heads import HeadSurvey
from fabstir.chain.outbox import Outbox, OutboxSettings
from fabstir.chain.panel_calls import VOTE_GAS, PanelCalls
from fabstir.chain.prompt_calls import PromptCalls
from fabstir.chain.registry_calls import RegistryCalls
from fabstir.chain.rpc import JsonRpc, quantity
from fabstir.domain.errors import error
from fabstir.domain.ids import ZERO_ADDRESS, Address, Hash32, JobId, to_hex
from fabstir.domain.money import BaseUnits, Tokens
from fabstir.domain.terms import JobState, Terms
from fabstir.ports.chain import ChainCondition, ChainInfo, ClaimArgs, ProofArgs, TransactionEnd, TxResult
from fabstir.ports.clock import Clock
from fabstir.ports.journal import OutboxStore
from fabstir.protocol.signing import SigningKey

T = TypeVar("T")
_MARKET: Final = bindings.JobMarketplace

SUBMIT_PROOF_GAS: Final = 2_200_000
"""ProofSystem.VERIFY_GAS (1,500,000) has to be there at the adapter behind two 63/64 rules, plus calldata, path and bookkeeping."""


class MarketClient(ClaimCalls, EpochCalls, PanelCalls, RegistryCalls, PromptCalls):
    """One account on one chain. `await MarketClient.connect(...)`, at the end `await client.close()`."""

    def __init__(self, rpc: JsonRpc, info: ChainInfo, outbox: Outbox, account: Address, clock: Clock) -> None:
        """Use `connect`, which checks what it is connected to."""
        super().__init__(rpc, info, outbox, account, clock)
        self._survey = asyncio.create_task(HeadSurvey(rpc, clock).run(), name="survey of the RPC endpoints")

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
            gas_floors={
                _MARKET.SUBMIT_PROOF.selector: SUBMIT_PROOF_GAS,
                bindings.EpochProofs.PROVE_EPOCH.selector: SUBMIT_PROOF_GAS,
                bindings.ArbiterPanel.VOTE.selector: VOTE_GAS,
            },
            settings=settings,
        )
        return cls(rpc, info, outbox, signer.address, clock)

    async def reconcile(self) -> None:
        """Finish what an earlier process left in the outbox."""
        await self._outbox.reconcile()

    def count_ends(self, count: Callable[[TransactionEnd, int], None]) -> None:
        """`count` hears of the end of each transaction, and of the gas that it used, from now on."""
        self._outbox.on_end = count

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
            self._info.registry: bindings.NodeRegistry.EVENTS,
            self._info.models: bindings.ModelRegistry.EVENTS,
            self._info.stakes: bindings.HostStake.EVENTS,
            self._info.board: bindings.PromptBoard.EVENTS,
        }

        def decode(log: dict[str, Any]) -> Any:
            events = emitters.get(Address(bytes.fromhex(log["address"][2:])), {})
            codec = events.get(bytes.fromhex(log["topics"][0][2:])) if log["topics"] else None
            return codec.decode(log) if codec is not None else None

        return LogFollower(self._rpc, self._clock, tuple(emitters), decode, start=start, poll=poll)

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
        return job_state(found)

    async def block_number(self) -> int:
        """Of the newest block."""
        return quantity(await ask(self._rpc, "eth_blockNumber"))

    async def block_hash(self, number: int) -> Hash32 | None:
        """None where the block does not exist yet."""
        block = await ask(self._rpc, "eth_getBlockByNumber", hex(number), False)
        return None if block is None else Hash32(bytes.fromhex(block["hash"][2:]))

    async def timestamp(self) -> int:
        """Of the newest block, Unix seconds."""
        return quantity((await ask(self._rpc, "eth_getBlockByNumber", "latest", False))["timestamp"])

    async def balance(self, token: Address, owner: Address) -> BaseUnits:
        """What `owner` holds."""
        if token == ZERO_ADDRESS:
            return BaseUnits(quantity(await ask(self._rpc, "eth_getBalance", to_hex(owner), "latest")))
        usdc = bindings.TestUSDC
        return BaseUnits(await self._call(token, usdc.encode_balance_of(owner), usdc.decode_balance_of))

    async def earnings(self, token: Address, owner: Address) -> BaseUnits:
        """What `withdraw` would pay."""
        data = _MARKET.encode_earnings(owner, token)
        return BaseUnits(await self._call(self._info.market, data, _MARKET.decode_earnings))

    # -- writes
    async def approve(self, key: str, token: Address, amount: BaseUnits) -> TxResult:
        """Let the market take `amount`."""
        return await self._send(key, token, bindings.TestUSDC.encode_approve(self._info.market, amount))

    async def open(self, key: str, terms: Terms, deposit: BaseUnits) -> TxResult:
        """Pay the deposit."""
        value = deposit if terms.token == ZERO_ADDRESS else 0
        return await self._market(key, _MARKET.encode_open(abi_terms(terms), deposit), value)

    async def open_with_authorization(
        self, key: str, terms: Terms, deposit: BaseUnits, valid_before: int, signature: bytes
    ) -> TxResult:
        """Relay a renter's signed deposit (EIP-3009)."""
        data = _MARKET.encode_open_with_authorization(abi_terms(terms), deposit, valid_before, signature)
        return await self._market(key, data)

    async def top_up(self, key: str, terms: Terms, amount: BaseUnits) -> TxResult:
        """Add to the deposit."""
        value = amount if terms.token == ZERO_ADDRESS else 0
        return await self._market(key, _MARKET.encode_top_up(abi_terms(terms), amount), value)

    async def top_up_with_authorization(
        self, key: str, terms: Terms, amount: BaseUnits, valid_before: int, signature: bytes
    ) -> TxResult:
        """Relay a renter's signed top-up (EIP-3009)."""
        data = _MARKET.encode_top_up_with_authorization(abi_terms(terms), amount, valid_before, signature)
        return await self._market(key, data)

    async def commit_proof(self, key: str, terms: Terms, tokens: Tokens, root: Hash32) -> TxResult:
        """Fix what will be proven, before the challenge is known."""
        return await self._market(key, _MARKET.encode_commit_proof(abi_terms(terms), tokens, root))

    async def submit_proof(self, key: str, terms: Terms, proof: ProofArgs) -> TxResult:
        """Answer the challenge."""
        return await self._market(key, _MARKET.encode_submit_proof(abi_terms(terms), abi_proof(proof)))

    async def redeem(self, key: str, claims: tuple[ClaimArgs, ...]) -> TxResult:
        """Vouchers of any number of jobs."""
        return await self._market(key, _MARKET.encode_redeem([abi_claim(claim) for claim in claims]))

    async def close_by_host(self, key: str, claim: ClaimArgs) -> TxResult:
        """Redeem the last voucher, if one is given, and refund the rest."""
        return await self._market(key, _MARKET.encode_close_by_host(abi_claim(claim)))

    async def close_cooperative(self, key: str, claim: ClaimArgs, host_signature: bytes) -> TxResult:
        """Close at once with the host's signature."""
        return await self._market(key, _MARKET.encode_close_cooperative(abi_claim(claim), host_signature))

    async def request_close(self, key: str, terms: Terms) -> TxResult:
        """Start the challenge window."""
        return await self._market(key, _MARKET.encode_request_close(abi_terms(terms)))

    async def finalize(self, key: str, terms: Terms) -> TxResult:
        """Close after the window."""
        return await self._market(key, _MARKET.encode_finalize(abi_terms(terms)))

    async def withdraw(self, key: str, token: Address, to: Address) -> TxResult:
        """Pay out this account's earnings."""
        return await self._market(key, _MARKET.encode_withdraw(token, to))


async def _chain_name(rpc: JsonRpc, chain_id: int) -> str:
    """Names the chain in the outbox. A devnet that was started afresh is another chain under the same id, so its outbox starts
    empty; of other chains not every endpoint keeps block 0, and a name that changes would send again."""
    if chain_id != CHAIN_ID:
        return str(chain_id)
    genesis = await ask(rpc, "eth_getBlockByNumber", "0x0", False)
    return f"{chain_id}-{genesis['hash'][2:18]}"


async def _check(rpc: JsonRpc, info: ChainInfo) -> None:
    await ask(rpc, "eth_chainId")
    await rpc.everywhere("eth_chainId")  # each that answers says which chain it serves
    wrong = [state.reason for state in rpc.describe() if state.state == "wrong_chain"]
    if wrong:
        raise error("chain_mismatch", detail="; ".join(wrong))
    ours = {
        "JobMarketplace": info.market,
        "NodeRegistry": info.registry,
        "ModelRegistry": info.models,
        "ProofSystem": info.proofs,
        "HostStake": info.stakes,
        "PromptBoard": info.board,
        "Delegation": info.delegation,
        "EpochProofs": info.epochs,
    }
    await check_code(rpc, info.chain_id, ours, {"USDC": info.usdc})
