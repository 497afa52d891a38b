"""What was said in one session: in memory only, rebuilt from `conversation_context` on resume, gone with the connection."""

from __future__ import annotations

import msgspec

from fabstir.protocol.messages import ChatMessage


class Conversation(msgspec.Struct, frozen=True):
    """An immutable history; each step gives a new one. Bounded by the connection's message size and the model's context."""

    messages: tuple[ChatMessage, ...] = ()

    @classmethod
    def of(cls, context: tuple[ChatMessage, ...]) -> Conversation:
        """The history that a renter brought along."""
        return cls(context)

    def asked(self, content: str) -> tuple[ChatMessage, ...]:
        """The messages that an engine answers when `content` is asked now."""
        return (*self.messages, ChatMessage("user", content))

    def answered(self, content: str, answer: str) -> Conversation:
        """The history after `content` was answered."""
        return Conversation((*self.messages, ChatMessage("user", content), ChatMessage("assistant", answer)))

    def __repr__(self) -> str:
        """Counts only: a repr may end in a log."""
        return f"<Conversation {len(self.messages)} messages>"
