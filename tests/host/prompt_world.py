"""A host with a desk of prompt jobs, its settler, and a renter, on a chain in memory; the host may die at any journal write."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, cast

from nacl.signing import SigningKey as NodeSecret

from fabstir.domain.ids import ZERO_ADDRESS, Hash32, ModelId
from fabstir.domain.money import BaseUnits, PricePerMTok, Tokens
from fabstir.domain.prompts import Cid, PromptId, PromptTerms
from fabstir.domain.terms import ProofPolicy
from fabstir.host.node import HostNode
from fabstir.host.prompt_settings import DeskSettings, DeskStores
from fabstir.host.prompt_voucher import awaits_voucher
from fabstir.host.prompts import PromptDesk
from fabstir.host.settings import HostSettings
from fabstir.host.settler import Settler
from fabstir.ops.metrics import PROMPT_OUTCOMES, Metrics
from fabstir.ports.chain import RegisteredOffer
from fabstir.ports.prompts import PromptChain
from fabstir.protocol import prompt_log
from fabstir.protocol.messages import ChatMessage
from fabstir.protocol.prompt_content import PromptBody, PromptResult, check_result, encode
from fabstir.protocol.prompt_log import PromptEvent, PromptLedger
from fabstir.protocol.prompt_signing import escrow_of, prompt_id
from fabstir.protocol.sealed import ENTROPY, Binding, Content, SealingKey, cid, seal, unseal
from fabstir.protocol.settlement_plan import SettlementRules
from fabstir.protocol.signing import SigningKey
from fabstir.storage.blobs import DirectoryBlobs
from fabstir.testing.chain import MemoryChain
from fabstir.testing.clock import ManualClock
from fabstir.testing.engine import ScriptedEngine
from fabstir.testing.journal import MemoryJournal, SimulatedCrash, WriteHook
from fabstir.testing.prover import HashProver

HOST, RENTER, SESSION = (SigningKey(bytes([n]) * 32) for n in (21, 22, 23))
MODEL = ModelId(b"\x0b" * 32)
PRICE = PricePerMTok(200_000_000)
MONEY = 1_000_000_000
SEALING, REPLY, RECORDS = SealingKey(b"\x31" * 32), SealingKey(b"\x32" * 32), bytes([0x33]) * 32


class PromptWorld:
    """One host process after another over the same disk and chain."""

    def __init__(self, root: Path, **settings: Any) -> None:
        self.root = root
        self.clock = ManualClock()
        self.prover = HashProver()
        self.chain = MemoryChain(self.clock, prover=self.prover)
        self.chain.mint(RENTER.address, MONEY)
        self.chain.approve_model(MODEL)
        self.chain.give_stake(HOST.address)
        self.engine = ScriptedEngine()
        self.journal = MemoryJournal()
        self.metrics = Metrics(self.chain.connect(HOST.address).info.usdc)
        fields: dict[str, Any] = {"model_id": MODEL, "price": PRICE, "slots": 2}
        self.settings = DeskSettings(**(fields | settings))
        self.renter = cast(PromptChain, self.chain.connect(RENTER.address))
        self.host = cast(PromptChain, self.chain.connect(HOST.address))
        self.desk: PromptDesk
        self.node: HostNode
        self._numbers = 0

    async def register(self) -> None:
        """The host appears in the registry."""
        offers = (RegisteredOffer(MODEL, self.host.info.usdc, PRICE),)
        await self.host.register_host("register", "http://host", Hash32(SEALING.public), offers)

    # -- the host ------------------------------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def life(self, hook: WriteHook | None = None) -> AsyncIterator[list[BaseException]]:
        """One process, from start to end or until it dies; what killed it is in the list."""
        self.journal = self.journal.reopen(hook)
        self.node = HostNode(
            engines={MODEL: {"engine": self.engine}},
            chain=self.host,
            prover=self.prover,
            journal=self.journal,
            clock=self.clock,
            keys=(HOST, NodeSecret(bytes(HOST.address) + bytes(12))),
            settings=HostSettings(model_id=MODEL, price=PRICE),
            metrics=self.metrics,
        )
        await self.node.start()
        stores = DeskStores(self._blobs("uploads"), self._blobs("results"))
        self.desk = PromptDesk(
            self.node, self.host, self.engine, self.journal, stores, self.clock, SEALING, self.settings
        )
        settler = Settler(
            self.node.book,
            self.host,
            self.prover,
            self.clock,
            SettlementRules(),
            idle_for=lambda job: 0.0,
            on_closing=self.node.chain_closing,
            watch_seconds=5.0,
        )
        settler.count_in(self.metrics)
        self.node.claims = settler.claims
        settler.postponed = lambda ledger: awaits_voucher(ledger, self.clock.now())
        self.node.on_settlement_request = lambda _: settler.wake()
        died: list[BaseException] = []
        running = asyncio.create_task(self._run(settler, died))
        try:
            yield died
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await self.node.stop()

    async def _run(self, settler: Settler, died: list[BaseException]) -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                await self.desk.start()
                tasks.create_task(self.desk.run())
                tasks.create_task(settler.run())
        except SimulatedCrash as crash:
            died.append(crash)
        except BaseExceptionGroup as group:
            died += [group] if group.subgroup(SimulatedCrash) is None else [SimulatedCrash(str(group))]

    def _blobs(self, name: str) -> DirectoryBlobs:
        return DirectoryBlobs(self.root / name, self.clock, quota=1 << 20, max_age=86_400 * 31)

    def outcomes(self) -> dict[str, float]:
        """What came of claims, as it is counted."""
        value = self.metrics.registry.get_sample_value
        counted = {name: value("fabstir_prompt_outcomes_total", {"outcome": name}) or 0 for name in PROMPT_OUTCOMES}
        return {name: count for name, count in counted.items() if count}

    def events(self, prompt: PromptId) -> list[PromptEvent]:
        """What is in the journal about it."""
        return [prompt_log.decode_event(data) for data in self.journal._disk.events.get("prompt:" + prompt.hex(), [])]

    def ledger(self, prompt: PromptId) -> PromptLedger:
        """The fold of that."""
        return PromptLedger.replay(self.events(prompt))

    # -- the renter ----------------------------------------------------------------------------------------------------------

    def body(self, content: str) -> PromptBody:
        return PromptBody(
            messages=(ChatMessage("user", content),), reply_key=REPLY.public, record_salt=RECORDS, temperature=0.0
        )

    def seal(self, content: str, *, to: SealingKey = SEALING, **changes: Any) -> tuple[PromptTerms, bytes]:
        """Terms and the sealed prompt."""
        self._numbers += 1
        fields: dict[str, Any] = {
            "renter": RENTER.address,
            "signer": SESSION.address,
            "token": self.renter.info.usdc,
            "assigner": ZERO_ADDRESS,
            "arbiter": ZERO_ADDRESS,
            "ceiling": PRICE,
            "bond": BaseUnits(1_000),
            "max_tokens": Tokens(100),
            "deadline": int(self.clock.now()) + 7_200,
            "execute_seconds": 1_800,
            "challenge": 900,
            "policy": ProofPolicy.REQUIRED,
            "model_id": MODEL,
            "prompt_cid": Cid(bytes(32)),
            "salt": Hash32(self._numbers.to_bytes(32, "big")),
        }
        terms = PromptTerms(**(fields | changes))
        binding = Binding.of(Content.PROMPT, terms)
        sealed = seal(encode(self.body(content)), (to.public, REPLY.public), binding, os.urandom(ENTROPY))
        return PromptTerms(**(fields | changes | {"prompt_cid": cid(sealed)})), sealed

    async def post(self, terms: PromptTerms) -> PromptId:
        """Deposit."""
        prompt = prompt_id(terms)
        await self.renter.approve_board(f"approve {prompt.hex()}", terms.token, escrow_of(terms))
        await self.renter.post_prompt(f"post {prompt.hex()}", terms)
        return prompt

    async def ask(self, content: str, **changes: Any) -> tuple[PromptId, PromptTerms]:
        """Upload, then post."""
        terms, sealed = self.seal(content, **changes)
        await self.desk.upload(cid(sealed), sealed)
        return await self.post(terms), terms

    async def result(self, prompt: PromptId, terms: PromptTerms, content: str) -> PromptResult:
        """Downloaded, opened, checked."""
        done = await self.renter.completion(prompt, 0)
        assert done is not None
        sealed = await self.desk.download(done.result_cid)
        opened = unseal(sealed, REPLY, Binding.of(Content.RESULT, terms))
        return check_result(self.body(content), opened, done.result_hash, done.tokens)

    # -- time ----------------------------------------------------------------------------------------------------------------

    async def until(
        self, condition: Callable[[], Awaitable[bool] | bool], stride: float = 1.0, most: int = 3_000
    ) -> None:
        """Let time pass, and blocks, until it holds."""
        for _ in range(most):
            held = condition()
            if held if isinstance(held, bool) else await held:
                return
            await self.clock.advance(stride)
            self.chain.mine()
            await asyncio.sleep(0.0005)
        raise AssertionError(f"{self.desk!r} {self.metrics!r}")

    async def settled(self, prompt: PromptId) -> bool:
        """The market job is closed and nothing is held."""
        done = await self.renter.completion(prompt, 0)
        if done is None:
            return False
        job = await self.renter.job(done.job)
        return job.closed and job.held == 0

    async def money(self) -> tuple[int, int, int]:
        """(renter, what the host may withdraw, what lies in board and market)."""
        usdc = self.renter.info.usdc
        owned = await self.renter.balance(usdc, RENTER.address)
        held = [await self.renter.balance(usdc, place) for place in (self.renter.info.board, self.renter.info.market)]
        return owned, await self.host.earnings(usdc, HOST.address), sum(held)
