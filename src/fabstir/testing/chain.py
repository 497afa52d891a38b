"""A chain with the market's contracts on it, in memory: blocks, time, balances, registries, and failures on demand.

The money moves by `fabstir.protocol.settlement`, the model that the contracts are tested against; signatures, paths and
proofs are really checked. `MemoryChain.connect` gives one account's `MarketChain` (`fabstir.testing.market`). A
transaction gets its block at once, or with `hold_blocks` when the test calls `mine`. Never runs EVM code and never
charges gas; tests/chain/test_memory_market.py plays the same moves here and on a real chain.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from fabstir.domain.errors import error
from fabstir.domain.ids import ZERO_ADDRESS, Address, Hash32, JobId, ModelId
from fabstir.domain.money import BaseUnits, Tokens
from fabstir.ports.chain import ChainInfo, HostEntry, TxResult
from fabstir.ports.clock import Clock
from fabstir.ports.prover import ProofBundle, ProofStatement, Prover
from fabstir.protocol.settlement import Call, MarketState, Reverted, apply
from fabstir.protocol.settlement_state import add
from fabstir.protocol.signing import keccak
from fabstir.testing.clock import ManualClock
from fabstir.testing.events import MemoryEvents, news_between
from fabstir.testing.memory_board import MemoryBoard

if TYPE_CHECKING:
    from fabstir.testing.market import MemoryMarket

GENESIS_BLOCKS: Final = 1
"""Deployment."""
GAS: Final = 21_000
"""What every transaction says it used; nobody is charged."""

INFO: Final = ChainInfo(
    chain_id=31337,
    market=Address(b"\xc0" * 20),
    registry=Address(b"\xc1" * 20),
    models=Address(b"\xc2" * 20),
    proofs=Address(b"\xc3" * 20),
    usdc=Address(b"\xc4" * 20),
    stakes=Address(b"\xc5" * 20),
    board=Address(b"\xc6" * 20),
    delegation=Address(b"\xc7" * 20),
    epochs=Address(b"\xc8" * 20),
)

Phase = Literal["before", "after"]
Holding = tuple[Address, Address]
"""(token, owner)"""


class Ledger(msgspec.Struct, frozen=True):
    """Everything that a transaction can change."""

    market: MarketState
    balances: Mapping[Holding, int] = {}
    allowances: Mapping[tuple[Address, Address, Address], int] = {}
    """(token, owner, spender) -> what the spender may take."""
    hosts: Mapping[Address, HostEntry] = {}
    models: frozenset[ModelId] = frozenset()
    unstaking: Mapping[Address, tuple[int, int]] = {}
    """Host -> (base units asked back, Unix seconds from which they can leave)."""
    seized: int = 0
    """Slashed, and not a renter's compensation: the treasury may collect it from `HostStake`."""
    budgets: Mapping[tuple[Address, Address, Address], tuple[int, int]] = {}
    """(renter, delegate, token) -> (base units left, Unix seconds until which)."""
    epochs: Mapping[Address, tuple[Hash32, Tokens, int]] = {}
    """Host -> (root, tokens, block) of its last epoch; block 0 once it is proven."""
    proven_epochs: Mapping[tuple[Address, Hash32], Tokens] = {}
    """(host, root) -> tokens."""
    board: MemoryBoard = msgspec.field(default_factory=lambda: MemoryBoard(INFO.board))
    """The prompt board: each transaction changes a copy. What lies there is in `balances`."""

    def balance(self, token: Address, owner: Address) -> int:
        """What `owner` holds; the market's part is what the model says that it holds."""
        if owner == INFO.market:
            return self.market.held.get(token, 0)
        if owner == INFO.stakes:
            return sum(self.market.stakes.values()) + self.seized if token == INFO.usdc else 0
        return self.balances.get((token, owner), 0)

    def paid(self, token: Address, owner: Address, delta: int) -> Ledger:
        """`owner` holds `delta` more (or less). Raises Reverted where that is more than there is."""
        new = self.balances.get((token, owner), 0) + delta
        if new < 0:
            raise Reverted("ERC20InsufficientBalance")
        return msgspec.structs.replace(self, balances={**self.balances, (token, owner): new})


