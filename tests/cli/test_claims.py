"""`fabstir claims`: a journal that a settler wrote, an endpoint that answers as the contracts would, and what a shell sees of both."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs
from tests.cli.conftest import Fabstir, Ran
from tests.host.settler_world import RENTER, World
from tests.protocol.market import HOST_KEY, terms

from fabstir.bootstrap.devnet import devnet
from fabstir.bootstrap.parts import chain_info
from fabstir.chain import bindings
from fabstir.chain.abi import Function, encode_arguments
from fabstir.domain.ids import Address, JobId, to_hex
from fabstir.domain.money import BaseUnits
from fabstir.domain.terms import ClaimStage, JobState, ProofPolicy
from fabstir.ops import settings
from fabstir.ports.chain import contract_addresses
from fabstir.protocol.host_log import HostLedger, JobAdmitted, encode_event
from fabstir.protocol.signing import Market
from fabstir.storage.journal import JOURNAL_FILE, SqliteJournal
from fabstir.testing.chain import INFO, SLASH, MemoryChain

FALLBACK = ProofPolicy.FALLBACK
MARKET, STAKES = bindings.JobMarketplace, bindings.HostStake


class Contracts:
    """JSON-RPC over a chain in memory: the calls that the command makes, and nothing that sends."""

    def __init__(self, chain: MemoryChain, chain_id: int = INFO.chain_id) -> None:
        self.chain = chain
        self.chain_id = chain_id
        self.asked: list[str] = []

    def answer(self, method: str, params: list[Any]) -> Any:
        self.asked.append(method)
        match method:
            case "eth_chainId":
                return hex(self.chain_id)
            case "eth_getBlockByNumber":
                return {"number": hex(self.chain.block), "timestamp": hex(self.chain.now())}
            case "eth_call":
                return to_hex(self._call(bytes.fromhex(params[0]["to"][2:]), bytes.fromhex(params[0]["data"][2:])))
        raise AssertionError(method)

    def _call(self, to: bytes, data: bytes) -> bytes:
        market = self.chain.ledger.market
        if (to, data[:4]) == (INFO.market, MARKET.JOBS.selector):
            (job,) = MARKET.JOBS.arguments(data)
            account = market.jobs.get(JobId(job))
            state = account.state if account else JobState()
            return _returned(MARKET.JOBS, tuple(getattr(state, name) for name in bindings.JobView._fields))
        if (to, data[:4]) == (INFO.market, MARKET.EARNINGS.selector):
            owner, token = MARKET.EARNINGS.arguments(data)
            return _returned(MARKET.EARNINGS, market.earnings.get((owner, token), 0))
        if (to, data[:4]) == (INFO.stakes, STAKES.SLASH_AMOUNT.selector):
            return _returned(STAKES.SLASH_AMOUNT, SLASH)
        assert (to, data[:4]) == (INFO.stakes, STAKES.STAKE_OF.selector)
        (host,) = STAKES.STAKE_OF.arguments(data)
        asked, since = self.chain.ledger.unstaking.get(host, (0, 0))
        return _returned(STAKES.STAKE_OF, market.stakes.get(host, 0), asked, since, market.locked.get(host, 0))


def _returned(function: Function, *values: Any) -> bytes:
    return encode_arguments(function._outputs, values)


@contextlib.contextmanager
def endpoint(contracts: Contracts) -> Iterator[str]:
    """Its URL, while it answers."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            result = contracts.answer(asked["method"], asked["params"])
            body = json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": result}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


class Stage:
    """A host's journal, its chain behind an endpoint, and the command."""

    def __init__(self, market: World, contracts: Contracts, fabstir: Fabstir) -> None:
        self.market = market
        self.contracts = contracts
        self._fabstir = fabstir

    async def claims(self, *options: str) -> Ran:
        return await asyncio.to_thread(self._fabstir, "claims", *options)

    async def job(self, served: int, signed: int, salt: int, **other: object) -> HostLedger:
        return await self.market.job(served, signed, salt=salt, policy=FALLBACK, **other)  # type: ignore[arg-type]

    async def settle(self) -> None:
        with capture_logs():  # they would go to the command's stdout
            await self.market.settle()


