"""How often somebody may do something: token buckets, for anybody who can be named, in a bounded memory. Sans-IO; the time is an argument.

A bucket holds so many uses as may come at once and is refilled evenly. A full one says nothing and is forgotten first; where all of them
are in use the one that was used longest ago goes, so that whoever has more names than there are buckets gains what `limit` names would.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from typing import Final

from fabstir.domain.errors import FabstirError, error

MINUTE: Final = 60.0
IPV6_PREFIX: Final = 64
"""Whoever has one address of such a network has all of them."""


class Buckets:
    """One bucket for each name. Memory: two numbers for each of `limit` names."""

    def __init__(self, per_minute: int, *, limit: int = 4096) -> None:
        """As many as `per_minute` may come at once, and so many in each further minute."""
        self.per_minute: Final = per_minute
        self._limit = limit
        self._rate = per_minute / MINUTE
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()
        """Name -> uses left, and when that was; the last used one comes last."""

    def __repr__(self) -> str:
        return f"<Buckets {len(self._levels)} of {self._limit}, {self.per_minute} a minute>"

    def __len__(self) -> int:
        return len(self._levels)

    def take(self, name: str, now: float) -> float:
        """One use: 0 where there is room, else in how many seconds there will be; then nothing is taken."""
        left, since = self._levels.pop(name, (float(self.per_minute), now))
        left = min(float(self.per_minute), left + (now - since) * self._rate)
        waits = 0.0 if left >= 1 else (1 - left) / self._rate
        self._levels[name] = (left if waits else left - 1, now)
        while len(self._levels) > self._limit:
            self._levels.popitem(last=False)
        self._forget_full(now)
        return waits

    def refusal(self, name: str, what: str, now: float) -> FabstirError | None:
        """As `take`: None, or the error to answer with (`rate_limited`)."""
        if not (wait := self.take(name, now)):
            return None
        return error("rate_limited", f"more than {self.per_minute} {what} a minute; the next one in {wait:.0f} s")

    def _forget_full(self, now: float) -> None:
        """The oldest ones, as far as they have been refilled."""
        while self._levels:
            name, (left, since) = next(iter(self._levels.items()))
            if left + (now - since) * self._rate < self.per_minute:
                return
            del self._levels[name]


def network_of(address: str) -> str:
    """Whom an address stands for: itself, or its /64."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address[:64]
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is not None:
            return str(found.ipv4_mapped)
        return str(ipaddress.ip_network((int(found), IPV6_PREFIX), strict=False))
    return str(found)


def is_loopback(host: str) -> bool:
    """Whether a name or an address, in brackets or not, is this machine and cannot be another one."""
    bare = host.strip("[]").lower()
    if bare == "localhost":
        return True
    try:
        return ipaddress.ip_address(bare).is_loopback
    except ValueError:
        return False
