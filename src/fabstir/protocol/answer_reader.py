"""Reads an answer as it streams: what the model thought, what it said, and which tools it calls. Pure.

An answer is the text that its tokens spell; this is a view of it, made by whoever shows it to a person or a program. It decides which
characters belong to which part, never changes them, and holds back no more than it must to decide. What looks like a call and is none is
what was said. The forms: `tool_text` for calls, `<think>` and `</think>` for thoughts.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any, Final, Literal

import msgspec

from fabstir.protocol.controls import REASONING, REASONING_OPEN, Controls, forced, prescribed
from fabstir.protocol.tool_text import CALL

THOUGHT: Final = ("<think>", "</think>")


class Said(msgspec.Struct, frozen=True):
    """More of the answer's text."""

    text: str


class Thought(msgspec.Struct, frozen=True):
    """More of what the model thinks."""

    text: str


class Called(msgspec.Struct, frozen=True):
    """The call number `index`, from 0, begins."""

    index: int
    name: str


class Argued(msgspec.Struct, frozen=True):
    """More of its arguments, JSON as text."""

    index: int
    text: str


AnswerPart = Said | Thought | Called | Argued


class AnswerForm(msgspec.Struct, frozen=True):
    """How an answer is to be read."""

    calls: Literal["none", "tagged", "bare"] = "none"
    """`tagged`: in text, between tags. `bare`: all of it is calls."""
    thinks: bool = False
    opened: bool = False
    """It begins inside a thought."""

    @classmethod
    def of(cls, asked: Controls, capabilities: Collection[str]) -> AnswerForm:
        """Of an answer by a host with these `capabilities`. A form that a grammar prescribes has no room for thoughts."""
        if forced(asked):
            return cls("bare")
        calls: Literal["none", "tagged"] = "tagged" if asked.tools and asked.tool_choice != "none" else "none"
        if prescribed(asked):
            return cls(calls)
        return cls(calls, REASONING in capabilities, REASONING_OPEN in capabilities)


class AnswerReader:
    """Feed it text; it returns parts. Memory: one call, or what may be the beginning of a tag."""

    def __init__(self, form: AnswerForm) -> None:
        self._form = form
        self._mode = "call" if form.calls == "bare" else "think" if form.opened else "start" if form.thinks else "text"
        self._held = ""
        self._call = _CallScanner(0)
        self._began = False
        """Something of the thought, or of the text, was handed on: before it line breaks are left out where the model thinks."""
        self.calls = 0

    def __repr__(self) -> str:
        return f"<AnswerReader {self._mode}, {self.calls} calls>"

    def feed(self, text: str) -> list[AnswerPart]:
        """The parts that are certain after `text`."""
        self._held += text
        parts: list[AnswerPart] = []
        while self._step(parts):
            pass
        return parts

    def end(self) -> list[AnswerPart]:
        """The rest, once no more text comes."""
        parts = self.feed("")
        held, self._held = self._held, ""
        if self._mode == "call":
            parts += self._unfinished()
        elif self._mode == "think":
            parts += [Thought(held)] if held else []
        elif held and not (self.calls and held.isspace()):
            parts.append(Said(held))
        return parts

    # -- inside --------------------------------------------------------------------------------------------------------

    def _step(self, parts: list[AnswerPart]) -> bool:
        """One step; False where more text is needed."""
        return {"start": self._start, "think": self._think, "text": self._text, "call": self._calling}[self._mode](
            parts
        )

    def _start(self, parts: list[AnswerPart]) -> bool:
        text = self._held.lstrip()
        if text.startswith(THOUGHT[0]):
            self._held, self._mode = text[len(THOUGHT[0]) :], "think"
            return True
        if THOUGHT[0].startswith(text):
            return False  # also where nothing but white space has come
        self._mode = "text"
        return True

    def _think(self, parts: list[AnswerPart]) -> bool:
        if not self._began:
            self._held = self._held.lstrip("\n")
        thought, found = self._until(THOUGHT[1])
        if thought:
            self._began = True
            parts.append(Thought(thought))
        if found:
            self._mode, self._began = "text", False
        return found

    def _text(self, parts: list[AnswerPart]) -> bool:
        if self._form.thinks and not self._began:
            self._held = self._held.lstrip("\n")  # between a thought and the answer
        if self._form.calls == "none":
            said, self._held = self._held, ""
            self._say(said, parts)
            return False
        said, found = self._until(CALL[0])
        kept = len(said) - len(said.rstrip())
        if not found and kept:  # white space before a call is not said
            said, self._held = said[:-kept], said[-kept:] + self._held
        self._say(said.rstrip() if found else said, parts)
        if found:
            self._mode, self._call = "call", _CallScanner(self.calls)
        return found

    def _calling(self, parts: list[AnswerPart]) -> bool:
        text, self._held = self._held, ""
        if self._form.calls == "bare":
            return self._bare(text, parts)
        self._held = self._call.feed(text, parts)
        if not self._call.over:
            return False
        rest = self._held.lstrip()
        if not rest.startswith(CALL[1]):
            if CALL[1].startswith(rest):
                return False
            self._held = rest
        else:
            self._held = rest[len(CALL[1]) :]
        self._closed(parts, CALL[0])
        self._mode = "text"
        return True

    def _bare(self, text: str, parts: list[AnswerPart]) -> bool:
        while text:
            if not self._call.began:
                text = text.lstrip(" \t\r\n[,]")
            text = self._call.feed(text, parts)
            if not self._call.over:
                return False
            self._closed(parts, "")
            self._call = _CallScanner(self.calls)
        return False

    def _closed(self, parts: list[AnswerPart], before: str) -> None:
        """The call is over; where it is none, it was said."""
        self.calls += self._call.found
        if not self._call.found:
            parts.append(Said(before + self._call.raw))

    def _unfinished(self) -> list[AnswerPart]:
        """The answer ended within a call, or before its closing tag."""
        parts = self._call.end()
        tagged = self._form.calls == "tagged"
        if self._call.began or tagged:
            self._closed(parts, CALL[0] if tagged else "")
        return parts

    def _say(self, text: str, parts: list[AnswerPart]) -> None:
        if text:
            self._began = True
            parts.append(Said(text))

    def _until(self, tag: str) -> tuple[str, bool]:
        """What comes before `tag`, or before what may become it."""
        at = self._held.find(tag)
        if at >= 0:
            text, self._held = self._held[:at], self._held[at + len(tag) :]
            return text, True
        keep = next((n for n in range(min(len(tag) - 1, len(self._held)), 0, -1) if self._held.endswith(tag[:n])), 0)
        text, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return text, False


