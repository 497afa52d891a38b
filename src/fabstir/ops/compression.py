"""permessage-deflate for text frames alone, at both ends of a WebSocket.

What is binary here is a frame of an encrypted channel (`fabstir.protocol.channel`): deflate finds nothing in it and would cost time.
Nothing is compressed before it is encrypted either: lengths would then tell what secrets have in common with words that somebody
else chose (CRIME, BREACH).
"""

from __future__ import annotations

from collections.abc import Sequence

from websockets.extensions import Extension
from websockets.extensions.permessage_deflate import (
    ClientPerMessageDeflateFactory,
    PerMessageDeflate,
    ServerPerMessageDeflateFactory,
)
from websockets.frames import Frame, Opcode
from websockets.typing import ExtensionParameter


class TextDeflate(PerMessageDeflate):
    """The extension of one connection (RFC 7692, 6: each message may be compressed or not)."""

    _plain = False
    """The message under way is not compressed."""

    def encode(self, frame: Frame) -> Frame:
        """A text frame compressed, any other as it is."""
        if frame.opcode in (Opcode.TEXT, Opcode.BINARY):
            self._plain = frame.opcode is Opcode.BINARY
        return frame if self._plain else super().encode(frame)

    @classmethod
    def like(cls, agreed: PerMessageDeflate) -> TextDeflate:
        """With the parameters of `agreed`."""
        return cls(
            agreed.remote_no_context_takeover,
            agreed.local_no_context_takeover,
            agreed.remote_max_window_bits,
            agreed.local_max_window_bits,
            agreed.compress_settings,
        )


class ServerTextDeflate(ServerPerMessageDeflateFactory):
    """Offers it as a server."""

    def process_request_params(
        self, params: Sequence[ExtensionParameter], accepted_extensions: Sequence[Extension]
    ) -> tuple[list[ExtensionParameter], PerMessageDeflate]:
        """What is answered, and the extension."""
        answer, agreed = super().process_request_params(params, accepted_extensions)
        return answer, TextDeflate.like(agreed)


class ClientTextDeflate(ClientPerMessageDeflateFactory):
    """Asks for it as a client."""

    def process_response_params(
        self, params: Sequence[ExtensionParameter], accepted_extensions: Sequence[Extension]
    ) -> PerMessageDeflate:
        """The extension."""
        return TextDeflate.like(super().process_response_params(params, accepted_extensions))
