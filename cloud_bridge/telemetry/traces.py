"""Traces from capture to alert: a span for each stage of an event, under an id that follows from what the topics say.

    commit --tell--> spans of the verdict, or alert --bounded queue--> a thread --OTLP over HTTP--> a collector
                                          `--full: dropped, counted    `--no answer: lost, counted

    event ( capture | receive | member | store | verdict )  alert      all under trace_id(camera, boot id, last slot)

A device adds nothing to its messages for this. A span holds camera, boot id, slot, label, probability, severity and an
alert's id: what the topics hold already. The bridge's thread makes the spans, which takes some microseconds, and never
waits for the collector.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping
from types import TracebackType

from cloud_bridge.telemetry.capture import CaptureClock
from cloud_bridge.telemetry.config import TelemetryConfig
from cloud_bridge.telemetry.stages import Stages
from wire.errors import ConfigError
from wire.protocol.message import Alert, Verdict, trace_id

try:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import SpanExportResult
    from opentelemetry.trace import SpanContext, TraceFlags
except ImportError as missing:
    raise ConfigError(
        f"[telemetry] otlp is given, and {missing.name} is not installed: pip install 'veilsight[otel]'"
    ) from missing

__all__ = ["Traces", "span_number"]

_LOG = logging.getLogger("cloud_bridge")

_WAITING = 16_384  # spans that wait to be sent
_BATCH = 1024  # spans of one request
_PAUSE_S = 0.5  # between two looks at what waits
_ANSWER_S = 2.0  # for the collector
_END_S = 5.0  # for what is left, at the end

Attributes = Mapping[str, str | bool | int | float]


def span_number(trace: str, name: str) -> int:
    """The number of a span, from its trace and its name: whoever knows the event can name it, too."""
    return int.from_bytes(hashlib.sha256(f"{trace}/{name}".encode()).digest()[:8], "big") or 1


class Traces:
    """What makes spans and sends them, for a `with` block.

    Attributes:
        sent: Spans that the collector has taken.
        lost: Spans that it has not, or that found no room.
    """

    def __init__(self, config: TelemetryConfig, stages: Stages, slot_s: float, device_s: Callable[[str], int]) -> None:
        """Prepare it; nothing is sent yet.

        Args:
            config: Where to, and of how many events.
            stages: The moments of the newest commit.
            slot_s: Seconds of a slot.
            device_s: `site/camera` -> the time of its newest release, as that says; 0: there is none.
        """
        self._stages, self._slot_s, self._device_s = stages, slot_s, device_s
        self._most = int(config.share * (1 << 32))
        self._exporter = OTLPSpanExporter(endpoint=config.otlp, timeout=_ANSWER_S)
        self._resource = Resource({"service.name": "veilsight-bridge"})
        self._clocks = dict[str, CaptureClock]()
        self._waiting = deque[ReadableSpan]()
        self._over, self._silent = threading.Event(), False
        self._thread = threading.Thread(target=self._send_all, name="traces", daemon=True)
        self.sent = self.lost = 0
        for name in ("opentelemetry", "urllib3"):  # they would tell of every request that fails
            logging.getLogger(name).setLevel(logging.CRITICAL)

    def __enter__(self) -> Traces:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join(_END_S)
        self._exporter.shutdown()  # type: ignore[no-untyped-call]  # OpenTelemetry leaves it untyped

    def counts(self) -> dict[str, int]:
        """What is counted of it."""
        return {"sent": self.sent, "lost": self.lost, "waiting": len(self._waiting)}

    # --- the bridge's thread

    def tell(self, camera: str, made: Verdict | Alert, number: str) -> None:
        """Take a verdict or an alert that was committed; `number` is the alert's."""
        slot = made.slot if isinstance(made, Alert) else made.last_slot
        trace = trace_id(camera, made.boot_id, slot)
        if isinstance(made, Verdict) and int(trace[:8], 16) >= self._most:
            return
        place: Attributes = {"camera": camera, "boot_id": f"{made.boot_id:016x}", "slot": slot}
        if isinstance(made, Alert):
            told: Attributes = {"label": made.label, "raised": made.raised, "severity": made.severity, "alert": number}
            self._add(trace, f"alert {number}", *self._stages.store, {**place, **told}, "alert")
        else:
            self._tell_verdict(camera, made, trace, place)

    def _tell_verdict(self, camera: str, made: Verdict, trace: str, place: Attributes) -> None:
        stages = self._stages
        came, ended = stages.came.get(camera, stages.taken), stages.store[1]
        began, time_s = came, self._device_s(camera)
        if time_s:
            clock = self._clocks.setdefault(camera, CaptureClock(self._slot_s))
            captured = clock.see(made.boot_id, made.last_slot, time_s)
            began = min(captured.begin_s, came)
            known: Attributes = {"clock": "device", "unknown_s": captured.unknown_s}
            self._add(trace, "capture", captured.begin_s, captured.end_s, {**place, **known})
        self._add(trace, "receive", came, stages.taken, place)
        self._add(trace, "member", *stages.member, {**place, "member": made.member})
        self._add(trace, "store", *stages.store, place)
        said: Attributes = {"label": made.label, "probability": made.probability}
        how: Attributes = {"late": made.late, "unsure": made.unsure}
        self._add(trace, "verdict", stages.member[1], ended, {**place, **said, **how})
        self._add(trace, "event", began, ended, place)

    def _add(self, trace: str, key: str, begin_s: float, end_s: float, attributes: Attributes, name: str = "") -> None:
        """Put a span into the queue; the one of the whole event is above all others."""
        if len(self._waiting) >= _WAITING:
            self.lost += 1
            return
        above = None if key == "event" else self._context(trace, "event")
        self._waiting.append(
            ReadableSpan(
                name or key,
                self._context(trace, key),
                above,
                self._resource,
                attributes,
                start_time=int(begin_s * 1e9),
                end_time=int(max(begin_s, end_s) * 1e9),
            )
        )

    def _context(self, trace: str, key: str) -> SpanContext:
        return SpanContext(int(trace, 16), span_number(trace, key), False, TraceFlags(TraceFlags.SAMPLED))

    # --- a thread of its own

    def _send_all(self) -> None:
        while not self._over.wait(_PAUSE_S):
            while self._waiting and not self._over.is_set():
                self._send()
        while self._waiting and not self._silent:
            self._send()
        self.lost += len(self._waiting)

    def _send(self) -> None:
        """Send a batch. What the collector does not take is lost: newer spans are worth more than old ones."""
        batch = [self._waiting.popleft() for _ in range(min(_BATCH, len(self._waiting)))]
        if self._exporter.export(batch) is SpanExportResult.SUCCESS:
            self.sent += len(batch)
            self._silent = False
            return
        self.lost += len(batch)
        if not self._silent:
            _LOG.warning("[telemetry] otlp: the collector takes no spans; they are lost, and nothing else is")
        self._silent = True
