"""A prompt between its arrival and the start of its answer: what must be counted first, then the plan and what the engine is given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from fabstir.domain.ids import Hash32
from fabstir.protocol.context.brought import ContextLimits, check_question, check_weights
from fabstir.protocol.context.history import History, Weight
from fabstir.protocol.context.plan import ContextPlan
from fabstir.protocol.context.planner import REFUSE, Frame, Question, make_plan
from fabstir.protocol.from_renter import Prompt
from fabstir.protocol.messages import canonical
from fabstir.protocol.tool_text import text_of, told
from fabstir.protocol.transcript import request_hash
from fabstir.protocol.wire_types import ChatMessage


class Prepared(NamedTuple):
    """What the answer begins with."""

    history: History
    plan: ContextPlan
    seen: tuple[ChatMessage, ...]
    """The question included."""
    question: int = 0
    """Tokens of its text."""


NOTHING: Final = Prepared(History(), ContextPlan(spans=(), question=0, frame=0), ())
"""Before the first prompt."""


class Preparation:
    """One prompt. Memory: the history that it was asked on."""

    def __init__(self, turn: int, prompt: Prompt, history: History, limits: ContextLimits) -> None:
        """Raises PeerFault (`context_invalid`), Refused (`context_too_large`)."""
        check_question(history, prompt.content + prompt.prefix + told(prompt), limits)
        self.turn = turn
        self.prompt = prompt
        self.cancelled = False
        self._history = history

    def __repr__(self) -> str:
        return f"<Preparation of turn {self.turn} on {self._history!r}>"

    @property
    def texts(self) -> tuple[str, ...]:
        """To be counted: what of the conversation never was, then the question, then the beginning of its answer and what the model is told
        of tools, where there are some."""
        prompt = self.prompt
        return (*self._history.uncounted(), text_of(prompt.message), *filter(None, (prompt.prefix, told(prompt))))

    def plan(self, weights: Sequence[Weight], frame: Frame, context_size: int) -> Prepared:
        """`weights`: of `texts`. Raises PeerFault (`context_invalid`), Refused (`context_too_long`)."""
        check_weights(self._history, weights)
        prompt, known = self.prompt, len(self._history.uncounted())
        history = self._history.counted(weights[:known])
        question = Question(
            sum(weight.tokens for weight in weights[known:]),
            len(prompt.score) or prompt.max_tokens,
            continues=prompt.message.role != "user",
        )
        made = make_plan(history, prompt.context or REFUSE, question, frame, context_size)
        seen = (*made.plan.seen(history.messages), prompt.message)
        return Prepared(history.begins(made.start), made.plan, seen, weights[known].tokens)


def bound_request(salt: Hash32, seen: tuple[ChatMessage, ...], prompt: Prompt, plan: ContextPlan | None) -> Hash32:
    """The request hash: of what the engine was given and of the prompt; and of the plan, where the prompt has a `context`."""
    if prompt.context is None or plan is None:
        return request_hash(salt, canonical((seen, prompt)))
    return request_hash(salt, canonical((seen, prompt, plan)))


def after(history: History, prompt: Prompt, question: int, text: str, reason: str) -> History:
    """The conversation after an answer, on both sides. A scored answer leaves no trace, nor does one without text; a summary that was cut
    off leaves none either, and a whole one takes the place of what it sums up."""
    if not text or prompt.score:
        return history
    compact = prompt.context.compact if prompt.context else 0
    if not compact:
        return history.answered(prompt.message, question, text)
    return history.compacted(compact, prompt.message, question, text) if reason in ("stop", "length") else history
