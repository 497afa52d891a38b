"""The host's accounts: what counts on which day, and that no grouping makes or loses a unit."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import get_args

import pytest
from hypothesis import given

from fabstir.domain.ids import ZERO_ADDRESS, Address, Hash32, ModelId
from fabstir.domain.money import BaseUnits
from fabstir.protocol.earnings import (
    ETH,
    USDC,
    By,
    Entry,
    Figures,
    amount_text,
    between,
    coin_of,
    entries_of,
    fiat_text,
    grouped,
    totals,
)
from fabstir.protocol.host_log import Credited, JobAdmitted, TurnStarted
from tests.protocol.earning import DEPOSIT, NOON, Log, agreed, logs
from tests.protocol.market import MARKET

FIRST, SECOND, THIRD = (date(2027, 1, day) for day in (15, 16, 17))


def lines(*made: Log) -> list[Entry]:
    return [entry for log in made for entry in entries_of(log.events)]


def money(entry: Entry) -> tuple[object, ...]:
    return entry.day, entry.status, entry.gross, entry.fee, entry.net, entry.outstanding


def tokens(entry: Figures) -> tuple[int, int, int]:
    return entry.served, entry.acknowledged, entry.paid


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        (Log(agreed()), [(None, "open", 0, 0, 0, 0)]),
        (Log(agreed()).serve(30), [(None, "open", 0, 0, 0, 0)]),
        (Log(agreed()).serve(30).sign(), [(None, "open", 0, 0, 0, 60)]),
        (
            Log(agreed()).serve(30).sign().credit(0),
            [(FIRST, "credited", 60, 3, 57, 0), (None, "open", 0, 0, 0, 0)],
        ),
        (
            Log(agreed()).serve(30).sign().credit(0).serve(10).sign(),
            [(FIRST, "credited", 60, 3, 57, 0), (None, "open", 0, 0, 0, 20)],
        ),
        (
            Log(agreed()).serve(30).sign().credit(0).serve(10).sign().close(2),
            [(FIRST, "credited", 60, 3, 57, 0), (THIRD, "closed", 20, 1, 19, 0)],
        ),
        (Log(agreed()).serve(30).sign().close(1), [(SECOND, "closed", 60, 3, 57, 0)]),
        (Log(agreed()).serve(30).sign().close(1, tokens=0), [(SECOND, "closed", 0, 0, 0, 0)]),
        (Log(agreed()).close(1), [(SECOND, "closed", 0, 0, 0, 0)]),
        (
            Log(agreed()).serve(30).sign().credit(0).close(1, tokens=15),
            [(FIRST, "credited", 60, 3, 57, 0), (SECOND, "closed", -30, -1, -29, 0)],
        ),
    ],
    ids=[
        "new", "served", "signed", "credited", "credited and more signed", "credited and closed", "closed at once",
        "closed without the host's claim", "never used", "taken back by a reorganisation",
    ],
)  # fmt: skip
def test_money_counts_on_the_day_it_was_seen(log: Log, expected: list[tuple[object, ...]]) -> None:
    """Day, status, gross, fee, net, outstanding of each entry; a fee is a floor for each credit, as the contract takes it."""
    assert [money(entry) for entry in lines(log)] == expected


def test_the_fee_is_taken_of_each_credit() -> None:
    """Two credits of 30 cost 1 + 1 where one of 60 would cost 3: the contract rounds each down."""
    apart = Log(agreed()).serve(15).sign().credit(0).serve(15).sign().close(0)
    assert [(entry.gross, entry.fee) for entry in lines(apart)] == [(30, 1), (30, 1)]


def test_tokens_count_with_the_entry_that_follows_them() -> None:
    """Served, acknowledged, paid: what a credit does not cover goes with the next one; what was taken back goes too."""
    log = Log(agreed()).serve(30).sign().serve(5).credit(0, tokens=30).resync().serve(10).sign().serve(3).close(1)
    assert [tokens(entry) for entry in lines(log)] == [(35, 30, 30), (8, 10, 10)]


def test_paid_tokens_are_those_of_the_voucher_although_an_amount_buys_more() -> None:
    """At 0.2 units a token, 30 tokens and 34 cost the same 6 units: paid is what was signed."""
    log = Log(agreed(price=200_000)).serve(30).sign().serve(4).credit(0).close(0)
    assert [entry.paid for entry in lines(log)] == [30, 0]


def test_a_claimed_tail_is_paid_beyond_what_was_signed() -> None:
    """The proof was enough."""
    log = Log(agreed()).serve(30).sign().serve(5).credit(0, tokens=35).close(0, tokens=35)
    assert [tokens(entry) for entry in lines(log)] == [(35, 30, 35), (0, 0, 0)]


def test_sessions_are_those_that_asked() -> None:
    """Once each, however often they asked or came back; a log that did not write them down has none."""
    log = Log(agreed()).ask("one").ask("one").serve(1).sign().credit(0).ask("one").ask("two").close(1)
    assert [entry.sessions for entry in lines(log)] == [1, 1]
    old = Log(agreed()).add(TurnStarted(0, Hash32(bytes(32)))).serve(1).close(1)
    assert [entry.sessions for entry in lines(old)] == [0]


def test_a_changed_deposit_changes_no_account() -> None:
    """It is another `job_admitted`; a name that it brings is taken, one that it lacks is not lost."""
    for before, after in (("", "tiny"), ("tiny", "")):
        log = Log(agreed(), before).add(JobAdmitted(agreed(), BaseUnits(2 * DEPOSIT), MARKET, NOON, after)).close(0)
        assert [entry.model for entry in lines(log)] == ["tiny"]


def test_days_are_utc() -> None:
    """One second before midnight is another day than midnight."""
    night = 1_800_057_600.0
    for at, day in ((night - 1, FIRST), (night, SECOND)):
        assert lines(Log(agreed()).add(Credited(BaseUnits(0), at)))[0].day == day


@pytest.mark.parametrize("events", [[], Log(agreed()).serve(1).events[1:]])
def test_a_log_begins_at_its_beginning(events: list[object]) -> None:
    """As the ledger's."""
    with pytest.raises(ValueError, match="begins with job_admitted"):
        entries_of(events)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("since", "until", "expected"),
    [
        (None, None, [FIRST, SECOND, THIRD, None]),
        (SECOND, None, [SECOND, THIRD, None]),
        (None, SECOND, [FIRST, SECOND]),
        (SECOND, SECOND, [SECOND]),
        (date(2028, 1, 1), None, [None]),
        (None, date(2026, 1, 1), []),
    ],
)
def test_both_ends_of_a_period_belong_to_it(since: date | None, until: date | None, expected: list[object]) -> None:
    """What has no day yet comes after every day."""
    log = Log(agreed()).credit(0).credit(1).credit(2)
    assert [entry.day for entry in between(lines(log), since, until)] == expected


