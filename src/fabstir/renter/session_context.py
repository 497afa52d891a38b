"""What of a conversation is brought to a host: the whole of it, or a summary of its beginning and the rest; and which turns are named.

The conversation itself stays whole with the renter. A summary is made by a host, as an answer that is paid for like any other, only where
the renter chose the strategy `summarise` and the conversation did not fit; it is kept here and applied as long as the conversation still
begins with what it sums up. For `retrieve` the turns are ranked here, by embeddings made on this machine: nobody else sees what is looked
for. Memory: one summary, and a vector for each message of the conversation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from fabstir.domain.errors import error
from fabstir.ports.vectors import Embedder
from fabstir.protocol.context.history import History
from fabstir.protocol.context.plan import MAX_WANTED, ContextRequest
from fabstir.protocol.messages import ChatMessage
from fabstir.protocol.renter_items import Ask

Context = tuple[ChatMessage, ...]
SUMMARISE: Final = (
    "Summarise our conversation so far, for yourself: names, facts, decisions, what was asked for and is not done yet."
    " Leave out greetings. Say nothing else."
)
SUMMARY_TOKENS: Final = 256
NAMED: Final = 64
"""Messages that a prompt names at most: more would not fit beside the latest turns."""
LONGEST_EMBEDDED: Final = 10_000
"""Characters of a message that are looked at; the embedder reads the first 256 tokens."""


class Compacting(msgspec.Struct, frozen=True):
    """A summary is being made."""

    messages: int
    """That it will stand for."""
    tokens: int
    """Of it so far."""


class Compacted(msgspec.Struct, frozen=True):
    """A summary stands in place of the beginning."""

    messages: int
    """That it stands for."""
    tokens: int
    """That it cost, and was paid for."""


ContextEvent = Compacting | Compacted
Watcher = Callable[[ContextEvent], None]


class Compaction(msgspec.Struct, frozen=True):
    """A summary and what it stands for."""

    head: Context
    """The conversation up to where the summary ends, messages of the system included."""
    pinned: int
    """Of the system, among them."""
    question: str
    summary: str

    def applied(self, conversation: Context) -> Context | None:
        """The conversation with the summary in place; None where it begins otherwise."""
        if conversation[: len(self.head)] != self.head:
            return None
        exchange = ChatMessage("user", self.question), ChatMessage("assistant", self.summary)
        return (*self.head[: self.pinned], *exchange, *conversation[len(self.head) :])


class SessionContext:
    """One session's."""

    def __init__(self, request: ContextRequest, embedder: Embedder | None = None, watch: Watcher | None = None) -> None:
        """Raises LocalFault (`embedder_unavailable`) for `retrieve` without an embedder."""
        if request.strategy == "retrieve" and embedder is None:
            raise error("embedder_unavailable", "strategy retrieve ranks turns by embeddings; see renter.embeddings")
        self.request: Final = request
        self.watch: Watcher = watch or _nobody
        self._embedder = embedder
        self._compaction: Compaction | None = None
        self._vectors: dict[str, npt.NDArray[np.float32]] = {}

    def __repr__(self) -> str:
        return f"<SessionContext {self.request.strategy}{' with a summary' if self._compaction else ''}>"

    def brought(self, conversation: Context) -> tuple[Context, int]:
        """What a host is given, and how many messages its first exchange stands for."""
        compaction = self._compaction
        applied = compaction.applied(conversation) if compaction else None
        if compaction is None or applied is None:
            return conversation, 0
        return applied, len(compaction.head) - compaction.pinned

    async def asking(self, conversation: Context, content: str) -> ContextRequest:
        """The `context` of the next prompt. Raises PeerFault (`embedder_text`)."""
        if self.request.strategy != "retrieve":
            return self.request
        return msgspec.structs.replace(self.request, wanted=await self._ranked(conversation, content))

    # -- a summary ---------------------------------------------------------------------------------------------------------

    def may_compact(self, code: str) -> bool:
        """Whether a prompt that was refused with `code` is a reason to summarise."""
        return code == "context_too_long" and self.request.strategy == "summarise"

    def compaction_sizes(self, conversation: Context) -> tuple[int, ...]:
        """How many messages of what is brought to sum up: the older half of the turns, or fewer where that does not fit either."""
        context, summarised = self.brought(conversation)
        history = History.of(context, summarised)
        ends = [turn - history.pinned for turn in (*history.turns[1:], len(context)) if turn > history.always]
        found = []
        take = (len(ends) + 1) // 2
        while take:
            found.append(ends[take - 1])
            take //= 2
        return tuple(found)

    def summarising(self, count: int, most: int) -> Ask:
        """The prompt for a summary of the first `count` messages, in at most `most` tokens."""
        asked = ContextRequest(strategy="summarise", compact=count)
        return Ask(content=SUMMARISE, max_tokens=most, temperature=0.0, context=asked)

    def stands_for(self, conversation: Context, count: int) -> int:
        """Messages of the conversation that the first `count` of what is brought are."""
        _, summarised = self.brought(conversation)
        return count - 2 + summarised if summarised else count

    def compacted(self, conversation: Context, count: int, summary: str) -> None:
        """The first `count` messages of what is brought are summed up."""
        pinned = History.of(conversation).pinned
        end = pinned + self.stands_for(conversation, count)
        self._compaction = Compaction(conversation[:end], pinned, SUMMARISE, summary)

    # -- ranking -----------------------------------------------------------------------------------------------------------

    async def _ranked(self, conversation: Context, content: str) -> tuple[int, ...]:
        places = [at for at, message in enumerate(conversation) if message.content.strip() and message.role != "system"]
        if not places or not content.strip():
            return ()
        texts = [conversation[at].content[:LONGEST_EMBEDDED] for at in places]
        question = content[:LONGEST_EMBEDDED]
        await self._embed([question, *texts])
        sought = self._vectors[question]
        scores = np.stack([self._vectors[text] for text in texts]) @ sought
        best = np.argsort(-scores, kind="stable")[: min(NAMED, MAX_WANTED)]
        self._vectors = {text: self._vectors[text] for text in (question, *texts)}
        return tuple(places[int(number)] for number in best)

    async def _embed(self, texts: Sequence[str]) -> None:
        if self._embedder is None:
            raise AssertionError("retrieve has an embedder")
        new = list(dict.fromkeys(text for text in texts if text not in self._vectors))
        for at in range(0, len(new), 256):
            batch = new[at : at + 256]
            self._vectors |= zip(batch, await self._embedder.embed(batch), strict=True)


def _nobody(_event: ContextEvent) -> None:
    """Nobody watches."""
