"""A conversation that survives its hosts: ask, and text comes, whoever delivers it.

The conversation is kept here, in memory, never with the host. An answer that is cut off goes on at the same host or at
the next one after what was delivered, so that the person sees one stream and no token is paid twice. Which host that is
decides `access`; what is signed, the core.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator
from typing import Any, Final

import msgspec

from fabstir.domain.errors import FabstirError, error
from fabstir.domain.ids import ModelId, SessionId
from fabstir.domain.money import BaseUnits
from fabstir.protocol.context.plan import ContextPlan
from fabstir.protocol.controls import check, needs
from fabstir.protocol.messages import ChatMessage, Response
from fabstir.protocol.renter_items import AnswerBroken, AnswerDone, Ask, Deliver
from fabstir.protocol.transcript import TokenRecord
from fabstir.protocol.transcript_file import SpokenTurn
from fabstir.renter.access import ANY_HOST, Access, Context, Parts, Wish
from fabstir.renter.answer import Allow, AnswerReport, Turn
from fabstir.renter.jobs import RenterJob
from fabstir.renter.link import Link
from fabstir.renter.purse import Purse
from fabstir.renter.session_context import SUMMARY_TOKENS, Compacted, Compacting, SessionContext
from fabstir.renter.setbacks import Setbacks
from fabstir.renter.settling import Settlement

POLL_SECONDS: Final = 0.5
"""Between looks at the chain while a settlement is waited for."""
_ASK_OTHERWISE: Final = frozenset(
    (
        "context_invalid",
        "context_too_large",
        "context_too_long",
        "control_invalid",
        "engine_refused",
        "message_malformed",
        "message_too_large",
    )
)
"""The request is at fault, not the host: no other one would take it."""


class Session:
    """One conversation about one model. One answer at a time: a new question ends the answer that still streams.

    Memory: the conversation.
    """

    def __init__(
        self, parts: Parts, model: ModelId, purse: Purse, context: Context = (), wish: Wish = ANY_HOST
    ) -> None:
        self.id: Final = SessionId(os.urandom(12).hex())
        self.model: Final = model
        self.last: AnswerReport | None = None
        """What became of the last answer."""
        self.capabilities: tuple[str, ...] = ()
        """Of the host that answers, or did last, as it said."""
        self._clock = parts.clock
        self._answered = parts.answered
        self.context = SessionContext(parts.settings.context, parts.embedder)
        """What of the conversation is brought to hosts; set `context.watch` to see summaries being made."""
        self._purse = purse
        self._access = Access(parts, model, purse, self.id, wish)
        self._conversation = context
        self._turn: Turn | None = None
        self._lock = asyncio.Lock()
        self._cancelling: asyncio.Task[None] | None = None
        self._closed = False

    def __repr__(self) -> str:
        return f"<Session {self.id} {self._turn!r} {self._access!r}>"

    async def __aenter__(self) -> Session:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def conversation(self) -> Context:
        """What was said so far, without the answer that streams."""
        return self._conversation

    @property
    def jobs(self) -> tuple[RenterJob, ...]:
        """The jobs that this session paid for, oldest first."""
        return tuple(self._access.jobs)

    def records(self, start: int = 0) -> tuple[TokenRecord, ...]:
        """What was committed about each token of the last answer, from the one at `start` on."""
        return tuple(self._turn.records[start:]) if self._turn else ()

    @property
    def plan(self) -> ContextPlan | None:
        """What the model was given for the answer that streams or ended last; None before the host said so."""
        return self._turn.plan if self._turn else None

    @property
    def budget_left(self) -> BaseUnits:
        """What may still be deposited."""
        return self._purse.left

    # -- asking ------------------------------------------------------------------------------------------------------------

    async def connect(self) -> None:
        """Be ready for the first question: find a host, deposit, introduce ourselves. Without it, `prompt` does. Raises
        as `prompt`.
        """
        async with self._lock:
            self._require_open()
            await self._connect(Setbacks())

    async def rebase(self, conversation: Context) -> None:
        """Go on from another conversation; the host hears of it with the next question."""
        await self._stop_running()
        self._conversation = conversation

    async def clear(self) -> None:
        """Forget the conversation, at the host too; the job and its deposit stay."""
        await self._stop_running()
        async with self._lock:
            self._conversation = ()
            if self._access.link is not None:
                await self._access.link.clear()

    async def prompt(
        self,
        content: str | ChatMessage,
        *,
        allow: Allow | None = None,
        **controls: Any,
    ) -> AsyncGenerator[str, None]:
        """The answer to `content`, a question or the result of a call, piece by piece. `controls` are the fields of
        `fabstir.protocol.controls.Controls`: max_tokens (512), temperature (0.8), top_p (0.95), seed, stop, json_schema, tools and so on.
        Leaving the loop early cancels it; what was delivered is paid for. `allow` is asked before each host is, and may let it be asked
        for less.

        Raises Refused (`no_host`, `budget_exceeded`, `control_unsupported`, `control_invalid`, what the engine refuses), Interrupted
        (`hosts_exhausted`; `cancelled` where another question was asked meanwhile), ChainFault, LocalFault.
        """
        said = ChatMessage("user", content) if isinstance(content, str) else content
        if not said.content:
            raise error("request_invalid", "an empty question")
        question = Ask(content=said.content, role=said.role, tool_call_id=said.tool_call_id, **controls)
        check(question)
        self._require_open()
        await self._stop_running()
        asking = await self.context.asking(self._conversation, said.content)
        question = msgspec.structs.replace(question, context=asking)
        roles = frozenset(message.role for message in (*self._conversation, said))
        turn = self._turn = Turn(question, self._clock.monotonic(), allow, needs(question, roles))
        try:
            while True:
                async with self._lock:
                    text = await self._step(turn)
                if text:
                    yield text
                elif turn.over:
                    return
        finally:
            if not turn.over:
                await self._stop_running()

    async def _step(self, turn: Turn) -> str:
        """Bring the answer one event further; returns its text."""
        if turn.over:
            raise error("cancelled", "another question was asked")
        try:
            return await self._advance(turn)
        except FabstirError as fault:
            self.last = turn.report(fault.code, self._clock.monotonic())
            raise

    async def _advance(self, turn: Turn) -> str:
        link = self._access.link
        if not turn.asked or link is None:
            link = await self._connect(turn.setbacks)
            allowed = await turn.allowed(link.job)
            if allowed < 1:
                self._finish(turn, "length")
                return ""
            self.capabilities = link.capabilities
            await link.ask(turn.ask(link.job.host, allowed))
        event = await link.next()
        turn.plan = link.plan
        self._access.prepare_payment()
        if type(event) is Deliver:
            return turn.deliver(event, self._clock.monotonic())
        turn.asked = False
        if isinstance(event, AnswerBroken):
            await self._broken(turn, link.left, event.fault)
        else:
            await self._done(turn, event.response)  # type: ignore[union-attr]
        return ""

    async def _done(self, turn: Turn, response: Response) -> None:
        turn.counted(response.usage.prompt_tokens)
        self._access.worked()
        replenished = await self._access.replenish()
        if response.finish_reason == "deposit":
            if not replenished:
                await self._access.retire()
            if turn.left > 0 and (replenished or self._purse.left > 0) and not turn.prescribed:
                return
        self._finish(turn, response.finish_reason)
        link = self._access.link
        if link is not None and link.last_turn is not None:
            self._answered(link.job.ledger, link.last_turn)

    async def _broken(self, turn: Turn, left: FabstirError | None, fault: FabstirError) -> None:
        link = self._access.link
        stands = left is None and link is not None and link.usable
        if stands and self.context.may_compact(fault.code):
            await self._compact(turn, fault)
            return
        if stands and fault.code in _ASK_OTHERWISE:
            raise fault
        paused = fault.code == "ack_timeout" and turn.moved  # our reader did
        if not (
            stands and (paused or fault.code == "context_forgotten")
        ):  # then the same host goes on, told the conversation anew
            await self._access.drop(fault, turn.setbacks)
        if turn.left <= 0:
            self._finish(turn, "length")
        elif turn.text and turn.prescribed:
            raise fault

    async def _connect(self, setbacks: Setbacks) -> Link:
        context, self._access.summarised = self.context.brought(self._conversation)
        return await self._access.connect(context, setbacks)

    async def _compact(self, turn: Turn, why: FabstirError) -> None:
        """Have the older half of the turns summed up, or less where that does not fit either, so that the question can be asked again.
        Raises `why` where nothing is left to sum up, and what a host that cannot do it says."""
        for count in self.context.compaction_sizes(self._conversation):
            link = await self._connect(turn.setbacks)
            allowed = await turn.allowed(link.job, SUMMARY_TOKENS)
            if allowed < 1:
                raise why
            await link.ask(self.context.summarising(count, allowed))
            pieces, tokens, messages = [], 0, self.context.stands_for(self._conversation, count)
            while isinstance(event := await link.next(), Deliver):
                self._access.prepare_payment()
                pieces.append(event.text)
                tokens += event.tokens
                self.context.watch(Compacting(messages, tokens))
            turn.summary_tokens += tokens
            if isinstance(event, AnswerDone) and event.response.finish_reason in ("stop", "length") and "".join(pieces):
                await self._access.replenish()
                self.context.compacted(self._conversation, count, "".join(pieces))
                self.context.watch(Compacted(messages, tokens))
                return
            if isinstance(event, AnswerBroken) and event.fault.code != "context_too_long":
                await self._access.drop(event.fault, turn.setbacks)
                return  # the question is asked again, elsewhere, and leads here again
        raise why

    def _finish(self, turn: Turn, reason: str) -> None:
        if turn.text:
            self._conversation = (*self._conversation, turn.question, ChatMessage("assistant", turn.text))
        self.last = turn.report(reason, self._clock.monotonic())

    async def score(
        self,
        messages: Context,
        tokens: tuple[int, ...],
        *,
        prefix: str = "",
        temperature: float = 0.8,
        top_p: float = 0.95,
    ) -> SpokenTurn:
        """How likely each of `tokens` was as the answer to `messages` (`prefix`: the beginning of it), by a host that scores: its records
        are signed and paid like those of an answer. The conversation stays as it is.

        Raises as `prompt`, and Refused (`deposit_exhausted`) where the money does not reach.
        """
        if not tokens or not messages or messages[-1].role != "user":
            raise error("request_invalid", "nothing to score: a question, and the tokens of its answer")
        self._require_open()
        await self._stop_running()
        question = Ask(
            content=messages[-1].content,
            prefix=prefix,
            max_tokens=len(tokens),
            temperature=temperature,
            top_p=top_p,
            score=tokens,
        )
        async with self._lock:
            link = await self._access.connect(messages[:-1], Setbacks())
            await link.ask(question)
            while isinstance(event := await link.next(), Deliver):
                self._access.prepare_payment()
            if isinstance(event, AnswerBroken):
                await self._access.drop(event.fault, Setbacks())
                raise event.fault
            self._access.worked()
            await self._access.replenish()
            turn = link.last_turn
        if turn is None or len(turn.records) != len(tokens):
            raise error("deposit_exhausted", f"{len(turn.records) if turn else 0} of {len(tokens)} tokens were scored")
        return turn

    # -- stopping ----------------------------------------------------------------------------------------------------------

    async def _stop_running(self) -> None:
        """Cancel the answer that streams, if any; goes on where the caller is cancelled itself."""
        turn = self._turn
        if turn is None or turn.over:
            return
        if self._cancelling is None or self._cancelling.done():
            self._cancelling = asyncio.ensure_future(self._cancel(turn))
        await asyncio.shield(self._cancelling)

    async def _cancel(self, turn: Turn) -> None:
        async with self._lock:
            if turn.over:
                return
            link = self._access.link
            if turn.asked and link is not None:
                try:
                    event = await link.stop(lambda piece: turn.deliver(piece, self._clock.monotonic()))
                    if isinstance(event, AnswerBroken):
                        await self._access.drop(event.fault, turn.setbacks)
                except FabstirError as fault:
                    await self._access.drop(fault, turn.setbacks)
            self._finish(turn, "cancelled")

    # -- the end -----------------------------------------------------------------------------------------------------------

    async def close(self) -> None:
        """End the answer that streams and tell the hosts that the session is over; they settle. Idempotent."""
        if self._closed:
            return
        self._closed = True
        await self._stop_running()
        async with self._lock:
            await self._access.release()

    async def settlements(self, *, reclaim: bool = False) -> tuple[Settlement, ...]:
        """Where the deposits are, oldest job first. With `reclaim` the renter closes by itself what the host does not.
        Raises ChainFault.
        """
        return await self._access.settle(reclaim=reclaim)

    async def settled(self, within: float, *, reclaim: bool = False) -> tuple[Settlement, ...]:
        """Wait until every deposit is paid out, at most `within` seconds; see `paid_out` of each. Raises ChainFault."""
        deadline = self._clock.monotonic() + within
        while True:
            settlements = await self.settlements(reclaim=reclaim)
            if all(settlement.paid_out for settlement in settlements) or self._clock.monotonic() >= deadline:
                return settlements
            await self._clock.sleep(POLL_SECONDS)

    def _require_open(self) -> None:
        if self._closed:
            raise error("message_out_of_order", "this session is closed")
