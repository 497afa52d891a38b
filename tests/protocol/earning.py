"""Logs of jobs as a host writes them, for the tests of its accounts."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import strategies as st

from fabstir.domain.ids import ZERO_ADDRESS, Address, Hash32, ModelId
from fabstir.domain.money import BaseUnits, Tokens
from fabstir.domain.terms import Terms
from fabstir.protocol.host_log import (
    Credited,
    HostEvent,
    HostLedger,
    JobAdmitted,
    JobClosed,
    Resynced,
    TokensServed,
    TurnStarted,
    VoucherAccepted,
    session_tag,
)
from tests.protocol.market import MARKET, terms

NOON: float = 1_800_014_400.0
"""2027-01-15 12:00 UTC."""
DAY: float = 86_400.0
DEPOSIT = BaseUnits(10**12)


def agreed(number: int = 1, price: int = 2_000_000, **changes: Any) -> Terms:
    """Job `number`; a token costs two base units unless said otherwise."""
    return msgspec.structs.replace(terms(price=price), salt=Hash32(number.to_bytes(32, "big")), **changes)


class Log:
    """One job's log as it grows. Days count from 2027-01-15."""

    def __init__(self, agreed: Terms, model: str = "tiny") -> None:
        self.events: list[HostEvent] = [JobAdmitted(agreed, DEPOSIT, MARKET, NOON, model)]
        self.ledger = HostLedger.replay(self.events)

    def add(self, *events: HostEvent) -> Log:
        for event in events:
            self.events.append(event)
            self.ledger.apply(event)
        return self

    def ask(self, session: Any = "talk") -> Log:
        return self.add(
            TurnStarted(self.ledger.message_index, Hash32(bytes(32)), session_tag(self.ledger.job, session))
        )

    def serve(self, tokens: int) -> Log:
        return self.add(TokensServed(bytes(32 * tokens)))

    def sign(self) -> Log:
        """The renter signs for everything that was served."""
        served = self.ledger.served
        return self.add(VoucherAccepted(served, self.ledger.amount(served), self.ledger.head, bytes(65)))

    def resync(self) -> Log:
        """The renter has only what it signed for."""
        signed = self.ledger.acknowledged
        return self.add(Resynced(signed, self.ledger.heads[signed]))

    def credit(self, day: int, tokens: int | None = None) -> Log:
        """Seen on chain: so many tokens are paid for, else all signed ones."""
        return self.add(Credited(self._owed(tokens), NOON + day * DAY))

    def close(self, day: int, tokens: int | None = None) -> Log:
        owed = self._owed(tokens)
        return self.add(JobClosed(owed, BaseUnits(DEPOSIT - owed), NOON + day * DAY))

    def _owed(self, tokens: int | None) -> BaseUnits:
        return self.ledger.amount(self.ledger.acknowledged if tokens is None else Tokens(tokens))


@st.composite
def logs(draw: st.DrawFn) -> list[Log]:
    """Some jobs of few renters, models and coins, each with whatever can happen to it, credited late, in part, and by days."""
    made = []
    for number in range(1, draw(st.integers(0, 5)) + 1):
        changes = {
            "renter": Address(bytes([draw(st.integers(1, 2))]) * 20),
            "model_id": ModelId(bytes([draw(st.integers(1, 2))]) * 32),
            "token": draw(st.sampled_from([ZERO_ADDRESS, Address(b"\4" * 20)])),
        }
        price = draw(st.sampled_from([1, 200_000, 2_000_000, 7_654_321, 10**15]))
        log = Log(agreed(number, price, **changes), draw(st.sampled_from(["", "tiny", 'a "b", c\n'])))
        day = 0
        for _ in range(draw(st.integers(0, 8))):
            day += draw(st.integers(0, 2))
            match draw(st.sampled_from(["ask", "serve", "serve", "sign", "sign", "resync", "credit", "tail"])):
                case "ask":
                    log.ask(draw(st.sampled_from(["one", "two"])))
                case "serve":
                    log.serve(draw(st.integers(1, 40)))
                case "sign":
                    log.sign()
                case "resync":
                    log.resync()
                case "credit":
                    log.credit(day)
                case _:
                    log.credit(day, log.ledger.served)
        if draw(st.booleans()):
            log.close(day, draw(st.sampled_from([None, 0, log.ledger.served])))
        made.append(log)
    return made
