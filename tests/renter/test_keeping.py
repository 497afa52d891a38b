"""What a renter keeps of its sessions: it leads to what both sides signed, through drops, restarts and hosts that die."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.renter.test_failover import gather
from tests.renter.world import MODEL, World, world_of

from fabstir.domain.errors import FabstirError
from fabstir.protocol.transcript_file import (
    CheckedReceipt,
    ReceiptFile,
    SessionTranscript,
    check,
    encode_file,
    read_file,
    read_transcript,
)
from fabstir.renter.jobs import RenterJob
from fabstir.renter.keeping import Keeper


async def talk(world: World, keeper: Keeper, *questions: str) -> RenterJob:
    """One session; its last job."""
    async with world.market() as market:
        market.keeping(keeper)
        async with market.session(MODEL) as session:
            for question in questions:
                await gather(session.prompt(question))
            return session.jobs[-1]


def files(folder: Path) -> list[Path]:
    return list(folder.iterdir())


def checked(keeper: Keeper, job: RenterJob) -> CheckedReceipt:
    """Through the bytes of the file, both forms."""
    hashed, spoken = keeper.receipt(job.ledger), keeper.transcript(job.ledger)
    for file in (hashed, spoken):
        assert read_file(encode_file(file)) == file
    assert check(hashed) == check(spoken)
    return check(hashed)


async def test_what_is_kept_leads_to_what_was_signed(tmp_path: Path) -> None:
    """Tokens, price, prompts' tokens; the words are those that were said; nobody else can read the file."""
    keeper = Keeper(tmp_path / "kept", words=True)
    async with world_of(200_000) as world:
        job = await talk(world, keeper, "count 90", "hello")
    found = checked(keeper, job)
    assert (found.job, found.tokens, found.turns, found.tokens_unsigned) == (job.id, job.ledger.signed, 2, 0)
    assert found.amount == job.ledger.amount(job.ledger.signed)
    turns = keeper.transcript(job.ledger).turns
    assert [turn.prompt.content for turn in turns] == ["count 90", "hello"]
    assert [len(turn.messages) for turn in turns] == [1, 3]
    assert turns[1].text == "You said: hello"
    [file] = files(tmp_path / "kept")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


async def test_without_words_nothing_that_was_said_is_on_the_disk(tmp_path: Path) -> None:
    """The default: hashes, from which the receipt is made all the same."""
    keeper = Keeper(tmp_path, words=False)
    async with world_of(200_000) as world:
        job = await talk(world, keeper, "a secret question", "count 12")
    assert check(keeper.receipt(job.ledger)).tokens == job.ledger.signed
    assert b"secret" not in b"".join(file.read_bytes() for file in files(tmp_path))
    assert b"secret" not in encode_file(keeper.receipt(job.ledger))
    with pytest.raises(FabstirError, match="transcript_missing.*words"):
        keeper.transcript(job.ledger)


async def test_an_answer_that_is_cut_off_and_taken_up_again(tmp_path: Path) -> None:
    """What did not arrive is not in it, also where the same host goes on after the break."""
    keeper = Keeper(tmp_path, words=True)
    async with world_of(200_000) as world:
        host = world.hosts[0]
        async with world.market() as market:
            market.keeping(keeper)
            async with market.session(MODEL) as session:
                pieces = []
                async for piece in session.prompt("count 200"):
                    pieces.append(piece)
                    if len(pieces) == 40:
                        host.cut()
                await gather(session.prompt("count 5"))
                [job] = session.jobs
    found = checked(keeper, job)
    assert found.tokens == job.ledger.signed > 200
    assert found.turns >= 3


async def test_a_host_that_dies_leaves_a_receipt_each(tmp_path: Path) -> None:
    """One for what the dead host was paid for, one for the other."""
    keeper = Keeper(tmp_path, words=True)
    async with world_of(200_000, 200_001) as world:
        async with world.market() as market:
            market.keeping(keeper)
            async with market.session(MODEL) as session:
                pieces = []
                async for piece in session.prompt("count 300"):
                    pieces.append(piece)
                    if len(pieces) == 100:
                        await world.hosts[0].kill()
                jobs = session.jobs
        assert len(jobs) == 2
        for job in jobs:
            assert checked(keeper, job).tokens == job.ledger.signed > 0


