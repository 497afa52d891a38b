"""`fabstir gateway key`: keys are made, listed with what they spent, and revoked; a key is shown once."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.cli.conftest import Fabstir

from fabstir.bootstrap.gateway import keys_file
from fabstir.bootstrap.parts import open_journal
from fabstir.domain.ids import JobId
from fabstir.domain.money import BaseUnits
from fabstir.ops import settings
from fabstir.renter.gateway_keys import KeyRing
from fabstir.renter.spending import STREAM, Spent, encode_event


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A person with no keys yet."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return tmp_path


def test_a_key_is_shown_once_and_works(fabstir: Fabstir) -> None:
    """What is printed is the key that the gateway takes, with the bounds that were said."""
    made = fabstir(
        "gateway",
        "key",
        "add",
        "alice",
        "--budget",
        "500",
        "--per-minute",
        "3",
        "--model",
        "a",
        "--model",
        "b",
        "--json",
    ).json()
    card = KeyRing(keys_file(settings.load())).find(made["key"])
    assert card is not None
    assert (card.name, card.limit, card.per_minute, card.models) == ("alice", 500, 3, ("a", "b"))
    listed = fabstir("gateway", "key", "list")
    assert "alice" in listed.out and made["key"] not in listed.out and card.sha256 not in listed.out


async def test_the_list_tells_what_was_spent(fabstir: Fabstir) -> None:
    """From the journal, while a gateway holds it."""
    made = fabstir("gateway", "key", "add", "alice", "--budget", "500", "--json").json()
    config = settings.load()
    journal = open_journal(config.renter.data_dir, config.chain.chain_id)
    try:
        event = Spent(made["id"], JobId(bytes(32)), BaseUnits(42), BaseUnits(42))
        await journal.append(STREAM, [encode_event(event)])
        [row] = fabstir("gateway", "key", "list", "--json").json()["keys"]
        assert (row["name"], row["spent"], row["budget"]) == ("alice", "42", "500")
    finally:
        await journal.close()


def test_a_key_that_is_revoked_is_gone(fabstir: Fabstir) -> None:
    """By its name; what is not there cannot be revoked, and a wrong amount makes nothing."""
    fabstir("gateway", "key", "add", "alice")
    assert fabstir("gateway", "key", "revoke", "alice", "--json").json()["name"] == "alice"
    assert fabstir("gateway", "key", "list", "--json").json() == {"keys": []}
    assert fabstir("gateway", "key", "revoke", "alice").code == 1
    for budget in ("-1", "1.5", "x", "9" * 60):
        assert fabstir("gateway", "key", "add", "bob", f"--budget={budget}").code == 1
    assert fabstir("gateway", "key", "list", "--json").json() == {"keys": []}
