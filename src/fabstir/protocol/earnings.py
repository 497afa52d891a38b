"""What a host earned, by its own log: dated entries of each job, and their sums by day, model, renter or session.

Money counts on the day (UTC) on which the host saw it credited or its job closed; what a renter signed for and nobody
redeemed yet has no day and stands apart as `outstanding`. Tokens and sessions count with the entry that follows them, so
that every grouping has the same sum. Never asks the chain and hashes nothing: `fabstir.protocol.host_log.HostLedger` is
what proofs and vouchers are made from, this is what accounts are made from.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from datetime import UTC, date, datetime
from decimal import ROUND_HALF_EVEN, Decimal, localcontext
from typing import Final, Literal, NamedTuple, get_args

import msgspec

from fabstir.domain.ids import ZERO_ADDRESS, Address, JobId, ModelId
from fabstir.domain.money import BaseUnits, Tokens, affordable, cost, fee_of
from fabstir.protocol.host_log import (
    DIGEST,
    Credited,
    HostEvent,
    JobAdmitted,
    JobClosed,
    Resynced,
    TokensServed,
    TurnStarted,
    VoucherAccepted,
)
from fabstir.protocol.signing import job_id

By = Literal["day", "model", "renter", "session"]
"""What the rows stand for; a session is a job, the unit that is paid."""
Status = Literal["open", "credited", "closed"]
"""open: served, perhaps signed, not redeemed; credited: the contract owes it to the host; closed: credited, and the job is over."""

FIAT_PLACES: Final = Decimal("0.000001")
"""As fine as USDC itself: an answer is worth a fraction of a cent."""
DIGITS: Final = 80
"""Enough for the largest amount (29 digits) times any rate."""


class Coin(NamedTuple):
    """What a job is paid in."""

    symbol: str
    decimals: int


ETH: Final = Coin("ETH", 18)
USDC: Final = Coin("USDC", 6)


def coin_of(token: Address) -> Coin:
    """The coin at `token`. A host takes the market's USDC and nothing else that is a contract (`HostSettings.offer`)."""
    return ETH if token == ZERO_ADDRESS else USDC


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """What can be added up."""

    sessions: int = 0
    """Those that asked something; 0 in logs of before this was written."""
    served: Tokens = Tokens(0)
    acknowledged: Tokens = Tokens(0)
    paid: Tokens = Tokens(0)
    """As many of the served tokens as `gross` pays for."""
    gross: BaseUnits = BaseUnits(0)
    """Credited, the marketplace's fee included."""
    fee: BaseUnits = BaseUnits(0)
    outstanding: BaseUnits = BaseUnits(0)
    """Signed and not credited yet, the fee included."""

    @property
    def net(self) -> BaseUnits:
        """What the host keeps of `gross`."""
        return BaseUnits(self.gross - self.fee)


class Entry(Figures, frozen=True, kw_only=True):
    """One line of the accounts of one job: a credit, its close, or what is still open."""

    day: date | None
    """UTC; None for what is still open."""
    chain_id: int
    job: JobId
    model_id: ModelId
    model: str
    """What this host called it; "" where the log does not say."""
    renter: Address
    token: Address
    status: Status


class Row(Figures, frozen=True, kw_only=True):
    """One row of a grouping and one coin. What the grouping does not fix is None."""

    token: Address
    jobs: int
    day: date | None = None
    job: JobId | None = None
    model_id: ModelId | None = None
    model: str | None = None
    renter: Address | None = None
    status: Status | None = None


class _Position(NamedTuple):
    """Counts up to here."""

    sessions: int = 0
    served: int = 0
    acknowledged: int = 0
    paid: int = 0
    credited: int = 0


class _JobAccount:
    """The fold of one job's log into entries. Memory: the amounts of vouchers since the last credit, a tag for each session."""

    def __init__(self, admitted: JobAdmitted) -> None:
        self.entries: list[Entry] = []
        self._admitted = admitted
        self._job = job_id(admitted.terms)
        self._sessions: set[bytes] = set()
        self._served = 0
        self._acknowledged = Tokens(0)
        self._signed: dict[int, int] = {0: 0}
        """Amount -> the most tokens that a voucher of this amount stands for, from the last credit on."""
        self._booked = _Position()
        self._closed = False

    def apply(self, event: HostEvent) -> None:
        """Take one event in; those that say nothing about money are passed over."""
        match event:
            case JobAdmitted():
                self._admitted = event if event.model else msgspec.structs.replace(event, model=self._admitted.model)
            case TurnStarted():
                self._sessions |= {event.session} - {b""}
            case TokensServed():
                self._served += len(event.records) // DIGEST
            case Resynced():
                self._served = int(event.tokens)
            case VoucherAccepted():
                self._acknowledged = event.tokens
                self._signed[event.amount] = event.tokens
            case Credited():
                self._book("credited", event.owed, event.at)
            case JobClosed():
                self._closed = True
                self._book("closed", event.owed, event.at)

    def finish(self) -> None:
        """After the last event: an open job has one entry more, for what no credit covers."""
        if not self._closed:
            self._book("open", BaseUnits(self._booked.credited), None)

    def _book(self, status: Status, owed: BaseUnits, at: float | None) -> None:
        before, terms = self._booked, self._admitted.terms
        now = _Position(len(self._sessions), self._served, self._acknowledged, self._paid(owed), owed)
        gross = now.credited - before.credited
        signed = cost(self._acknowledged, terms.price)
        self.entries.append(
            Entry(
                day=None if at is None else datetime.fromtimestamp(at, UTC).date(),
                chain_id=self._admitted.market.chain_id,
                job=self._job,
                model_id=terms.model_id,
                model=self._admitted.model,
                renter=terms.renter,
                token=terms.token,
                status=status,
                sessions=now.sessions - before.sessions,
                served=Tokens(now.served - before.served),
                acknowledged=Tokens(now.acknowledged - before.acknowledged),
                paid=Tokens(now.paid - before.paid),
                gross=BaseUnits(gross),
                # less than before only after a reorganisation of the chain: the fee of what was taken back, taken back
                fee=fee_of(BaseUnits(gross)) if gross >= 0 else BaseUnits(-fee_of(BaseUnits(-gross))),
                outstanding=BaseUnits(max(0, signed - owed)) if status == "open" else BaseUnits(0),
            )
        )
        self._booked = now
        self._signed = {amount: tokens for amount, tokens in self._signed.items() if amount >= owed}

    def _paid(self, owed: BaseUnits) -> int:
        """What a voucher of just this amount stood for; else (a claimed tail, a cut deposit) as many as the amount buys."""
        signed = self._signed.get(owed)
        return min(self._served, affordable(owed, self._admitted.terms.price)) if signed is None else signed


