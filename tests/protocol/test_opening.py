"""The answer to a dispute: an honest host's records always open its commitment, and nothing else does."""

from __future__ import annotations

from typing import Any, Final

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from fabstir.domain.ids import Hash32
from fabstir.domain.money import BaseUnits, Tokens
from fabstir.domain.terms import Terms
from fabstir.protocol.host_log import (
    CommitmentMade,
    HostEvent,
    HostLedger,
    JobAdmitted,
    Resynced,
    ServedTurn,
    TokensServed,
    TurnEnded,
    TurnStarted,
    VoucherAccepted,
    decode_event,
    encode_event,
)
from fabstir.protocol.opening import Opening, opening_of, refusal_of
from fabstir.protocol.signing import Market, keccak
from tests.protocol.market import HOST_KEY, MARKET, SESSION_KEY, terms

TERMS: Final = terms()
TREE: Final = Hash32(b"\7" * 32)
Step = tuple[str, list[int]]
STEPS: Final[st.SearchStrategy[Step]] = st.one_of(
    st.tuples(st.just("turn"), st.lists(st.integers(1, 5), max_size=3)),
    st.tuples(st.just("voucher"), st.just([])),
    st.tuples(st.just("resync"), st.lists(st.integers(0, 5), min_size=1, max_size=1)),
)


class Served:
    """One job's log as an honest host writes it, and every voucher that the renter ever signed."""

    def __init__(self) -> None:
        self.events: list[HostEvent] = [JobAdmitted(TERMS, BaseUnits(10**9), MARKET, 0.0)]
        self.ledger = HostLedger.replay(self.events)
        self.made = 0

    def record(self, *events: HostEvent) -> None:
        for event in events:
            self.events.append(event)
            self.ledger.apply(event)

    def turn(self, batches: list[int]) -> None:
        """An answer in batches; without any it is empty."""
        index = self.ledger.message_index
        self.record(TurnStarted(index, keccak(b"asked" + bytes([self.made % 256]))))
        for size in batches:
            self.record(TokensServed(b"".join(self._digest() for _ in range(size))))
        self.record(TurnEnded(index, "stop"))

    def _digest(self) -> bytes:
        self.made += 1
        return keccak(b"record%d" % self.made)

    def sign(self) -> None:
        """The renter signs for everything."""
        ledger = self.ledger
        if ledger.served > ledger.acknowledged:
            tokens, head = ledger.served, ledger.heads[ledger.served]
            digest = MARKET.voucher_digest(ledger.job, ledger.amount(tokens), tokens, head)
            self.record(VoucherAccepted(tokens, ledger.amount(tokens), head, SESSION_KEY.sign(digest)))

    def resync(self, back: int) -> None:
        """The renter comes back with fewer tokens than were sent, but all that it signed for."""
        tokens = Tokens(max(self.ledger.acknowledged, self.ledger.served - back))
        self.record(Resynced(tokens, self.ledger.heads[tokens]))

    def play(self, steps: list[Step]) -> None:
        for name, arguments in steps:
            if name == "turn":
                self.turn(arguments)
            elif name == "voucher":
                self.sign()
            else:
                self.resync(arguments[0])

    def commitment(self) -> CommitmentMade:
        ledger = self.ledger
        head = ledger.head_at(ledger.served)
        assert head is not None
        return CommitmentMade(ledger.served, TREE, head, 0)


@given(steps=st.lists(STEPS, min_size=1, max_size=12), data=st.data())
def test_an_honest_hosts_opening_holds(steps: list[Step], data: st.DataObject) -> None:
    """Whatever turns, empty turns, vouchers and lost connections there were, from every voucher on, also after a restart."""
    served = Served()
    served.play(steps)
    commitment = served.commitment()
    signed = data.draw(st.sampled_from([Tokens(0), *served.ledger.vouchers]))
    opening = opening_of(served.ledger, commitment, signed)
    assert refusal_of(MARKET, TERMS, signed, opening) == ""
    assert len(opening.records) == commitment.tokens - signed
    again = HostLedger.replay([decode_event(encode_event(event)) for event in served.events])
    assert opening_of(again, commitment, signed) == opening


def _busy() -> tuple[Opening, Tokens]:
    """Signed in the middle; before and after it several turns, one of them empty."""
    served = Served()
    for step in (([3], True), ([2, 2], True), ([], False), ([4], False), ([1], False)):
        served.turn(step[0])
        if step[1]:
            served.sign()
    signed = served.ledger.acknowledged
    return opening_of(served.ledger, served.commitment(), signed), signed


OPENING, SIGNED = _busy()
OTHER: Final = Hash32(b"\x99" * 32)


def _changed(**fields: Any) -> Opening:
    return msgspec.structs.replace(OPENING, **fields)


def _turns(at: int, **fields: Any) -> tuple[ServedTurn, ...]:
    turn = msgspec.structs.replace(OPENING.turns[at], **fields)
    return (*OPENING.turns[:at], turn, *OPENING.turns[at + 1 :])


def test_what_the_examples_below_are_made_of() -> None:
    """Seven tokens signed; an empty turn, four tokens, and one."""
    assert refusal_of(MARKET, TERMS, SIGNED, OPENING) == ""
    assert (SIGNED, OPENING.first, OPENING.tokens, len(OPENING.records)) == (7, 7, 12, 5)
    assert [(turn.tokens, turn.message_index) for turn in OPENING.turns] == [(7, 2), (7, 3), (11, 4)]


