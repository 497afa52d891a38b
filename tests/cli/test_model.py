"""`fabstir model commit|register`: what a weights file is on chain, printed and proposed."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from tests.cli.conftest import Fabstir
from tests.models.files import write

from fabstir.bootstrap.devnet import devnet
from fabstir.bootstrap.parts import served_model
from fabstir.engines.model_file import default_model
from fabstir.models.identity import identify
from fabstir.ops import settings


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A person with no keys, no configuration and an empty cache."""
    for variable in ("CONFIG", "DATA", "CACHE"):
        monkeypatch.setenv(f"XDG_{variable}_HOME", str(tmp_path / variable.lower()))
    return tmp_path


def test_the_id_is_told_without_a_chain(fabstir: Fabstir) -> None:
    """Of the model that hosts serve who set nothing: what its host computes at its start."""
    ran = fabstir(
        "model", "commit", str(default_model()), "--repository", "fabstir/tiny-chat", "--without-head", "--json"
    )
    served = asyncio.run(served_model(settings.load(environ={})))
    assert ran.code == 0 and ran.json()["model_id"] == f"0x{served.model_id.hex()}"
    assert ran.json()["head"] == {"root": f"0x{bytes(32).hex()}", "rows": 0, "width": 0, "scale": 0}


@pytest.mark.real
def test_a_head_is_committed_once(fabstir: Fabstir, home: Path) -> None:
    """The second time nothing is computed, and the result is the same."""
    path = write(home / "m.gguf", template=None)
    ran = fabstir("model", "commit", str(path), "--repository", "org/m", "--json")
    head = ran.json()["head"]
    assert (head["rows"], head["width"]) == (10, 256) and head["root"] != f"0x{bytes(32).hex()}"
    (points,) = (home / "cache").glob("**/*.points")
    before = points.stat().st_mtime_ns
    again = fabstir("model", "commit", str(path), "--repository", "org/m")
    assert f"head         {head['root']}: 10 rows of 256, scale 2^{head['scale']}" in again.out
    assert "template     not stated in the file" in again.out and points.stat().st_mtime_ns == before


@pytest.mark.real
def test_off_the_devnet_no_head_is_committed(fabstir: Fabstir, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The packaged reference string is for development chains."""
    monkeypatch.setenv("FABSTIR_CHAIN_CHAIN_ID", "8453")
    path = write(home / "m.gguf")
    ran = fabstir("model", "commit", str(path), "--repository", "org/m", "--json")
    assert ran.code == 1 and ran.json()["error"]["code"] == "srs_development_only"
    assert fabstir("model", "commit", str(path), "--repository", "org/m", "--without-head", "--json").code == 0


@pytest.mark.real
async def test_a_proposal_waits_for_the_owner(fabstir: Fabstir, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Proposed from the host's account; what the owner has to send is printed, and only the owner may send it."""
    path = write(home / "m.gguf")
    async with devnet(settings.load(environ={})) as running:
        monkeypatch.setenv("FABSTIR_CHAIN_RPC_URLS", running.url)
        await asyncio.to_thread(fabstir, "host", "init")

        async def told(*arguments: str) -> dict[str, Any]:
            command = ("model", "register", str(path), "--repository", "org/m", *arguments, "--json")
            found: dict[str, Any] = (await asyncio.to_thread(fabstir, *command)).json()
            return found

        done = await told()
        assert done["status"] == "proposed" and done["registry"] == f"0x{running.info.models.hex()}"
        assert done["model_id"] == f"0x{identify(path, 'org/m').model_id.hex()}"
        assert done["head"]["root"][2:] in done["owner_call"]
        assert (await told()) == done
        refused = await told("--approve")
        assert "OwnableUnauthorizedAccount" in refused["error"]["detail"]
