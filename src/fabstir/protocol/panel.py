"""Several verifiers who rule in a dispute together, as one of them sees it. Decides which panels can be made, who acts for one, and what
must be refused before a vote is sent. Specification: contracts/src/ArbiterPanel.sol. Reads nothing and sends nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import Final

import msgspec

from fabstir.domain.errors import FabstirError, error
from fabstir.domain.ids import ZERO_ADDRESS, Address, to_hex

MAX_MEMBERS: Final = 64


class Panel(msgspec.Struct, frozen=True, kw_only=True):
    """An `ArbiterPanel`: fixed for ever."""

    address: Address
    members: tuple[Address, ...]
    threshold: int
    """So many equal votes rule."""


class Votes(msgspec.Struct, frozen=True, kw_only=True):
    """What was voted so far in one dispute."""

    for_host: int
    for_renter: int
    voted: bool
    """By the account that asks."""


class Vote(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one vote, as the panel's event tells."""

    votes: int
    """For this side, with this one."""
    threshold: int

    @property
    def missing(self) -> int:
        """Votes for this side until the panel rules; 0: this one has ruled."""
        return self.threshold - self.votes


def panel_members(named: Iterable[Address], threshold: int) -> tuple[Address, ...]:
    """The members in the order in which a panel is made of them: the same ones make the same panel, however they are named.

    Raises PeerFault (`request_invalid`) where the contract would refuse them.
    """
    members = tuple(sorted(named))
    if not 1 <= len(members) <= MAX_MEMBERS:
        raise _invalid(f"{len(members)} members", f"A panel has 1 to {MAX_MEMBERS}.")
    twice = sorted({to_hex(one) for one, other in pairwise(members) if one == other})
    if twice or ZERO_ADDRESS in members:
        raise _invalid(f"{twice[0] if twice else to_hex(ZERO_ADDRESS)} as a member", "Name each account once.")
    if not len(members) < 2 * threshold <= 2 * len(members):
        least = len(members) // 2 + 1
        raise _invalid(f"{threshold} of {len(members)} votes", f"The threshold must be {least} to {len(members)}.")
    return members


def vote_refusal(panel: Panel, caller: Address) -> FabstirError | None:
    """`dispute_foreign` where the caller is not on the panel."""
    if caller in panel.members:
        return None
    return error("dispute_foreign", f"{to_hex(caller)} is not a member of the panel {to_hex(panel.address)}")


def _invalid(detail: str, next_step: str) -> FabstirError:
    return error("request_invalid", detail, next_step)
