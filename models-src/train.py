"""Train the tiny chat model on a CPU: tokenizer.json, weights.npz and config.json in a directory.

    python models-src/train.py --minutes 22 --out build/tiny-chat

Run by hand; needs torch, tokenizers and numpy, which are no dependencies of the project (models-src/README.md). The
budget is CPU minutes, so that a busy machine does not end the training early; the result is the same kind of model, not
the same bytes, on another machine.
"""

# ruff: noqa: S311, T201  a corpus, not a secret; a script that tells how far it is

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from corpus import Message, conversation
from model import Muon, Shape, TinyChat
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.nn import functional

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
OTHER_WEIGHT = 0.1
"""Of a token that the assistant did not say, beside 1 for those that it did."""
WARM_UP_STEPS = 40
DECAY_FROM = 0.4
"""Share of the budget after which the learning rate falls, to a fiftieth."""
POOL = 512


class Sample(NamedTuple):
    """A conversation in tokens, and how much each one counts."""

    ids: list[int]
    weights: list[float]


def make_tokenizer(path: Path, vocab: int) -> Tokenizer:
    """The byte-level BPE tokenizer at `path`, trained on 3000 conversations where it is missing."""
    if not path.exists():
        r = random.Random(1)
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # llama.cpp calls it gpt-2
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        trainer = trainers.BpeTrainer(
            vocab_size=vocab, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
        )
        tokenizer.train_from_iterator((message.text for _ in range(3000) for message in conversation(r)), trainer)
        tokenizer.save(str(path))
    return Tokenizer.from_file(str(path))


def sample(tokenizer: Tokenizer, messages: Iterable[Message], other_weight: float = OTHER_WEIGHT) -> Sample:
    """A conversation as the chat template writes it."""
    end = tokenizer.token_to_id("<|im_end|>")
    ids: list[int] = []
    weights: list[float] = []
    for role, text in messages:
        head = tokenizer.encode(f"<|im_start|>{role}\n").ids
        said = [*tokenizer.encode(text).ids, end]
        tail = tokenizer.encode("\n").ids
        ids += head + said + tail
        weights += [other_weight] * len(head)
        weights += [1.0 if role == "assistant" else other_weight] * len(said)
        weights += [other_weight] * len(tail)
    return Sample(ids, weights)


def batches(
    samples: Iterator[Sample], seed: int, rows: int, length: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Ids and weights, one conversation in each row, of similar lengths: then plain causal attention with padding is enough."""
    r = random.Random(seed)
    while True:
        made: list[list[Sample]] = []
        batch: list[Sample] = []
        for item in sorted((next(samples) for _ in range(POOL)), key=lambda item: len(item.ids)):
            cut = Sample(item.ids[: length + 1], item.weights[: length + 1])
            if batch and len(cut.ids) * (len(batch) + 1) > rows * length:
                made.append(batch)
                batch = []
            batch.append(cut)
        r.shuffle(made)
        for batch in made:
            longest = max(len(item.ids) for item in batch)
            yield (
                torch.tensor([item.ids + [0] * (longest - len(item.ids)) for item in batch]),
                torch.tensor([item.weights + [0.0] * (longest - len(item.weights)) for item in batch]),
            )


def weighted_loss(logits: torch.Tensor, ids: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Cross entropy of the next token, by weight."""
    target, weight = ids[:, 1:], weights[:, 1:]
    entropy = functional.cross_entropy(logits.reshape(-1, logits.shape[-1]), target.reshape(-1), reduction="none")
    return (entropy.view_as(target) * weight).sum() / weight.sum()


def train(options: argparse.Namespace) -> None:
    """Train until the budget is used, then save."""
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    options.out.mkdir(parents=True, exist_ok=True)
    tokenizer = make_tokenizer(options.out / "tokenizer.json", Shape.vocab)
    model = TinyChat(Shape(vocab=tokenizer.get_vocab_size()))
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "emb" not in name]
    others = [p for name, p in model.named_parameters() if p.ndim != 2 or "emb" in name]
    optimizers: list[tuple[torch.optim.Optimizer, float]] = [
        (Muon(matrices, options.lr), options.lr),
        (torch.optim.AdamW(others, options.adam_lr, betas=(0.9, 0.95), weight_decay=0), options.adam_lr),
    ]
    print(f"{sum(p.numel() for p in model.parameters())} parameters, {model.shape.vocab} tokens", flush=True)
    r = random.Random(7)
    source = batches((sample(tokenizer, conversation(r)) for _ in iter(int, 1)), 7, options.rows, options.length)
    began, step = time.process_time(), 0
    while (used := (time.process_time() - began) / (options.minutes * 60)) < 1:
        falling = 1.0 if used < DECAY_FROM else max(0.02, (1 - used) / (1 - DECAY_FROM))
        for optimizer, rate in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate * falling * min(1.0, (step + 1) / WARM_UP_STEPS)
            optimizer.zero_grad(set_to_none=True)
        ids, weights = next(source)
        logits = model(ids[:, :-1])
        loss = weighted_loss(logits, ids, weights)
        loss.backward()
        for optimizer, _ in optimizers:
            optimizer.step()
        step += 1
        if step % 50 == 0:
            said = weights[:, 1:] == 1
            right = (logits.argmax(-1) == ids[:, 1:])[said].float().mean()
            print(f"step {step}, {used:.0%} of the budget, loss {loss.item():.3f}, right {right:.3f}", flush=True)
    save(options.out, model)


def save(directory: Path, model: TinyChat) -> None:
    """Weights in float32 and the shape."""
    weights: dict[str, Any] = {name: value.detach().float().numpy() for name, value in model.state_dict().items()}
    np.savez(directory / "weights.npz", **weights)
    (directory / "config.json").write_text(json.dumps(model.shape.as_dict()))


def main() -> None:
    """Options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=22, help="CPU minutes")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rows", type=int, default=12, help="of --length tokens in a batch")
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--lr", type=float, default=0.02, help="of Muon")
    parser.add_argument("--adam-lr", type=float, default=3e-3)
    train(parser.parse_args())


if __name__ == "__main__":
    main()
