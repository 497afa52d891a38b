"""What an actor finds in its inbox beside what its core takes: words of its own side, and messages from beside the core."""

from __future__ import annotations

from enum import Enum

from fabstir.domain.errors import FabstirError
from fabstir.host.generating import Say
from fabstir.protocol.host_inputs import HostInput
from fabstir.protocol.messages import FromRenter


class Signal(Enum):
    """What the actor is told by its own side."""

    ALARM = "a deadline has passed"
    DRAIN = "finish the answer, then leave"
    HURRY = "leave now, in the middle of the answer"
    REST = "no question came for a while"
    FORGET = "memory is short"


Item = HostInput | FromRenter | FabstirError | Signal | Say
