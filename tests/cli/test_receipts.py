"""`fabstir receipt` and `fabstir verify receipt`: from a session to a file that anybody can check, beside a renter that runs."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from tests.cli.conftest import Fabstir, Ran
from tests.renter.test_failover import gather
from tests.renter.world import MODEL, world_of

from fabstir.domain.ids import to_hex
from fabstir.renter.keeping import Keeper
from fabstir.storage.journal import JOURNAL_FILE, SqliteJournal


def refusal(ran: Ran) -> str:
    """The code of the error that a command ended with."""
    assert ran.code == 1
    return ran.err.split()[1].rstrip(":")


async def a_renter(folder: Path, monkeypatch: pytest.MonkeyPatch, *, words: bool) -> str:
    """Two answers, in the files of a renter; the job's id."""
    monkeypatch.setenv("FABSTIR_RENTER_DATA_DIR", str(folder))
    journal = SqliteJournal(folder / JOURNAL_FILE)
    keeper = Keeper(folder / "transcripts", words=words)
    with capture_logs():  # they would go to the command's stdout
        async with world_of(200_000) as world, world.market(journal) as market:  # type: ignore[arg-type]
            market.keeping(keeper)
            async with market.session(MODEL) as session:
                await gather(session.prompt("count 40"))
                await gather(session.prompt("a secret"))
                [job] = session.jobs
    await journal.close()
    return to_hex(job.id)


async def test_from_a_session_to_a_checked_receipt(
    fabstir: Fabstir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Listed, exported by the beginning of its id, private, without a word of what was said, and found to hold together."""
    job = await a_renter(tmp_path, monkeypatch, words=False)
    (row,) = fabstir("receipt", "list", "--json").json()["receipts"]
    assert (row["job"], row["answers"], row["words"], row["fault"]) == (job, 2, False, "")
    file = tmp_path / "receipt.json"
    assert fabstir("receipt", "export", job[:10], str(file), "--json").json()["answers"] == 2
    assert stat.S_IMODE(file.stat().st_mode) == 0o600 and b"secret" not in file.read_bytes()
    checked = fabstir("verify", "receipt", str(file), "--json").json()
    assert (checked["job"], checked["tokens"], checked["tokens_unsigned"]) == (job, row["tokens"], 0)
    assert refusal(fabstir("receipt", "export", job, str(tmp_path / "words.json"), "--words")) == "transcript_missing"


async def test_a_receipt_that_was_changed_is_refused(
    fabstir: Fabstir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the reason; so are a cut-off file, rubbish, a missing file, and an export over a file that exists."""
    job = await a_renter(tmp_path, monkeypatch, words=True)
    file = tmp_path / "session.json"
    assert fabstir("receipt", "export", job, str(file), "--words").code == 0
    whole = file.read_bytes()
    changed = json.loads(whole)
    changed["signed"]["amount"] = "1"
    for data in (json.dumps(changed).encode(), whole[:-20], b"\xff\x00"):
        file.write_bytes(data)
        assert refusal(fabstir("verify", "receipt", str(file))) == "receipt_file_invalid"
    assert refusal(fabstir("verify", "receipt", str(tmp_path / "nothing"))) == "request_invalid"
    assert refusal(fabstir("receipt", "export", job, str(file))) == "request_invalid"
    assert refusal(fabstir("receipt", "export", "0xffff", str(tmp_path / "x"))) == "transcript_missing"


def test_without_a_renter_there_is_nothing(fabstir: Fabstir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Told by name."""
    monkeypatch.setenv("FABSTIR_RENTER_DATA_DIR", str(tmp_path / "none"))
    assert refusal(fabstir("receipt", "list")) == "journal_missing"
