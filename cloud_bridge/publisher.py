"""Publishes the outbox, in order; what the broker has is forgotten with the next commit.

    commit --> outbox --at most 1,024 on their way--> broker --confirms--> `delivered`, for the next commit

A message is published again where the bridge ends before it knows of the confirmation: the same bytes. While the
broker is away the outbox grows in the store, not here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from cloud_bridge.ingest.transport import Link
from cloud_bridge.store.store import Store
from wire.errors import StoreAway
from wire.mqtt import Message

__all__ = ["Publisher"]

_ON_THEIR_WAY = 1024
_HELD = 4096  # messages that are kept in memory besides the store


class Publisher:
    """From the outbox to the broker. One thread uses it.

    Attributes:
        delivered: Every message of the outbox up to this number is with the broker, or was refused by it for good.
    """

    def __init__(self, store: Store, link: Link) -> None:
        self._store, self._link = store, link
        self._held = deque[tuple[int, Message]]()  # (number, message), to be published next
        self._sent = deque[int]()  # numbers that were handed to the link, in order
        self._confirmed = set[int]()  # of `_sent`
        self._newest = self.delivered = 0
        self._behind = True  # the store has messages that are not held here

    @property
    def waiting(self) -> int:
        """Messages that the broker does not have yet, as far as they are known here."""
        return len(self._held) + len(self._sent) + self._behind

    def add(self, numbered: Sequence[tuple[int, Message]]) -> None:
        """Take what a commit has put into the outbox."""
        if self._behind or len(self._held) + len(numbered) > _HELD:
            self._behind = self._behind or bool(numbered)
            return
        self._held += numbered
        self._newest = numbered[-1][0] if numbered else self._newest

    def pump(self) -> None:
        """Publish what may be on its way, while our place in the store is sure; call it regularly."""
        if not self._store.place.held:
            return
        if self._behind and not self._held:
            self._read_on()
        while self._held and len(self._sent) < _ON_THEIR_WAY:
            number, message = self._held.popleft()
            self._sent.append(number)
            self._link.publish(message, number)
        self._link.pump()

    def settled(self, number: int) -> None:
        """Take the broker's word that it has a message; a number that is not of the outbox means nothing."""
        if number <= self.delivered:
            return
        self._confirmed.add(number)
        while self._sent and self._sent[0] in self._confirmed:
            self.delivered = self._sent.popleft()
            self._confirmed.discard(self.delivered)

    def _read_on(self) -> None:
        try:
            found = self._store.outbox(self._newest, _HELD)
        except StoreAway:
            return  # the next commit says so
        self._held += found
        self._newest = found[-1][0] if found else self._newest
        self._behind = len(found) == _HELD
