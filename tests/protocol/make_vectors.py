"""Writes the golden vectors of the wire: `python tests/protocol/make_vectors.py` from the repository's root.

A second implementation, for whoever writes another SDK: it uses hashlib, json and struct alone and nothing of fabstir, so that
the product is compared with the specification and not with itself. Hashes of Ethereum (job ids) are inputs here;
test_signing.py compares those with eth_abi. `vectors/transcript.json` holds hashes step by step, `vectors/messages.json` one
exact encoding of each message, the shortest that is understood, and what that means.
"""

from __future__ import annotations

import json
import struct
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

TARGET: Final = Path(__file__).parent / "vectors"

# -- the transcript ---------------------------------------------------------------------------------------------------------------

CHAIN_ID: Final = 31337
MARKET: Final = bytes([0x0A]) * 20
HOST: Final = bytes.fromhex("1a642f0e3c3af545e7acbd38b07251b3990914f1")
MODEL: Final = bytes([5]) * 32
JOB: Final = bytes.fromhex("7d0f6754e67dec9704919405235517a7f282a8254b55e13b9ae134e9c2614ba8")
SALT: Final = bytes(range(32))
TERMS: Final = {
    "renter": "0x" + "03" * 20,
    "signer": "0x5050a4f4b3f9338c3472dcc01a87c76a144b3c9c",
    "host": "0x" + HOST.hex(),
    "token": "0x" + "04" * 20,
    "arbiter": "0x" + "07" * 20,
    "price_per_mtok": "200000",
    "bond": "100000",
    "expires_at": 2_000_000_000,
    "challenge": 900,
    "exposure": 64,
    "policy": 0,
    "model_id": "0x" + MODEL.hex(),
    "salt": "0x" + "06" * 32,
}

RECORDS: Final = [
    {"token": 0, "logprob": 0, "top": []},
    {"token": 7, "logprob": -1_234_567, "top": [[7, -1_234_567]]},
    {"token": 4_294_967_295, "logprob": -2_147_483_648, "top": [[1, -1], [4_294_967_295, -2_147_483_648]]},
    {"token": 42, "logprob": -5, "top": [[n, -n] for n in range(20)]},
]
CONTROLS: Final = {
    "max_tokens": 512,
    "temperature": 1.0,
    "top_p": 0.95,
    "top_k": 0,
    "min_p": 0.0,
    "repeat_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "logit_bias": [],
    "seed": None,
    "stop": ["###"],
    "json_schema": "",
    "grammar": "",
    "adapter": "",
    "tools": [{"name": "weather", "description": "", "parameters": '{"type":"object"}'}],
    "tool_choice": "auto",
    "tool": "",
    "parallel_tool_calls": True,
}
PROMPT: Final = {
    "type": "prompt",
    **CONTROLS,
    "session_id": "talk",
    "message_index": 1,
    "content": 'line\n"quoted" \\ / \u0001 é 漢 🙂',
    "role": "user",
    "tool_call_id": "",
    "prefix": "",
    "score": [],
    "context": None,
    "conversation_context": None,
    "summarised": 0,
}
HISTORY: Final = [
    {"role": "user", "content": "Hello"},
    {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"id": "c1", "name": "weather", "arguments": '{"city": "Oslo"}'}],
    },
    {"role": "tool", "content": "Rain.", "tool_call_id": "c1"},
    {"role": "user", "content": PROMPT["content"]},
]


WINDOWED: Final = {
    **PROMPT,
    "context": {"strategy": "retrieve", "max_tokens": 1024, "max_messages": None, "wanted": [3, 9], "compact": 0},
}
PLAN: Final = {
    "spans": [
        ["kept", [9]],
        ["summary", [14, 90]],
        ["retrieved", [12, 41]],
        ["dropped", [8, 7, 8, 30]],
        ["kept", [11, 60]],
    ],
    "question": 17,
    "frame": 4,
    "summarised": 24,
}
SAMPLER: Final = {"temperature": 1_000, "top_p": 950_000}


def record_digest(salt: bytes, index: int, record: dict[str, Any]) -> bytes:
    own_salt = sha256(b"fabstir/salt/1" + salt + struct.pack(">I", index)).digest()
    packed = struct.pack(">IIi", index, record["token"], record["logprob"])
    packed += struct.pack(">HIB", SAMPLER["temperature"], SAMPLER["top_p"], len(record["top"]))
    for token, logprob in record["top"]:
        packed += struct.pack(">Ii", token, logprob)
    return sha256(b"fabstir/record/2" + own_salt + packed).digest()


def job_head() -> bytes:
    return sha256(b"fabstir/job/1" + struct.pack(">Q", CHAIN_ID) + MARKET + JOB + HOST + MODEL).digest()


def turn_head(head: bytes, message_index: int, tokens: int, request: bytes) -> bytes:
    return sha256(b"fabstir/turn/1" + head + struct.pack(">II", message_index, tokens) + request).digest()


