"""What llama.cpp's server says on the wire: the fields that we read of its answers, and its event stream.

Decides nothing. The server's `POST /completion` with `n_probs` gives one event per token: text, id, log-probability of
the raw softmax and the most likely alternatives, the end-of-turn token included (`/v1/chat/completions` leaves that one
out). Tokens that end inside a UTF-8 character get no event; `tokens_predicted` counts them (see `llama_answer`).
Verified with b11549 and v0.5.0.
"""

from __future__ import annotations

from typing import Final

import msgspec

from fabstir.protocol.transcript import MIN_LOGPROB, TokenRecord

FINAL_FIELDS: Final = ("stop_type", "tokens_predicted", "tokens_evaluated")
"""Of the last event; without this choice it repeats the whole prompt."""


class Alternative(msgspec.Struct):
    """One of the most likely tokens at a position."""

    id: int
    logprob: float


class Probability(msgspec.Struct):
    """The sampled token at a position."""

    id: int
    logprob: float
    top_logprobs: list[Alternative]
    bytes: msgspec.Raw = msgspec.Raw(b"[]")
    """The text that became complete, as a JSON array of bytes; read only where tokens were left out."""


class Progress(msgspec.Struct):
    """How far the prompt was evaluated."""

    cache: int


class ServerError(msgspec.Struct):
    """The server's error object."""

    message: str = ""
    type: str = ""
    n_prompt_tokens: int = 0
    n_ctx: int = 0


class ErrorBody(msgspec.Struct):
    """Body of an answer that is not 2xx, and of an error in the stream."""

    error: ServerError


class Chunk(msgspec.Struct):
    """One event of a stream."""

    content: str = ""
    tokens_predicted: int = 0
    tokens_evaluated: int = 0
    completion_probabilities: list[Probability] = []
    prompt_progress: Progress | None = None
    stop_type: str = ""
    """Only in the last event: `eos`, `limit`, `word` or `none`."""
    error: ServerError | None = None


class Candidate(msgspec.Struct):
    """A token that was possible at a probed position."""

    id: int
    logprob: float
    bytes: list[int]


class Distribution(msgspec.Struct):
    """The most likely tokens at a probed position, best first."""

    top_logprobs: list[Candidate]


class Probed(msgspec.Struct):
    """Answer to a request for one forced token."""

    completion_probabilities: list[Distribution] = []


class Prompt(msgspec.Struct):
    """Answer of `/apply-template`."""

    prompt: str


class TokenIds(msgspec.Struct):
    """Answer of `/tokenize`."""

    tokens: list[int]


class SlotParameters(msgspec.Struct, frozen=True):
    """Part of `/props`."""

    speculation: str = msgspec.field(name="speculative.types", default="")


class SlotDefaults(msgspec.Struct):
    """Part of `/props`."""

    n_ctx: int
    params: SlotParameters = SlotParameters()


class Props(msgspec.Struct):
    """Answer of `/props`."""

    default_generation_settings: SlotDefaults
    total_slots: int
    chat_template: str = ""


class LoraEntry(msgspec.Struct):
    """One entry of `/lora-adapters`."""

    id: int
    path: str


class DrawnToken(msgspec.Struct):
    """A token that was sampled."""

    id: int


class Drawn(msgspec.Struct):
    """What was sampled, and nothing else."""

    completion_probabilities: list[DrawnToken] = []


class Slot(msgspec.Struct):
    """One entry of `/slots`."""

    is_processing: bool = False


_decode_chunk = msgspec.json.Decoder(Chunk).decode
_decode_bytes = msgspec.json.Decoder(list[int]).decode


def raw_bytes(probability: Probability) -> bytes:
    """The bytes of the text that became complete with this token."""
    return bytes(_decode_bytes(probability.bytes))


def micro_nats(logprob: float) -> int:
    """A log-probability as records hold it: an integer, never above 0 (rounding of a sure token), never below the floor."""
    value = round(logprob * 1e6)  # for each token and each alternative: comparing is quicker than calling
    return value if MIN_LOGPROB <= value <= 0 else max(MIN_LOGPROB, min(0, value))


def token_record(probability: Probability, top: int) -> TokenRecord:
    """The record of a sampled token, with at most `top` alternatives."""
    return TokenRecord(
        probability.id,
        micro_nats(probability.logprob),
        tuple([(item.id, micro_nats(item.logprob)) for item in probability.top_logprobs[:top]]),
    )


class EventStream:
    """Server-sent events from raw bytes. Holds at most one unfinished event."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[Chunk]:
        """The events that became complete with `data`. Raises msgspec.DecodeError."""
        *events, self._rest = (self._rest + data).split(b"\n\n")
        return [
            _decode_chunk(event[6:]) for event in events if event.startswith(b"data: ") and event != b"data: [DONE]"
        ]
