"""Of the chain what the host's application reads and writes, as a table: job states, the registry, the host's own stake.

Nothing moves by itself; the whole contract in memory is `fabstir.testing.chain`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from fabstir.domain.errors import error
from fabstir.domain.ids import Address, Hash32, JobId, ModelId
from fabstir.domain.money import BaseUnits
from fabstir.domain.terms import JobState, Terms
from fabstir.ports.chain import ChainCondition, ChainInfo, HostEntry, RegisteredOffer, StakeRules, StakeState, TxResult
from fabstir.protocol.signing import SigningKey, job_id

HOST = SigningKey(bytes([1]) * 32)
USDC = Address(b"\x0a" * 20)
DEPOSIT = BaseUnits(1_000_000)
MIN_STAKE = BaseUnits(100_000_000)
INFO = ChainInfo(
    chain_id=31337,
    market=Address(b"\x0c" * 20),
    registry=Address(b"\x0d" * 20),
    models=Address(b"\x0e" * 20),
    proofs=Address(b"\x0f" * 20),
    usdc=USDC,
    stakes=Address(b"\x10" * 20),
    board=Address(b"\x11" * 20),
    delegation=Address(b"\x12" * 20),
    epochs=Address(b"\x13" * 20),
)


class TableChain:
    """Of `MarketChain` what the host's application needs: job states, a registry with stakes, and an endpoint that can be gone."""

    def __init__(self) -> None:
        self.info: Final = INFO
        self.account: Final = HOST.address
        self.states: dict[JobId, JobState] = {}
        self.entries: dict[Address, HostEntry] = {}
        self.held = StakeState(staked=MIN_STAKE)
        self.holdings: dict[Address, BaseUnits] = {}
        self.allowed = 0
        """What the stake's contract may take."""
        self.earned: dict[Address, BaseUnits] = {}
        """What the host can withdraw, by token."""
        self.sent: dict[str, TxResult] = {}
        self.reachable = True
        self.reads = 0
        self.state = ChainCondition()

    def condition(self) -> ChainCondition:
        return self.state

    def open(self, terms: Terms, deposit: int = DEPOSIT) -> Terms:
        """As if the renter had opened the job."""
        self.states[job_id(terms)] = JobState(deposit=BaseUnits(deposit))
        return terms

    def change(self, terms: Terms, **changes: Any) -> None:
        """Something happened to the job on chain."""
        self.states[job_id(terms)] = msgspec.structs.replace(self.states[job_id(terms)], **changes)

    async def job(self, job: JobId) -> JobState:
        self.reads += 1
        self._require()
        return self.states.get(job, JobState())

    async def block_number(self) -> int:
        self._require()
        return 7

    async def timestamp(self) -> int:
        self._require()
        return 1_800_000_000

    async def hosts(self, model_id: ModelId | None = None) -> list[HostEntry]:
        self._require()
        return list(self.entries.values())

    async def stake(self, host: Address) -> StakeState:
        self._require()
        return self.held if host == self.account else StakeState()

    async def stake_rules(self) -> StakeRules:
        self._require()
        return StakeRules(token=USDC, minimum=MIN_STAKE, slash=BaseUnits(MIN_STAKE // 10))

    async def register_host(
        self, key: str, url: str, encryption_key: Hash32, offers: tuple[RegisteredOffer, ...]
    ) -> TxResult:
        entry = HostEntry(address=self.account, url=url, encryption_key=encryption_key, offers=offers, active=True)
        return self._mine(key, lambda: self.entries.__setitem__(self.account, entry))

    async def balance(self, token: Address, owner: Address) -> BaseUnits:
        return self.holdings.get(owner, BaseUnits(0))

    async def earnings(self, token: Address, owner: Address) -> BaseUnits:
        self._require()
        return self.earned.get(token, BaseUnits(0)) if owner == self.account else BaseUnits(0)

    async def open_with_authorization(
        self, key: str, terms: Terms, deposit: BaseUnits, valid_before: int, signature: bytes
    ) -> TxResult:
        return self._mine(key, lambda: (self.open(terms, deposit), None)[1])

    async def approve_stake(self, key: str, amount: BaseUnits) -> TxResult:
        return self._mine(key, lambda: setattr(self, "allowed", amount))

    async def add_stake(self, key: str, amount: BaseUnits) -> TxResult:
        def take() -> None:
            if amount > self.allowed:
                raise error("chain_reverted", "ERC20InsufficientAllowance")
            self.allowed -= amount
            self.held = msgspec.structs.replace(self.held, staked=BaseUnits(self.held.staked + amount))

        return self._mine(key, take)

    def _mine(self, key: str, effect: Callable[[], None]) -> TxResult:
        """Once for each key."""
        self._require()
        if key not in self.sent:
            effect()
            self.sent[key] = TxResult(hash=Hash32(bytes(32)), block=7, gas_used=1)
        return self.sent[key]

    def _require(self) -> None:
        if not self.reachable:
            raise error("chain_unreachable", "http://127.0.0.1:8545: connection refused")
