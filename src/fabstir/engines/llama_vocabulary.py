"""The vocabulary of a served model, asked from the server itself, and the ways to spell given bytes with it. Pure.

Needed only where llama.cpp leaves token ids out of its stream: those of tokens that end inside a UTF-8 character.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

MAX_SPELLINGS: Final = 64
"""Bytes of real text have one or two spellings of a given length; random weights can make more than anyone wants to weigh."""


class Vocabulary:
    """Token ids by the bytes that they stand for."""

    def __init__(self, pieces: Iterable[tuple[int, bytes]]) -> None:
        self._bytes: Mapping[int, bytes] = dict(pieces)
        self._ids: dict[bytes, list[int]] = {}
        for token, piece in self._bytes.items():
            if piece:
                self._ids.setdefault(piece, []).append(token)
        self._longest = max(map(len, self._ids), default=0)

    def __len__(self) -> int:
        return len(self._bytes)

    def __repr__(self) -> str:
        return f"<Vocabulary of {len(self)} tokens>"

    def piece(self, token: int) -> bytes:
        """The bytes that `token` stands for; none for control tokens."""
        return self._bytes.get(token, b"")

    def spellings(self, data: bytes, last: int, hidden: int) -> list[tuple[int, ...]]:
        """Every way in which `hidden` tokens and then the token `last` make `data`, where the hidden ones all end inside a character.

        Empty where there is none, as when a control token stood between the halves of a character.
        """
        tail = self.piece(last)
        if not data.endswith(tail):
            return []
        found: list[tuple[int, ...]] = []
        for tokens in self._hidden(data[: len(data) - len(tail)], b"", hidden):
            found.append((*tokens, last))
            if len(found) == MAX_SPELLINGS:
                break
        return found

    def _hidden(self, data: bytes, before: bytes, count: int) -> Iterator[tuple[int, ...]]:
        if count == 0:
            if not data:
                yield ()
            return
        for size in range(1, min(self._longest, len(data) - count + 1) + 1):
            piece = data[:size]
            if piece in self._ids and ends_inside_character(before + piece):
                for rest in self._hidden(data[size:], before + piece, count - 1):
                    for token in self._ids[piece]:
                        yield (token, *rest)


def ends_inside_character(data: bytes) -> bool:
    """Whether llama.cpp's server waits for more bytes after `data` (its `validate_utf8`, repeated here to the letter: it looks at the
    last four bytes for the first byte of a longer character, whatever follows that)."""
    for back in range(1, min(4, len(data)) + 1):
        byte = data[-back]
        length = 2 if byte & 0xE0 == 0xC0 else 3 if byte & 0xF0 == 0xE0 else 4 if byte & 0xF8 == 0xF0 else 0
        if length > back:
            return True
    return False