def entries_of(events: Iterable[HostEvent]) -> tuple[Entry, ...]:
    """The entries of one job's log, oldest first. Raises ValueError where it does not begin with JobAdmitted."""
    account: _JobAccount | None = None
    for event in events:
        if account is not None:
            account.apply(event)
        elif isinstance(event, JobAdmitted):
            account = _JobAccount(event)
        else:
            break
    if account is None:
        raise ValueError("a job's log begins with job_admitted")
    account.finish()
    return tuple(account.entries)


def between(entries: Iterable[Entry], since: date | None, until: date | None) -> tuple[Entry, ...]:
    """Entries of the days from `since` to `until`, both included. What has no day yet comes after every day."""
    return tuple(
        entry
        for entry in entries
        if (since is None or entry.day is None or entry.day >= since)
        and (until is None or (entry.day is not None and entry.day <= until))
    )


# -- grouping -----------------------------------------------------------------------------------------------------------------

_KEYS: Final[dict[By, Callable[[Entry], Hashable]]] = {
    "day": lambda entry: entry.day,
    "model": lambda entry: entry.model_id,
    "renter": lambda entry: entry.renter,
    "session": lambda entry: entry.job,
}
if set(_KEYS) != set(get_args(By)):
    raise AssertionError("a grouping without its key")


def grouped(entries: Sequence[Entry], by: By) -> tuple[Row, ...]:
    """One row for each value of the grouping and each coin: days in their order, what has no day last; others as they first appear."""
    groups: dict[tuple[Hashable, Address], list[Entry]] = {}
    for entry in entries:
        groups.setdefault((_KEYS[by](entry), entry.token), []).append(entry)
    rows = [_row(group, by) for group in groups.values()]
    return tuple(sorted(rows, key=lambda row: row.day or date.max) if by == "day" else rows)


def totals(entries: Sequence[Entry]) -> tuple[Row, ...]:
    """One row for each coin; a job counts once."""
    coins = dict.fromkeys(entry.token for entry in entries)
    return tuple(_row([entry for entry in entries if entry.token == coin], None) for coin in coins)


def _row(group: Sequence[Entry], by: By | None) -> Row:
    last = group[-1]
    names = [entry.model for entry in group if entry.model]
    model = names[-1] if names else ""
    session = by == "session"
    return Row(
        token=last.token,
        jobs=len({entry.job for entry in group}),
        day=max((entry.day for entry in group if entry.day), default=None) if by in ("day", "session") else None,
        job=last.job if session else None,
        model_id=last.model_id if by in ("model", "session") else None,
        model=model if by in ("model", "session") else None,
        renter=last.renter if by in ("renter", "session") else None,
        status=_status(group) if session else None,
        sessions=sum(entry.sessions for entry in group),
        served=Tokens(sum(entry.served for entry in group)),
        acknowledged=Tokens(sum(entry.acknowledged for entry in group)),
        paid=Tokens(sum(entry.paid for entry in group)),
        gross=BaseUnits(sum(entry.gross for entry in group)),
        fee=BaseUnits(sum(entry.fee for entry in group)),
        outstanding=BaseUnits(sum(entry.outstanding for entry in group)),
    )


def _status(group: Sequence[Entry]) -> Status:
    """Of a job: closed; credited where nothing is outstanding; else open."""
    if any(entry.status == "closed" for entry in group):
        return "closed"
    paid_up = not any(entry.outstanding for entry in group)
    return "credited" if paid_up and any(entry.status == "credited" for entry in group) else "open"


# -- amounts as text ----------------------------------------------------------------------------------------------------------


def amount_text(amount: BaseUnits, coin: Coin) -> str:
    """All decimals of the coin, without its symbol: `1234567` USDC -> `1.234567`."""
    whole, part = divmod(abs(amount), 10**coin.decimals)
    return f"{'-' if amount < 0 else ''}{whole}.{part:0{coin.decimals}d}"


def fiat_text(amount: BaseUnits, coin: Coin, rate: Decimal) -> str:
    """`amount` at `rate` for one whole coin, rounded half to even to six decimals."""
    with localcontext(prec=DIGITS):
        value = Decimal(amount).scaleb(-coin.decimals) * rate
        return f"{value.quantize(FIAT_PLACES, ROUND_HALF_EVEN):f}"
