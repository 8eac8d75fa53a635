"""What the bridge is asked for by API, and when a verdict has a sentence.

API --> the store --look, once a second--> commands to devices: the outbox
                                      `--> sentences: the next verdict of a camera
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from cloud_bridge.ingest.events import Event
from cloud_bridge.store.commands import Unsent
from cloud_bridge.store.records import CameraRecord, Work
from cloud_bridge.store.store import Store
from wire.errors import StoreAway

__all__ = ["Requests"]

_LOOK_S = 1.0  # between two looks into the store


class Requests:
    """What is asked for. The bridge's thread alone uses it."""

    def __init__(self, store: Store, sends_commands: bool, sentence_every_s: float, slot_s: float) -> None:
        """Begin.

        Args:
            store: Where the API writes what it is asked for.
            sends_commands: Whether there is an operator's key, so that there may be commands.
            sentence_every_s: Of a camera's stream, after which a verdict has a sentence again.
            slot_s: Length of a slot.
        """
        self._store, self._sends_commands = store, sends_commands
        self._every_s, self._slot_s = sentence_every_s, slot_s
        self._asked, self._looked_s = dict[str, float](), -_LOOK_S
        self._left = 0  # sentences of this batch that nothing asks for but the time

    def look(self) -> Sequence[Unsent]:
        """Look into the store, where the last look is a second old.

        Returns:
            Commands that no outbox has yet; none while the store is away, as the next commit says.
        """
        if time.monotonic() - self._looked_s < _LOOK_S:
            return ()
        self._looked_s = time.monotonic()
        try:
            self._asked = self._store.asked_sentences()
            return self._store.commands() if self._sends_commands else ()
        except StoreAway:
            return ()

    def begin(self, events: int) -> None:
        """Begin a batch of so many events.

        Of the sentences that are due by time alone, it has what falls to its share, and one. So where a whole ward
        begins at once, no verdict waits for hundreds of them.
        """
        self._left = 1 + int(events * self._slot_s / self._every_s) if self._every_s else events

    def wants_words(self, event: Event, changes: bool, record: CameraRecord, work: Work, behind: bool = False) -> bool:
        """Whether a verdict has a sentence: making one takes ten times as long as reading the event.

        Args:
            event: What was read.
            changes: Whether an alert changes with it.
            record: Of its camera; it is told where there is a sentence.
            work: Of this commit; it is told what is answered.
            behind: More comes of its camera than can be read: only what was asked for has one.
        """
        asked_s, (boot_id, slot) = self._asked.pop(event.camera, None), record.described
        passed_s = (event.last_slot - slot) * self._slot_s
        due = not behind and self._left > 0 and (boot_id != event.boot_id or passed_s >= self._every_s)
        wants = (changes and not behind) or asked_s is not None or due
        if wants:
            record.described = (event.boot_id, event.last_slot)
            self._left -= due
        if asked_s is not None:
            work.answered[event.camera] = asked_s
        return wants
