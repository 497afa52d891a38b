"""What a process says when something that nobody foresaw ends a task, a thread or the whole process: type and places, never the message.

The interpreter prints an exception with its message, and with its notes and causes; in a host any of them may quote what was being said.
Here all of that goes through the log's guard instead. Decides nothing, and ends nothing.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from types import TracebackType
from typing import Any

import structlog

log = structlog.get_logger()


def guard_last_words() -> None:
    """For this process, from now on. Call it once the log is configured."""
    sys.excepthook = _ended
    sys.unraisablehook = _unraisable
    threading.excepthook = _thread_ended


def guard_tasks(loop: asyncio.AbstractEventLoop) -> None:
    """What nobody awaits in `loop`."""
    loop.set_exception_handler(_task_ended)


def _ended(kind: type[BaseException], raised: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        return
    log.error("process_failed", exc_info=(kind, raised, trace))


def _thread_ended(arguments: threading.ExceptHookArgs) -> None:
    if arguments.exc_value is not None and not isinstance(arguments.exc_value, SystemExit):
        log.error("thread_failed", exc_info=arguments.exc_value)


def _unraisable(arguments: sys.UnraisableHookArgs) -> None:
    log.error("cleanup_failed", exc_info=arguments.exc_value)


def _task_ended(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    log.error("task_failed", exc_info=context.get("exception"))
