"""A host of the demo: `fabstir host start` in a process of its own, which can be killed without warning."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import msgspec

from fabstir.domain.errors import error

READY_SECONDS: Final = 60.0
STOP_SECONDS: Final = 60.0
LOG_FILE: Final = "log"
PORT_VARIABLE: Final = "FABSTIR_API_PORT"


class _Ready(msgspec.Struct):
    url: str


class HostProcess:
    """One host. Its log is in its directory."""

    def __init__(self, name: str, config: Path) -> None:
        self.name: Final = name
        self.config: Final = config
        self.url = ""
        self._process: asyncio.subprocess.Process | None = None

    def __repr__(self) -> str:
        return f"<HostProcess {self.name} {self.url or 'not running'}>"

    async def start(self) -> None:
        """Return once it serves; at the same address as before, if it ran before. Raises LocalFault (`host_not_running`) with the
        end of its log.
        """
        port = {PORT_VARIABLE: str(urlsplit(self.url).port)} if self.url else {}
        command = (sys.executable, "-m", "fabstir", "host", "start", "--config", str(self.config), "--json")
        with (self.config.parent / LOG_FILE).open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                env={**os.environ, **port},
                start_new_session=True,  # Ctrl-C reaches us alone; we stop it in order
            )
        if self._process.stdout is None:
            raise AssertionError("the pipe was asked for")
        try:
            async with asyncio.timeout(READY_SECONDS):
                self.url = msgspec.json.decode(await self._process.stdout.readline(), type=_Ready).url
        except (TimeoutError, msgspec.MsgspecError) as silent:
            await self.kill()
            raise error("host_not_running", f"host {self.name}: {self._last_words()}") from silent

    @property
    def pid(self) -> int:
        """Of the host's process. Raises LocalFault (`host_not_running`)."""
        if self._process is None:
            raise error("host_not_running", self.name)
        return self._process.pid

    async def ended(self) -> None:
        """Return when the process is gone."""
        if self._process is not None:
            await self._process.wait()

    def kill_now(self) -> None:
        """SIGKILL: no drain, no goodbye. Returns at once."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()

    async def kill(self) -> None:
        """The same, and wait until it is gone."""
        self.kill_now()
        if self._process is not None:
            await self._process.wait()

    async def stop(self) -> None:
        """In order: drain, then down."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), STOP_SECONDS)
        except TimeoutError:
            await self.kill()

    def _last_words(self) -> str:
        words = (self.config.parent / LOG_FILE).read_text(errors="replace").strip().splitlines()
        return words[-1][:400] if words else "it said nothing"
