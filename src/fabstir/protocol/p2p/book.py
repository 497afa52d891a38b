"""The announcements that are believed now: one for each registered host, the latest.

Decides what is stored: only what is well-formed, alive, of this market, of a registered account, newer than what is known, and
signed. The cheap questions come first, so that a flood costs a stranger more than us; signatures are checked last. The number of
registered hosts bounds the memory: identities that nobody staked for take no place. Never asks anybody.
"""

from __future__ import annotations

from collections.abc import Container
from typing import Final

from fabstir.domain.errors import error
from fabstir.domain.ids import Address
from fabstir.protocol.p2p.announcement import MAX_LIFETIME, Announcement, read
from fabstir.protocol.signing import Market

MAX_HOSTS: Final = 100_000


class AnnouncementBook:
    """Memory: an announcement (at most 4 KiB, usually below 1) for each registered host, and a number for MAX_LIFETIME after it."""

    def __init__(self, market: Market, max_hosts: int = MAX_HOSTS) -> None:
        self._market = market
        self._max_hosts = max_hosts
        self._known: dict[Address, Announcement] = {}
        self._latest: dict[Address, int] = {}
        """Issue of the last one of each account, also after its expiry: an earlier one that still lives must not come back."""

    def __repr__(self) -> str:
        return f"<AnnouncementBook {len(self._known)} hosts>"

    def take(self, raw: bytes, now: float, registered: Container[Address]) -> Announcement:
        """Store what a stranger sent, or say why not; the same one again is no fault.

        Raises PeerFault (`announcement_invalid`, `announcement_forged`), Refused (`announcement_stale`, `announcement_foreign`).
        """
        unverified = read(raw)
        said = unverified.announcement
        account = Address(said.account)
        if said.contract != self._market:
            raise error("announcement_foreign", "of another market")
        if account not in registered:
            raise error("announcement_foreign", f"0x{account.hex()} is not registered")
        if not said.lives(now):
            raise error("announcement_stale", f"lives until {said.expires_at}, it is {now:.0f}")
        known = self._known.get(account)
        if known == said:
            return known
        if said.issued_ms <= self._latest.get(account, 0):
            raise error("announcement_stale", "a later one of this host is known")
        if account not in self._latest and len(self._latest) >= self._max_hosts:
            raise error("announcement_foreign", f"{self._max_hosts} hosts are known already")
        self._known[account] = unverified.verified()
        self._latest[account] = said.issued_ms
        return said

    def keep(self, now: float, registered: Container[Address]) -> None:
        """Forget what has expired and who is no longer registered."""
        self._known = {
            account: said for account, said in self._known.items() if said.lives(now) and account in registered
        }
        self._latest = {
            account: issued for account, issued in self._latest.items() if now < issued / 1000 + MAX_LIFETIME
        }

    def get(self, account: Address, now: float) -> Announcement | None:
        """What a host says of itself now; None where it says nothing."""
        said = self._known.get(account)
        return said if said is not None and said.lives(now) else None
