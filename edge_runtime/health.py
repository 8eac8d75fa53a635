"""Counters, the local page and the watchdog. Figures that depend on the scene's timing are shown here, not published.

    / (HTML)   /health (JSON)   /metrics (Prometheus)        systemd: READY, WATCHDOG over $NOTIFY_SOCKET

The page is on the loopback interface unless configured otherwise. Only the loop feeds the watchdog.
"""

from __future__ import annotations

import contextlib
import html
import json
import os
import socket
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from wire.errors import ConfigError

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
        parts: Name -> what gives its figures.
        stalled_s: /health answers 503 when the last beat is older, in seconds.

    Raises:
        ConfigError: Nothing can listen there.
    """

    def __init__(self, listen: str, parts: Mapping[str, Callable[[], Mapping[str, float]]], stalled_s: float) -> None:
        self._parts, self._stalled_s, self._beat_at = parts, stalled_s, time.monotonic()
        self.port, self.close = _serve(listen, self._page) if listen else (0, lambda: None)

    def beat(self) -> None:
        """Feed the watchdog: the loop released a slot."""
        self._beat_at = time.monotonic()
        notify("WATCHDOG=1")

    def figures(self) -> dict[str, Mapping[str, float]]:
        """Part -> name -> value, now."""
        process = {"beat_age_s": round(time.monotonic() - self._beat_at, 3), **chip_figures()}
        return {**{name: part() for name, part in self._parts.items()}, "process": process}

    def _page(self, path: str) -> tuple[int, str, str]:
        """(HTTP status, content type, body) of a path."""
        parts = self.figures()
        flat = [(part, name, value) for part, values in parts.items() for name, value in values.items()]
        if path == "/health":
            alive = parts["process"]["beat_age_s"] < self._stalled_s
            return (200 if alive else 503), "application/json", json.dumps({"alive": alive, **parts})
        if path == "/metrics":
            return 200, "text/plain; version=0.0.4", "".join(f"veilsight_{p}_{n} {v:g}\n" for p, n, v in flat)
        if path == "/":
            rows = "".join(f"<tr><td>{html.escape(p)}<td>{html.escape(n)}<td>{v:g}" for p, n, v in flat)
            return 200, "text/html", f"<!doctype html><title>Veilsight</title><h1>Veilsight</h1><table>{rows}</table>"
        return 404, "text/plain", "there are /, /health and /metrics\n"


def _serve(listen: str, page: Callable[[str], tuple[int, str, str]]) -> tuple[int, Callable[[], None]]:
    """Serve `page` at "host:port" or ":port" (loopback); returns the port and a function that stops it."""
    # Imported only where a page is served: most devices have none.
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, kind, body = page(self.path)
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, format: str, *args: object) -> None:
            pass

    host, _, port = listen.rpartition(":")
    try:
        server = ThreadingHTTPServer((host or "127.0.0.1", int(port)), Handler)
    except (OSError, ValueError, OverflowError) as error:
        raise ConfigError(f"[health] listen is {listen!r}: {error}; use 127.0.0.1:8080, or leave it out") from error
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, name="health", daemon=True).start()

    stop = contextlib.ExitStack()
    stop.callback(server.server_close)
    stop.callback(server.shutdown)
    return int(server.server_address[1]), stop.close


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
