"""What the operator of a host may tell it while it runs, over a UNIX socket that only its account can open.

One line of JSON each way; commands are few and typed. Nothing here can be reached over the network: the socket lies in a private
directory (mode 0700), and where it is stands in the host's `running.json`. Decides nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import msgspec
import structlog

from fabstir.domain.errors import FabstirError, error
from fabstir.domain.ids import JobId, SessionId
from fabstir.host.node import HostNode
from fabstir.host.shelf import ModelPart
from fabstir.protocol.messages import job_of

LONGEST_LINE: Final = 1 << 16

log = structlog.get_logger()


class ListModels(msgspec.Struct, frozen=True, tag="models"):
    """How each model stands."""


class LoadModel(msgspec.Struct, frozen=True, tag="load"):
    """Load it; the answer comes when it serves."""

    model: str
    """Name or id."""


class UnloadModel(msgspec.Struct, frozen=True, tag="unload"):
    """Let its answers end and free it; the answer comes when that is done."""

    model: str


class SwitchModel(msgspec.Struct, frozen=True, tag="switch"):
    """Unload the one, then load the other."""

    model: str
    into: str


class ReloadSettings(msgspec.Struct, frozen=True, tag="reload"):
    """Read the file of settings again."""


class RevokeTokens(msgspec.Struct, frozen=True, tag="revoke", kw_only=True):
    """Tokens for reconnects are worth nothing any more: of a job, of a session, one, or all of them. Renters sign again."""

    job: str | None = None
    session: str | None = None
    token_id: str | None = None


Command = RevokeTokens | ListModels | LoadModel | UnloadModel | SwitchModel | ReloadSettings


class Said(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The answer: an error, or what was asked for."""

    code: str = ""
    """Of the error; "" where there is none."""
    detail: str = ""
    models: tuple[ModelPart, ...] = ()
    """How each model stands afterwards."""
    reloaded: Any = None
    """Of `reload`: settings that took effect (`changed`), that wait for the next start (`waiting`), models that could not be loaded
    (`failed`)."""


_commands: Final = msgspec.json.Decoder(Command)
_answers: Final = msgspec.json.Decoder(Said)


class Control:
    """Carries the operator's commands out."""

    def __init__(self, node: HostNode, reload: Callable[[], Awaitable[Any]]) -> None:
        self._node = node
        self._reload = reload

    async def answer(self, line: bytes) -> Said:
        """What becomes of one command."""
        try:
            return await self._obey(_commands.decode(line))
        except msgspec.MsgspecError as unreadable:
            return Said(code="request_invalid", detail=str(unreadable))
        except FabstirError as fault:
            return Said(code=fault.code, detail=fault.detail, models=await self._models())

    async def _obey(self, command: Command) -> Said:
        shelf, reloaded = self._node.shelf, None
        match command:
            case LoadModel(model):
                await shelf.load(shelf.named(model).model_id)
            case UnloadModel(model):
                await shelf.unload(shelf.named(model).model_id)
            case SwitchModel(model, into):
                await shelf.switch(shelf.named(model).model_id, shelf.named(into).model_id)
            case RevokeTokens():
                named = None if command.job is None else job_argument(command.job)
                session = SessionId(command.session) if command.session else None
                self._node.tokens.revoke(job=named, session=session, token_id=command.token_id)
            case ReloadSettings():
                reloaded = await self._reload()
            case _:
                pass
        return Said(models=await self._models(), reloaded=reloaded)

    async def _models(self) -> tuple[ModelPart, ...]:
        return tuple([await model.part() for model in self._node.shelf.models])


def job_argument(text: str) -> JobId:
    """The job that an operator named. Raises PeerFault (`request_invalid`)."""
    try:
        return job_of(text)
    except ValueError as wrong:
        raise error("request_invalid", f"job: {wrong}") from wrong


@asynccontextmanager
async def control_socket(control: Control) -> AsyncIterator[Path]:
    """The socket, while the block runs."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, ValueError):  # a line that is too long; a caller that is gone
            line = await reader.readline()
            writer.write(msgspec.json.encode(await control.answer(line)) + b"\n")
            await writer.drain()
        writer.close()

    directory = Path(tempfile.mkdtemp(prefix="fabstir-control-"))  # short: a socket's path has 107 bytes
    server = await asyncio.start_unix_server(talk, directory / "sock", limit=LONGEST_LINE)
    try:
        yield directory / "sock"
    finally:
        server.close()
        await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)


async def tell(socket: Path, command: Command) -> Said:
    """Tell a host of this machine, and wait for its answer. Raises LocalFault (`host_not_running`), and what the host answers with."""
    try:
        reader, writer = await asyncio.open_unix_connection(os.fspath(socket), limit=1 << 24)
    except OSError as gone:
        raise error("host_not_running", f"{socket}: {gone.strerror or gone}") from gone
    try:
        writer.write(msgspec.json.encode(command) + b"\n")
        line = await reader.readline()
    except OSError as gone:
        raise error("host_not_running", "it went away meanwhile") from gone
    finally:
        writer.close()
    if not line:
        raise error("host_not_running", "it went away meanwhile")
    said = _answers.decode(line)
    if said.code:
        raise error(said.code, said.detail)
    return said
