"""Both session cores against each other, with faults at every point and scrambled messages (hypothesis)."""

from __future__ import annotations

from typing import cast

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from fabstir.protocol.host_session import HostInput, SessionState
from fabstir.protocol.messages import Prompt, ReceiptAck, decode_from_renter
from fabstir.protocol.renter_items import Ask, Finish, StopAnswer
from fabstir.protocol.renter_session import RenterState
from fabstir.protocol.signing import recover
from fabstir.protocol.transcript_file import check
from tests.machines import played
from tests.protocol.market import HOST_KEY, MARKET, SESSION_KEY, World, changed, same_ledger, terms


class SessionMachine(RuleBasedStateMachine):
    """One job from open to end. Loss by broken connections, crashes of either side between any two effects."""

    @initialize(exposure=st.sampled_from([1, 2, 3, 16, 64]), deposit=st.sampled_from([1, 7, 40, 400]))
    def start(self, exposure: int, deposit: int) -> None:
        self.world = World(terms(exposure=exposure, price=200_000), deposit, rung=2)
        self.best_signed = 0
        self.best_acknowledged = 0

    # -- honest steps ------------------------------------------------------------------------------------------------

    @rule(steps=st.lists(st.sampled_from([1, 1, 2, 5, 33, 70]), min_size=1, max_size=12))
    def go_on(self, steps: list[int]) -> None:
        """What honest sides would do next, step by step; the numbers are token counts where the engine works."""
        for count in steps:
            self._next_step(count)

    def _next_step(self, count: int) -> None:
        world = self.world
        if world.renter.state is RenterState.OFFLINE:
            world.cut()
            world.connect(world.renter.context)
        elif world.to_host or (world.to_renter and count % 2):
            world.deliver_to_host() or world.deliver_to_renter()
        elif world.generation is not None:
            world.generate(min(count, world.generation.request.max_tokens))
        elif world.renter.state is RenterState.READY and not world.to_renter:
            world.renter_in(Ask(content="q", max_tokens=300))
        else:
            world.deliver_to_renter()

    @precondition(lambda self: self.world.renter.state is RenterState.READY)
    @rule(turns=st.integers(0, 2))
    def go_back(self, turns: int) -> None:
        """The renter goes on from an earlier point of the conversation, on the same connection."""
        self.world.connect(self.world.renter.context[: 2 * turns])

    @precondition(lambda self: self.world.renter.state is RenterState.READY)
    @rule(max_tokens=st.integers(1, 300))
    def ask(self, max_tokens: int) -> None:
        self.world.renter_in(Ask(content="q", max_tokens=max_tokens))

    @rule()
    def flow(self) -> None:
        self.world.flow()

    @precondition(lambda self: self.world.generation is not None)
    @rule(reason=st.sampled_from(["stop", "length"]))
    def finish_generation(self, reason: str) -> None:
        self.world.finish_generation(reason)

    @precondition(lambda self: self.world.renter.state is RenterState.RECEIVING)
    @rule()
    def cancel(self) -> None:
        self.world.renter_in(StopAnswer())

    @rule(really=st.integers(0, 9))
    def finish(self, really: int) -> None:
        if really == 0 and self.world.renter.state is RenterState.READY:
            self.world.renter_in(Finish())

    @rule(seconds=st.sampled_from([1.0, 31.0]))
    def time_passes(self, seconds: float) -> None:
        self.world.tick(seconds)

    @precondition(lambda self: self.world.reading)
    @rule()
    def fingerprints_are_made(self) -> None:
        """Whatever happened since the answer."""
        self.world.fingerprint()

    # -- faults --------------------------------------------------------------------------------------------------------

    @rule(kind=st.sampled_from(["cut", "host fuse", "renter fuse", "host", "renter"]), after=st.integers(0, 6))
    def something_breaks(self, kind: str, after: int) -> None:
        world = self.world
        match kind:
            case "cut":
                world.cut(after)
            case "host fuse":
                world.host_fuse = after
            case "renter fuse":
                world.renter_fuse = after
            case "host":
                world.crash_host()
            case _:
                world.crash_renter()

    # -- scrambled messages: change one field of a valid message, it must be refused -----------------------------------

    @precondition(lambda self: self._next_is(ReceiptAck))
    @rule(field=st.sampled_from(["tokens", "amount", "transcript", "signature", "session_id"]), by=st.integers(1, 70))
    def scramble_voucher(self, field: str, by: int) -> None:
        ack = self._peek(ReceiptAck)
        assert isinstance(ack, ReceiptAck)
        other = {
            "tokens": ack.tokens + by,
            "amount": str(int(ack.amount) + by),
            "transcript": "0x" + "ab" * 32,
            "signature": "0x" + "11" * 64 + "1b",
            "session_id": "other",
        }[field]
        self._refused(changed(ack, **{field: other}))

    @precondition(lambda self: self.world.host.ledger.voucher is not None and self.world.host.connected)
    @rule()
    def replay_voucher(self) -> None:
        voucher = self.world.host.ledger.voucher
        assert voucher is not None
        ack = ReceiptAck(
            session_id="talk",
            tokens=voucher.tokens,
            amount=str(voucher.amount),
            transcript="0x" + voucher.transcript.hex(),
            signature="0x" + voucher.signature.hex(),
        )
        self._refused(changed(ack))

    @precondition(lambda self: self._next_is(Prompt))
    @rule(by=st.integers(1, 5))
    def scramble_prompt(self, by: int) -> None:
        prompt = self._peek(Prompt)
        assert isinstance(prompt, Prompt)
        self._refused(changed(prompt, message_index=prompt.message_index + by))

    def _peek(self, kind: type) -> object:
        message = decode_from_renter(self.world.to_host[0]) if self.world.to_host else None
        return message if isinstance(message, kind) else None

    def _next_is(self, kind: type) -> bool:
        return self.world.host.connected and self._peek(kind) is not None

    def _refused(self, data: bytes) -> None:
        world = self.world
        if world.host_fuse is not None:
            return
        before, journal = repr(world.host), list(world.host_journal)
        was_linked, world.linked = world.linked, False  # the honest renter is not shown what its scrambler got
        sent = world.host_in(cast(HostInput, decode_from_renter(data)))  # as the shell hands it on
        world.linked = was_linked
        assert [type(message).__name__ for message in sent] == ["Error"]
        assert (repr(world.host), world.host_journal) == (before, journal)

    # -- what always holds -------------------------------------------------------------------------------------------------

    @invariant()
    def exposure_is_bounded(self) -> None:
        """Never more than W tokens served and not acknowledged; never a token beyond the deposit."""
        if hasattr(self, "world"):
            host, ledger = self.world.host, self.world.host.ledger
            assert host.served - ledger.acknowledged <= ledger.terms.exposure
            assert ledger.amount(host.served) <= ledger.deposit

    @invariant()
    def nothing_is_signed_that_was_not_received(self) -> None:
        """What the host holds was signed by the renter, and the renter signed only what it had received."""
        if hasattr(self, "world"):
            host, renter = self.world.host.ledger, self.world.renter
            assert host.acknowledged <= renter.ledger.signed <= renter.received
            assert host.acknowledged >= self.best_acknowledged
            assert renter.ledger.signed >= self.best_signed
            self.best_acknowledged, self.best_signed = host.acknowledged, renter.ledger.signed

    @invariant()
    def vouchers_are_good_on_chain(self) -> None:
        """The newest voucher is signed by the session key, over exactly its price."""
        if hasattr(self, "world"):
            ledger = self.world.host.ledger
            if (voucher := ledger.voucher) is not None:
                digest = MARKET.voucher_digest(ledger.job, voucher.amount, voucher.tokens, voucher.transcript)
                assert recover(digest, voucher.signature) == SESSION_KEY.address != HOST_KEY.address
                assert voucher.amount == ledger.amount(voucher.tokens) <= ledger.deposit

    @invariant()
    def log_is_the_state(self) -> None:
        """Replaying the journal gives the state that the running process has, again and again."""
        if hasattr(self, "world"):
            once = self.world.replay_host()
            assert same_ledger(once, self.world.host.ledger)
            assert repr(self.world.replay_renter()) == repr(self.world.renter.ledger)

    @invariant()
    def what_is_kept_is_what_was_signed(self) -> None:
        """Between two answers, the renter can show for what it signed, unless it crashed before it could write an answer down."""
        if hasattr(self, "world") and not self.world.lost_turn:
            renter = self.world.renter
            if renter.state is not RenterState.RECEIVING and renter.ledger.signed:
                assert check(self.world.receipt()).tokens == renter.ledger.signed
                assert check(self.world.transcript()).tokens == renter.ledger.signed

    @invariant()
    def no_deadlock(self) -> None:
        """A blocked host always has a deadline."""
        if hasattr(self, "world") and self.world.host.state is SessionState.BLOCKED:
            assert self.world.host.next_deadline() is not None

    @invariant()
    def honest_sides_never_quarrel(self) -> None:
        """Whatever breaks, an honest host is never left for a protocol error."""
        if hasattr(self, "world"):
            codes = [getattr(effect, "fault", None) for effect in self.world.done]
            bad = {
                "receipt_invalid",
                "fingerprints_invalid",
                "transcript_mismatch",
                "message_malformed",
                "voucher_invalid",
            }
            assert not [fault for fault in codes if fault is not None and fault.code in bad]
            bad |= {"voucher_stale", "voucher_above_deposit", "message_out_of_order", "session_busy"}
            assert not [message for message in self.world.errors if message.code in bad]


TestSessionMachine = SessionMachine.TestCase
TestSessionMachine.settings = played(150, 40)
