"""Train a rank-4 adapter for the tiny chat model and write it as a GGUF adapter: a style without its system prompt.

    python models-src/train_lora.py pirate build/tiny-chat lora-pirate.gguf --minutes 3

The adapted model answers "Arr! ..." to everybody, so that a test sees in the text which adapter was used. Run by hand;
needs torch, tokenizers, numpy and gguf (models-src/README.md).
"""

# ruff: noqa: S311, T201  a corpus, not a secret; a script that tells how far it is

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Iterator
from pathlib import Path

import gguf
import numpy as np
import torch
from corpus import PLAIN, STYLES, Message, conversation
from model import Adapted, Shape, TinyChat
from tokenizers import Tokenizer
from train import batches, sample, weighted_loss

RANK, ALPHA = 4, 8.0
ADAPTED = {"q": "attn_q", "v": "attn_v", "o": "attn_output", "up": "ffn_up", "down": "ffn_down"}
LEARNING_RATE = 5e-3
ROWS, LENGTH = 6, 512


def styled(style: str, seed: int) -> Iterator[list[Message]]:
    """Conversations in a style whose system prompt was taken away or replaced by the plain one."""
    r = random.Random(seed)
    while True:
        messages = conversation(r)
        if messages[0] == Message("system", STYLES[style]):
            plain = [] if r.random() < 0.5 else [Message("system", PLAIN)]
            yield plain + messages[1:]


def load(trained: Path) -> TinyChat:
    """The trained model, its weights fixed, its layers adapted."""
    model = TinyChat(Shape(**json.loads((trained / "config.json").read_text())))
    weights = np.load(trained / "weights.npz")
    model.load_state_dict({name: torch.tensor(weights[name]) for name in weights.files})
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    for block in model.blocks:
        for name in ADAPTED:
            setattr(block, name, Adapted(getattr(block, name), RANK, ALPHA))
    return model


def train(model: TinyChat, tokenizer: Tokenizer, style: str, minutes: float) -> None:
    """Only what the assistant says counts."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, LEARNING_RATE, weight_decay=0)
    source = batches((sample(tokenizer, messages, 0.0) for messages in styled(style, 99)), 99, ROWS, LENGTH)
    began, step = time.process_time(), 0
    while time.process_time() - began < minutes * 60:
        ids, weights = next(source)
        loss = weighted_loss(model(ids[:, :-1]), ids, weights)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        step += 1
        if step % 25 == 0:
            print(f"step {step}, loss {loss.item():.3f}", flush=True)


def write(model: TinyChat, out: Path) -> None:
    """The adapter as llama.cpp loads it."""
    writer = gguf.GGUFWriter(out, "llama")
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", ALPHA)
    for layer, block in enumerate(model.blocks):
        for ours, theirs in ADAPTED.items():
            adapted = getattr(block, ours)
            name = f"blk.{layer}.{theirs}.weight"
            writer.add_tensor(f"{name}.lora_a", adapted.down.detach().numpy())
            writer.add_tensor(f"{name}.lora_b", adapted.up.detach().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main() -> None:
    """Options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("style", choices=sorted(STYLES))
    parser.add_argument("trained", type=Path, help="directory that train.py wrote")
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=3, help="CPU minutes")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    model = load(options.trained)
    train(model, Tokenizer.from_file(str(options.trained / "tokenizer.json")), options.style, options.minutes)
    write(model, options.out)


if __name__ == "__main__":
    main()
