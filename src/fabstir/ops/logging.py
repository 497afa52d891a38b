"""What is written to stderr, and the guard that what was said in a conversation never is.

Three rules hold at every level: an event is a name (`turn_ended`), not a sentence; only fields that are listed here are
written, the others are named and dropped; an exception is written as its type and the places it passed, without its
message, unless it is one of ours (their details are safe by contract). Lines of other libraries go through the same
guard: the first line of their template, never the values. Code that logs says `structlog.get_logger()` and needs
nothing from here.
"""

from __future__ import annotations

import contextlib
import logging
import re
import sys
import traceback
from collections.abc import MutableMapping
from typing import Any, Final, TextIO, cast

import msgspec
import structlog

from fabstir.domain.errors import FabstirError
from fabstir.ops.config import LogSection

Event = MutableMapping[str, Any]

ALLOWED: Final = frozenset(
    """
    account address amount amount_base_units attempt bind block bytes chain_id changed checkpoint circuit circuit_id
    code connections context_size count deposit detail duration_ms ending endpoint exit_code expires_at exposure fee_gwei
    finish_reason gas_used height host host_address hosts http_status interval_s job_id kind last_message_index
    message_index model model_id model_name name next_step nonce owed parallel part path_name peer_code pid
    policy port price prompt_id prompt_tokens proven purpose queue reason registered restarts retry_in_s retryable seconds
    session_id sessions signal signed size state status table token_address tokens tool transcript ttft_ms
    tx_hash url version wait_s waiting window
    """.split()  # noqa: SIM905 - one name per line would take the page
)
"""Counts, hashes, ids, names and amounts. A new field is added here on purpose, in review, or it is not written."""

OURS: Final = frozenset({"event", "level", "timestamp", "logger", "dropped", "exception"})
EVENT_NAME: Final = re.compile(r"[a-z][a-z0-9_.]{0,63}")
VALUE_LIMIT: Final = 300
"""Characters of one value. An address list fits; a conversation does not."""


class Stream:
    """Where lines go. A stream that is gone (a closed terminal, a full disk) takes no line, and stops no settlement."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.lost = 0
        """Lines that could not be written."""

    def write(self, text: str) -> None:
        """Write `text`, or count it as lost."""
        try:
            self._stream.write(text)
        except (OSError, ValueError):
            self.lost += 1

    def flush(self) -> None:
        """As of a file."""
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()


def configure(section: LogSection, stream: TextIO | None = None) -> None:
    """Set up structlog and the standard library's logging for this process. May be called again."""
    target = stream or sys.stderr
    output = cast("TextIO", Stream(target))
    level = logging.getLevelNamesMapping()[section.level.upper()]
    as_json = section.format == "json" or (section.format == "auto" and not target.isatty())
    steps: list[structlog.typing.Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        guard,
    ]
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer(serializer=_to_json)
        if as_json
        else structlog.dev.ConsoleRenderer(colors=target.isatty(), exception_formatter=structlog.dev.plain_traceback)
    )
    structlog.configure(
        processors=[*steps, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(file=output),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(output)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[_foreign, *steps],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(level, logging.WARNING))


def guard(_logger: object, _method: str, event: Event) -> Event:
    """Keep the listed fields of `event`, name the dropped ones, and reduce what is left to what is safe."""
    kept: Event = {}
    dropped: list[str] = []
    for name, value in event.items():
        if name in {"_record", "_from_structlog"} or (name in OURS and name not in {"event", "exception"}):
            kept[name] = value
        elif name == "event":
            kept[name] = value if EVENT_NAME.fullmatch(str(value)) or "_record" in event else "unnamed_event"
        elif name in {"exc_info", "exception"}:
            _add_exception(kept, value)
        elif name in ALLOWED:
            kept[name] = _safe(value)
        else:
            dropped.append(name)
    if dropped:
        kept["dropped"] = sorted(dropped)
    return kept


def _foreign(_logger: object, _method: str, event: Event) -> Event:
    """A line of another library: its template's first line and where it comes from. Its values may hold anything."""
    record: logging.LogRecord = event["_record"]
    template = str(record.msg).strip().partition("\n")[0]
    event["event"] = template[:VALUE_LIMIT] if isinstance(record.msg, str) else type(record.msg).__name__
    event["logger"] = record.name
    if record.exc_info:
        event["exc_info"] = record.exc_info
    return event


def _add_exception(kept: Event, given: object) -> None:
    """The type and the places that it passed; the message only where it is ours."""
    if given is True or isinstance(given, str):
        given = sys.exc_info()
    raised = given[1] if isinstance(given, tuple) else given
    if not isinstance(raised, BaseException):
        return
    while isinstance(raised, BaseExceptionGroup) and len(raised.exceptions) == 1:
        raised = raised.exceptions[0]
    frames = traceback.extract_tb(raised.__traceback__)
    places = [f"{frame.filename.rpartition('/')[2]}:{frame.lineno} {frame.name}" for frame in frames]
    kept["exception"] = " < ".join([type(raised).__qualname__, *reversed(places)])
    if isinstance(raised, FabstirError):
        kept["code"] = raised.code
        kept["detail"] = _safe(raised.detail)


def _safe(value: object) -> object:
    """A number, a short text or hexadecimal; a list of these; else only the type's name."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, bytes):
        return "0x" + value.hex()[:VALUE_LIMIT]
    if isinstance(value, str):
        return value if len(value) <= VALUE_LIMIT else value[:VALUE_LIMIT] + "..."
    if isinstance(value, list | tuple):
        return [_safe(part) for part in value[:32]]
    return type(value).__qualname__


def _to_json(event: object, **_options: object) -> str:
    return msgspec.json.encode(event).decode()
