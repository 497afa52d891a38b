"""Text is compressed, frames of an encrypted channel are not, and both ends read either."""

from __future__ import annotations

import pytest
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Frame, Opcode

from fabstir.ops.compression import ClientTextDeflate, ServerTextDeflate, TextDeflate

TEXT = b'{"type":"stream_chunk"}' * 40


def ends() -> tuple[TextDeflate, PerMessageDeflate]:
    """A server's end, and what a client of another program has."""
    asked = ClientTextDeflate(client_max_window_bits=True)
    offered = ServerTextDeflate(server_max_window_bits=11, client_max_window_bits=11)
    answer, server = offered.process_request_params(asked.get_request_params(), [])
    assert isinstance(server, TextDeflate)
    assert isinstance(asked.process_response_params(answer, []), TextDeflate)
    return server, PerMessageDeflate(False, False, 11, 11)


def test_text_is_compressed_and_binary_is_not() -> None:
    """One after the other on one connection: the window of the text survives."""
    server, client = ends()
    sizes = []
    for _ in range(2):
        text = server.encode(Frame(Opcode.TEXT, TEXT))
        assert text.rsv1 and len(text.data) < len(TEXT) / 4
        assert client.decode(text).data == TEXT
        sealed = Frame(Opcode.BINARY, TEXT)
        assert server.encode(sealed) is sealed
        assert client.decode(sealed).data == TEXT
        sizes.append(len(text.data))
    assert sizes[1] < sizes[0]


def test_a_message_in_pieces_is_treated_as_one() -> None:
    """What follows its first frame is as compressed as that."""
    server, client = ends()
    for opcode, compressed in ((Opcode.BINARY, False), (Opcode.TEXT, True)):
        pieces = [server.encode(Frame(opcode, TEXT, fin=False)), server.encode(Frame(Opcode.CONT, TEXT))]
        assert (pieces[1].data != TEXT) is compressed
        assert b"".join(bytes(client.decode(piece).data) for piece in pieces) == TEXT + TEXT


@pytest.mark.parametrize("opcode", [Opcode.PING, Opcode.CLOSE])
def test_control_frames_pass(opcode: Opcode) -> None:
    """In the middle of whatever is sent."""
    server, _ = ends()
    frame = Frame(opcode, b"")
    assert server.encode(frame) is frame
