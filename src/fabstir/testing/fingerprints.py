"""The port `Fingerprinter` without weights: fingerprints that stand for the words and tokens they were made of, and nothing else."""

from __future__ import annotations

import asyncio

from fabstir.domain.errors import FabstirError
from fabstir.protocol.fingerprinted import CHUNK_TOKENS
from fabstir.protocol.messages import ChatMessage, canonical
from fabstir.protocol.signing import keccak


class ScriptedFingerprinter:
    """Works while `free` is set; says `fault` where there is one."""

    def __init__(self) -> None:
        self.free = asyncio.Event()
        self.free.set()
        self.fault: FabstirError | None = None
        self.asked = 0
        """Answers that it was asked about."""

    def __repr__(self) -> str:
        return f"<ScriptedFingerprinter asked {self.asked}{'' if self.free.is_set() else ', held'}>"

    async def fingerprints(
        self, messages: tuple[ChatMessage, ...], prefix: str, answer: tuple[int, ...]
    ) -> tuple[bytes, ...]:
        """See the port."""
        self.asked += 1
        await self.free.wait()
        if self.fault is not None:
            raise self.fault
        parts = [answer[at : at + CHUNK_TOKENS] for at in range(0, len(answer), CHUNK_TOKENS)]
        return tuple(keccak(canonical((messages, prefix, part))) for part in parts)
