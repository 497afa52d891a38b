"""`fabstir earnings`: one set of figures in three forms, read from a journal that a settler wrote, without touching it."""

from __future__ import annotations

import csv
import io
import json
import sqlite3
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from structlog.testing import capture_logs
from tests.cli.conftest import Fabstir
from tests.host.settler_world import World
from tests.protocol.earning import Log, agreed, logs

from fabstir.cli.earnings import AMOUNTS, COUNTS, Fiat, Report, as_csv, as_data, as_table, report
from fabstir.domain.ids import ZERO_ADDRESS, to_hex
from fabstir.domain.money import BaseUnits
from fabstir.domain.terms import ProofPolicy
from fabstir.protocol.earnings import By, entries_of
from fabstir.protocol.host_log import encode_event
from fabstir.storage.journal import JOURNAL_FILE, SqliteJournal

FALLBACK = ProofPolicy.FALLBACK
EUR = Fiat("EUR", Decimal("0.92"))
TODAY = "2027-01-15"
"""Of the settler's clock."""


@pytest.fixture
def journal_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the host of the settings keeps its journal."""
    monkeypatch.setenv("FABSTIR_HOST_DATA_DIR", str(tmp_path))
    return tmp_path / JOURNAL_FILE


async def settled(journal: SqliteJournal) -> World:
    """A host with three jobs: closed and paid, redeemed while it runs, signed and not redeemed."""
    market = World(journal, redeem_above=BaseUnits(50_000))
    await market.job(served=300, signed=300, salt=1, policy=FALLBACK)
    await market.job(served=30, signed=30, salt=2, finished=False, policy=FALLBACK)
    await market.job(served=25, signed=20, salt=3, finished=False, policy=FALLBACK)
    with capture_logs():  # they would go to the command's stdout
        await market.settle(5)
    return market


async def store(path: Path, *made: Log) -> None:
    """A journal with just these jobs."""
    journal = SqliteJournal(path)
    for log in made:
        await journal.append("job:" + log.ledger.job.hex(), [encode_event(event) for event in log.events])
    await journal.close()


async def test_the_figures_are_the_same_while_the_host_runs_and_after_it(fabstir: Fabstir, journal_path: Path) -> None:
    """And they are what the chain says: net is what it owes the host, to the last unit."""
    journal = SqliteJournal(journal_path)
    market = await settled(journal)
    running = fabstir("earnings", "--json")
    await journal.close()
    assert fabstir("earnings", "--json") == running
    (total,) = running.json()["totals"]
    assert (total["jobs"], total["tokens_served"], total["tokens_acknowledged"], total["tokens_paid"]) == (
        3,
        355,
        350,
        330,
    )
    assert (total["gross"], total["fee"], total["outstanding"]) == ("660000", "33000", "40000")
    token = market.renter.info.usdc
    assert total["net"] == str(await market.host.earnings(token, market.host.account))


async def test_by_day_for_people(fabstir: Fabstir, journal_path: Path) -> None:
    """One line a day, one for what is open, one for the sum; and where the figures are from."""
    journal = SqliteJournal(journal_path)
    await settled(journal)
    await journal.close()
    ran = fabstir("earnings")
    assert (ran.code, ran.err) == (0, "")
    head, *lines = [line.split() for line in ran.out.splitlines()]
    assert head == [
        *("day", "jobs", "sessions", "served", "signed", "paid"),
        *("gross", "fee", "net", "outstanding"),
    ]
    figures = ["330", "330", "330", "0.660000", "0.033000", "0.627000", "0.000000"]
    assert [TODAY, "2", "0", *figures] in lines
    assert ["open", "2", "0", "25", "20", "0", "0.000000", "0.000000", "0.000000", "0.040000"] in lines
    assert ["total", "3", "0", "355", "350", "330", *figures[3:6], "0.040000"] in lines
    assert "Amounts in USDC." in ran.out
    assert "fabstir wallet show --role host" in ran.out


async def test_by_session_as_csv(fabstir: Fabstir, journal_path: Path) -> None:
    """RFC 4180: a header, CRLF, whole ids, no sum that a spreadsheet would add again."""
    journal = SqliteJournal(journal_path)
    market = await settled(journal)
    await journal.close()
    ran = fabstir("earnings", "--by", "session", "--csv", "--rate", "0.92", "--currency", "eur")
    header, *lines = ran.out.split("\r\n")
    assert header == (
        "job,day,status,model_id,model,renter,token,jobs,sessions,tokens_served,tokens_acknowledged,tokens_paid,"
        "gross,fee,net,outstanding,net_eur"
    )
    assert lines.pop() == ""
    rows = [dict(zip(header.split(","), line.split(","), strict=True)) for line in lines]
    assert [(row["status"], row["day"], row["net"], row["net_eur"], row["outstanding"]) for row in rows] == [
        ("closed", TODAY, "0.570000", "0.524400", "0.000000"),
        ("credited", TODAY, "0.057000", "0.052440", "0.000000"),
        ("open", "", "0.000000", "0.000000", "0.040000"),
    ]
    assert {row["renter"] for row in rows} == {to_hex(market.renter.account)}
    assert all(len(row["job"]) == len(row["model_id"]) == 66 for row in rows)


async def test_a_period_cuts_by_day(fabstir: Fabstir, journal_path: Path) -> None:
    """Both days belong to it, and what is open has no day."""
    await store(journal_path, Log(agreed()).serve(30).sign().credit(0).serve(10).sign().credit(1).serve(5).sign())

    def days(*options: str) -> list[tuple[str | None, str]]:
        return [(row["day"], row["gross"]) for row in fabstir("earnings", "--json", *options).json()["rows"]]

    assert days() == [(TODAY, "60"), ("2027-01-16", "20"), (None, "0")]
    assert days("--since", "2027-01-16") == [("2027-01-16", "20"), (None, "0")]
    assert days("--until", TODAY) == [(TODAY, "60")]
    assert days("--since", "2027-01-17", "--until", "2027-01-18") == []
    assert "No job of this chain and time" in fabstir("earnings", "--until", "2026-01-01").out


async def test_jobs_of_another_chain_are_left_out_and_told(
    fabstir: Fabstir, journal_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Play money is not added to real money; stdout stays what a program expects."""
    await store(journal_path, Log(agreed()).serve(30).sign().close(0))
    monkeypatch.setenv("FABSTIR_CHAIN_CHAIN_ID", "8453")
    ran = fabstir("earnings", "--csv")
    assert len(ran.out.splitlines()) == 1
    assert ran.err == "Left out, jobs of other chains than 8453: 1.\n"
    told = fabstir("earnings", "--json")
    assert (told.err, told.json()["jobs_of_other_chains"], told.json()["rows"]) == ("", 1, [])


