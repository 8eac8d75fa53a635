"""Delivers the letters of the store over HTTP, in a thread of its own.

    store --next_letters--> at most 4 at once for each receiver --POST, 10 s--> 2xx: removed
                                                                            --> else: later, and at last given up

Every receiver has its own connections and its own turn, so one that hangs delays nobody else. A letter is removed after
it was delivered: where the process ends in between it is sent again, with the same id. Nothing of an address but its
host is shown, and nothing of a secret.
"""

from __future__ import annotations

import asyncio
import logging
import random
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import timezone
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple, TypeVar

import httpx

from cloud_bridge.store.store import Store
from cloud_bridge.webhooks.config import WebhookConfig
from cloud_bridge.webhooks.letters import headers
from cloud_bridge.webhooks.outbox import Letter, about, drop_others, give_up, next_letters, put_off, remove
from wire.errors import ConfigError, StoreAway

__all__ = ["Courier"]

_LOG = logging.getLogger("cloud_bridge")

_AT_ONCE = 4  # letters on their way to one receiver
_ANSWER_S = 10.0  # for all of an answer
_LOOK_S = 0.5  # between two looks into the store
_LONGEST_S = 300.0  # between two attempts
_LONGEST_ASKED_S = 3600.0  # that a receiver may ask for
_HOPELESS = (400, 410, 413, 415, 422)  # answers that say: never this letter
_END_S = 5.0
_QUIET_LOG_S = 60.0

T = TypeVar("T")


class _Outcome(NamedTuple):
    """What came of an attempt. why: "" where it was delivered."""

    why: str = ""
    hopeless: bool = False
    asked_s: float = 0.0


class Courier:
    """All receivers, for a `with` block.

    Attributes:
        ended: Whether the thread has ended, by a fault of ours or at the end of the block.
    """

    def __init__(
        self,
        receivers: Sequence[WebhookConfig],
        store: Store,
        answer_s: float = _ANSWER_S,
        pause_s: float = 1.0,
    ) -> None:
        """Read secrets and certificates. Raises ConfigError where they cannot be used.

        Args:
            receivers: Who is told.
            store: Where the letters are; its place says which of them are ours, and whether we may send now.
            answer_s: For all of an answer.
            pause_s: Before the second attempt; it doubles with each.
        """
        for name in ("httpx", "httpcore"):
            logging.getLogger(name).setLevel(logging.WARNING)  # they log whole addresses
        self._engine, self.ended = store.engine, False
        self._receivers = [_Receiver(each, store, answer_s, pause_s) for each in receivers]
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="webhooks", daemon=True)

    def __enter__(self) -> Courier:
        gone = drop_others(self._engine, [each.config.key for each in self._receivers])
        if gone:
            _LOG.warning("%d webhooks to receivers that are configured no more are dropped", gone)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._tell(self._stop.set)
        self._thread.join(_END_S)

    def wake(self) -> None:
        """Look into the store now. Any thread may call it."""
        for each in self._receivers:
            self._tell(each.wake.set)

    def counts(self) -> dict[str, dict[str, int]]:
        """Receiver -> delivered, failed (attempts), given_up; since the start."""
        return {each.config.shown: dict(each.counts) for each in self._receivers}

    def _tell(self, what: Callable[[], Any]) -> None:
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop has ended in this moment
                self._loop.call_soon_threadsafe(what)

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        finally:
            self.ended = True

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as group:
            serving = [group.create_task(each.serve()) for each in self._receivers]
            await self._stop.wait()
            for task in serving:
                task.cancel()


