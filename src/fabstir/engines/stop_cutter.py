"""Cuts an answer's text before a stop sequence, also where the sequence spans several tokens.

The adapters do this themselves and do not leave it to the server, so that it works alike for every server, across a
break in the stream, and so that text held back for a sequence that never came is not lost at the end. Pure; holds back
less text than the longest sequence.
"""

from __future__ import annotations


class StopCutter:
    """Feed it text as it comes; it returns what may be shown."""

    def __init__(self, stops: tuple[str, ...]) -> None:
        self._stops = tuple(stop for stop in stops if stop)
        self._held = ""
        self.stopped = False
        """A stop sequence was completed: nothing more is shown."""

    @property
    def holding(self) -> bool:
        """Some text waits because a stop sequence may have begun."""
        return bool(self._held)

    def feed(self, text: str) -> str:
        """What may be shown after `text`."""
        if not self._stops:
            return text
        if self.stopped:
            return ""
        text = self._held + text
        found = [at for stop in self._stops if (at := text.find(stop)) >= 0]
        if found:
            self.stopped = True
            self._held = ""
            return text[: min(found)]
        keep = max(_overlap(text, stop) for stop in self._stops)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def rest(self) -> str:
        """What was held back, once no more text comes."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that is a beginning of `stop`."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)