@pytest.fixture
def settings_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The contracts of the chain in memory, and a data directory."""
    monkeypatch.setenv("FABSTIR_HOST_DATA_DIR", str(tmp_path / "host"))
    monkeypatch.setenv("FABSTIR_CHAIN_CHAIN_ID", str(INFO.chain_id))
    for name, place in contract_addresses(INFO).items():
        monkeypatch.setenv(f"FABSTIR_CHAIN_{name.upper()}", place)


@pytest.fixture
async def stage(
    fabstir: Fabstir, settings_of: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Stage]:
    (tmp_path / "host").mkdir()
    journal = SqliteJournal(tmp_path / "host" / JOURNAL_FILE)
    market = World(journal)
    contracts = Contracts(market.chain)
    with endpoint(contracts) as url:
        monkeypatch.setenv("FABSTIR_CHAIN_RPC_URLS", url)
        yield Stage(market, contracts, fabstir)
    await journal.close()


async def test_everything_that_is_to_be_had_as_one_object(stage: Stage) -> None:
    """Beside the running host, whose journal is open: rows whole, amounts in base units, times in Unix seconds."""
    held = await stage.job(140, 100, 1)
    await stage.settle()
    running = await stage.job(30, 20, 2, finished=False)
    ran = await stage.claims("--json")
    assert (ran.code, ran.err) == (0, "")
    told = ran.json()
    until = (await stage.market.state(held)).held_until
    deadline = running.terms.expires_at + running.terms.challenge
    token, renter = to_hex(INFO.usdc), to_hex(RENTER.address)
    common = {"token": token, "renter": renter}
    assert told["now"] == int(stage.market.clock.now())
    assert told["claims"] == [
        {
            **common,
            "job": to_hex(held.job),
            "kind": "held",
            "amount": "80000",
            "available_at": until,
            "expires_at": 0,
            "urgency": "later",
        },
        *(
            {
                **common,
                "job": to_hex(running.job),
                "kind": kind,
                "amount": amount,
                "available_at": 0,
                "expires_at": deadline,
                "urgency": "later",
            }
            for kind, amount in (("redeem", "40000"), ("claim", "20000"))
        ),
    ]
    earned = await stage.market.host.earnings(INFO.usdc, HOST_KEY.address)
    assert told["withdrawable"] == [{"token": token, "amount": str(earned)}] and earned > 0
    assert (told["unstaking"], told["jobs_elsewhere"]) == ({"amount": "0", "available_at": 0}, 0)
    assert set(stage.contracts.asked) == {"eth_chainId", "eth_getBlockByNumber", "eth_call"}


async def test_the_table_says_it_in_words(stage: Stage) -> None:
    """What to do, how much, from when, gone when."""
    held = await stage.job(140, 100, 1)
    await stage.settle()
    await stage.job(30, 20, 2, finished=False)
    ran = await stage.claims()
    lines = [line.split() for line in ran.out.splitlines()]
    assert ["claimed:", "wait", "0.080000"] in [line[1:4] for line in lines]
    assert to_hex(held.job)[:10] in [line[0] for line in lines if line]
    assert "signed: redeem" in ran.out and "unsigned: prove, then claim" in ran.out
    assert "To withdraw: " in ran.out and " now " in ran.out


@pytest.mark.parametrize("left", [-10, 449, 451])
async def test_what_expires_is_an_exit_code(stage: Stage, left: int) -> None:
    """A deadline that is near or has passed is a 1, for whoever watches the host from a script."""
    ledger = await stage.job(100, 100, 1, finished=False)
    await stage.market.renter.request_close("request", ledger.terms)
    await stage.market.clock.advance(900 - left)
    ran = await stage.claims()
    assert ran.code == (1 if left < 450 else 0)
    assert ("(overdue)" in ran.out, "(soon)" in ran.out) == (left < 0, 0 < left < 450)


async def test_a_dispute_is_an_exit_code_from_its_first_second(stage: Stage) -> None:
    """However far its deadline is; once it is over without an answer there is nothing left to have."""
    ledger = await stage.job(140, 100, 1, challenge=86_400)
    await stage.settle()
    assert (await stage.market.state(ledger)).stage is ClaimStage.CLAIMED
    assert (await stage.claims()).code == 0
    await stage.market.dispute(ledger)
    ran = await stage.claims()
    assert ran.code == 1 and "DISPUTED: open the records" in ran.out
    await stage.market.clock.advance(86_400)
    over = await stage.claims("--json")
    assert (over.code, over.json()["claims"]) == (0, [])


async def test_what_was_earned_is_shown_when_every_job_is_over(stage: Stage) -> None:
    """That is when most of it is there; and the stake that is asked back, with the time from which it leaves."""
    await stage.job(100, 100, 1)
    await stage.settle()
    await stage.market.host.request_unstake("unstake", BaseUnits(7))
    told = (await stage.claims("--json")).json()
    assert told["claims"] == []
    assert [row["amount"] for row in told["withdrawable"]] == ["190000"]
    stake = await stage.market.host.stake(HOST_KEY.address)
    assert told["unstaking"] == {"amount": "7", "available_at": max(stake.available_at, stake.locked_until + 1)}
    table = await stage.claims()
    assert "No job has anything to collect." in table.out and "Stake asked back: 0.000007" in table.out


async def test_a_tail_is_shown_as_the_host_would_claim_it(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the settings and by the stake."""
    await stage.job(30, 20, 1, finished=False)

    async def kinds() -> list[str]:
        return [row["kind"] for row in (await stage.claims("--json")).json()["claims"]]

    assert await kinds() == ["redeem", "claim"]
    monkeypatch.setenv("FABSTIR_HOST_CLAIM_TAIL_ABOVE", "20001")
    assert await kinds() == ["redeem"]
    monkeypatch.delenv("FABSTIR_HOST_CLAIM_TAIL_ABOVE")
    stage.market.chain.give_stake(HOST_KEY.address, 1 - stage.market.chain.ledger.market.stakes[HOST_KEY.address])
    assert await kinds() == ["redeem"]