MIN_STAKE: Final = BaseUnits(100_000_000)
SLASH: Final = BaseUnits(10_000_000)
COMPENSATION: Final = BaseUnits(5_000_000)

Effect = Callable[[Ledger, int, int], Ledger]
"""(ledger, Unix time, block number) -> ledger. Raises Reverted."""


class _Waiting(msgspec.Struct, frozen=True):
    effect: Effect
    done: asyncio.Future[TxResult]


class MemoryChain:
    """One chain for any number of accounts. Memory: every transaction's result, for ever."""

    def __init__(
        self,
        clock: Clock | None = None,
        *,
        prover: Prover | None = None,
        treasury: Address = Address(b"\xfe" * 20),  # noqa: B008 - bytes
    ) -> None:
        """`prover` stands for the registered verifiers: its circuit and its weaker one are those that `submit_proof` accepts."""
        self.clock: Final[Clock] = clock or ManualClock()
        self.prover: Final = prover
        self.info: Final = INFO
        self.ledger = Ledger(MarketState(treasury, slash=SLASH, compensation=COMPENSATION))
        self.block = GENESIS_BLOCKS
        self.committed: Final[dict[JobId, tuple[Tokens, Hash32]]] = {}
        """Job -> (tokens, root) of its last proven commitment, which a dispute must open."""
        self.events: Final = MemoryEvents(self.check_reachable)
        """What happened to its jobs: `fabstir.ports.chain.MarketEvents`."""
        self.unreachable = False
        """Nobody answers: every read and write raises `chain_unreachable`."""
        self.lost_answers = 0
        """So many next transactions are mined although their caller is told `transaction_lost`."""
        self.on_transaction: Callable[[str, Phase], None] = lambda key, phase: None
        """Called with the key of each transaction before it is taken and after it was mined; may raise."""
        self._held = False
        self._waiting: dict[tuple[Address, str], _Waiting] = {}
        self._ended: dict[tuple[Address, str], TxResult | str] = {}

    async def verifies(self, public: ProofStatement, bundle: ProofBundle) -> bool:
        """What the circuit's registered verifier says; nothing holds by a circuit that is not registered."""
        known = self.prover
        while known is not None and known.circuit_id != bundle.circuit_id:
            known = known.weaker
        return known is not None and await known.verify(public, bundle)

    def __repr__(self) -> str:
        jobs, waiting = len(self.ledger.market.jobs), len(self._waiting)
        return f"<MemoryChain block={self.block} jobs={jobs} waiting={waiting}>"

    def connect(self, account: Address) -> MemoryMarket:
        """The market as `account` sees it. Connecting again is what a restarted process does: keys are remembered."""
        from fabstir.testing.market import MemoryMarket  # noqa: PLC0415 - the two know each other

        return MemoryMarket(self, account)

    # -- what a test does to the chain
    def mint(self, owner: Address, amount: int, token: Address = INFO.usdc) -> None:
        """Money out of nothing; ZERO_ADDRESS for coins."""
        self.ledger = self.ledger.paid(token, owner, amount)

    def approve_model(self, model: ModelId) -> None:
        """Let hosts offer it."""
        self.ledger = msgspec.structs.replace(self.ledger, models=self.ledger.models | {model})

    def give_stake(self, host: Address, amount: int = MIN_STAKE) -> None:
        """Staked out of nothing."""
        stakes = add(self.ledger.market.stakes, host, amount)
        market = msgspec.structs.replace(self.ledger.market, stakes=stakes)
        self.ledger = msgspec.structs.replace(self.ledger, market=market)

    def hold_blocks(self) -> None:
        """No block any more, but those that `mine` makes."""
        self._held = True

    def automine(self) -> None:
        """A block at once for each transaction; those that wait get theirs now."""
        self._held = False
        if self._waiting:
            self.mine()

    def mine(self, blocks: int = 1) -> None:
        """Make blocks; the first takes every transaction that waits."""
        for _ in range(blocks):
            self.block += 1
            waiting, self._waiting = self._waiting, {}
            for name, transaction in waiting.items():
                self._include(name, transaction)

    def supply(self, token: Address = INFO.usdc) -> int:
        """All there is of it: what accounts and market hold. Only `mint` changes it."""
        held = sum(amount for (kind, _), amount in self.ledger.balances.items() if kind == token)
        return held + sum(self.ledger.balance(token, place) for place in (INFO.market, INFO.stakes))

    # -- what an account does
    def check_reachable(self) -> None:
        """Raises `chain_unreachable` while a test says so."""
        if self.unreachable:
            raise error("chain_unreachable", detail="made unreachable by the test")

    def now(self) -> int:
        """Unix time of the newest block."""
        return int(self.clock.now())

    def block_hash(self, number: int) -> Hash32 | None:
        """None where the block does not exist yet."""
        return keccak(b"block" + number.to_bytes(8, "big")) if 0 <= number <= self.block else None

    async def transact(self, account: Address, key: str, effect: Effect) -> TxResult:
        """Once per account and key, as the outbox does: refused now, it may be asked again; failed in its block, never."""
        self.check_reachable()
        self.on_transaction(key, "before")
        name = (account, key)
        if name not in self._ended:
            done = self._take(name, effect)
            await asyncio.shield(done)
        ended = self._ended[name]
        if isinstance(ended, str):
            raise error("chain_reverted", detail=ended)
        self.on_transaction(key, "after")
        if self.lost_answers:
            self.lost_answers -= 1
            raise error("transaction_lost", detail="the answer was dropped by the test")
        return ended

    def _take(self, name: tuple[Address, str], effect: Effect) -> asyncio.Future[TxResult]:
        if name not in self._waiting:
            try:
                effect(self.ledger, self.now(), self.block + 1)
            except Reverted as refused:
                raise error("chain_reverted", detail=refused.name) from refused
            self._waiting[name] = _Waiting(effect, asyncio.get_running_loop().create_future())
        done = self._waiting[name].done
        if not self._held:
            self.mine()
        return done

    def _include(self, name: tuple[Address, str], transaction: _Waiting) -> None:
        result = TxResult(hash=keccak(repr(name).encode()), block=self.block, gas_used=GAS)
        before = self.ledger.market.jobs
        try:
            self.ledger = transaction.effect(self.ledger, self.now(), self.block)
            self._ended[name] = result
            self.events.tell(news_between(before, self.ledger.market.jobs, self.block))
        except Reverted as refused:
            self._ended[name] = refused.name
        if not transaction.done.done():
            transaction.done.set_result(result)


