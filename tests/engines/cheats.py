"""What a dishonest host could hand in, made from real answers: for the benchmark of verification and for tests.

The strongest liar has the right weights, too, and reads its forged answer with them, so that every claimed number is
the true one (`with_true_claims`); then only the choice of tokens gives it away.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import gguf
import numpy as np
from msgspec.structs import replace

from fabstir.engines.model_file import default_model
from fabstir.engines.reexecution.examine import job
from fabstir.engines.reexecution.reexecutor import Reexecutor, prompt_ids
from fabstir.ports.engine import ChatMessage, TokenRecord
from fabstir.protocol.audit import Answer

SPACE = "\u0120"
"""How byte-level BPE writes a space."""


async def with_true_claims(model: Path, answers: Sequence[Answer], *, threads: int | None = None) -> list[Answer]:
    """The same tokens, claimed with the numbers of the right model and with the text that they spell."""
    prompts = await prompt_ids(model, [(one.request.messages, one.request.prefix) for one in answers], threads=threads)
    made = []
    async with Reexecutor(model, threads=threads) as reexecutor:
        for prompt, answer in zip(prompts, answers, strict=True):
            read = await reexecutor.prefill(replace(job(prompt, answer), compare=()))
            records = tuple(
                TokenRecord(record.token, position.logprob, position.top)
                for record, position in zip(answer.records, read.positions, strict=True)
            )
            spelled = b"".join(piece for piece, end in zip(read.pieces, read.ends, strict=True) if not end)
            made.append(replace(answer, records=records, text=spelled.decode("utf-8", "replace")))
    return made


def asked_as(answers: Sequence[Answer], honest: Sequence[Answer]) -> list[Answer]:
    """Answers to other questions, handed in for those of `honest`."""
    return [replace(answer, request=one.request) for answer, one in zip(answers, honest, strict=True)]


def with_system_prompt(answer: Answer, text: str) -> Answer:
    """The same question under another system prompt."""
    rest = tuple(message for message in answer.request.messages if message.role != "system")
    return replace(answer, request=replace(answer.request, messages=(ChatMessage("system", text), *rest)))


def with_replaced_tokens(answers: Sequence[Answer], share: float, chance: np.random.Generator) -> list[Answer]:
    """Some tokens are others: the rest of the answer stays. The last token, which ends the turn, stays too."""
    size = len(_vocabulary())
    made = []
    for answer in answers:
        records = list(answer.records)
        for place in range(len(records) - 1):
            if chance.random() < share:
                records[place] = replace(records[place], token=int(chance.integers(3, size)))
        made.append(replace(answer, records=tuple(records)))
    return made


def with_more_tokens(answers: Sequence[Answer], share: float, chance: np.random.Generator) -> list[Answer]:
    """The same text in more tokens: some are spelled letter by letter, each letter to be paid for."""
    vocabulary = _vocabulary()
    ids = {text: token for token, text in enumerate(vocabulary)}
    made = []
    for answer in answers:
        records: list[TokenRecord] = []
        for record in answer.records:
            letters = [ids[letter] for letter in vocabulary[record.token] if letter in ids]
            whole = record.token < 3 or len(letters) != len(vocabulary[record.token]) or chance.random() >= share
            records += [record] if whole else [TokenRecord(letter, record.logprob, record.top) for letter in letters]
        wanted = max(len(records), answer.request.max_tokens)
        made.append(replace(answer, records=tuple(records), request=replace(answer.request, max_tokens=wanted)))
    return made


def _vocabulary() -> list[str]:
    field = gguf.GGUFReader(default_model()).get_field("tokenizer.ggml.tokens")
    if field is None:
        raise KeyError("tokenizer.ggml.tokens")
    return list(field.contents())