async def test_a_line_that_a_crash_cut_off_costs_that_line(tmp_path: Path) -> None:
    """The next one is written after the last whole one, and everything can be read."""
    keeper = Keeper(tmp_path, words=True)
    async with world_of(200_000) as world:
        job = await talk(world, keeper, "count 20", "hello")
    [file] = files(tmp_path)
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(lines[:-1]) + lines[-1][: len(lines[-1]) // 2])
    assert len(keeper.transcript(job.ledger).turns) == 1
    turn = keeper.transcript(job.ledger).turns[0]
    await keeper.keep(job.id, msgspec.structs.replace(turn, tokens_before=99))
    assert [turn.tokens_before for turn in keeper.transcript(job.ledger).turns] == [0, 99]


async def test_a_disk_that_is_full_stops_no_answer(tmp_path: Path) -> None:
    """The session goes on and is paid; the log says what is missing."""
    blocked = tmp_path / "kept"
    blocked.write_text("a file where the folder should be")
    async with world_of(200_000) as world:
        job = await talk(world, Keeper(blocked, words=True), "count 90")
    assert job.ledger.signed == 91
    with pytest.raises(FabstirError, match="transcript_missing"):
        Keeper(blocked, words=True).receipt(job.ledger)


# -- what a lie looks like ---------------------------------------------------------------------------------------------------


async def a_session(tmp_path: Path) -> tuple[ReceiptFile, SessionTranscript]:
    keeper = Keeper(tmp_path, words=True)
    async with world_of(200_000) as world:
        job = await talk(world, keeper, "count 40", "hello")
    return keeper.receipt(job.ledger), keeper.transcript(job.ledger)


LIES = {
    "another price": lambda f: _terms(f, price_per_mtok="1"),
    "another model": lambda f: _terms(f, model_id="0x" + "11" * 32),
    "another host": lambda f: _terms(f, host="0x" + "11" * 20),
    "another chain": lambda f: msgspec.structs.replace(f, chain_id=1),
    "another market": lambda f: msgspec.structs.replace(f, market="0x" + "11" * 20),
    "more tokens": lambda f: _signed(f, tokens=f.signed.tokens + 1),
    "fewer tokens": lambda f: _signed(f, tokens=f.signed.tokens - 1),
    "more tokens read": lambda f: _signed(f, tokens_in=f.signed.tokens_in + 1),
    "another amount": lambda f: _signed(f, amount="1"),
    "another transcript": lambda f: _signed(f, transcript="0x" + "11" * 32),
    "no signature of the host": lambda f: _signed(f, receipt=f.signed.voucher),
    "no signature of the renter": lambda f: _signed(f, voucher=f.signed.receipt),
    "an answer is missing": lambda f: msgspec.structs.replace(f, turns=f.turns[1:]),
    "answers in another order": lambda f: msgspec.structs.replace(f, turns=f.turns[::-1]),
    "an answer twice": lambda f: msgspec.structs.replace(f, turns=(f.turns[0], *f.turns)),
    "nothing signed": lambda f: msgspec.structs.replace(f, signed=None),
}


def _terms(file: ReceiptFile, **changes: str) -> ReceiptFile:
    return msgspec.structs.replace(file, terms=msgspec.structs.replace(file.terms, **changes))


def _signed(file: ReceiptFile, **changes: object) -> ReceiptFile:
    return msgspec.structs.replace(file, signed=msgspec.structs.replace(file.signed, **changes))  # type: ignore[type-var]


async def test_every_lie_is_found(tmp_path: Path) -> None:
    """Whatever field is changed, in either form."""
    hashed, spoken = await a_session(tmp_path)
    for name, lie in LIES.items():
        for file in (hashed, spoken):
            with pytest.raises(FabstirError, match="receipt_file_invalid"):
                check(lie(file))
                pytest.fail(name)


async def test_every_word_counts(tmp_path: Path) -> None:
    """A question, a seed, a sampler's parameter, a token, a log-probability, the salt: each changes the transcript."""
    _, spoken = await a_session(tmp_path)
    turn = spoken.turns[0]
    record = turn.records[3]
    lies: list[dict[str, Any]] = [
        {"prompt": msgspec.structs.replace(turn.prompt, **change)}
        for change in ({"content": "count 41"}, {"seed": 7}, {"temperature": 0.0}, {"top_p": 0.5}, {"max_tokens": 9})
    ]
    lies += [{"salt": "0x" + "11" * 32}, {"messages": ()}, {"records": turn.records[:-1]}]
    for changed in (
        msgspec.structs.replace(record, token=record.token + 1),
        msgspec.structs.replace(record, logprob=-9),
    ):
        lies.append({"records": (*turn.records[:3], changed, *turn.records[4:])})
    for lie in lies:
        false = msgspec.structs.replace(spoken, turns=(msgspec.structs.replace(turn, **lie), *spoken.turns[1:]))
        with pytest.raises(FabstirError, match="receipt_file_invalid"):
            check(false)
            pytest.fail(str(lie))


@pytest.mark.parametrize(
    "data", [b"", b"{}", b"[]", b'{"format":"x"}', b"\xff", b"[" * 100_000, b'{"format":"fabstir/receipt/1"}']
)
def test_what_is_no_receipt_is_refused_by_name(data: bytes) -> None:
    """Rubbish, cut-off files, other formats."""
    with pytest.raises(FabstirError, match="receipt_file_invalid"):
        read_file(data)


async def test_a_cut_off_file_and_one_without_words(tmp_path: Path) -> None:
    """Neither is a session transcript."""
    hashed, spoken = await a_session(tmp_path)
    for data in (encode_file(spoken)[:-10], encode_file(hashed)):
        with pytest.raises(FabstirError, match="receipt_file_invalid"):
            read_transcript(data)
    assert read_transcript(encode_file(spoken)) == spoken
