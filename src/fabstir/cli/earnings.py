"""`fabstir earnings`: what the host on this machine earned, by its journal. Reads one file: asks no chain, needs no key,
and does not mind whether the host runs. The sums are `fabstir.protocol.earnings`."""

from __future__ import annotations

import csv as csv_format
import io
import re
import sys
from collections.abc import Sequence
from datetime import date
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any, Final, NamedTuple

import msgspec
from cyclopts import Parameter

from fabstir.cli.frame import CONFIGURED, Configured
from fabstir.domain.errors import error
from fabstir.domain.ids import to_hex
from fabstir.domain.money import BaseUnits
from fabstir.protocol.earnings import By, Coin, Entry, Row, amount_text, between, coin_of, fiat_text, grouped, totals

KEYS: Final[dict[By, tuple[str, ...]]] = {
    "day": ("day",),
    "model": ("model_id", "model"),
    "renter": ("renter",),
    "session": ("job", "day", "status", "model_id", "model", "renter"),
}
COUNTS: Final = ("jobs", "sessions", "tokens_served", "tokens_acknowledged", "tokens_paid")
PEOPLE_SAY: Final = {"tokens_served": "served", "tokens_acknowledged": "signed", "tokens_paid": "paid"}
AMOUNTS: Final = ("gross", "fee", "net", "outstanding")
WHAT_IT_IS: Final = (
    "By the host's journal, days in UTC.\n"
    "Tokens served, signed for and paid; net = gross - 5 % fee; outstanding is signed and not redeemed yet.\n"
    "To compare with the chain: `fabstir wallet show --role host` says what the contract owes, which is net without what was "
    "withdrawn."
)
RATE: Final = re.compile(r"\d+(\.\d+)?\Z", re.ASCII)


