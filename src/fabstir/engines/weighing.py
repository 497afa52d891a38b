"""What a model's chat template adds, in tokens: measured once, by writing three short conversations with it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from fabstir.ports.engine import ChatMessage, Frame, Weight

WORD: Final = "a"
_ONE: Final = (ChatMessage("user", WORD),)
_THREE: Final = (*_ONE, ChatMessage("assistant", WORD), *_ONE)


async def measure_frame(
    count: Callable[[tuple[ChatMessage, ...]], Awaitable[int]],
    weigh: Callable[[tuple[str, ...]], Awaitable[tuple[Weight, ...]]],
) -> Frame:
    """`count`: tokens of a templated conversation, `weigh`: of texts alone. Rounded so that a plan says rather too much than too little."""
    word = (await weigh((WORD,)))[0].tokens
    one, three = await count(_ONE), await count(_THREE)
    each = max(0, -(-(three - one - 2 * word) // 2))
    return Frame(max(0, one - word - each), each)