def settle(ledger: Ledger, call: Call, now: int, block: int) -> Ledger:
    """The model's move, with what it pays out: refunds, bonds, and the shares of a slashed stake."""
    market = apply(ledger.market, call, now, block)
    for (account, token), total in market.repaid.items():
        ledger = ledger.paid(token, account, total - ledger.market.repaid.get((account, token), 0))
    for renter, total in market.compensated.items():
        ledger = ledger.paid(INFO.usdc, renter, total - ledger.market.compensated.get(renter, 0))
    lost = sum(ledger.market.stakes.values()) - sum(market.stakes.values())
    compensated = sum(market.compensated.values()) - sum(ledger.market.compensated.values())
    unstaking = {
        host: (min(asked, market.stakes.get(host, 0)), since) for host, (asked, since) in ledger.unstaking.items()
    }
    seized = ledger.seized + lost - compensated
    return msgspec.structs.replace(ledger, market=market, seized=seized, unstaking=unstaking)


def take(ledger: Ledger, payer: Address, token: Address, amount: int, spender: Address | None = INFO.market) -> Ledger:
    """What a contract takes from an account; `spender` None: the account signed the transfer itself. Raises Reverted."""
    if token != ZERO_ADDRESS and spender is not None:
        left = ledger.allowances.get((token, payer, spender), 0) - amount
        if left < 0:
            raise Reverted("ERC20InsufficientAllowance")
        ledger = msgspec.structs.replace(ledger, allowances={**ledger.allowances, (token, payer, spender): left})
    return ledger.paid(token, payer, -amount)
