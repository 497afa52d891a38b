"""Keeps a running host at what its settings say: the file is watched, and read again on SIGHUP and on command.

Everything that can be wrong is found before anything is changed: the file, the models' files, their approval on chain. Then the frozen
settings are swapped in one step, and models are loaded and unloaded. A file that is not valid changes nothing; the log and `/health`
say so until it is. What takes effect at the next start only is named, and left as it was.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
import structlog
from watchfiles import awatch

from fabstir.bootstrap.models import Served, require_approved, served_models
from fabstir.chain.market import MarketClient
from fabstir.domain.errors import FabstirError
from fabstir.domain.ids import ModelId
from fabstir.host.health import Part
from fabstir.host.node import HostNode
from fabstir.host.settings import HostSettings, settlement_rules
from fabstir.host.settler import Settler
from fabstir.ops import logging
from fabstir.ops.config import Config, EngineSection
from fabstir.ops.reload import Merged, merge

DEBOUNCE_MS: Final = 200
"""Writes that come together are one change."""

log = structlog.get_logger()


class Source(NamedTuple):
    """Where a host's settings come from."""

    file: Path | None
    """Watched; None: nothing is."""
    read: Callable[[], Config]
    """What file and environment say now. Raises LocalFault (`config_*`, `bind_refused`)."""
    again: asyncio.Event
    """Set by SIGHUP."""


def fixed(config: Config) -> Source:
    """Settings that are in no file."""
    return Source(None, lambda: config, asyncio.Event())


class Applying:
    """Takes other settings over into the parts of a host. Remembers what its engines were made of."""

    def __init__(
        self,
        node: HostNode,
        settler: Settler,
        chain: MarketClient,
        served: tuple[Served, ...],
        settings_of: Callable[[Config, tuple[Served, ...]], HostSettings],
    ) -> None:
        self._node = node
        self._settler = settler
        self._chain = chain
        self._sections = _sections(served)
        self._settings_of = settings_of

    async def __call__(self, config: Config) -> dict[str, str]:
        """All that can be refused is looked at first. Returns models that could not be loaded, with the reason."""
        served = await served_models(config)
        for each in served:
            if each.model.model_id not in self._sections:
                await require_approved(self._chain, each.model.model_id)
        settings, sections = self._settings_of(config, served), _sections(served)
        kept = frozenset(model for model, made_of in sections.items() if self._sections.get(model) == made_of)
        self._node.adopt(settings)
        self._settler.go_by(settlement_rules(config))
        logging.configure(config.log)
        self._sections = sections
        return await self._node.shelf.arrange({each.model.model_id: each.engines for each in served}, kept)


def _sections(served: tuple[Served, ...]) -> dict[ModelId, tuple[EngineSection, ...]]:
    return {each.model.model_id: each.sections for each in served}


class Reloaded(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one reading of the file."""

    changed: tuple[str, ...] = ()
    """Settings that took effect."""
    waiting: tuple[str, ...] = ()
    """Settings that take effect at the next start."""
    failed: dict[str, str] = {}
    """Models that could not be loaded, with the reason."""


class Reloader:
    """Of one host. Memory: two trees of settings."""

    def __init__(
        self, config: Config, read: Callable[[], Config], apply: Callable[[Config], Awaitable[dict[str, str]]]
    ) -> None:
        """`read`: what the file and the environment say now. `apply`: take over settings, or raise and change nothing; returns the models
        that could not be loaded."""
        self.config = config
        """In force."""
        self._read = read
        self._apply = apply
        self._one = asyncio.Lock()
        self._part = Part(status="ok")

    def __repr__(self) -> str:
        return f"<Reloader {self._part.status} {self._part.reason}>"

    def part(self) -> Part:
        """For `/health`."""
        return self._part

    async def reload(self) -> Reloaded:
        """Read and take over. Raises LocalFault (`config_*`, `model_invalid`), ChainFault; then nothing has changed."""
        async with self._one:
            try:
                merged = merge(self.config, await asyncio.to_thread(self._read))
                failed = await self._apply(merged.config) if merged.changed else {}
            except FabstirError as fault:
                self._part = Part(status="refused", reason=str(fault))
                log.error("settings_refused", code=fault.code, detail=fault.detail)
                raise
            self.config = merged.config
            self._say(merged)
            return Reloaded(changed=merged.changed, waiting=merged.waiting, failed=failed)

    async def follow(self, file: Path, again: asyncio.Event) -> None:
        """Reload whenever `file` is written, or replaced, and whenever `again` is set. Until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._on_signal(again))
            tasks.create_task(self._on_change(file))

    async def _on_signal(self, again: asyncio.Event) -> None:
        while True:
            await again.wait()
            again.clear()
            await self._try()

    async def _on_change(self, file: Path) -> None:
        async for _ in changes_of(file):
            await self._try()

    async def _try(self) -> None:
        try:
            await self.reload()
        except FabstirError:
            return  # said aloud already

    def _say(self, merged: Merged) -> None:
        waiting = f"at the next start: {', '.join(merged.waiting)}" if merged.waiting else ""
        self._part = Part(status="ok", reason=waiting)
        if merged.changed or merged.waiting:
            log.info("settings_reloaded", changed=list(merged.changed), waiting=list(merged.waiting))


async def changes_of(file: Path) -> AsyncIterator[None]:
    """Once for each time that `file` is written or another one is put in its place. The directory is watched, since a file that is put in
    place of another has the same name and nothing else in common; where there is no directory, nothing ever comes."""
    if not await asyncio.to_thread(file.parent.is_dir):
        await asyncio.Event().wait()
    name = file.name
    async for _ in awatch(
        file.parent,
        watch_filter=lambda _kind, path: Path(path).name == name,
        debounce=DEBOUNCE_MS,
        recursive=False,
        rust_timeout=60_000,
    ):
        yield