def test_each_grouping_has_its_key_and_nothing_that_it_does_not_fix() -> None:
    """Two jobs of one renter, two models, two days; a job is counted once in its row and once in the sum."""
    one = Log(agreed(1)).serve(30).sign().credit(0).close(1)
    two = Log(agreed(2, model_id=ModelId(b"\7" * 32)), model="").serve(10).sign().close(1)
    entries = lines(one, two)
    assert [(row.day, row.jobs, row.gross, row.renter) for row in grouped(entries, "day")] == [
        (FIRST, 1, 60, None),
        (SECOND, 2, 20, None),
    ]
    assert [(row.model, row.jobs, row.gross, row.day) for row in grouped(entries, "model")] == [
        ("tiny", 1, 60, None),
        ("", 1, 20, None),
    ]
    assert [(row.renter, row.jobs, row.gross, row.job) for row in grouped(entries, "renter")] == [
        (agreed().renter, 2, 80, None)
    ]
    assert [(row.job, row.day, row.status, row.gross) for row in grouped(entries, "session")] == [
        (one.ledger.job, SECOND, "closed", 60),
        (two.ledger.job, SECOND, "closed", 20),
    ]
    assert [(row.jobs, row.gross, row.day, row.model, row.renter) for row in totals(entries)] == [
        (2, 80, None, None, None)
    ]


