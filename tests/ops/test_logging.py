"""The log: what a person needs, and never what was said."""

from __future__ import annotations

import io
import json
import logging
from typing import Any

import pytest
import structlog

from fabstir.domain.errors import error
from fabstir.ops.config import LogSection
from fabstir.ops.logging import ALLOWED, configure

SAID = "what the renter said"


@pytest.fixture
def lines() -> io.StringIO:
    """Where the log goes, as JSON, at the most talkative level."""
    stream = io.StringIO()
    configure(LogSection(level="debug", format="json"), stream)
    return stream


def only(stream: io.StringIO) -> dict[str, Any]:
    (line,) = stream.getvalue().splitlines()
    loaded: dict[str, Any] = json.loads(line)
    return loaded


@pytest.mark.parametrize(
    "field", ["prompt", "content", "text", "messages", "delta", "key", "private_key", "password", "body"]
)
def test_a_field_that_is_not_listed_is_dropped_and_named(lines: io.StringIO, field: str) -> None:
    """The value is gone; that something was dropped can be seen."""
    structlog.get_logger().info("turn_ended", tokens=3, **{field: SAID})
    line = only(lines)
    assert line["tokens"] == 3
    assert line["dropped"] == [field]
    assert SAID not in lines.getvalue()


def test_no_listed_field_is_one_that_carries_text_of_a_conversation() -> None:
    """The list cannot be widened to these without this test being changed too."""
    assert ALLOWED.isdisjoint(
        {"prompt", "content", "text", "message", "messages", "answer", "delta", "history", "context", "error"}
    )


def test_a_sentence_is_not_an_event(lines: io.StringIO) -> None:
    """An f-string with a prompt in it would be one."""
    structlog.get_logger().info(f"prompt was {SAID}")
    assert only(lines)["event"] == "unnamed_event"
    assert SAID not in lines.getvalue()


def test_an_exception_is_its_type_and_places_without_its_message(lines: io.StringIO) -> None:
    """Parsers quote what they could not parse."""
    try:
        json.loads('{"content": ' + SAID)
    except ValueError:
        structlog.get_logger().exception("message_refused")
    exception = only(lines)["exception"]
    assert exception.startswith("JSONDecodeError < ")
    assert "test_logging.py" in exception
    assert SAID not in lines.getvalue()


def test_of_our_own_errors_code_and_detail_are_kept(lines: io.StringIO) -> None:
    """Their detail is safe by contract."""
    try:
        raise error("engine_gone", detail="pid 17 ended with signal 9")
    except Exception:
        structlog.get_logger().exception("engine_failed")
    line = only(lines)
    assert (line["code"], line["detail"]) == ("engine_gone", "pid 17 ended with signal 9")


def test_of_other_libraries_only_the_template_is_written(lines: io.StringIO) -> None:
    """The values of the template, later lines and the exception's words may hold anything."""
    try:
        raise ValueError(SAID)
    except ValueError:
        logging.getLogger("some.library").exception("could not handle %r\n" + SAID, SAID)
    line = only(lines)
    assert (line["event"], line["logger"], line["level"]) == ("could not handle %r", "some.library", "error")
    assert SAID not in lines.getvalue()


def test_other_libraries_are_quiet_below_warnings(lines: io.StringIO) -> None:
    """At debug level they would print whole requests."""
    logging.getLogger("some.library").info("hello")
    assert lines.getvalue() == ""


def test_objects_are_named_by_their_type_and_long_values_are_cut(lines: io.StringIO) -> None:
    """A repr may hold anything; a value has a bound."""
    structlog.get_logger().info("x", state={"prompt": SAID}, name="a" * 1000, job_id=b"\x01\x02")
    line = only(lines)
    assert line["state"] == "dict"
    assert len(line["name"]) < 400
    assert line["job_id"] == "0x0102"


def test_lines_below_the_level_are_not_written() -> None:
    """`log.level` holds."""
    stream = io.StringIO()
    configure(LogSection(level="warning", format="json"), stream)
    structlog.get_logger().info("x")
    structlog.get_logger().warning("y")
    assert only(stream)["event"] == "y"


def test_the_console_form_guards_too() -> None:
    """The guard stands before the renderer, not in it."""
    stream = io.StringIO()
    configure(LogSection(format="console"), stream)
    structlog.get_logger().warning("turn_ended", prompt=SAID, tokens=3)
    assert "turn_ended" in stream.getvalue()
    assert "tokens=3" in stream.getvalue()
    assert SAID not in stream.getvalue()


def test_a_stream_that_is_gone_stops_nobody(lines: io.StringIO) -> None:
    """A settlement goes on when the terminal is closed."""
    lines.close()
    structlog.get_logger().info("turn_ended", tokens=3)
    logging.getLogger("some.library").warning("hello")
