"""Runs the long-lived commands: an event loop, and a stop that the first SIGINT or SIGTERM asks for and the second
enforces."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from typing import TypeVar

import uvloop

from fabstir.domain.errors import FabstirError

T = TypeVar("T")


def run(main: Awaitable[T]) -> T:
    """Run `main` to its end. An error that stopped a group of tasks is raised as itself."""

    async def alone() -> T:
        return await main

    try:
        return uvloop.run(alone())
    except BaseExceptionGroup as group:
        raise first_fault(group) from group


def run_until_stopped(main: Callable[[asyncio.Event], Awaitable[T]]) -> T:
    """Run `main(stop)`; `stop` is set by the first SIGINT or SIGTERM, the second cancels."""

    async def guarded() -> T:
        loop, stop = asyncio.get_running_loop(), asyncio.Event()
        task = asyncio.ensure_future(main(stop))

        def ask() -> None:
            if stop.is_set():
                task.cancel()
            stop.set()

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, ask)
        return await task

    return run(guarded())


def first_fault(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error for a person: the first of ours, else the first of all."""
    ours = group.subgroup(FabstirError)
    found: BaseException = ours or group
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    return found