@pytest.mark.parametrize(
    ("log", "status"),
    [
        (Log(agreed()), "open"),
        (Log(agreed()).serve(9).sign(), "open"),
        (Log(agreed()).serve(9).sign().credit(0), "credited"),
        (Log(agreed()).serve(9).sign().credit(0).serve(9).sign(), "open"),
        (Log(agreed()).serve(9).sign().credit(0).close(0), "closed"),
    ],
)
def test_the_status_of_a_job(log: Log, status: str) -> None:
    """Open while signed money waits, credited while none does, closed at the end."""
    assert [row.status for row in grouped(lines(log), "session")] == [status]


def test_coins_are_never_added_up_together() -> None:
    """A row and a total for each."""
    entries = lines(
        Log(agreed(1)).serve(9).sign().close(0), Log(agreed(2, token=ZERO_ADDRESS)).serve(5).sign().close(0)
    )
    assert [(coin_of(row.token), row.gross) for row in totals(entries)] == [(USDC, 18), (ETH, 10)]
    assert [(coin_of(row.token), row.gross) for row in grouped(entries, "day")] == [(USDC, 18), (ETH, 10)]


@given(logs())
def test_every_grouping_has_the_same_sum(made: list[Log]) -> None:
    """For each coin and each figure: the sum over the rows is the total, and the total is what the ledgers say."""
    entries = lines(*made)
    figures = list(Figures.__struct_fields__)
    for total in totals(entries):
        expected = {name: getattr(total, name) for name in figures}
        for by in get_args(By):
            rows = [row for row in grouped(entries, by) if row.token == total.token]
            assert {name: sum(getattr(row, name) for row in rows) for name in figures} == expected
        ledgers = [log.ledger for log in made if log.ledger.terms.token == total.token]
        assert total.jobs == len(ledgers)
        assert total.served == sum(ledger.served for ledger in ledgers)
        assert total.acknowledged == sum(ledger.acknowledged for ledger in ledgers)
        assert total.gross == sum(ledger.closed.owed if ledger.closed else ledger.credited for ledger in ledgers)
        assert total.net + total.fee == total.gross
        due = [ledger.amount(ledger.acknowledged) - ledger.credited for ledger in ledgers if not ledger.closed]
        assert total.outstanding == sum(max(0, amount) for amount in due)


@given(logs())
def test_a_period_and_the_rest_are_everything(made: list[Log]) -> None:
    """Cutting at any day loses no entry and counts none twice."""
    entries = lines(*made)
    before, after = between(entries, None, FIRST), between(entries, SECOND, None)
    assert sorted(map(repr, (*before, *after))) == sorted(map(repr, entries))


@pytest.mark.parametrize(
    ("amount", "coin", "text"),
    [
        (0, USDC, "0.000000"),
        (1_234_567, USDC, "1.234567"),
        (-1_500_000, USDC, "-1.500000"),
        (1, ETH, "0.000000000000000001"),
        (2**96 - 1, ETH, "79228162514.264337593543950335"),
    ],
)
def test_amounts_have_all_decimals(amount: int, coin: object, text: str) -> None:
    """To the last unit, in either direction."""
    assert amount_text(BaseUnits(amount), coin) == text  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("amount", "rate", "text"),
    [
        (1_000_000, "1.08", "1.080000"),
        (1, "1.08", "0.000001"),
        (1, "0.5", "0.000000"),
        (3, "0.5", "0.000002"),
        (-2_000_000, "0.92", "-1.840000"),
        (2**96 - 1, "1", "79228162514264337593543.950335"),
    ],
)
def test_fiat_is_exact_and_rounded_half_to_even(amount: int, rate: str, text: str) -> None:
    """No float on the way."""
    assert fiat_text(BaseUnits(amount), USDC, Decimal(rate)) == text
    assert fiat_text(BaseUnits(amount * 10**12), ETH, Decimal(rate)) == text


def test_the_coin_of_a_contract_is_the_market_s() -> None:
    """The zero address is the chain's own."""
    assert (coin_of(ZERO_ADDRESS), coin_of(Address(b"\4" * 20))) == (ETH, USDC)