async def test_a_journal_without_jobs_is_no_error(fabstir: Fabstir, journal_path: Path) -> None:
    """A host that nobody came to yet earned nothing."""
    await store(journal_path)
    assert "No job" in fabstir("earnings").out
    assert fabstir("earnings", "--csv").out.count("\r\n") == 1
    assert fabstir("earnings", "--json").json()["totals"] == []


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--since", "yesterday"), "'yesterday' is no day"),
        (("--until", "2026-02-30"), "'2026-02-30' is no day"),
        (("--since", "20260131"), "'20260131' is no day"),
        (("--since", "2026-02-02", "--until", "2026-02-01"), "is after"),
        (("--csv", "--json"), "exclude each other"),
        (("--rate", "1.08"), "go together"),
        (("--currency", "EUR"), "go together"),
        (("--rate", "1.08", "--currency", "euro"), "'euro' is no currency"),
        *(((f"--rate={rate}", "--currency", "EUR"), "is no rate") for rate in ("0", "-1", "nan", "1e5", "1,08", "", "1" * 13)),
    ],
)  # fmt: skip
def test_a_wrong_option_is_told_before_anything_is_read(fabstir: Fabstir, options: tuple[str, ...], told: str) -> None:
    """With what was given and how it should be."""
    refused = fabstir("earnings", *options, *([] if "--json" in options else ["--json"]))
    assert refused.code == 1
    assert refused.json()["error"]["code"] == "request_invalid"
    assert told in refused.json()["error"]["detail"]
    assert refused.json()["error"]["next_step"]


def test_a_grouping_that_does_not_exist_is_wrong_usage(fabstir: Fabstir) -> None:
    """As for every command."""
    assert fabstir("earnings", "--by", "moon").code == 2


def test_without_a_journal_the_next_step_is_told(fabstir: Fabstir, journal_path: Path) -> None:
    """And nothing is made."""
    ran = fabstir("earnings")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.splitlines() == [
        "Error journal_missing: There is no journal here.",
        f"  {journal_path} does not exist",
        "  Next: Run `fabstir host start` once, or name the host's configuration with --config.",
    ]
    assert list(journal_path.parent.iterdir()) == []