class _Receiver:
    """One receiver, and the letters that are on their way to it."""

    def __init__(self, config: WebhookConfig, store: Store, answer_s: float, pause_s: float) -> None:
        self.config, self._engine, self._place = config, store.engine, store.place
        self._secret, self._answer_s, self._pause_s = config.secret(), answer_s, pause_s
        try:
            self._tls = ssl.create_default_context(cafile=config.ca or None)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(f"[[webhooks]] ca {config.ca}: {error}") from error
        self.counts: Counter[str] = Counter(delivered=0, failed=0, given_up=0)
        self.wake = asyncio.Event()
        self._busy = set[int]()  # cameras with a letter on its way
        self._closed_until_s = 0.0  # as the receiver has asked
        self._logged_s = -_QUIET_LOG_S

    async def serve(self) -> None:
        """Deliver until cancelled."""
        limits = httpx.Limits(max_connections=_AT_ONCE, max_keepalive_connections=0)
        options: Mapping[str, Any] = {"verify": self._tls, "trust_env": False, "follow_redirects": False}
        async with (
            httpx.AsyncClient(**options, limits=limits, timeout=self._answer_s) as http,
            asyncio.TaskGroup() as group,
        ):
            while True:
                self.wake.clear()
                for letter in await self._next():
                    self._busy.add(letter.camera_id)
                    group.create_task(self._deliver(http, letter))
                with suppress(TimeoutError):
                    async with asyncio.timeout(_LOOK_S):
                        await self.wake.wait()

    async def _next(self) -> list[Letter]:
        room, now_s = _AT_ONCE - len(self._busy), time.time()
        if not room or now_s < self._closed_until_s or not self._place.held:
            return []
        key, shard, busy = self.config.key, self._place.shard, self._busy.copy()
        return await self._ask(lambda: next_letters(self._engine, key, shard, now_s, busy, room)) or []

    async def _deliver(self, http: httpx.AsyncClient, letter: Letter) -> None:
        try:
            outcome = await self._post(http, letter)
            await self._note(letter, outcome)
        finally:
            self._busy.discard(letter.camera_id)
            self.wake.set()

    async def _post(self, http: httpx.AsyncClient, letter: Letter) -> _Outcome:
        """Send a letter. Of the answer the head alone is read, and all within a bound."""
        body = letter.body.encode()
        about = headers(self._secret, letter.alert_id, body, time.time())
        try:
            async with (
                asyncio.timeout(self._answer_s),
                http.stream("POST", self.config.url, content=body, headers=about) as answer,
            ):
                return _judge(answer)
        except TimeoutError:
            return _Outcome(f"no answer within {self._answer_s:g} s")
        except (httpx.HTTPError, OSError) as error:
            return _Outcome(type(error).__name__)  # its words hold the address

    async def _note(self, letter: Letter, outcome: _Outcome) -> None:
        """Write down what became of a letter; where the store is away, it is sent again."""
        now_s, shown = time.time(), self.config.shown
        if not outcome.why:
            self.counts["delivered"] += 1
            await self._ask(lambda: remove(self._engine, letter))
            return
        self.counts["failed"] += 1
        if outcome.hopeless or now_s - letter.due_s >= self.config.give_up_h * 3600.0:
            self.counts["given_up"] += 1
            _LOG.error("webhook %s: alert %s is given up: %s", shown, letter.alert_id, outcome.why, extra=about(letter))
            await self._ask(lambda: give_up(self._engine, letter, shown, outcome.why))
            return
        if outcome.asked_s:
            self._closed_until_s = now_s + outcome.asked_s
        if time.monotonic() - self._logged_s >= _QUIET_LOG_S:
            self._logged_s = time.monotonic()
            words = "webhook %s: alert %s: %s; it is tried again"
            _LOG.warning(words, shown, letter.alert_id, outcome.why, extra=about(letter))
        pause_s = min(_LONGEST_S, self._pause_s * 2.0 ** min(letter.tries, 20)) * random.uniform(0.5, 1.0)
        await self._ask(lambda: put_off(self._engine, letter, now_s + max(pause_s, outcome.asked_s)))

    async def _ask(self, what: Callable[[], T]) -> T | None:
        """Do something with the store, in a thread; None where it is away."""
        try:
            return await asyncio.to_thread(what)
        except StoreAway as error:
            if time.monotonic() - self._logged_s >= _QUIET_LOG_S:
                self._logged_s = time.monotonic()
                _LOG.warning("webhook %s: %s", self.config.shown, error)
            return None


def _judge(answer: httpx.Response) -> _Outcome:
    """What an answer means. A redirect is not followed: it would take the alert elsewhere."""
    status = answer.status_code
    if 200 <= status < 300:
        return _Outcome()
    why = f"it answers {status}" + (", a redirect: correct url" if 300 <= status < 400 else "")
    return _Outcome(why, status in _HOPELESS, _asked(answer.headers.get("retry-after", "")))


def _asked(text: str) -> float:
    """The seconds of a Retry-After, which may be a number or a date; at most an hour."""
    text = text.strip()[:40]
    if text.isascii() and text.isdecimal():
        return min(float(text), _LONGEST_ASKED_S)
    try:
        moment = parsedate_to_datetime(text)
    except (TypeError, ValueError):
        return 0.0
    aware = moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)
    return min(max(0.0, aware.timestamp() - time.time()), _LONGEST_ASKED_S)