@pytest.mark.parametrize(
    ("opening", "refusal"),
    [
        (_changed(head=OTHER), "OpeningMismatch"),
        (_changed(first=Tokens(0)), "OpeningMismatch"),
        (_changed(first=Tokens(8)), "OpeningMismatch"),
        (_changed(transcript=OTHER), "BadSignature"),
        (_changed(voucher=HOST_KEY.sign(OTHER)), "BadSignature"),
        (_changed(voucher=b""), "BadSignature"),
        (_changed(records=OPENING.records[:-1]), "OpeningMalformed"),
        (_changed(records=(*OPENING.records, OTHER)), "OpeningMalformed"),
        (_changed(records=(OTHER, *OPENING.records[1:])), "OpeningMismatch"),
        (_changed(records=OPENING.records[::-1]), "OpeningMismatch"),
        (_changed(tokens=Tokens(11)), "OpeningMalformed"),
        (_changed(tokens=Tokens(6)), "OpeningMalformed"),
        (_changed(turns=OPENING.turns[1:]), "OpeningMismatch"),
        (_changed(turns=OPENING.turns[:-1]), "OpeningMismatch"),
        (_changed(turns=(*OPENING.turns, ServedTurn(Tokens(12), 5, OTHER))), "OpeningMismatch"),
        (_changed(turns=(*OPENING.turns, ServedTurn(Tokens(13), 5, OTHER))), "OpeningMalformed"),
        (_changed(turns=OPENING.turns[::-1]), "OpeningMalformed"),
        (_changed(turns=_turns(0, message_index=9)), "OpeningMismatch"),
        (_changed(turns=_turns(0, request=OTHER)), "OpeningMismatch"),
        (_changed(turns=_turns(2, tokens=Tokens(10))), "OpeningMismatch"),
        (_changed(turns=_turns(0, tokens=Tokens(6))), "OpeningMalformed"),
    ],
)
def test_any_change_is_refused(opening: Opening, refusal: str) -> None:
    """One part changed, everything else right: the contract's word for it."""
    assert refusal_of(MARKET, TERMS, SIGNED, opening) == refusal


@given(
    steps=st.lists(STEPS, min_size=1, max_size=8),
    at=st.integers(0, 10**6),
    what=st.sampled_from(["record", "turn", "head", "transcript", "voucher", "drop record", "drop turn"]),
)
def test_one_flipped_part_of_any_opening_is_refused(steps: list[Step], at: int, what: str) -> None:
    """From the newest voucher on, in whatever job: nothing of an opening is free to choose."""
    served = Served()
    served.play(steps)
    opening = opening_of(served.ledger, served.commitment(), served.ledger.acknowledged)
    changed = _flipped(opening, at, what)
    assume(changed is not None and changed != opening)
    assert changed is not None
    assert refusal_of(MARKET, TERMS, served.ledger.acknowledged, changed) != ""


def _flipped(opening: Opening, at: int, what: str) -> Opening | None:
    """None where there is no such part."""
    records, turns = list(opening.records), list(opening.turns)
    if what == "head":
        return msgspec.structs.replace(opening, head=_flip(opening.head))
    if what in ("transcript", "voucher"):
        return msgspec.structs.replace(opening, **{what: _flip(getattr(opening, what))}) if opening.first else None
    parts: list[Any] = records if "record" in what else turns
    if not parts:
        return None
    part = parts.pop(at % len(parts))
    if not what.startswith("drop"):
        new = _flip(part) if part in opening.records else msgspec.structs.replace(part, request=_flip(part.request))
        parts.insert(at % (len(parts) + 1), new)
    return msgspec.structs.replace(opening, records=tuple(records), turns=tuple(turns))


def _flip(value: bytes) -> Hash32:
    return Hash32(bytes([value[0] ^ 1]) + value[1:])


@pytest.mark.parametrize(
    ("market", "agreed"),
    [
        (Market(8453, MARKET.address), TERMS),
        (MARKET, msgspec.structs.replace(TERMS, salt=OTHER)),
        (MARKET, msgspec.structs.replace(TERMS, host=SESSION_KEY.address)),
    ],
    ids=["chain", "job", "host"],
)
def test_an_opening_is_of_one_job(market: Market, agreed: Terms) -> None:
    """Records of another job, another host or another chain open nothing, signed for or not."""
    served = Served()
    served.turn([5])
    unsigned = opening_of(served.ledger, served.commitment(), Tokens(0))
    assert refusal_of(MARKET, TERMS, Tokens(0), unsigned) == ""
    assert refusal_of(market, agreed, Tokens(0), unsigned) == "OpeningMismatch"
    assert refusal_of(market, agreed, SIGNED, OPENING) == "BadSignature"


def test_the_voucher_that_the_contract_redeemed_must_be_known() -> None:
    """Forgotten ones are behind it: `forget_vouchers` keeps the one from which a dispute begins."""
    served = Served()
    for _ in range(3):
        served.turn([4])
        served.sign()
    served.turn([2])
    served.ledger.forget_vouchers(Tokens(8))
    assert refusal_of(MARKET, TERMS, Tokens(8), opening_of(served.ledger, served.commitment(), Tokens(8))) == ""
    with pytest.raises(KeyError):
        opening_of(served.ledger, served.commitment(), Tokens(4))