async def test_a_journal_of_another_version_is_told(fabstir: Fabstir, journal_path: Path) -> None:
    """Of the file, and of an event in it: no figure is shown that may be wrong."""
    await store(journal_path, Log(agreed()).close(0))
    journal = SqliteJournal(journal_path)
    await journal.append("job:ff", [msgspec.msgpack.encode({"type": "from_the_future"})])
    await journal.close()
    refused = fabstir("earnings", "--json").json()["error"]
    assert refused["code"] == "journal_unreadable"
    assert "job:ff" in refused["detail"] and "from_the_future" in refused["detail"]
    with closing(sqlite3.connect(journal_path)) as connection:
        connection.execute("PRAGMA user_version = 9")
    refused = fabstir("earnings", "--json").json()["error"]
    assert (refused["code"], refused["next_step"]) == ("journal_unreadable", "Use the newer program that wrote it.")


# -- the three forms ----------------------------------------------------------------------------------------------------------


def made_of(jobs: list[Log], by: By, fiat: Fiat | None = None) -> Report:
    return report([entry for log in jobs for entry in entries_of(log.events)], by, None, None, 31337, fiat)


def rendered(shown: Report) -> list[list[str]]:
    console = Console(file=io.StringIO(), width=400)
    console.print(as_table(shown))
    assert isinstance(console.file, io.StringIO)
    return [line.split() for line in console.file.getvalue().splitlines()]


def in_coins(row: dict[str, Any]) -> list[str]:
    """Counts and amounts of a row of JSON, as the other forms write them."""
    amounts = [f"{Decimal(int(row[name])) / 10 ** row['decimals']:.{row['decimals']}f}" for name in AMOUNTS]
    return [row["token"], *(str(row[name]) for name in COUNTS), *amounts]


@given(logs(), st.sampled_from(get_args(By)))
def test_csv_and_json_say_the_same(jobs: list[Log], by: By) -> None:
    """Row for row, whatever a model is called; the sums of the CSV's columns are the totals of the JSON."""
    shown = made_of(jobs, by, EUR)
    data = json.loads(msgspec.json.encode(as_data(shown)))
    table = list(csv.DictReader(io.StringIO(as_csv(shown), newline="")))
    assert [[row[name] for name in ("token", *COUNTS, *AMOUNTS)] for row in table] == [
        in_coins(r) for r in data["rows"]
    ]
    for name in ("day", "job", "status", "model_id", "model", "renter", "net_eur"):
        assert [row.get(name) or None for row in table] == [row.get(name) or None for row in data["rows"]]
    for total in data["totals"]:
        rows = [row for row in table if row["token"] == total["token"]]
        for name in (*COUNTS[1:], *AMOUNTS):
            scale = 10 ** total["decimals"] if name in AMOUNTS else 1
            assert sum(int(Decimal(row[name]) * scale) for row in rows) == int(total[name])


@given(logs(), st.sampled_from(["day", "renter"]))
def test_the_table_and_json_say_the_same(jobs: list[Log], by: Any) -> None:
    """Each row, then each total; no figure is cut."""
    shown = made_of(jobs, by)
    data = as_data(shown)
    lines = rendered(shown)
    if not data["rows"]:
        assert lines[0][:2] == ["No", "job"]
        return
    first = 0 if len(data["totals"]) > 1 else 1  # the coin, where there are two
    names = [row["day"] or "open" if by == "day" else row["renter"][:10] + "…" for row in data["rows"]]
    expected = [[name, *in_coins(row)[first:]] for name, row in zip(names, data["rows"], strict=True)]
    assert lines[1 : len(expected) + 1] == expected
    sums = [["total", *in_coins(row)[first:]] for row in data["totals"]]
    assert [line for line in lines if line[:1] == ["total"]] == sums


def test_the_rate_is_of_usdc_only() -> None:
    """A row of another coin has an empty cell, not a wrong figure."""
    jobs = [Log(agreed(1)).serve(500).sign().close(0), Log(agreed(2, token=ZERO_ADDRESS)).serve(500).sign().close(0)]
    assert [row["net_eur"] for row in as_data(made_of(jobs, "day", EUR))["totals"]] == ["0.000874", ""]


def test_a_model_s_name_is_text_and_nothing_else() -> None:
    """Neither markup for the terminal nor more than one cell of CSV; without a name the id stands there, cut."""
    shown = made_of([Log(agreed(1), "[red]a,b"), Log(agreed(2), "")], "session")
    assert rendered(shown)[1][3] == "[red]a,b"
    assert rendered(shown)[2][3] == to_hex(agreed().model_id)[:10] + "…"
    assert [row["model"] for row in csv.DictReader(io.StringIO(as_csv(shown)))] == ["[red]a,b", ""]