def token_head(head: bytes, digest: bytes) -> bytes:
    return sha256(b"fabstir/token/1" + head + digest).digest()


def canonical(value: Any) -> str:
    """Sorted keys, no spaces, text as UTF-8, only what must be escaped is."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def hexed(value: bytes) -> str:
    return "0x" + value.hex()


def transcript() -> dict[str, Any]:
    """Two answers: the first three records, then, after the prompt above, the last one."""
    encoded = canonical([HISTORY, PROMPT])
    request = sha256(b"fabstir/request/1" + SALT + encoded.encode()).digest()
    planned = canonical([HISTORY, WINDOWED, PLAN])
    head, steps = job_head(), []
    start = head
    for turn, (first, count) in enumerate([(0, 3), (3, 1)]):
        head = turn_head(head, turn, first, request)
        steps.append({"turn": turn, "tokens": first, "request": hexed(request), "head": hexed(head)})
        for index in range(first, first + count):
            digest = record_digest(SALT, index, RECORDS[index])
            head = token_head(head, digest)
            steps.append({"index": index, "record": RECORDS[index], "digest": hexed(digest), "head": hexed(head)})
    return {
        "chain_id": CHAIN_ID,
        "market": hexed(MARKET),
        "terms": TERMS,
        "job_id": hexed(JOB),
        "salt": hexed(SALT),
        "sampler": SAMPLER,
        "request": {"history": HISTORY, "prompt": PROMPT, "canonical": encoded, "hash": hexed(request)},
        "planned_request": {
            "seen": HISTORY,
            "prompt": WINDOWED,
            "plan": PLAN,
            "canonical": planned,
            "hash": hexed(sha256(b"fabstir/request/1" + SALT + planned.encode()).digest()),
        },
        "job_head": hexed(start),
        "steps": steps,
    }


# -- messages ---------------------------------------------------------------------------------------------------------------------

AUTH: Final = {"issued_at": 1_800_000_000, "nonce": "0x" + "0e" * 32, "signature": "0x" + "0f" * 64 + "1b"}
HASH: Final = "0x" + "ab" * 32
SIGNATURE: Final = "0x" + "cd" * 64 + "1c"
CHAT: Final = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hello"},
    {"role": "assistant", "content": "Hi."},
]

CONVERSATION: Final = sha256(b"fabstir/conversation/1" + SALT + canonical(CHAT).encode()).digest()

FROM_RENTER: Final[list[dict[str, Any]]] = [
    {
        "type": "session_init", "session_id": "talk", "job_id": hexed(JOB), "terms": TERMS, "auth": AUTH, "protocol": [1],
        "conversation_context": CHAT, "summarised": 0, "rung": 3, "capabilities": ["state", "ping", "handoff"], "requires": ["stream"],
        "client": "fabstir/0.1.0",
    },
    {
        "type": "session_resume", "session_id": "talk", "job_id": hexed(JOB), "terms": TERMS, "auth": AUTH, "token": None,
        "protocol": [1],
        "conversation_context": CHAT, "summarised": 12, "last_message_index": 3, "tokens_received": 96, "transcript": HASH,
        "rung": None, "capabilities": ["state"], "requires": [], "client": "",
    },
    {
        **PROMPT, "content": "Tell me a story.", "temperature": 0.8, "top_k": 40, "logit_bias": [[7, -100.0]], "seed": 7,
        "prefix": "Once ", "context": WINDOWED["context"], "conversation_context": CHAT, "summarised": 2,
    },
    {"type": "receipt_ack", "session_id": "talk", "tokens": 96, "amount": "19", "transcript": HASH, "signature": SIGNATURE},
    {"type": "cancel", "session_id": "talk", "message_index": 1},
    {"type": "session_clear", "session_id": "talk"},
    {"type": "deposit_changed", "session_id": "talk"},
    {
        "type": "session_end", "session_id": "talk", "reason": "renter", "tokens_served": 0, "tokens_acknowledged": 0,
        "close_signature": None,
    },
    {"type": "ping", "id": 7},
    {"type": "pong", "id": 7},
]  # fmt: skip

FROM_HOST: Final[list[dict[str, Any]]] = [
    {
        "type": "session_ready", "session_id": "talk", "job_id": hexed(JOB), "host": hexed(HOST), "model": "tiny",
        "model_id": hexed(MODEL), "protocol": 1, "capabilities": ["stream", "resume", "prefix", "cancel", "receipts"],
        "price_per_mtok": "200000", "exposure": 64, "context_size": 2048, "max_message_bytes": 1_048_576,
        "tokens_served": 96, "tokens_acknowledged": 96, "tokens_affordable": 5_000_004, "transcript": HASH,
        "salt": hexed(SALT), "message_index": 1, "server": "fabstir/0.1.0", "max_answer_tokens": 4096, "ack_timeout_s": 30, "ping_s": 20,
        "token": None,
    },
    {
        "type": "session_state", "session_id": "talk", "message_index": 1, "messages": 3, "conversation": hexed(CONVERSATION),
        "tokens_served": 96, "tokens_acknowledged": 64, "transcript": HASH,
    },
    {
        "type": "context_plan", "session_id": "talk", "message_index": 1, "plan": PLAN,
    },
    {
        "type": "stream_chunk", "session_id": "talk", "message_index": 1, "index": 96, "content": "Once é",
        "tokens": [[7, -1_234_567, [[7, -1_234_567], [9, -2_000_000]]], [11, 0, []]],
    },
    {"type": "receipt", "session_id": "talk", "tokens": 96, "amount": "19", "tokens_in": 12, "transcript": HASH, "signature": SIGNATURE},
    {
        "type": "response", "session_id": "talk", "message_index": 1, "tokens_used": 32, "finish_reason": "stop",
        "usage": {"prompt_tokens": 12, "completion_tokens": 32}, "context": PLAN, "signature": SIGNATURE,
    },
    {
        "type": "fingerprints", "session_id": "talk", "message_index": 1, "first": 96, "tokens": 33, "transcript": HASH,
        "fingerprints": ["/9kAAAE=", "/9kB/w=="], "signature": SIGNATURE,
    },
    {
        "type": "handoff", "session_id": "talk", "reason": "draining", "message_index": 2, "tokens_served": 96, "tokens_acknowledged": 64,
        "transcript": HASH, "grace_s": 5,
    },
    {
        "type": "session_end", "session_id": "talk", "reason": "ended by the renter", "tokens_served": 96,
        "tokens_acknowledged": 96, "close_signature": SIGNATURE,
    },
    {
        "type": "error", "code": "capacity", "category": "refused", "message": "No room on this host", "retryable": True,
        "detail": "256 requests wait already, for some 90 s", "next_step": "Try again later or use another host.",
        "session_id": "talk", "message_index": 2, "retry_after_s": 90,
    },
    {"type": "payment_required", "session_id": "talk", "tokens_served": 4800, "tokens_affordable": 5000, "deposit": "1000"},
    {"type": "payment_received", "session_id": "talk", "tokens_affordable": 10000, "deposit": "2000"},
    {"type": "ping", "id": 8},
    {"type": "pong", "id": 7},
    {
        "type": "notice", "code": "queued", "message": "3 of 7 in line for this model, about 20 s", "session_id": None,
        "position": 3, "wait_s": 20,
    },
]  # fmt: skip

HELLO_DEFAULTS: Final = {"capabilities": [], "requires": [], "client": ""}
DEFAULTS: Final[dict[str, dict[str, Any]]] = {
    "session_init": {"protocol": [1], "conversation_context": [], "summarised": 0, "rung": None, **HELLO_DEFAULTS},
    "session_resume": {
        "auth": None, "token": None,
        "protocol": [1], "conversation_context": [], "summarised": 0, "last_message_index": 0, "tokens_received": 0, "transcript": None,
        "rung": None, **HELLO_DEFAULTS,
    },
    "prompt": {
        **CONTROLS, "temperature": 0.8, "stop": [], "tools": [], "role": "user", "tool_call_id": "", "prefix": "", "score": [],
        "context": None, "conversation_context": None, "summarised": 0,
    },
    "response": {"context": None},
    "session_ready": {"server": "", "max_answer_tokens": 0, "ack_timeout_s": 0, "ping_s": 0, "token": None},
    "session_end": {"reason": "", "tokens_served": 0, "tokens_acknowledged": 0, "close_signature": None},
    "ping": {"id": 0},
    "pong": {"id": 0},
    "error": {"detail": "", "next_step": "", "session_id": None, "message_index": None, "retry_after_s": None},
    "notice": {"session_id": None, "position": None, "wait_s": None},
}  # fmt: skip
"""What a field is where a sender leaves it out."""


def compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def vector(sender: str, message: dict[str, Any]) -> dict[str, Any]:
    defaults = DEFAULTS.get(message["type"], {})
    short = {name: value for name, value in message.items() if name not in defaults}
    return {
        "from": sender,
        "type": message["type"],
        "encoded": compact(message),
        "shortest": compact(short),
        "shortest_means": compact({name: defaults.get(name, value) for name, value in message.items()}),
    }


def messages() -> list[dict[str, Any]]:
    """Fields in the order in which they are encoded; a reader takes any order."""
    return [vector("renter", message) for message in FROM_RENTER] + [vector("host", message) for message in FROM_HOST]


def files() -> dict[str, str]:
    """Name -> text."""
    return {
        "transcript.json": json.dumps(transcript(), indent=1, ensure_ascii=False) + "\n",
        "messages.json": json.dumps(messages(), indent=1, ensure_ascii=False) + "\n",
    }


def main() -> None:
    TARGET.mkdir(exist_ok=True)
    for name, text in files().items():
        (TARGET / name).write_text(text, "utf-8")


if __name__ == "__main__":
    main()
