"""What Prometheus reads: the bridge's counts, and histograms of how long it takes.

    counts of a moment ago, rows of the store --page--> one text, each metric with its kind and what it means
    commit --tell--> seconds from receipt to verdict        member --read--> events and seconds of a batch

No label is the name of a camera, or a text that came from the network: labels are reasons out of a fixed table, and
receivers, models and the shard as the bridge's own file names them. So the page is no longer for a thousand cameras,
and whoever may write to the broker adds no line to it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric, UnknownMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

from cloud_bridge.ingest.reasons import REASONS
from cloud_bridge.telemetry.stages import Stages
from wire.protocol.message import Alert, Verdict

__all__ = ["CONTENT_TYPE", "Metrics"]

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
"""Of the page."""

_PREFIX = "veilsight_bridge_"
_AGE_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_EVENTS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0)
_MEMBER_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)

_COUNTERS = {
    "received": "Messages that were read, of all kinds.",
    "gaps": "Slots that never came.",
    "shed": "Events that were left out because newer ones of the camera waited.",
    "skewed": "Releases dated later than now: the device's clock is ahead.",
    "verdicts": "Verdicts made.",
    "alerts": "Changes of alerts.",
    "degraded": "Events that the edge's exit has read in place of the cloud member.",
    "dropped": "Messages that nobody has read.",
}
_ROWS = {
    "outbox": "Messages that the broker has not confirmed.",
    "webhooks_waiting": "Letters that receivers have not taken.",
    "open_alerts": "Alerts that are open.",
}


class Metrics:
    """All metrics of one bridge. Any thread may use it."""

    def __init__(self, stages: Stages) -> None:
        """Begin with nothing observed. stages: the moments of the newest commit, and who tells of batches."""
        self._stages, self._kept = stages, CollectorRegistry()
        self._age = self._histogram(
            "verdict_seconds",
            "From the receipt of the newest release of a camera's batch until its verdict is stored and handed on to "
            "be published. A device's own time is told by the minute alone, so the way to the broker is not in it.",
            _AGE_S,
        )
        self._events = self._histogram("batch_events", "Events that the member has read at once.", _EVENTS)
        self._member = self._histogram("member_seconds", "Seconds in which the member has read a batch.", _MEMBER_S)
        stages.watchers.append(self.read)

    def _histogram(self, name: str, words: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(_PREFIX + name, words, registry=self._kept, buckets=buckets)

    def tell(self, camera: str, made: Verdict | Alert) -> None:
        """Take a verdict that was committed; one that no message of this batch completed has no age."""
        came = self._stages.came.get(camera)
        if isinstance(made, Verdict) and came is not None:
            self._age.observe(max(0.0, time.time() - came))

    def read(self, events: int, seconds: float) -> None:
        """Take a batch that the member has read."""
        self._events.observe(events)
        self._member.observe(max(0.0, seconds))

    def page(self, found: Mapping[str, Any], rows: Mapping[str, int], listeners: int) -> bytes:
        """The text that Prometheus reads.

        Args:
            found: The bridge's counts.
            rows: What is counted in the store.
            listeners: Who listens to the stream.
        """
        return generate_latest(_Page([*_counts(found), *_state(found, rows, listeners)], self._kept))


class _Page(Collector):
    """Metrics of this moment, and then those that are kept."""

    def __init__(self, now: Sequence[Metric], kept: CollectorRegistry) -> None:
        self._now, self._kept = now, kept

    def collect(self) -> Iterator[Metric]:
        """As a registry does, without the moments at which histograms began: no client of ours asks for them."""
        yield from self._now
        for metric in self._kept.collect():
            metric.samples = [each for each in metric.samples if not each.name.endswith("_created")]
            yield metric


def _counts(found: Mapping[str, Any]) -> Iterator[Metric]:
    """What only grows while the process runs."""
    for name, words in _COUNTERS.items():
        if name in found:
            yield CounterMetricFamily(_PREFIX + name, words, found[name])
    refused = CounterMetricFamily(_PREFIX + "refused", "Messages that were refused.", labels=["reason"])
    for reason, count in found.get("refused", {}).items():
        if reason in REASONS:
            refused.add_metric([reason], count)
    yield refused
    letters = CounterMetricFamily(_PREFIX + "webhooks", "Attempts to deliver letters.", labels=["receiver", "outcome"])
    for receiver, told in found.get("webhooks", {}).items():
        for outcome, count in told.items():
            letters.add_metric([receiver, outcome], count)
    yield letters
    for what, words in (("sent", "Spans that the collector has."), ("lost", "Spans that it has not, and will not.")):
        if what in found.get("traces", {}):
            yield UnknownMetricFamily(f"{_PREFIX}spans_{what}", words, found["traces"][what])  # a name without _total


def _state(found: Mapping[str, Any], rows: Mapping[str, int], listeners: int) -> Iterator[Metric]:
    """What is so now."""
    for name, words in _ROWS.items():
        yield GaugeMetricFamily(_PREFIX + name, words, rows[name])
    if "waiting" in found.get("traces", {}):
        yield GaugeMetricFamily(_PREFIX + "spans_waiting", "Spans to be sent.", found["traces"]["waiting"])
    place = GaugeMetricFamily(_PREFIX + "place", "1 for the shard whose cameras this bridge reads.", labels=["shard"])
    if "shard" in found:
        place.add_metric([found["shard"]], 1)
    cameras = GaugeMetricFamily(_PREFIX + "cameras", "Cameras whose newest start ran a model.", labels=["model"])
    for model, count in found.get("models", {}).items():
        cameras.add_metric([model], count)
    yield from (place, cameras)
    numbers = {
        "connected": ("Whether there is a broker.", bool(found.get("connected"))),
        "silent": ("Cameras of which nothing comes.", len(found.get("silent", ()))),
        "unknown_models": ("Cameras whose model this bridge does not have.", len(found.get("unknown_models", ()))),
        "models_well": ("Whether the newest SIGHUP was obeyed.", not found.get("reload")),
        "listeners": ("Who listens to the stream.", listeners),
        "well": ("Whether the store can be written.", not found.get("trouble")),
    }
    for name, (words, number) in numbers.items():
        yield GaugeMetricFamily(_PREFIX + name, words, int(number))
