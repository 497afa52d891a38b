"""What the prompt tests play on: terms, rules, and a process that may die at any durable step.

A process keeps nothing but its journal, its outbox and the common store; everything else is derived again by `restart`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from fabstir.domain.ids import Address, Hash32, ModelId
from fabstir.domain.money import BaseUnits, PricePerMTok, Tokens
from fabstir.domain.prompts import Cid, PromptId, PromptTerms
from fabstir.domain.terms import ProofPolicy
from fabstir.protocol.prompt_log import PromptLedger
from fabstir.protocol.prompt_order_log import OrderLedger
from fabstir.protocol.prompt_rules import ModelOffer, QueueRules
from fabstir.protocol.settlement import Reverted
from fabstir.protocol.signing import Market
from fabstir.testing.memory_board import MemoryBoard

START = 1_800_000_000
BOARD = Address(b"\xb0" * 20)
MARKET = Market(31337, Address(b"\x0a" * 20))
MODEL = ModelId(b"\x05" * 32)
TOKEN = Address(b"\x04" * 20)
RENTER = Address(b"\x03" * 20)
SIGNER = Address(b"\x02" * 20)
ASSIGNER = Address(b"\x07" * 20)
TOKENS_PER_SECOND = 10.0


def host_address(number: int) -> Address:
    """Of host `number`."""
    return Address(bytes([0x10 + number]) * 20)


def terms(number: int = 0, **changes: Any) -> PromptTerms:
    """Terms of job `number`: 100 tokens, 10 s of work, 60 s for a claim, an hour until the deadline."""
    fields: dict[str, Any] = {
        "renter": RENTER,
        "signer": SIGNER,
        "token": TOKEN,
        "assigner": ASSIGNER,
        "arbiter": Address(bytes(20)),
        "ceiling": PricePerMTok(2_000_000),
        "bond": BaseUnits(100_000),
        "max_tokens": Tokens(100),
        "deadline": START + 3_600,
        "execute_seconds": 60,
        "challenge": 900,
        "policy": ProofPolicy.FALLBACK,
        "model_id": MODEL,
        "prompt_cid": Cid(b"\x0c" * 32),
        "salt": Hash32(number.to_bytes(32, "big")),
    }
    return PromptTerms(**fields | changes)


def queue_rules(host: Address, **changes: Any) -> QueueRules:
    """Rules of a host that serves the one model."""
    offer = ModelOffer(price=PricePerMTok(1_000_000), tokens_per_second=TOKENS_PER_SECOND)
    fields: dict[str, Any] = {"host": host, "offers": {(MODEL, TOKEN): offer}, "slots": 2}
    return QueueRules(**fields | changes)


class Common:
    """What all processes share: chain, store, and what happened, for the tests."""

    def __init__(self) -> None:
        self.board = MemoryBoard(BOARD)
        self.board.now = START
        self.terms: dict[PromptId, PromptTerms] = {}
        self.contents: dict[Cid, bytes] = {}
        """The store: CID -> sealed bytes."""
        self.hosts: list[Address] = []
        self.reverted: list[tuple[str, str]] = []
        self.claims: list[tuple[PromptId, Address, float]] = []
        """Those for which an answer was still to be generated, and when they were sent."""

    @property
    def now(self) -> int:
        """Of the newest block."""
        return self.board.now


class Crash(Exception):
    """The process died."""


class Pending(Exception):
    """The transaction is sent and not mined yet."""


class Process:
    """What survives: journal and outbox. `fuse` counts durable steps down; at 0 the process dies, before or after that step."""

    def __init__(self, world: Common, account: Address) -> None:
        self.world = world
        self.account = account
        self.journal: dict[PromptId, list[bytes]] = {}
        self.outbox: dict[str, str] = {}
        """Key -> what became of it: pending, mined, or the error's name."""
        self.waiting: list[tuple[str, Callable[[], object]]] = []
        self.fuse = -1
        self.dies_after = False
        self.down = 0
        """Blocks for which it does not run."""
        self.late = False
        """Transactions are not mined before `World.mine_late`."""

    def durable(self, act: Callable[[], object]) -> None:
        """One step that outlives a crash, or does not happen."""
        self.fuse -= 1
        if self.fuse == 0 and not self.dies_after:
            raise Crash
        act()
        if self.fuse == 0:
            raise Crash

    def transact(self, key: str, call: Callable[[], object]) -> None:
        """At most once for each key, also across crashes, as the outbox does. Raises Pending, Reverted."""
        if key not in self.outbox:
            self.durable(lambda: self._send(key, call))
        outcome = self.outbox[key]
        if outcome == "pending":
            raise Pending
        if outcome != "mined":
            raise Reverted(outcome)

    def _send(self, key: str, call: Callable[[], object]) -> None:
        self.outbox[key] = "pending"
        self.waiting.append((key, call))
        if not self.late:
            self.mine()

    def step(self) -> None:
        """Look, decide, act."""
        raise NotImplementedError

    def mine(self) -> None:
        """Every transaction that waits, in order."""
        waiting, self.waiting = self.waiting, []
        for key, call in waiting:
            try:
                call()
                self.outbox[key] = "mined"
            except Reverted as fault:
                self.outbox[key] = fault.name
                self.world.reverted.append((key, fault.name))


def same(one: PromptLedger | OrderLedger, other: PromptLedger | OrderLedger) -> bool:
    """Equal in everything that they hold."""
    return bool(msgspec.to_builtins(vars(one), enc_hook=repr) == msgspec.to_builtins(vars(other), enc_hook=repr))
