"""What an answer of a host says beside its text: the records of its tokens, receipts to acknowledge, and why it ended early.

In OpenAI's dialect it is the field `fabstir`, which their clients read over. Specification: docs/reference/http.md.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from fabstir.api.chat_writer import (
    FINISH,
    AnswerMessage,
    Choice,
    Chunk,
    ChunkChoice,
    Completion,
    Delta,
    Logprobs,
    Usage,
)
from fabstir.api.dialect import logprobs_of
from fabstir.api.gateway_errors import ErrorAnswer, ErrorBody
from fabstir.api.openai_types import ChatRequest
from fabstir.domain.errors import FabstirError
from fabstir.host.http_session import Heard
from fabstir.protocol.messages import Error, PaymentRequired, Receipt, Response, StreamChunk
from fabstir.protocol.transcript import TokenRecord

Records = tuple[TokenRecord, ...]


class Paid(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the renter needs to count, to check and to pay. What does not apply is left out."""

    index: int | None = None
    """Position of the first of `tokens`, counted from the start of the job."""
    tokens: Records = ()
    """Records of the tokens that these words came with, as in `stream_chunk`."""
    receipt: Receipt | None = None
    """Acknowledge it: `POST /v1/sessions/{id}/receipts`."""
    payment_required: PaymentRequired | None = None
    """The deposit will soon pay for no further token."""
    response: Response | None = None
    """The end of the answer: counts, reason and context plan, signed by the host's account."""
    error: Error | None = None
    """Why the answer ended before its end. What was served until then is billed."""


_NOTHING: Final = Paid()


class PaidError(Error, frozen=True, kw_only=True, tag="error"):
    """A host's error, and the same as OpenAI's clients read it."""

    error: ErrorBody

    @classmethod
    def told(cls, fault: FabstirError) -> PaidError:
        """`fault`, both ways."""
        plain = Error.of(fault)
        fields = {name: getattr(plain, name) for name in plain.__struct_fields__}
        return cls(**fields, error=ErrorAnswer.of(fault).error)


class PaidChunk(Chunk, frozen=True, kw_only=True):
    """One event of a stream, with what is owed for it."""

    fabstir: Paid


class PaidCompletion(Completion, frozen=True, kw_only=True):
    """A whole answer, with what is owed for it."""

    fabstir: Paid


class Collected:
    """What came of an answer so far. Memory: the answer."""

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self.index: int | None = None
        self.records: list[TokenRecord] = []
        self.receipt: Receipt | None = None
        self.payment: PaymentRequired | None = None
        self.response: Response | None = None
        self.fault: FabstirError | None = None

    @property
    def text(self) -> str:
        """All of it."""
        return "".join(self._pieces)

    def take(self, heard: Heard) -> None:
        """One message of the host."""
        match heard:
            case StreamChunk():
                self._pieces.append(heard.content)
                self.records += heard.tokens
                self.index = heard.index if self.index is None else self.index
            case Receipt():
                self.receipt = heard
            case PaymentRequired():
                self.payment = heard
            case Response():
                self.response = heard

    @property
    def finish_reason(self) -> str:
        """In the protocol's words; `length` where it was cut off."""
        return self.response.finish_reason if self.response else "length"

    @property
    def usage(self) -> Usage:
        """By the host; the prompt's tokens are not known of an answer that was cut off."""
        prompt = self.response.usage.prompt_tokens if self.response else 0
        return Usage(prompt, len(self.records), prompt + len(self.records))

    @property
    def paid(self) -> Paid:
        """All that is owed."""
        return Paid(
            index=self.index,
            tokens=tuple(self.records),
            receipt=self.receipt,
            payment_required=self.payment,
            response=self.response,
            error=Error.of(self.fault) if self.fault else None,
        )


class PaidChatWriter:
    """One chat completion of a host. Memory: nothing."""

    def __init__(self, request: ChatRequest, answer_id: str, created: int) -> None:
        self._request = request
        self._id = f"chatcmpl-{answer_id}"
        self._created = created

    def whole(self, answer: Collected) -> PaidCompletion:
        """In one piece."""
        finish = FINISH.get(answer.finish_reason, "stop")
        choice = Choice(AnswerMessage(answer.text), finish, logprobs=self._logprobs(tuple(answer.records)))
        return PaidCompletion(
            id=self._id,
            created=self._created,
            model=self._request.model,
            choices=(choice,),
            usage=answer.usage,
            fabstir=answer.paid,
        )

    def begin(self) -> Iterable[msgspec.Struct]:
        """The first event."""
        yield self._chunk(Delta(role="assistant", content=""))

    def heard(self, heard: Heard) -> Iterable[msgspec.Struct]:
        """The events of one message of the host."""
        match heard:
            case StreamChunk():
                paid = Paid(index=heard.index, tokens=heard.tokens)
                yield self._chunk(Delta(content=heard.content), paid, logprobs=self._logprobs(heard.tokens))
            case Receipt():
                yield self._chunk(Delta(), Paid(receipt=heard))
            case PaymentRequired():
                yield self._chunk(Delta(), Paid(payment_required=heard))
            case Response():
                finish = FINISH.get(heard.finish_reason, "stop")
                yield self._chunk(Delta(), Paid(response=heard), finish=finish)
                if self._request.stream_options is not None and self._request.stream_options.include_usage:
                    prompt, completion = heard.usage.prompt_tokens, heard.usage.completion_tokens
                    usage = Usage(prompt, completion, prompt + completion)
                    yield msgspec.structs.replace(self._chunk(Delta()), choices=(), usage=usage)

    def broken(self, fault: FabstirError) -> Iterable[msgspec.Struct]:
        """The last event of an answer that was cut off."""
        yield PaidError.told(fault)

    def _logprobs(self, records: Records) -> Logprobs | None:
        if not self._request.logprobs:
            return None
        return Logprobs(logprobs_of(records, self._request.top_logprobs or 0))

    def _chunk(
        self, delta: Delta, paid: Paid = _NOTHING, finish: str | None = None, logprobs: Logprobs | None = None
    ) -> PaidChunk:
        choices = (ChunkChoice(delta, finish, logprobs=logprobs),)
        return PaidChunk(id=self._id, created=self._created, model=self._request.model, choices=choices, fabstir=paid)
