"""The operator's socket: commands are carried out, what is wrong is answered, and nobody else can open it."""

from __future__ import annotations

import asyncio
import stat
from pathlib import Path

import pytest
from tests.host.test_models import OTHER, two_models
from tests.host.world import MODEL

from fabstir.api.control import (
    Control,
    ListModels,
    LoadModel,
    ReloadSettings,
    SwitchModel,
    UnloadModel,
    control_socket,
    tell,
)
from fabstir.bootstrap.reloading import Reloaded
from fabstir.domain.errors import FabstirError, LocalFault, error
from fabstir.domain.ids import to_hex


async def test_models_are_loaded_and_unloaded_by_command() -> None:
    """By name or id; each answer shows how all of them stand."""
    world = two_models()

    async def reload() -> Reloaded:
        return Reloaded(changed=("host.max_sessions",))

    async with world.running(), control_socket(Control(world.node, reload)) as socket:

        async def stands(command: ListModels | LoadModel | UnloadModel | SwitchModel) -> list[str]:
            return [part.status for part in (await tell(socket, command)).models]

        assert await stands(ListModels()) == ["ok", "ok"]
        assert await stands(UnloadModel("second")) == ["ok", "unloaded"]
        assert await stands(SwitchModel(to_hex(MODEL), to_hex(OTHER))) == ["unloaded", "ok"]
        assert await stands(LoadModel("scripted")) == ["ok", "ok"]
        with pytest.raises(FabstirError, match="model_unknown"):
            await tell(socket, LoadModel("third"))
        assert (await tell(socket, ReloadSettings())).reloaded["changed"] == ["host.max_sessions"]
        mode = stat.S_IMODE((await asyncio.to_thread(socket.parent.stat)).st_mode)
        assert mode == 0o700
    with pytest.raises(LocalFault, match="host_not_running"):
        await tell(socket, ListModels())


@pytest.mark.parametrize(
    "line", [b"", b"\n", b"{}\n", b'{"type":"stop"}\n', b"\xff\xfe\n", b"[" * 1000 + b"\n", b"x" * 100_000 + b"\n"]
)
async def test_rubbish_on_the_socket_ends_only_that_connection(line: bytes) -> None:
    """It is answered with an error, or cut off; the next command works."""
    world = two_models()

    async def refuse() -> None:
        raise error("config_invalid", "not TOML")

    async with world.running(), control_socket(Control(world.node, refuse)) as socket:
        reader, writer = await asyncio.open_unix_connection(socket)
        writer.write(line)
        if writer.can_write_eof():
            writer.write_eof()
        answer = await reader.read()
        assert answer == b"" or b"request_invalid" in answer
        writer.close()
        with pytest.raises(LocalFault, match="config_invalid"):
            await tell(Path(socket), ReloadSettings())
