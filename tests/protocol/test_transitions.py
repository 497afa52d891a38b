"""Both transition tables, walked pair by pair: in each state, each input has exactly the outcome that stands here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

import pytest

from fabstir.domain.errors import FabstirError, error
from fabstir.domain.ids import Hash32, to_hex
from fabstir.domain.money import BaseUnits, Tokens
from fabstir.protocol import host_session, renter_session
from fabstir.protocol.context.history import Weight
from fabstir.protocol.fingerprinted import FingerprintedAnswer
from fabstir.protocol.generation import GenerationEnd, TokenBatch
from fabstir.protocol.host_inputs import (
    ChainClosing,
    DepositSeen,
    EngineBatch,
    EngineFailed,
    EngineFinished,
    FingerprintsMade,
    HostInput,
    Leaving,
    MemoryShort,
    RenterLost,
    SessionState,
    TimerRest,
    TokensCounted,
)
from fabstir.protocol.messages import (
    Cancel,
    ContextPlan,
    ContextPlanned,
    ContextRequest,
    Error,
    Fingerprints,
    Handoff,
    Notice,
    PaymentReceived,
    PaymentRequired,
    Ping,
    Pong,
    Prompt,
    Receipt,
    ReceiptAck,
    Response,
    SessionClear,
    SessionEnd,
    SessionInit,
    SessionReady,
    SessionResume,
    StateSync,
    StreamChunk,
    Usage,
    decode_from_host,
    decode_from_renter,
)
from fabstir.protocol.renter_items import (
    Ask,
    Clear,
    Connect,
    Finish,
    HostLost,
    RenterCommand,
    RenterInput,
    StopAnswer,
    TellDeposit,
)
from fabstir.protocol.renter_session import RenterState
from fabstir.protocol.signing import keccak
from tests.protocol.market import HOST_KEY, MARKET, SESSION, World, named, opened, records, terms

REFUSED = ["message_out_of_order"]

# -- the host -----------------------------------------------------------------------------------------------------------------


def detached() -> World:
    return World(terms(), 1_000_000)


def preparing() -> World:
    """A prompt that is not counted yet."""
    world = opened()
    world.counts = False
    world.ask()
    return world


def generating() -> World:
    """40 tokens out; the voucher over 32 of them is on its way."""
    world = opened()
    world.ask()
    world.generate(32)
    world.generate(8)
    while world.to_renter:
        world.deliver_to_renter()
    return world


def blocked() -> World:
    """4 tokens out, 2 held back; vouchers are on their way."""
    world = opened(exposure=4)
    world.ask()
    world.generate(6)
    while world.to_renter:
        world.deliver_to_renter()
    return world


def finished() -> World:
    world = opened()
    world.host_in(ChainClosing())
    return world


HOSTS: dict[SessionState, Callable[[], World]] = {
    SessionState.DETACHED: detached,
    SessionState.READY: opened,
    SessionState.PREPARING: preparing,
    SessionState.GENERATING: generating,
    SessionState.BLOCKED: blocked,
    SessionState.FINISHED: finished,
}
ENGINE: dict[type, list[str]] = {TokensCounted: [], EngineBatch: [], EngineFinished: [], EngineFailed: []}
MEMORY: dict[type, list[str]] = {TimerRest: [], MemoryShort: []}
MADE: dict[type, list[str]] = {FingerprintsMade: ["Fingerprints"]}
END = ["Store", "RequestSettlement", "SessionEnd", "Disconnect"]
EXPECTED_OF_HOST: dict[SessionState, dict[type, list[str]]] = {
    SessionState.DETACHED: {
        **MEMORY,
        **ENGINE,
        FingerprintsMade: [],
        Pong: [],
        Leaving: [],
        Ping: ["Pong"],
        RenterLost: [],
        ChainClosing: ["Store", "RequestSettlement"],
        DepositSeen: [],
    },
    SessionState.READY: {
        TimerRest: [],
        MemoryShort: ["Notice"],
        **ENGINE,
        **MADE,
        Pong: [],
        SessionClear: ["StateSync"],
        Leaving: ["Handoff"],
        Ping: ["Pong"],
        Prompt: ["CountTokens"],
        ReceiptAck: ["voucher_stale"],
        Cancel: [],
        SessionEnd: END,
        RenterLost: ["RequestSettlement"],
        ChainClosing: ["job_closed", "Disconnect", "Store", "RequestSettlement"],
        DepositSeen: ["Store", "PaymentReceived"],
    },
    SessionState.PREPARING: {
        **MEMORY,
        **ENGINE,
        **MADE,
        TokensCounted: ["Store", "RunGeneration"],
        EngineFailed: ["engine_gone"],
        Pong: [],
        SessionClear: ["session_busy"],
        Leaving: [],
        Ping: ["Pong"],
        Prompt: ["session_busy"],
        ReceiptAck: ["voucher_stale"],
        Cancel: [],
        SessionEnd: END,
        RenterLost: ["RequestSettlement"],
        ChainClosing: ["job_closed", "Disconnect", "Store", "RequestSettlement"],
        DepositSeen: ["Store", "PaymentReceived"],
    },
    SessionState.GENERATING: {
        **MEMORY,
        **MADE,
        TokensCounted: [],
        Pong: [],
        SessionClear: ["session_busy"],
        Leaving: [],
        Ping: ["Pong"],
        Prompt: ["session_busy"],
        ReceiptAck: ["Store"],
        Cancel: ["CancelGeneration", "Store", "Receipt", "Response"],
        SessionEnd: ["CancelGeneration", "Store", *END],
        EngineBatch: ["StreamChunk"],
        EngineFinished: ["Store", "Receipt", "Response"],
        EngineFailed: ["Store", "Receipt", "engine_gone"],
        RenterLost: ["CancelGeneration", "Store", "RequestSettlement"],
        ChainClosing: ["job_closed", "Disconnect", "CancelGeneration", "Store", "Store", "RequestSettlement"],
        DepositSeen: ["Store", "PaymentReceived"],
    },
    SessionState.BLOCKED: {
        **MEMORY,
        **MADE,
        TokensCounted: [],
        Pong: [],
        SessionClear: ["session_busy"],
        Leaving: [],
        Ping: ["Pong"],
        Prompt: ["session_busy"],
        ReceiptAck: ["Store", "StreamChunk", "Store", "Receipt"],
        Cancel: ["CancelGeneration", "Store", "Response"],
        SessionEnd: ["CancelGeneration", "Store", *END],
        EngineBatch: [],
        EngineFinished: [],
        EngineFailed: ["Store", "engine_gone"],
        RenterLost: ["CancelGeneration", "Store", "RequestSettlement"],
        ChainClosing: ["job_closed", "Disconnect", "CancelGeneration", "Store", "Store", "RequestSettlement"],
        DepositSeen: ["Store", "PaymentReceived"],
    },
    SessionState.FINISHED: {
        **MEMORY,
        **ENGINE,
        FingerprintsMade: [],
        Pong: [],
        Leaving: [],
        Ping: ["Pong"],
        RenterLost: [],
        ChainClosing: [],
        DepositSeen: [],
    },
}


def for_host(kind: type, world: World) -> HostInput:
    """An input of `kind` that is right in this world, as far as it can be."""
    index = world.host.ledger.message_index
    waiting = [decode_from_renter(data) for data in world.to_host]
    acks = [message for message in waiting if isinstance(message, ReceiptAck)]
    hello = SessionResume if kind is SessionResume else SessionInit
    sample: dict[type, Any] = {
        SessionInit: lambda: _hello(world, hello),
        SessionResume: lambda: _hello(world, hello),
        Prompt: lambda: Prompt(session_id=SESSION, message_index=index, content="q"),
        ReceiptAck: lambda: acks[0] if acks else _old_ack(),
        Cancel: lambda: Cancel(session_id=SESSION, message_index=max(0, index - 1)),
        SessionEnd: lambda: SessionEnd(session_id=SESSION),
        Ping: lambda: Ping(id=7),
        Pong: Pong,
        SessionClear: lambda: SessionClear(session_id=SESSION),
        Leaving: Leaving,
        EngineBatch: lambda: EngineBatch(1, TokenBatch(records(0, 2), "ab")),
        EngineFinished: lambda: EngineFinished(
            1, GenerationEnd(finish_reason="stop", prompt_tokens=1, completion_tokens=1)
        ),
        TokensCounted: lambda: TokensCounted(1, (Weight(1),)),
        EngineFailed: lambda: EngineFailed(1, error("engine_gone")),
        FingerprintsMade: lambda: FingerprintsMade(_answer(), (b"made",)),
        RenterLost: RenterLost,
        TimerRest: TimerRest,
        MemoryShort: MemoryShort,
        ChainClosing: ChainClosing,
        DepositSeen: lambda: DepositSeen(BaseUnits(world.host.ledger.deposit + 1)),
    }
    item: HostInput = sample[kind]()
    return item


def _answer() -> FingerprintedAnswer:
    return FingerprintedAnswer(
        session=SESSION, message_index=0, first=Tokens(0), tokens=Tokens(1), transcript=Hash32(bytes(32))
    )


def _hello(world: World, kind: type) -> SessionInit | SessionResume:
    fresh = World(world.terms, 1_000_000)
    fresh.connect()
    init = decode_from_renter(fresh.to_host[0])
    assert isinstance(init, SessionInit)
    if kind is SessionInit:
        return init
    return SessionResume(session_id=init.session_id, job_id=init.job_id, terms=init.terms, auth=init.auth)


def _old_ack() -> ReceiptAck:
    return ReceiptAck(session_id=SESSION, tokens=0, amount="0", transcript="0x" + "00" * 32, signature="0x" + "00" * 65)


@pytest.mark.parametrize("state", SessionState)
@pytest.mark.parametrize("kind", get_args(HostInput), ids=lambda kind: kind.__name__)
def test_host(state: SessionState, kind: type) -> None:
    """Each pair of state and input does what the table here says; every other one is refused and changes nothing."""
    world = HOSTS[state]()
    assert world.host.state is state
    before = repr(world.host)
    got = named(world.host.receive(for_host(kind, world), world.now))
    expected = EXPECTED_OF_HOST[state].get(kind, REFUSED)
    assert got == expected
    assert ((state, kind) in host_session.TRANSITIONS) == (kind in EXPECTED_OF_HOST[state])
    if expected in (REFUSED, [], ["session_busy"], ["voucher_stale"], ["Pong"]):
        assert repr(world.host) == before


# -- the renter -----------------------------------------------------------------------------------------------------------------


def opening() -> World:
    world = World(terms(), 1_000_000)
    world.connect()
    return world


def receiving() -> World:
    """10 of 40 tokens have arrived."""
    world = opened()
    world.ask()
    world.generate(10)
    world.deliver_to_renter()
    return world


def awaiting_plan() -> World:
    """Nothing of the answer has arrived, not even what it is to."""
    world = opened()
    world.renter_in(Ask(content="q", context=ContextRequest()))
    world.deliver_to_host()
    return world


def ending() -> World:
    world = opened()
    world.answer(40)
    world.renter_in(Finish())
    return world


def ended() -> World:
    world = ending()
    world.flow()
    return world


RENTERS: dict[RenterState, Callable[[], World]] = {
    RenterState.OFFLINE: lambda: World(terms(), 1_000_000),
    RenterState.OPENING: opening,
    RenterState.READY: opened,
    RenterState.RECEIVING: receiving,
    RenterState.ENDING: ending,
    RenterState.ENDED: ended,
}
LATE: dict[type, list[str]] = {
    kind: []
    for kind in (
        ContextPlanned,
        StreamChunk,
        Receipt,
        Response,
        Fingerprints,
        PaymentRequired,
        PaymentReceived,
        Error,
        SessionEnd,
        Notice,
        StateSync,
        Handoff,
        Ping,
        Pong,
        HostLost,
    )
}
TOLD: dict[type, list[str]] = {Ping: ["Pong"], Pong: [], Notice: ["ShowNotice"], Fingerprints: []}
EXPECTED_OF_RENTER: dict[RenterState, dict[type, list[str]]] = {
    RenterState.OFFLINE: {**LATE, Connect: ["SessionInit"]},
    RenterState.OPENING: {
        **TOLD,
        HostLost: [],
        SessionReady: ["Rewound", "SessionOpened"],
        StateSync: [],
        Handoff: [],
        Error: ["LeaveHost capacity"],
    },
    RenterState.READY: {
        **TOLD,
        Connect: ["SessionInit"],
        Ask: ["Prompt"],
        Clear: ["SessionClear"],
        StateSync: ["LeaveHost message_out_of_order"],
        Handoff: ["HandedOff"],
        StopAnswer: [],
        Finish: ["SessionEnd"],
        TellDeposit: ["DepositChanged"],
        PaymentRequired: ["PaymentDue"],
        PaymentReceived: ["PaymentSeen"],
        HostLost: [],
        Receipt: ["LeaveHost receipt_invalid"],
        Error: [],
        SessionEnd: ["SessionClosed"],
    },
    RenterState.RECEIVING: {
        **TOLD,
        StopAnswer: ["Cancel"],
        TellDeposit: ["DepositChanged"],
        PaymentRequired: ["PaymentDue"],
        PaymentReceived: ["PaymentSeen"],
        HostLost: ["StoreRenter", "TurnKept", "AnswerBroken host_unreachable"],
        ContextPlanned: ["Planned"],
        StateSync: ["StoreRenter", "TurnKept", "AnswerBroken message_out_of_order", "LeaveHost message_out_of_order"],
        Handoff: ["StoreRenter", "TurnKept", "AnswerBroken draining", "HandedOff"],
        StreamChunk: ["Deliver"],
        Receipt: ["StoreRenter", "ReceiptAck"],
        Response: ["StoreRenter", "TurnKept", "AnswerDone"],
        Error: ["StoreRenter", "TurnKept", "AnswerBroken capacity"],
        SessionEnd: ["StoreRenter", "TurnKept", "AnswerBroken host_unreachable", "SessionClosed"],
    },
    RenterState.ENDING: {
        **TOLD,
        HostLost: [],
        ContextPlanned: [],
        StreamChunk: [],
        Receipt: [],
        Response: [],
        PaymentRequired: [],
        PaymentReceived: [],
        StateSync: [],
        Handoff: [],
        Error: ["LeaveHost capacity"],
        SessionEnd: ["StoreRenter", "SessionClosed"],
    },
    RenterState.ENDED: LATE,
}


def for_renter(kind: type, world: World) -> RenterInput:
    """An input of `kind` that is right in this world, as far as it can be."""
    if world.renter.state is RenterState.RECEIVING and kind is Receipt:
        world.finish_generation()
    elif world.renter.state is RenterState.RECEIVING and kind is StreamChunk:
        world.generate(1)
    elif world.renter.state in (RenterState.OPENING, RenterState.ENDING):
        world.deliver_to_host()
    for data in world.to_renter:
        if type(message := decode_from_host(data)) is kind:
            assert isinstance(message, RenterInput)
            return message
    zeros = "0x" + "00" * 32
    sample: dict[type, Any] = {
        Connect: lambda: Connect(session_id=SESSION, nonce=keccak(b"n"), issued_at=1),
        Ask: lambda: Ask(content="q"),
        StopAnswer: StopAnswer,
        Finish: Finish,
        TellDeposit: TellDeposit,
        PaymentRequired: lambda: PaymentRequired(
            session_id=SESSION, tokens_served=0, tokens_affordable=10, deposit="1000"
        ),
        PaymentReceived: lambda: PaymentReceived(session_id=SESSION, tokens_affordable=10, deposit="1000"),
        HostLost: HostLost,
        SessionReady: _ready,
        ContextPlanned: lambda: ContextPlanned(session_id=SESSION, message_index=0, plan=ContextPlan(spans=(), question=1, frame=0)),
        StreamChunk: lambda: StreamChunk(session_id=SESSION, message_index=0, index=0, content="", tokens=()),
        Receipt: lambda: Receipt(
            session_id=SESSION, tokens=0, amount="0", tokens_in=0, transcript=zeros, signature="0x" + "00" * 65
        ),
        Response: lambda: Response(
            session_id=SESSION, message_index=0, tokens_used=0, finish_reason="stop", usage=Usage(prompt_tokens=0, completion_tokens=0),
            signature=to_hex(HOST_KEY.sign(MARKET.response_digest(
                world.renter.ledger.job, 0, Tokens(0), 0, "stop", world.renter._core.transcript.head
            ))),
        ),
        Fingerprints: lambda: Fingerprints(
            session_id=SESSION, message_index=0, first=0, tokens=1, transcript=zeros, fingerprints=(b"f",), signature="0x" + "00" * 65
        ),
        SessionEnd: lambda: SessionEnd(session_id=SESSION),
        Error: lambda: Error(code="capacity", category="refused", message="", retryable=True, message_index=0),
        Ping: Ping,
        Pong: Pong,
        Clear: Clear,
        StateSync: lambda: StateSync(
            session_id=SESSION, message_index=0, messages=0, conversation=zeros, tokens_served=0, tokens_acknowledged=0, transcript=zeros
        ),
        Handoff: lambda: Handoff(
            session_id=SESSION, reason="draining", message_index=1, tokens_served=world.renter.received, tokens_acknowledged=0,
            transcript=zeros, grace_s=5,
        ),
        Notice: lambda: Notice(code="draining", message=""),
    }  # fmt: skip
    item: RenterInput = sample[kind]()
    return item


def _ready() -> SessionReady:
    world = opening()
    world.deliver_to_host()
    ready = decode_from_host(world.to_renter[0])
    assert isinstance(ready, SessionReady)
    return ready


@pytest.mark.parametrize("state", RenterState)
@pytest.mark.parametrize("kind", get_args(RenterInput), ids=lambda kind: kind.__name__)
def test_renter(state: RenterState, kind: type) -> None:
    """Each pair does what the table here says. Any other message of the host makes the renter leave it and sign nothing; any other
    command is refused and changes nothing."""
    world = awaiting_plan() if (state, kind) == (RenterState.RECEIVING, ContextPlanned) else RENTERS[state]()
    assert world.renter.state is state
    item = for_renter(kind, world)
    before = repr(world.renter)
    expected = EXPECTED_OF_RENTER[state].get(kind)
    assert ((state, kind) in renter_session.TRANSITIONS) == (expected is not None)
    if expected is None and isinstance(item, RenterCommand):
        with pytest.raises(FabstirError, match="message_out_of_order"):
            world.renter.receive(item, world.now)
        assert repr(world.renter) == before
        return
    got = named(world.renter.receive(item, world.now))
    if expected is None:
        assert got[-1] == "LeaveHost message_out_of_order"
        assert "ReceiptAck" not in got
        assert world.renter.state is RenterState.OFFLINE
    else:
        assert got == expected
    if expected == []:
        left = kind is HostLost
        assert world.renter.state is (RenterState.OFFLINE if left and state is not RenterState.ENDED else state)


NEXT_OF_HOST: dict[tuple[SessionState, type], SessionState] = {
    (SessionState.DETACHED, ChainClosing): SessionState.FINISHED,
    (SessionState.READY, Prompt): SessionState.PREPARING,
    (SessionState.PREPARING, TokensCounted): SessionState.GENERATING,
    (SessionState.PREPARING, EngineFailed): SessionState.READY,
    (SessionState.BLOCKED, ReceiptAck): SessionState.GENERATING,
    **{(s, k): SessionState.READY for s in (SessionState.GENERATING, SessionState.BLOCKED) for k in (Cancel, EngineFailed)},
    (SessionState.GENERATING, EngineFinished): SessionState.READY,
    **{
        (s, k): after
        for s in (SessionState.READY, SessionState.PREPARING, SessionState.GENERATING, SessionState.BLOCKED)
        for k, after in (
            (SessionEnd, SessionState.FINISHED),
            (ChainClosing, SessionState.FINISHED),
            (RenterLost, SessionState.DETACHED),
        )
    },
}  # fmt: skip
NEXT_OF_RENTER: dict[tuple[RenterState, type], RenterState] = {
    (RenterState.OFFLINE, Connect): RenterState.OPENING,
    (RenterState.READY, Connect): RenterState.OPENING,
    (RenterState.READY, Ask): RenterState.RECEIVING,
    (RenterState.READY, Finish): RenterState.ENDING,
    (RenterState.READY, Receipt): RenterState.OFFLINE,
    **{(s, StateSync): RenterState.OFFLINE for s in (RenterState.READY, RenterState.RECEIVING)},
    (RenterState.RECEIVING, Handoff): RenterState.READY,
    (RenterState.READY, SessionEnd): RenterState.ENDED,
    (RenterState.OPENING, SessionReady): RenterState.READY,
    (RenterState.OPENING, Error): RenterState.OFFLINE,
    (RenterState.RECEIVING, Response): RenterState.READY,
    (RenterState.RECEIVING, Error): RenterState.OFFLINE,
    (RenterState.RECEIVING, SessionEnd): RenterState.ENDED,
    (RenterState.ENDING, Error): RenterState.OFFLINE,
    (RenterState.ENDING, SessionEnd): RenterState.ENDED,
    **{(s, HostLost): RenterState.OFFLINE for s in (RenterState.OPENING, RenterState.READY, RenterState.RECEIVING, RenterState.ENDING)},
}  # fmt: skip


@pytest.mark.parametrize("pair", host_session.TRANSITIONS, ids=lambda pair: f"{pair[0].value}-{pair[1].__name__}")
def test_next_state_of_host(pair: tuple[SessionState, type]) -> None:
    """Each handled input leads to the state that stands here; those that do not stand here change no state."""
    world = HOSTS[pair[0]]()
    world.host.receive(for_host(pair[1], world), world.now)
    assert world.host.state is NEXT_OF_HOST.get(pair, pair[0])


@pytest.mark.parametrize("pair", renter_session.TRANSITIONS, ids=lambda pair: f"{pair[0].value}-{pair[1].__name__}")
def test_next_state_of_renter(pair: tuple[RenterState, type]) -> None:
    """As for the host."""
    world = awaiting_plan() if pair == (RenterState.RECEIVING, ContextPlanned) else RENTERS[pair[0]]()
    world.renter.receive(for_renter(pair[1], world), world.now)
    assert world.renter.state is NEXT_OF_RENTER.get(pair, pair[0])
