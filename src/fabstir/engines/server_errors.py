"""Translates what goes wrong between us and an inference server into the project's errors, once, at the border.

The server's words are passed on cut to one short line: they name limits, types and fields, and never repeat a prompt
for the requests that we send (checked in tests/engines/test_llama_faults.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import aiohttp
import msgspec

from fabstir.domain.errors import FabstirError, error
from fabstir.engines.llama_wire import ErrorBody, ServerError

MAX_WORDS = 200


@contextmanager
def translated() -> Iterator[None]:
    """Around everything that talks to a server."""
    try:
        yield
    except TimeoutError as fault:
        raise error("engine_failed", "the engine gave no sign of life in time") from fault
    except (aiohttp.ClientError, ConnectionError) as fault:
        raise error("engine_gone", f"the connection to the engine broke: {type(fault).__name__}") from fault
    except (msgspec.DecodeError, msgspec.ValidationError) as fault:
        raise error("engine_failed", "the engine's answer cannot be read") from fault
    except UnicodeEncodeError as fault:
        raise error("engine_refused", "the text is not valid Unicode") from fault


def refusal(status: int, body: bytes) -> FabstirError:
    """The error for an answer that is not 2xx."""
    try:
        said = msgspec.json.decode(body, type=ErrorBody).error
    except msgspec.DecodeError:
        said = ServerError()
    return server_fault(status, said)


def server_fault(status: int, said: ServerError) -> FabstirError:
    """The error for an error object of the server, with `status` or what would have been it."""
    if said.type == "exceed_context_size_error":
        return error("context_too_long", f"prompt has {said.n_prompt_tokens} tokens, context {said.n_ctx}")
    words = " ".join(said.message.split())[:MAX_WORDS] or f"HTTP status {status}"
    if "maximum context length" in words:  # vLLM says it only in words, with both numbers
        return error("context_too_long", words)
    if status in (429, 503):
        return error("engine_gone" if "load" in words.lower() else "capacity", words)
    return error("engine_refused" if 400 <= status < 500 else "engine_failed", words)