_HEAD: Final = re.compile(r'\s*\{\s*"name"\s*:\s*("(?:[^"\\]|\\.){1,80}")\s*,\s*"(?:arguments|parameters)"\s*:\Z')
_OPEN, _CLOSE = "{[", "}]"


class _CallScanner:
    """One call, `{"name": ..., "arguments": ...}`. The arguments stream where the name stands before them, as a rule."""

    def __init__(self, index: int) -> None:
        self._index = index
        self._depth = 0
        self._string = self._escaped = False
        self._streaming = self._begun = self._argued = False
        """The arguments are being read, some of them came, all of them did."""
        self.raw = ""
        self.over = False
        self.found = False

    @property
    def began(self) -> bool:
        """Its first character has come."""
        return bool(self.raw)

    def feed(self, text: str, parts: list[AnswerPart]) -> str:
        """Take `text` in; returns what comes after the call."""
        argued, taken = "", 0
        for char in text:
            if self.over:
                break
            taken += 1
            self.raw += char
            if self._streaming and not self._argued and not self._string and self._depth == 1 and char in ",}":
                self._argued = True
            self._track(char)
            if self._streaming and not self._argued:
                argued += char
            elif char == ":" and not self._string and not self._streaming and self._depth == 1:
                self._head(parts)
        self._argue(argued, parts)
        if self.over and not self.found:
            parts += self._whole()
        return text[taken:]

    def end(self) -> list[AnswerPart]:
        """What is left where no more text comes."""
        return self._whole() if not self.found and not self.over else []

    def _track(self, char: str) -> None:
        if self._string:
            self._string, self._escaped = self._escaped or char != '"', not self._escaped and char == "\\"
        elif char == '"':
            self._string = True
        elif char in _OPEN:
            self._depth += 1
        elif char in _CLOSE:
            self._depth -= 1
            self.over = self._depth <= 0
        elif self._depth == 0 and not char.isspace():
            self.over = True  # no object at all

    def _head(self, parts: list[AnswerPart]) -> None:
        if match := _HEAD.match(self.raw):
            parts.append(Called(self._index, msgspec.json.decode(match[1], type=str)))
            self._streaming = self.found = True

    def _argue(self, text: str, parts: list[AnswerPart]) -> None:
        text = text if self._begun else text.lstrip()
        if text:
            self._begun = True
            parts.append(Argued(self._index, text))

    def _whole(self) -> list[AnswerPart]:
        try:
            call: dict[str, Any] = msgspec.json.decode(self.raw, type=dict[str, Any])
            name, arguments = call["name"], call.get("arguments", call.get("parameters", {}))
        except (msgspec.MsgspecError, KeyError, RecursionError):
            return []
        if not isinstance(name, str):
            return []
        self.found = True
        return [Called(self._index, name), Argued(self._index, msgspec.json.encode(arguments).decode())]
