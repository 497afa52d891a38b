"""A language model in closed form, for tests: the next token depends on the last one only, with probabilities that are known exactly.

One-hot embeddings pass through a transformer whose attention and feed-forward weights are zero; RMS norm makes them sqrt(d) long,
the norm's weight takes that back, and the output matrix holds ln P(next | last). Written as a llama GGUF in a few milliseconds;
F32, so that the engine's log-probabilities agree within 1e-4. Its sentences are full of characters that take several tokens, as in
real vocabularies.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import gguf
import numpy as np

EURO, SMILE, MIDDLE, SCRIPT = "€".encode(), "😀".encode(), "中".encode(), "文".encode()
SENTENCES: Final[tuple[tuple[bytes, ...], ...]] = (
    (b"It", b" costs", b" ", EURO[:2], EURO[2:], b"."),
    (b"Look", b" ", SMILE[:1], SMILE[1:2], SMILE[2:3], SMILE[3:], b"."),
    (b"Look", b" ", SMILE[:2], SMILE[2:3], SMILE[3:], b"."),
    (b"The", b" sign", b" ", MIDDLE[:1], MIDDLE[1:2], MIDDLE[2:], SCRIPT[:2], SCRIPT[2:], b"."),
)
ALSO: Final = (SMILE[1:3],)
"""In the vocabulary and in no sentence: a second spelling of a smile."""
SPECIAL: Final = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
END: Final = 2
RARE: Final = 1e-6
TEMPLATE: Final = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def _letters() -> dict[int, str]:
    """The printable character by which byte-level BPE writes each byte."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + n) for n, byte in enumerate(hidden)}


class Bigram:
    """Vocabulary and transition probabilities."""

    def __init__(self) -> None:
        single = [bytes([byte]) for byte in range(256)]
        whole = sorted({piece for sentence in SENTENCES for piece in sentence if len(piece) > 1} | set(ALSO))
        begun = {piece[:n] for piece in whole for n in range(2, len(piece) + 1)}
        self.longer = sorted(begun, key=lambda piece: (len(piece), piece))
        self.pieces = [*(b"" for _ in SPECIAL), *single, *self.longer]
        self.ids = {piece: token for token, piece in enumerate(self.pieces) if piece}
        self.log_p = self._transitions()

    def _transitions(self) -> np.ndarray:
        counts = np.full((len(self.pieces), len(self.pieces)), RARE)
        newline = self.ids[b"\n"]
        for sentence in SENTENCES:
            tokens = [self.ids[piece] for piece in sentence]
            counts[newline, tokens[0]] += 1
            for last, token in zip([self.ids[b"."], *tokens], tokens, strict=False):
                counts[last, token] += 1
        counts[self.ids[b"."], END] += 1
        return np.log(counts / counts.sum(axis=1, keepdims=True))

    def write(self, path: Path) -> None:
        """Make the GGUF file."""
        size, head = len(self.pieces), 32
        writer = gguf.GGUFWriter(path, "llama")
        writer.add_name("bigram")
        writer.add_context_length(2048)
        writer.add_embedding_length(size)
        writer.add_block_count(1)
        writer.add_feed_forward_length(head)
        writer.add_head_count(1)
        writer.add_head_count_kv(1)
        writer.add_key_length(head)
        writer.add_value_length(head)
        writer.add_rope_dimension_count(head)
        writer.add_layer_norm_rms_eps(1e-9)
        writer.add_vocab_size(size)
        writer.add_file_type(0)
        self._add_tokenizer(writer)
        zero = np.zeros
        tensors = {
            "token_embd.weight": np.eye(size),
            "output_norm.weight": np.full(size, 1 / np.sqrt(size)),
            "output.weight": self.log_p.T,
            "blk.0.attn_norm.weight": zero(size),
            "blk.0.ffn_norm.weight": zero(size),
            **{f"blk.0.attn_{name}.weight": zero((head, size)) for name in "qkv"},
            "blk.0.attn_output.weight": zero((size, head)),
            "blk.0.ffn_gate.weight": zero((head, size)),
            "blk.0.ffn_up.weight": zero((head, size)),
            "blk.0.ffn_down.weight": zero((size, head)),
        }
        for name, value in tensors.items():
            writer.add_tensor(name, np.ascontiguousarray(value, np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()

    def _add_tokenizer(self, writer: gguf.GGUFWriter) -> None:
        letters = _letters()
        written = ["".join(letters[byte] for byte in piece) for piece in self.pieces[len(SPECIAL) :]]
        kinds = [gguf.TokenType.CONTROL] * len(SPECIAL) + [gguf.TokenType.NORMAL] * len(written)
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("gpt-2")
        writer.add_token_list([*SPECIAL, *written])
        writer.add_token_types(kinds)
        writer.add_token_merges([f"{text[:-1]} {text[-1]}" for text in written if len(text) > 1])
        writer.add_bos_token_id(0)
        writer.add_eos_token_id(END)
        writer.add_add_bos_token(False)
        writer.add_chat_template(TEMPLATE)