async def test_jobs_of_another_market_are_counted(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """They cannot be asked about here, and are not passed over in silence."""
    await stage.job(30, 20, 1, finished=False)
    monkeypatch.setenv("FABSTIR_CHAIN_MARKET", to_hex(Address(b"\x99" * 20)))
    told = (await stage.claims("--json")).json()
    assert (told["claims"], told["jobs_elsewhere"]) == ([], 1)
    assert "another chain or market than the settings name: 1" in (await stage.claims()).out


async def test_an_endpoint_of_another_chain_is_refused(stage: Stage) -> None:
    """Its answers would say that everything is lost."""
    await stage.job(30, 20, 1)
    stage.contracts.chain_id = 8453
    ran = await stage.claims("--json")
    assert (ran.code, ran.json()["error"]["code"]) == (1, "chain_mismatch")


def test_without_a_journal_the_next_step_is_told(fabstir: Fabstir, settings_of: None) -> None:
    """Before a chain is asked; no traceback, no empty table that looks like good news."""
    ran = fabstir("claims", "--json")
    assert (ran.code, ran.json()["error"]["code"]) == (1, "journal_missing")
    assert ran.json()["error"]["next_step"]


async def test_without_the_chain_nothing_is_guessed(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The journal alone does not know what the contract says."""
    await stage.job(30, 20, 1)
    monkeypatch.setenv("FABSTIR_CHAIN_RPC_URLS", "http://127.0.0.1:1")
    ran = await stage.claims("--json")
    assert (ran.code, ran.json()["error"]["code"]) == (1, "chain_unreachable")


@pytest.mark.real
async def test_the_real_contracts_are_asked_the_same(
    fabstir: Fabstir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job that the journal knows and the contract does not, as after a devnet that was started afresh: nothing to be had."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    async with devnet(settings.load(environ={})) as running:
        monkeypatch.setenv("FABSTIR_CHAIN_RPC_URLS", running.url)
        config = settings.load()
        info = chain_info(config)
        admitted = JobAdmitted(terms(), BaseUnits(1_000), Market(info.chain_id, info.market), 0.0)
        config.host.data_dir.mkdir(parents=True)
        journal = SqliteJournal(config.host.data_dir / JOURNAL_FILE)
        await journal.append("job:" + HostLedger(admitted).job.hex(), [encode_event(admitted)])
        ran = await asyncio.to_thread(fabstir, "claims", "--json")
        await journal.close()
    told = ran.json()
    assert (ran.code, told["claims"], told["withdrawable"], told["jobs_elsewhere"]) == (0, [], [], 0)
    assert told["now"] > 0
