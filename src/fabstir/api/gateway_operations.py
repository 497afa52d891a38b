"""The operations of the gateway as data: what each takes, answers, streams and refuses. `/openapi.json` and
docs/reference/gateway.md are made from here, so that they cannot differ.
"""

from __future__ import annotations

from typing import Final

import msgspec

from fabstir.api import chat_writer as chat
from fabstir.api import messages_writer as messages
from fabstir.api import responses_types as responses
from fabstir.api.anthropic_messages import COUNT, MESSAGES
from fabstir.api.dialect import Parameters
from fabstir.api.embeddings import EMBEDDINGS, Embeddings
from fabstir.api.gateway_errors import ErrorAnswer, MessagesError
from fabstir.api.gateway_views import GatewayHealth, GatewayModel, GatewayModels
from fabstir.api.openai_responses import RESPONSES
from fabstir.api.openai_types import CHAT


class Deleted(msgspec.Struct, frozen=True):
    """A response that is forgotten."""

    id: str
    object: str = "response"
    deleted: bool = True


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """One operation."""

    method: str
    path: str
    about: str
    answer: type[msgspec.Struct]
    parameters: Parameters | None = None
    """Of the body; None: there is none."""
    events: tuple[type[msgspec.Struct], ...] = ()
    """What a stream consists of."""
    errors: tuple[int, ...] = ()
    unwell: bool = False
    """503 has the same body as 200."""
    open: bool = False
    """Answered without a key."""

    @property
    def paid(self) -> bool:
        """A host answers it, so that it may be asked for once only (`Idempotency-Key`)."""
        return 402 in self.errors

    @property
    def fault(self) -> type[msgspec.Struct]:
        """The body of its errors."""
        return MessagesError if self.path.startswith("/v1/messages") else ErrorAnswer


READS: Final = (401, 403, 429, 431, 500, 503)
ASKS: Final = (400, 401, 402, 403, 404, 409, 413, 415, 429, 431, 500, 502, 503, 504)
OPERATIONS: Final = (
    Operation(
        method="post",
        path="/v1/chat/completions",
        about="A chat completion.",
        parameters=CHAT,
        answer=chat.Completion,
        events=(chat.Chunk, ErrorAnswer),
        errors=ASKS,
    ),
    Operation(
        method="post",
        path="/v1/responses",
        about="A response.",
        parameters=RESPONSES,
        answer=responses.ResponseBody,
        events=(
            responses.ResponseEvent,
            responses.ItemEvent,
            responses.PartEvent,
            responses.TextDeltaEvent,
            responses.TextDoneEvent,
            responses.ThoughtEvent,
            responses.ArgumentsEvent,
        ),
        errors=ASKS,
    ),
    Operation(
        method="get",
        path="/v1/responses/{id}",
        about="A response that is kept, by whoever asked for it.",
        answer=responses.ResponseBody,
        errors=(*READS, 404),
    ),
    Operation(
        method="post",
        path="/v1/responses/{id}/cancel",
        about="End a response that is being made in the background.",
        answer=responses.ResponseBody,
        errors=(*READS, 400, 404, 415),
    ),
    Operation(
        method="delete",
        path="/v1/responses/{id}",
        about="Forget a response.",
        answer=Deleted,
        errors=(*READS, 404),
    ),
    Operation(
        method="post",
        path="/v1/messages",
        about="A message.",
        parameters=MESSAGES,
        answer=messages.MessageBody,
        events=(
            messages.MessageStart,
            messages.BlockStart,
            messages.BlockDelta,
            messages.BlockStop,
            messages.MessageDelta,
            messages.MessageStop,
            MessagesError,
        ),
        errors=ASKS,
    ),
    Operation(
        method="post",
        path="/v1/messages/count_tokens",
        about="How many tokens a prompt has. The renter has no tokenizer: a host is asked for one token, which is paid for, and says how "
        "many it read.",
        parameters=COUNT,
        answer=messages.TokenCount,
        errors=ASKS,
    ),
    Operation(
        method="post",
        path="/v1/embeddings",
        about="Vectors of texts, made on this machine where `renter.embeddings` is on. They cost nothing and nobody else sees the texts.",
        parameters=EMBEDDINGS,
        answer=Embeddings,
        errors=(400, 401, 403, 404, 413, 415, 429, 431, 500, 503),
    ),
    Operation(
        method="get",
        path="/v1/models",
        about="The models that somebody serves now and that the key may use.",
        answer=GatewayModels,
        errors=READS,
    ),
    Operation(
        method="get",
        path="/v1/models/{id}",
        about="One of them, by name or id.",
        answer=GatewayModel,
        errors=(*READS, 404),
    ),
    Operation(
        method="get",
        path="/health",
        about="200 and `status: ok` where something can be answered; else 503 with the code and the reason.",
        answer=GatewayHealth,
        errors=(403, 431, 500),
        unwell=True,
        open=True,
    ),
)
