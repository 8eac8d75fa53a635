"""How Ray Serve is asked: the events themselves there, readings back, over HTTP.

    events --z, present--> POST to Serve's HTTP proxy --> a replica, on any node --> readings, sentences

Not over Ray Client, whose scheme `ray://` is, too: it unpickles what the cluster answers, so whoever runs code there,
or stands on the way, runs code here (dev/adr/0030).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cloud_bridge.inference.endpoint import Endpoint
from cloud_bridge.inference.member import Reading
from cloud_bridge.inference.ray_forms import READINGS, SENTENCES, Form
from cloud_bridge.ingest.events import Event

if TYPE_CHECKING:
    from familial.model.family import Family

__all__ = ["RayDialect", "form_of"]


class RayDialect:
    """Asks replicas that hold the whole checkpoint; see `Dialect`."""

    def __init__(self, form: Form, endpoint: Endpoint) -> None:
        """Ask nothing yet."""
        self._form, self._endpoint = form, endpoint

    async def questions(self, events: Sequence[Event]) -> list[tuple[Event, Reading]]:
        body = await self._ask(READINGS, events)
        return list(zip(events, self._form.readings(body, len(events)), strict=True))

    async def sentences(self, events: Sequence[Event], labels: Sequence[int]) -> list[tuple[Event, str]]:
        body = await self._ask(SENTENCES, events)
        return list(zip(events, self._form.sentences(body, len(events)), strict=True))

    async def close(self) -> None:
        await self._endpoint.close()

    async def _ask(self, ask: str, events: Sequence[Event]) -> bytes:
        form = self._form
        return await self._endpoint.ask(form.question(ask, events), form.most_answered(ask, len(events)))


def form_of(family: Family, checkpoint: str) -> Form:
    """The form of a family. checkpoint: its hash."""
    config = family.config
    shape = (config.event_releases, config.tokens, config.width)
    words = frozenset(config.words[family.vocabulary.first_word :])
    return Form(checkpoint, shape, config.labels, config.attributes, words, config.caption_words)
