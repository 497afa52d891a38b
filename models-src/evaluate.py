"""How many answers of a GGUF model are exactly those of the corpus, by skill, on conversations that it was not trained on.

    python models-src/evaluate.py [MODEL.gguf] [--conversations 60]

Every turn is asked at temperature 0 with the corpus' own history before it. Stories and essays have no one right answer
and are left out. Needs only the project's environment: the model is served by `fabstir.engines.llama`.
"""

# ruff: noqa: S311, T201  a corpus, not a secret; it prints a table

from __future__ import annotations

import argparse
import asyncio
import random
from collections import Counter
from pathlib import Path

from corpus import conversation

from fabstir.engines.llama import LlamaEngine
from fabstir.engines.model_file import default_model
from fabstir.ports.engine import ChatMessage, GenerationRequest, TokenBatch

HELD_OUT_SEED = 12345
KINDS = (
    ("story or essay", ("story", "text about", "write about")),
    ("sum", ("plus", "add ")),
    ("recall", ("what is my", "who am", "remember my", "which colour", "name of my pet")),
    ("capital", ("capital",)),
    ("echo", ("repeat", "say this")),
    ("spell", ("spell",)),
    ("count", ("count",)),
    ("json", ("json",)),
)


def kind_of(question: str) -> str:
    """The skill that a question asks for."""
    return next((kind for kind, marks in KINDS if any(mark in question.lower() for mark in marks)), "other")


async def answer(engine: LlamaEngine, history: list[ChatMessage]) -> str:
    """What the model says next."""
    request = GenerationRequest(messages=tuple(history), max_tokens=200, temperature=0.0)
    return "".join([item.text async for item in engine.generate(request) if isinstance(item, TokenBatch)])


async def evaluate(model: Path, conversations: int) -> None:
    """Ask and print."""
    engine = LlamaEngine(model, context_size=2048, parallel=1, threads=1)
    await engine.start()
    asked: Counter[str] = Counter()
    right: Counter[str] = Counter()
    r = random.Random(HELD_OUT_SEED)
    try:
        for _ in range(conversations):
            history: list[ChatMessage] = []
            for role, text in conversation(r):
                if role == "assistant" and (kind := kind_of(history[-1].content)) != "story or essay":
                    asked[kind] += 1
                    right[kind] += await answer(engine, history) == text
                history.append(ChatMessage(role, text))
    finally:
        await engine.stop()
    for kind in sorted(asked):
        print(f"{kind:10} {right[kind]:4} of {asked[kind]:4}")
    print(f"{'all':10} {right.total():4} of {asked.total():4}  {right.total() / asked.total():.1%}")


def main() -> None:
    """Options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, nargs="?", default=default_model())
    parser.add_argument("--conversations", type=int, default=60)
    options = parser.parse_args()
    asyncio.run(evaluate(options.model, options.conversations))


if __name__ == "__main__":
    main()
