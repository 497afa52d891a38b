"""The board in memory and `PromptBoard` on an EVM: each call goes to both, which must agree on outcome, error's name, state and money."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from fabstir.chain import bindings
from fabstir.chain.bindings import (
    EpochProofs,
    Head,
    HostStake,
    JobMarketplace,
    ModelRegistry,
    NodeRegistry,
    Offer,
    PromptBoard,
    ProofSystem,
    TestUSDC,
)
from fabstir.domain.ids import ZERO_ADDRESS, Address, Hash32, ModelId
from fabstir.domain.money import PricePerMTok, Tokens
from fabstir.domain.prompts import Cid, PromptTerms
from fabstir.protocol.prompt_signing import job_salt, prompt_id
from fabstir.protocol.settlement import Reverted
from fabstir.testing.memory_board import MemoryBoard
from tests.contracts.evm import DEPLOYER, CallReverted, Evm
from tests.machines import played
from tests.protocol.prompting import ASSIGNER, RENTER, host_address, terms

ZERO = bytes(32)
NO_HEAD = Head(ZERO, 0, 0, 0)
TREASURY = Address(b"\x7e" * 20)
STRANGER = Address(b"\x77" * 20)
HOSTS = [host_address(n) for n in range(3)]
PEOPLE = [RENTER, ASSIGNER, STRANGER, *HOSTS]
PRICES = (999_999, 2_000_000, 2_000_001)
"""Below one unit a token, at the ceiling, above it."""
RICH = 10**12


def abi(wanted: PromptTerms) -> bindings.PromptTerms:
    """As the bindings take them."""
    return bindings.PromptTerms(*(getattr(wanted, name) for name in PromptTerms.__struct_fields__))


class Twin:
    """Contracts and model, always in the same state."""

    def __init__(self) -> None:
        evm = self.evm = Evm()
        self.usdc = evm.deploy(TestUSDC.deploy_data())
        stakes = evm.deploy(HostStake.deploy_data(DEPLOYER, self.usdc, TREASURY, 200, 100, 40))
        models = evm.deploy(ModelRegistry.deploy_data(DEPLOYER))
        registry = evm.deploy(NodeRegistry.deploy_data(models, stakes))
        proofs = evm.deploy(ProofSystem.deploy_data(DEPLOYER))
        epochs = evm.deploy(EpochProofs.deploy_data(proofs))
        market = evm.deploy(JobMarketplace.deploy_data(TREASURY, proofs, stakes, epochs))
        evm.call(DEPLOYER, stakes, HostStake.encode_announce(market))
        self.market = market
        self.address = evm.deploy(PromptBoard.deploy_data(market, registry))
        proposed = evm.call(
            DEPLOYER, models, ModelRegistry.encode_propose("a/b", "c.gguf", b"\x01" * 32, ZERO, ZERO, NO_HEAD)
        )
        self.model = ModelId(proposed)
        evm.call(DEPLOYER, models, ModelRegistry.encode_approve(proposed, NO_HEAD))
        self.board = MemoryBoard(self.address)
        self.board.now = evm.time
        for person in PEOPLE:
            evm.call(DEPLOYER, self.usdc, TestUSDC.encode_mint(person, RICH))
            for spender in (stakes, self.address):
                evm.call(person, self.usdc, TestUSDC.encode_approve(spender, 2**256 - 1))
        for host, price in zip(HOSTS, PRICES, strict=True):
            evm.call(host, stakes, HostStake.encode_stake(200))
            offers = [Offer(self.model, self.usdc, price)]
            evm.call(host, registry, NodeRegistry.encode_register("http://h", b"\x01" * 32, offers))
            self.board.register(host, self.model, self.usdc, PricePerMTok(price))
        self.known: dict[bytes, PromptTerms] = {}

    def terms(self, number: int, **changes: Any) -> PromptTerms:
        fields = {"token": self.usdc, "model_id": self.model, "deadline": self.evm.time + 120} | changes
        wanted = terms(number, **fields)
        self.known[prompt_id(wanted)] = wanted
        return wanted

    def both(self, sender: Address, data: bytes, model: Callable[[], object]) -> None:
        try:
            model()
            expected = None
        except Reverted as refusal:
            expected = refusal.name
        try:
            self.evm.call(sender, self.address, data)
            got = None
        except CallReverted as refusal:
            got = refusal.revert.name
        assert got == expected

    def balance(self, account: Address) -> int:
        return int.from_bytes(self.evm.view(self.usdc, TestUSDC.encode_balance_of(account)))


class BoardMachine(RuleBasedStateMachine):
    """A renter, an assigner, three hosts of which one is too dear, and a stranger call everything at any time."""

    @initialize()
    def start(self) -> None:
        self.twin = Twin()
        self.number = 0
        self.delegate_set = False

    def pick(self, number: int) -> PromptTerms:
        known = list(self.twin.known.values())
        return known[number % len(known)] if known else self.twin.terms(0)

    @rule(
        by_renter=st.booleans(),
        changes=st.sampled_from(
            [
                *({} for _ in range(6)),
                {"arbiter": HOSTS[0]},
                {"execute_seconds": 300},
                {"max_tokens": Tokens(1)},
                {"max_tokens": Tokens(4_097)},
                {"max_tokens": Tokens(0)},
                {"execute_seconds": 29},
                {"challenge": 899},
                {"challenge": 259_201},
                {"policy": 2},
                {"bond": 0},
                {"signer": ZERO_ADDRESS},
                {"ceiling": PricePerMTok(9_999)},
                {"ceiling": PricePerMTok(2**96 - 1), "max_tokens": Tokens(4_096)},
                {"deadline": 1},
                {"deadline": 2**40 - 1},
                {"model_id": ModelId(b"\x09" * 32)},
            ]
        ),
    )
    def post(self, by_renter: bool, changes: dict[str, Any]) -> None:
        twin = self.twin
        self.number += 1
        wanted = twin.terms(self.number, **changes)
        sender = RENTER if by_renter else STRANGER
        twin.both(sender, PromptBoard.encode_post(abi(wanted)), lambda: twin.board.post(sender, wanted))

    @rule(number=st.integers(0, 9))
    def post_again(self, number: int) -> None:
        twin, wanted = self.twin, self.pick(number)
        twin.both(RENTER, PromptBoard.encode_post(abi(wanted)), lambda: twin.board.post(RENTER, wanted))

    @rule(number=st.integers(0, 9), host=st.sampled_from(HOSTS), by=st.sampled_from([None, None, STRANGER]))
    def claim(self, number: int, host: Address, by: Address | None) -> None:
        twin, wanted, sender = self.twin, self.pick(number), by or host
        data = PromptBoard.encode_claim(abi(wanted), host)
        twin.both(sender, data, lambda: twin.board.claim(sender, wanted, host))

    @rule(
        host=st.sampled_from(HOSTS),
        delegate=st.sampled_from([STRANGER, ZERO_ADDRESS, HOSTS[0]]),
        lasts=st.integers(0, 60),
    )
    def claim_delegate(self, host: Address, delegate: Address, lasts: int) -> None:
        twin = self.twin
        until = twin.evm.time + lasts
        data = PromptBoard.encode_set_claim_delegate(delegate, until)
        twin.both(host, data, lambda: twin.board.set_claim_delegate(host, delegate, until))

    @rule(number=st.integers(0, 9), host=st.sampled_from(HOSTS), sender=st.sampled_from([RENTER, ASSIGNER, STRANGER]))
    def assign(self, number: int, host: Address, sender: Address) -> None:
        twin, wanted = self.twin, self.pick(number)
        data = PromptBoard.encode_assign_job_to_host(abi(wanted), host)
        twin.both(sender, data, lambda: twin.board.assign(sender, wanted, host))

    @rule(
        numbers=st.lists(st.integers(0, 9), min_size=1, max_size=3),
        hosts=st.lists(st.sampled_from(HOSTS), min_size=3, max_size=3),
    )
    def assign_many(self, numbers: list[int], hosts: list[Address]) -> None:
        twin = self.twin
        pairs = tuple((self.pick(number), host) for number, host in zip(numbers, hosts, strict=False))
        data = PromptBoard.encode_assign_jobs_to_hosts([abi(t) for t, _ in pairs], [host for _, host in pairs])
        twin.both(ASSIGNER, data, lambda: twin.board.assign_many(ASSIGNER, pairs))

    @rule(number=st.integers(0, 9), sender=st.sampled_from([*HOSTS, STRANGER]))
    def release(self, number: int, sender: Address) -> None:
        twin, wanted = self.twin, self.pick(number)
        twin.both(sender, PromptBoard.encode_release(abi(wanted)), lambda: twin.board.release(sender, wanted))

    @rule(number=st.integers(0, 9), sender=st.sampled_from(HOSTS), tokens=st.sampled_from([0, 1, 50, 100, 101, 4_097]))
    def complete(self, number: int, sender: Address, tokens: int) -> None:
        twin, wanted = self.twin, self.pick(number)
        result = (Cid(b"\x01" * 32), Hash32(b"\x02" * 32))
        data = PromptBoard.encode_complete(abi(wanted), bindings.Completion(tokens, *result))
        twin.both(sender, data, lambda: twin.board.complete(sender, wanted, Tokens(tokens), *result))

    @rule(number=st.integers(0, 9), sender=st.sampled_from([RENTER, RENTER, ASSIGNER]))
    def cancel(self, number: int, sender: Address) -> None:
        twin, wanted = self.twin, self.pick(number)
        twin.both(sender, PromptBoard.encode_cancel(abi(wanted)), lambda: twin.board.cancel(sender, wanted))

    @rule(number=st.integers(0, 9))
    def refund(self, number: int) -> None:
        twin, wanted = self.twin, self.pick(number)
        twin.both(STRANGER, PromptBoard.encode_refund(abi(wanted)), lambda: twin.board.refund(wanted))

    @rule(
        budget=st.sampled_from([0, 199, 200, 500]),
        lasts=st.integers(0, 60),
        to=st.sampled_from([STRANGER, STRANGER, ZERO_ADDRESS]),
    )
    def delegate(self, budget: int, lasts: int, to: Address) -> None:
        twin = self.twin
        until = twin.evm.time + lasts
        data = PromptBoard.encode_set_delegate(to, twin.usdc, budget, until)
        twin.both(RENTER, data, lambda: twin.board.set_delegate(RENTER, to, twin.usdc, budget, until))

    @rule(token=st.sampled_from([None, None, None, ZERO_ADDRESS]))
    def post_as_delegate(self, token: Address | None) -> None:
        twin = self.twin
        self.number += 1
        wanted = twin.terms(self.number, **({} if token is None else {"token": token}))
        data = PromptBoard.encode_post_as_delegate(abi(wanted))
        twin.both(STRANGER, data, lambda: twin.board.post_as_delegate(STRANGER, wanted))
        if token is not None:
            del twin.known[prompt_id(wanted)]  # what `post` takes for it comes with the call

    @rule(seconds=st.sampled_from([1, 29, 60, 61]))
    def time_passes(self, seconds: int) -> None:
        self.twin.evm.mine(1, seconds)
        self.twin.board.now = self.twin.evm.time

    @rule(seed=st.integers(0, 2**32))
    def flurry(self, seed: int) -> None:
        """Thirty likely calls: deeper into lives than single steps get."""
        chance = random.Random(seed)
        for _ in range(30):
            number, host = -chance.randint(1, 3), chance.choice(HOSTS[:2])
            match chance.randrange(12):
                case 0 | 1:
                    arbiter = {"arbiter": HOSTS[0]} if chance.random() < 0.3 else {}
                    self.post(True, arbiter | {"max_tokens": Tokens(chance.choice([1, 100]))})
                case 2 | 3 | 4:
                    self.claim(number, host, None)
                case 5 | 6:
                    self.complete(number, host, chance.choice([1, 50, 100]))
                case 7:
                    self.assign(number, host, chance.choice([RENTER, ASSIGNER]))
                case 8:
                    self.release(number, host)
                case 9:
                    self.time_passes(chance.choice([1, 60, 60, 59]))
                case 10:
                    self.delegate(chance.choice([200, 400]), chance.choice([1, 60]), STRANGER)
                    self.time_passes(chance.choice([1, 60]))
                    self.post_as_delegate(None)
                case _:
                    self.refund(number) if chance.random() < 0.7 else self.cancel(number, RENTER)
            self.both_hold_the_same()

    @invariant()
    def both_hold_the_same(self) -> None:
        """Every prompt, the money of all prompts, the market's deposits, the renter's purse; and ids and salts are the same."""
        if not hasattr(self, "twin"):
            return
        twin = self.twin
        for prompt, wanted in twin.known.items():
            view = PromptBoard.decode_prompts(twin.evm.view(twin.address, PromptBoard.encode_prompts(prompt)))
            status = twin.board.status(prompt_id(wanted))
            assert view == (status.state, status.host, status.until, status.price, status.escrow)
        escrowed = twin.board.escrowed.get(twin.usdc, 0)
        in_jobs = sum(deposit for _, deposit in twin.board.jobs.values())
        assert (twin.balance(twin.address), twin.balance(twin.market)) == (escrowed, in_jobs)
        back, taken = (ledger.get((RENTER, twin.usdc), 0) for ledger in (twin.board.refunded, twin.board.deposited))
        assert twin.balance(RENTER) == RICH - escrowed - in_jobs == RICH - taken + back
        for job, (_, deposit) in twin.board.jobs.items():
            view_of_job = JobMarketplace.decode_jobs(twin.evm.view(twin.market, JobMarketplace.encode_jobs(job)))
            assert view_of_job.deposit == deposit

    def teardown(self) -> None:
        """Ids and salts, of all prompts that were met."""
        if not hasattr(self, "twin"):
            return
        twin = self.twin
        for prompt, wanted in twin.known.items():
            named = twin.evm.view(twin.address, PromptBoard.encode_id_of(abi(wanted)))
            assert PromptBoard.decode_id_of(named) == prompt
            salt = PromptBoard.decode_salt_of(twin.evm.view(twin.address, PromptBoard.encode_salt_of(prompt)))
            assert salt == job_salt(twin.address, prompt_id(wanted))


TestBoardMachine = BoardMachine.TestCase
TestBoardMachine.settings = played(15, 12)
