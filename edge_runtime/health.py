"""Counters, the local page and the watchdog. Figures that depend on the scene's timing are shown here, not published.

    / (HTML)   /health (JSON)   /metrics (Prometheus)        systemd: READY, WATCHDOG over $NOTIFY_SOCKET

The page is on the loopback interface unless configured otherwise; edge_runtime/page_server.py serves it. Only the loop
feeds the watchdog.
"""

from __future__ import annotations

import contextlib
import html
import json
import os
import socket
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from wire.errors import ConfigError

if TYPE_CHECKING:  # most devices have no page
    from edge_runtime.page_server import Answer, PageServer

__all__ = ["Health", "Stats", "chip_figures", "notify"]


class Stats:
    """Counts, and series whose last 4,096 values are kept for quantiles. Each name is written by one thread only."""

    def __init__(self, *counts: str) -> None:
        self.counts = Counter(dict.fromkeys(counts, 0))
        self._series: defaultdict[str, deque[float]] = defaultdict(lambda: deque(maxlen=4096))

    def note(self, name: str, value: float) -> None:
        """Add a value to a series."""
        self._series[name].append(value)

    def figures(self) -> dict[str, float]:
        """The counts, and NAME_p50 and NAME_p99 of each series."""
        made: dict[str, float] = dict(self.counts)
        for name, values in list(self._series.items()):
            p50, p99 = np.percentile(list(values), (50, 99))
            made |= {f"{name}_p50": round(float(p50), 3), f"{name}_p99": round(float(p99), 3)}
        return made


class Health:
    """Serves the figures of the process's parts.

    Args:
        listen: "host:port", ":port" (loopback), or "": no page.
        parts: Name -> what gives its figures. A text is one of a fixed table, never words that came from
            a camera or a network.
        stalled_s: /health answers 503 when the last beat is older, in seconds.

    Raises:
        ConfigError: Nothing can listen there.
    """

    def __init__(
        self, listen: str, parts: Mapping[str, Callable[[], Mapping[str, float | str]]], stalled_s: float
    ) -> None:
        self._parts, self._stalled_s, self._beat_at = parts, stalled_s, time.monotonic()
        self._server = _serve(listen, self._page) if listen else None
        self.port = self._server.port if self._server else 0

    def close(self) -> None:
        """Stop serving."""
        if self._server:
            self._server.close()

    def beat(self) -> None:
        """Feed the watchdog: the loop released a slot."""
        self._beat_at = time.monotonic()
        notify("WATCHDOG=1")

    def figures(self) -> dict[str, Mapping[str, float | str]]:
        """Part -> name -> value, now."""
        process = {"beat_age_s": round(self._beat_age_s(), 3), **chip_figures()}
        return {**{name: part() for name, part in self._parts.items()}, "process": process}

    def _beat_age_s(self) -> float:
        return time.monotonic() - self._beat_at

    def _page(self, path: str) -> Answer:
        parts = self.figures()
        flat = [(part, name, value) for part, values in parts.items() for name, value in values.items()]
        if path == "/health":
            alive = self._beat_age_s() < self._stalled_s
            return (200 if alive else 503), "application/json", json.dumps({"alive": alive, **parts})
        if path == "/metrics":
            return 200, "text/plain; version=0.0.4", "".join(f"veilsight_{p}_{n}{_metric(v)}\n" for p, n, v in flat)
        if path == "/":
            rows = "".join(f"<tr><td>{html.escape(p)}<td>{html.escape(n)}<td>{_shown(v)}" for p, n, v in flat)
            return 200, "text/html", f"<!doctype html><title>Veilsight</title><h1>Veilsight</h1><table>{rows}</table>"
        return 404, "text/plain", "there are /, /health and /metrics\n"


def _metric(value: float | str) -> str:
    """What follows a name in Prometheus' text format: a number, or 1 for a text, which is its label."""
    return f"{{text={json.dumps(value)}}} 1" if isinstance(value, str) else f" {value:g}"


def _shown(value: float | str) -> str:
    return html.escape(value) if isinstance(value, str) else f"{value:g}"


def _serve(listen: str, page: Callable[[str], Answer]) -> PageServer:
    """Serve `page` at "host:port" or ":port" (loopback)."""
    from edge_runtime.page_server import PageServer

    host, _, port = listen.rpartition(":")
    try:
        return PageServer(host or "127.0.0.1", int(port), page)
    except (OSError, ValueError, OverflowError) as error:
        raise ConfigError(f"[health] listen is {listen!r}: {error}; use 127.0.0.1:8080, or leave it out") from error


def chip_figures() -> dict[str, float]:
    """Resident memory in MB and the hottest sensor in degrees Celsius, where the system reports them."""
    made, sensors = {}, []
    with contextlib.suppress(OSError):
        made["rss_mb"] = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
    for zone in Path("/sys/class/thermal").glob("thermal_zone*/temp"):
        with contextlib.suppress(OSError, ValueError):  # the sensor of a part that is switched off
            sensors.append(int(zone.read_text()) / 1000)
    return {**made, "chip_celsius": max(sensors)} if sensors else made


def notify(message: str) -> None:
    """Send a datagram to systemd (sd_notify) at $NOTIFY_SOCKET; do nothing where nobody listens."""
    with contextlib.suppress(KeyError, OSError):
        address = os.environ["NOTIFY_SOCKET"]
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
            out.sendto(message.encode(), "\0" + address[1:] if address.startswith("@") else address)
