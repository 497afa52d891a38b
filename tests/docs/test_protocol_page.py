"""The specification and the program say the same: every message, field, capability, error and transition, looked up in the page itself."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args

import pytest
from tests.protocol.hosting import told
from tests.protocol.market import opened

from fabstir.domain.errors import CATALOGUE
from fabstir.protocol import host_session, messages, renter_session
from fabstir.protocol.capabilities import MEANING
from fabstir.protocol.host_inputs import SessionState
from fabstir.protocol.renter_session import RenterState

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "protocol.md").read_text("utf-8")
RENTER, HOST = get_args(messages.FromRenter), get_args(messages.FromHost)


def tag(cls: type) -> str:
    return str(cls.__struct_config__.tag)  # type: ignore[attr-defined]


def section(title: str) -> str:
    """From its heading to the next one of the same or a higher level."""
    level = len(title) - len(title.lstrip("#"))
    start = PAGE.index(f"\n{title}\n") + 1
    end = re.compile(rf"^#{{1,{level}}} ", re.M).search(PAGE, start + len(title))
    return PAGE[start : end.start() if end else len(PAGE)]


def rows(text: str, first: str) -> list[list[str]]:
    """Of the table whose first heading this is."""
    lines = text.splitlines()
    at = next(n for n, line in enumerate(lines) if line.startswith(f"| {first} |"))
    body = []
    for line in lines[at + 2 :]:
        if not line.startswith("|"):
            break
        body.append([cell.strip() for cell in line.strip("|").split("|")])
    return [[cell.strip() for cell in lines[at].strip("|").split("|")], *body]


@pytest.mark.parametrize("cls", dict.fromkeys((*RENTER, *HOST)), ids=tag)
def test_every_message_has_its_section_with_every_field(cls: type[Any]) -> None:
    """In the order of the wire, and an example."""
    text = section(f"### `{tag(cls)}`")
    assert [row[0].strip("`") for row in rows(text, "Field")[1:]] == list(cls.__struct_fields__)
    assert f'"type": "{tag(cls)}"' in text


def test_every_capability_is_there() -> None:
    """By name."""
    assert [row[0].strip("`") for row in rows(section("## Capabilities"), "Name")[1:]] == list(MEANING)


@pytest.mark.parametrize(
    ("title", "transitions", "states", "kinds"),
    [
        ("## The host: what happens with each message", host_session.TRANSITIONS, SessionState, RENTER),
        ("## The renter: what happens with each message", renter_session.TRANSITIONS, RenterState, HOST),
    ],
    ids=["host", "renter"],
)
def test_every_transition_is_there(title: str, transitions: Any, states: Any, kinds: tuple[type, ...]) -> None:
    """A cell is empty exactly where the program has no handler, and what a cell names is explained below."""
    head, *body = rows(section(title), "Message")
    assert head[1:] == [f"`{state.value}`" for state in states]
    explained = {row[0] for row in rows(section(title), "Outcome")[1:]}
    table = {row[0].strip("`"): row[1:] for row in body}
    shell = {"session_init", "session_resume", "deposit_changed"} if kinds is RENTER else set()
    assert set(table) == {tag(kind) for kind in kinds} - shell
    for kind in kinds:
        for state, cell in zip(states, table.get(tag(kind), ()), strict=False):
            assert bool(cell) == ((state, kind) in transitions), (kind, state)
            assert not cell or cell in explained


def test_every_code_in_the_page_is_one() -> None:
    """And every message of the renter has its row."""
    table = rows(section("## Errors of each message"), "Message")[1:]
    assert [row[0].strip("`") for row in table] == [tag(kind) for kind in RENTER]
    codes = {code for row in table for code in re.findall(r"`(\w+)`", row[1])}
    assert codes <= CATALOGUE.keys() and {"voucher_stale", "draining", "context_too_long", "session_busy"} <= codes


def test_a_code_that_a_host_answers_with_is_in_the_page() -> None:
    """Of some that are easily provoked."""
    world = opened()
    stale = messages.ReceiptAck(
        session_id="talk", tokens=0, amount="0", transcript="0x" + "00" * 32, signature="0x" + "00" * 65
    )
    code = told(world.host.receive(stale, 0.0)).code
    row = next(row for row in rows(section("## Errors of each message"), "Message") if row[0] == "`receipt_ack`")
    assert f"`{code}`" in row[1]
