"""One board, some hosts, one renter: a whole market of prompt jobs in memory."""

from __future__ import annotations

from contextlib import suppress

from fabstir.domain.ids import Hash32
from fabstir.domain.money import BaseUnits, PricePerMTok
from fabstir.domain.prompts import PromptId, PromptTerms
from fabstir.domain.terms import JobState
from fabstir.protocol import prompt_order, prompt_order_log
from fabstir.protocol.prompt_order import OrderRules, OrderSituation
from fabstir.protocol.prompt_order_log import OrderEvent, OrderLedger, OrderPlanned, OrderStage
from fabstir.protocol.prompt_signing import prompt_id
from fabstir.protocol.settlement import Reverted
from tests.protocol.prompting import BOARD, MARKET, MODEL, RENTER, TOKEN, Common, Crash, Pending, Process, host_address
from tests.protocol.prompting_host import HostProcess


class RenterProcess(Process):
    """The renter: planner and shell."""

    def __init__(self, world: Common) -> None:
        super().__init__(world, RENTER)
        self.wanted: dict[PromptId, bool] = {}
        self.rules = OrderRules(dispute_above=BaseUnits(1))
        self.disputed: list[PromptId] = []
        self.vouchers: dict[PromptId, Hash32] = {}
        self.market: dict[PromptId, JobState] = {}
        self.restart()

    def restart(self) -> None:
        """From the journal alone."""
        self.fuse = -1
        self.ledgers = {
            prompt: OrderLedger.replay([prompt_order_log.decode_event(data) for data in events])
            for prompt, events in self.journal.items()
        }

    def order(self, wanted: PromptTerms) -> None:
        """Plan a job; `step` posts it."""
        prompt = prompt_id(wanted)
        self.world.terms[prompt] = wanted
        planned = OrderPlanned(wanted, BOARD, MARKET, float(self.world.now))
        self.journal[prompt] = [prompt_order_log.encode_event(planned)]
        self.ledgers[prompt] = OrderLedger(planned)

    def step(self) -> None:
        """One action for each order. A crash restarts."""
        try:
            for prompt in list(self.ledgers):
                self.act(prompt)
        except Crash:
            self.restart()

    def plan(self, prompt: PromptId) -> prompt_order.Action:
        world = self.world
        situation = OrderSituation(
            status=world.board.status(prompt),
            completion=world.board.completion(prompt),
            now=float(world.now),
            candidates=tuple(world.hosts),
            wanted=self.wanted.get(prompt, True),
            job=self.market.get(prompt),
        )
        return prompt_order.plan(self.ledgers[prompt], situation, self.rules)

    def store(self, prompt: PromptId, event: OrderEvent) -> None:
        """Append, then apply."""
        self.durable(lambda: self.journal[prompt].append(prompt_order_log.encode_event(event)))
        self.ledgers[prompt].apply(event)

    def act(self, prompt: PromptId) -> prompt_order.Action:
        """One action, carried out."""
        action = self.plan(prompt)
        with suppress(Pending, Reverted):
            self.ask_chain(prompt, action)
            self.remember(prompt, action)
        return action

    def ask_chain(self, prompt: PromptId, action: prompt_order.Action) -> None:
        """The actions that are transactions."""
        board, now, wanted = self.world.board, float(self.world.now), self.ledgers[prompt].terms
        match action:
            case prompt_order.PostOrder():
                self.transact(action.key, lambda: board.post(RENTER, wanted))
            case prompt_order.AssignHost():
                self.store(prompt, prompt_order_log.HostAssigned(action.host, now))
                self.transact(action.key, lambda: board.assign(RENTER, wanted, action.host))
            case prompt_order.CancelOrder():
                self.transact(action.key, lambda: board.cancel(RENTER, wanted))
            case prompt_order.RefundOrder():
                self.transact(action.key, lambda: board.refund(wanted))
            case prompt_order.DisputeClaim():
                self.disputed.append(prompt)
                self.store(prompt, prompt_order_log.DisputeSent(action.reason, now))

    def remember(self, prompt: PromptId, action: prompt_order.Action) -> None:
        """The others: look, check, sign, write down."""
        now = float(self.world.now)
        match action:
            case prompt_order.NotePosted():
                self.store(prompt, prompt_order_log.OrderPosted(now))
            case prompt_order.NoteLapsed():
                self.store(prompt, prompt_order_log.HostLapsed(action.host, action.until, now))
            case prompt_order.NoteAnswer():
                self.store(prompt, prompt_order_log.AnswerSeen(action.completion, now))
            case prompt_order.FetchResult():
                if action.cid in self.world.contents:
                    self.store(prompt, prompt_order_log.ResultAccepted(Hash32(b"\x0f" * 32), now))
            case prompt_order.RefuseResult():
                self.store(prompt, prompt_order_log.ResultRefused(action.code, now))
            case prompt_order.SignAnswer():
                signed = prompt_order_log.AnswerSigned(action.tokens, action.amount, action.transcript, b"s", now)
                self.store(prompt, signed)
            case prompt_order.DeliverVoucher():
                self.vouchers[prompt] = Hash32(b"\x0f" * 32)
                self.store(prompt, prompt_order_log.VoucherDelivered(now))
            case prompt_order.NoteEnded():
                self.store(prompt, prompt_order_log.OrderEnded(action.how, now))


class World(Common):
    """One board, some hosts, one renter, one store."""

    def __init__(self, hosts: int = 3) -> None:
        super().__init__()
        for number in range(hosts):
            self.hosts.append(host_address(number))
            self.board.register(host_address(number), MODEL, TOKEN, PricePerMTok(1_000_000))
        self.processes = [HostProcess(self, number) for number in range(hosts)]
        self.renter = RenterProcess(self)

    def step(self) -> None:
        """Everybody acts once."""
        for process in (self.renter, *self.processes):
            process.down -= 1
            if process.down < 0:
                process.step()

    def pass_time(self, seconds: int, stride: int = 2) -> None:
        """Time passes, and everybody acts in each block."""
        end = self.now + seconds
        while self.now < end:
            self.board.now = min(end, self.now + stride)
            self.step()

    def mine_late(self) -> None:
        """Every transaction that waits is mined."""
        for process in (self.renter, *self.processes):
            process.mine()

    def ended(self) -> bool:
        """Every order came to its end on the board, and both sides know."""
        done = (OrderStage.ENDED, OrderStage.DELIVERED, OrderStage.DISPUTED)
        return all(ledger.stage in done for ledger in self.renter.ledgers.values())
