"""`POST /v1/inference` of a host: one prompt and its answer in the session protocol's own words. What is read and what is written.

A parameter is served or refused by its name; a model, a job, a session or a chain that is named must be that of the token.
Streamed, the events are the protocol's messages: `stream_chunk`, `receipt`, `payment_required`, `response`, `error`.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
from msgspec import Meta

from fabstir.api.dialect import Limit, Parameters, StopText, Temperature, TopP, read
from fabstir.api.host_paid import Collected
from fabstir.domain.errors import error
from fabstir.protocol.messages import MAX_CONTENT, ChatMessage, Error, PaymentRequired, Receipt, Response, SessionReady
from fabstir.protocol.transcript import TokenRecord


class InferenceRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The body of `POST /v1/inference`."""

    model: Annotated[str, Meta(min_length=1, max_length=200)]
    """Name or id of the session's model."""
    prompt: Annotated[str, Meta(min_length=1, max_length=MAX_CONTENT)]
    max_tokens: Limit
    conversation_context: Annotated[tuple[ChatMessage, ...], Meta(max_length=4096)] = ()
    """What was said before."""
    temperature: Temperature = 0.7
    top_p: TopP = 0.95
    seed: Annotated[int, Meta(ge=0, lt=2**32)] | None = None
    stop: Annotated[tuple[StopText, ...], Meta(max_length=8)] = ()
    stream: bool = False
    """Server-sent events, each a message of the session protocol."""
    request_id: Annotated[str, Meta(max_length=64)] | None = None
    """Comes back in the answer."""
    job_id: str | None = None
    """Must be that of the token."""
    session_id: str | None = None
    """Must be that of the token."""
    chain_id: int | None = None
    """Must be that of the token's job."""

    def check(self, ready: SessionReady, chain_id: int) -> None:
        """Raises Refused (`model_unavailable`, `session_unauthorized`) where another model, job, session or chain is meant."""
        check_model(self.model, ready)
        meant = ((self.job_id, ready.job_id), (self.session_id, ready.session_id), (self.chain_id, chain_id))
        for named, ours in meant:
            if named is not None and named != ours:
                raise error("session_unauthorized", f"the token stands for {ours}")


INFERENCE: Final = Parameters(
    request=InferenceRequest,
    neutral={"web_search": (False,), "max_searches": (0,), "search_queries": ([],), "thinking": (False,)},
)


class InferenceUsage(msgspec.Struct, frozen=True, kw_only=True):
    """Counts of one answer, by the host."""

    prompt_tokens: int
    """0 of an answer that was cut off."""
    completion_tokens: int
    total_tokens: int


class InferenceAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A whole answer."""

    model: str
    content: str
    tokens_used: int
    """Tokens that this answer cost."""
    finish_reason: str
    """stop, length, deposit, cancelled; `length` also where it was cut off, with `error`."""
    request_id: str | None
    session_id: str
    job_id: str
    chain_id: int
    usage: InferenceUsage
    index: int | None
    """Position of its first token, counted from the start of the job."""
    tokens: tuple[TokenRecord, ...]
    receipt: Receipt | None
    """Acknowledge it: `POST /v1/sessions/{id}/receipts`."""
    payment_required: PaymentRequired | None
    """The deposit will soon pay for no further token."""
    response: Response | None
    """Its end, with what the engine was given, signed by the host's account."""
    error: Error | None
    """Why it ended before its end."""

    @classmethod
    def of(cls, asked: InferenceRequest, answer: Collected, ready: SessionReady, chain_id: int) -> InferenceAnswer:
        """What came of it."""
        usage = answer.usage
        return cls(
            model=ready.model,
            content=answer.text,
            tokens_used=usage.completion_tokens,
            finish_reason=answer.finish_reason,
            request_id=asked.request_id,
            session_id=ready.session_id,
            job_id=ready.job_id,
            chain_id=chain_id,
            usage=InferenceUsage(
                prompt_tokens=usage.prompt_tokens,
                completion_tokens=usage.completion_tokens,
                total_tokens=usage.total_tokens,
            ),
            index=answer.index,
            tokens=tuple(answer.records),
            receipt=answer.receipt,
            payment_required=answer.payment,
            response=answer.response,
            error=Error.of(answer.fault) if answer.fault else None,
        )


def read_inference(body: bytes) -> InferenceRequest:
    """Raises PeerFault: InvalidParameter where a parameter is at fault."""
    request: InferenceRequest = read(body, INFERENCE)
    return request


def check_model(name: str, ready: SessionReady) -> None:
    """Raises Refused (`model_unavailable`)."""
    if name not in (ready.model, ready.model_id):
        raise error("model_unavailable", f"{name[:80]!r}; this session is of {ready.model!r}")