class Fiat(NamedTuple):
    """A currency and what one USDC is worth in it."""

    currency: str
    rate: Decimal


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that is shown, in whatever form."""

    by: By
    since: date | None
    until: date | None
    chain_id: int
    fiat: Fiat | None
    rows: tuple[Row, ...]
    totals: tuple[Row, ...]
    left_out: int
    """Jobs of other chains."""


def earnings(
    *,
    by: Annotated[By, Parameter(help="What a row stands for. A session is a job: the unit that is paid.")] = "day",
    since: Annotated[str | None, Parameter(help="First day that counts, like 2026-01-31 (UTC).")] = None,
    until: Annotated[str | None, Parameter(help="Last day that counts; leaves out what is still open.")] = None,
    csv: Annotated[bool, Parameter(negative="", help="Print CSV with a header line, without totals.")] = False,
    rate: Annotated[str | None, Parameter(help="What one USDC is worth; adds a column of net in --currency.")] = None,
    currency: Annotated[str | None, Parameter(help="Three letters, like EUR; goes with --rate.")] = None,
    common: Configured = CONFIGURED,
) -> None:
    """What this host earned: tokens served, acknowledged and paid, gross, fee, net, and what is still outstanding.

    The figures are the view of the host's journal: money counts on the day (UTC) on which the host saw it credited or its
    job closed; tokens count with the money that follows them. Nothing is asked of a chain, so it works offline, while the
    host runs and while it is stopped. To compare with the chain: `fabstir wallet show --role host` says what the contract
    owes, which is net without what was withdrawn.

    Amounts have all decimals of their coin for people and in CSV; in JSON they are base units.
    """
    if csv and common.json:
        raise error("request_invalid", "--csv and --json exclude each other", "Choose one of the two.")
    first, last = _day("--since", since), _day("--until", until)
    if first and last and first > last:
        raise error("request_invalid", f"--since {first} is after --until {last}", "Swap the two days.")
    fiat = _fiat(rate, currency)
    from fabstir.bootstrap.earnings import read_earnings

    config = common.settings(quietly=True)
    shown = report(read_earnings(config.host.data_dir), by, first, last, config.chain.chain_id, fiat)
    if shown.left_out and not common.json:
        print(f"Left out, jobs of other chains than {shown.chain_id}: {shown.left_out}.", file=sys.stderr)
    if csv:
        sys.stdout.write(as_csv(shown))
    else:
        common.show(as_data(shown), lambda: as_table(shown))


def _day(option: str, text: str | None) -> date | None:
    if text is None:
        return None
    try:
        day = date.fromisoformat(text)
    except ValueError:
        day = None
    if day is None or day.isoformat() != text:
        raise error("request_invalid", f"{option} {text!r} is no day", "Write it like 2026-01-31.")
    return day


def _fiat(rate: str | None, currency: str | None) -> Fiat | None:
    if rate is None and currency is None:
        return None
    if rate is None or currency is None:
        raise error("request_invalid", "--rate and --currency go together", "For example --rate 0.92 --currency EUR.")
    if not re.fullmatch("[A-Za-z]{3}", currency):
        raise error("request_invalid", f"{currency!r} is no currency", "Give its three letters, like EUR.")
    try:
        worth = Decimal(rate) if RATE.match(rate) else Decimal(0)
    except InvalidOperation:
        worth = Decimal(0)
    if not 0 < worth < 10**12 or len(rate) > 30:
        raise error("request_invalid", f"{rate!r} is no rate", "Give a positive number like 0.92.")
    return Fiat(currency.upper(), worth)


def report(
    entries: Sequence[Entry], by: By, since: date | None, until: date | None, chain_id: int, fiat: Fiat | None
) -> Report:
    """What is shown of `entries`: the days asked for, on the chain of the settings."""
    here = between([entry for entry in entries if entry.chain_id == chain_id], since, until)
    return Report(
        by=by,
        since=since,
        until=until,
        chain_id=chain_id,
        fiat=fiat,
        rows=grouped(here, by),
        totals=totals(here),
        left_out=len({entry.job for entry in entries if entry.chain_id != chain_id}),
    )


# -- one row, as data and as text ---------------------------------------------------------------------------------------------


def _keys(row: Row) -> dict[str, str]:
    """What the row stands for."""
    return {
        "day": row.day.isoformat() if row.day else "",
        "job": to_hex(row.job or b""),
        "status": row.status or "",
        "model_id": to_hex(row.model_id or b""),
        "model": row.model or "",
        "renter": to_hex(row.renter or b""),
    }


def _counts(row: Row) -> dict[str, int]:
    return dict(zip(COUNTS, (row.jobs, row.sessions, row.served, row.acknowledged, row.paid), strict=True))


def _amounts(row: Row) -> dict[str, BaseUnits]:
    return dict(zip(AMOUNTS, (row.gross, row.fee, row.net, row.outstanding), strict=True))


def _worth(row: Row, coin: Coin, fiat: Fiat | None) -> dict[str, str]:
    """The column of the currency; empty for a coin that the rate is not of."""
    if fiat is None:
        return {}
    return {_fiat_column(fiat): fiat_text(row.net, coin, fiat.rate) if coin.symbol == "USDC" else ""}


def _fiat_column(fiat: Fiat) -> str:
    return f"net_{fiat.currency.lower()}"


def _cells(row: Row, keys: Sequence[str], fiat: Fiat | None) -> dict[str, str]:
    """Every column as text, amounts with all decimals."""
    coin, known = coin_of(row.token), _keys(row)
    return (
        {key: known[key] for key in keys}
        | {"token": coin.symbol}
        | {name: str(count) for name, count in _counts(row).items()}
        | {name: amount_text(amount, coin) for name, amount in _amounts(row).items()}
        | _worth(row, coin, fiat)
    )


def as_csv(shown: Report) -> str:
    """RFC 4180. No totals: a spreadsheet that adds the column up would count everything twice."""
    keys = KEYS[shown.by]
    columns = [*keys, "token", *COUNTS, *AMOUNTS, *([_fiat_column(shown.fiat)] if shown.fiat else [])]
    out = io.StringIO(newline="")
    writer = csv_format.DictWriter(out, columns)
    writer.writeheader()
    writer.writerows(_cells(row, keys, shown.fiat) for row in shown.rows)
    return out.getvalue()


def as_data(shown: Report) -> dict[str, Any]:
    """For JSON. Amounts are decimal texts of base units; wei exceed what JSON's numbers hold."""

    def plain(row: Row, keys: Sequence[str]) -> dict[str, Any]:
        coin, known = coin_of(row.token), _keys(row)
        amounts = {name: str(amount) for name, amount in _amounts(row).items()}
        head = {key: known[key] or None for key in keys} | {"token": coin.symbol, "decimals": coin.decimals}
        return head | _counts(row) | amounts | _worth(row, coin, shown.fiat)

    return {
        "source": "journal",
        "chain_id": shown.chain_id,
        "jobs_of_other_chains": shown.left_out,
        "by": shown.by,
        "since": shown.since,
        "until": shown.until,
        "currency": shown.fiat.currency if shown.fiat else None,
        "rate": str(shown.fiat.rate) if shown.fiat else None,
        "rows": [plain(row, KEYS[shown.by]) for row in shown.rows],
        "totals": [plain(row, ()) for row in shown.totals],
    }


def as_table(shown: Report) -> object:
    """For rich: long ids cut, the model by its name where the log has one, the coin in a column only where there are two."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    if not shown.rows:
        return "No job of this chain and time is in the journal."
    coins = {coin_of(row.token).symbol for row in shown.totals}
    heads = [key for key in KEYS[shown.by] if key != "model_id"]
    counts = COUNTS if shown.by != "session" else COUNTS[1:]
    figures = [*counts, *AMOUNTS, *([_fiat_column(shown.fiat)] if shown.fiat else [])]
    coin = ["token"] if len(coins) > 1 else []
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for name in (*heads, *coin):
        table.add_column(name, no_wrap=name != "model", overflow="fold")
    for name in figures:
        table.add_column(PEOPLE_SAY.get(name, name), justify="right", overflow="fold")
    for row in shown.rows:
        cells = _cells(row, KEYS[shown.by], shown.fiat)
        # a Text: a model's name is not markup
        table.add_row(*(Text(_for_people(name, cells)) for name in heads), *(cells[name] for name in (*coin, *figures)))
    table.add_section()
    for row in shown.totals:
        cells = _cells(row, (), shown.fiat)
        table.add_row("total", *("" for _ in heads[1:]), *(cells[name] for name in (*coin, *figures)))
    return Group(table, "", f"Amounts in {' and '.join(sorted(coins))}. {WHAT_IT_IS}")


def _for_people(name: str, cells: dict[str, str]) -> str:
    if name == "model" and not cells["model"]:
        return _short(cells["model_id"])
    if name == "day" and not cells["day"]:
        return "open"
    return _short(cells[name]) if name in ("job", "renter") else cells[name]


def _short(identifier: str) -> str:
    return f"{identifier[:10]}…"
