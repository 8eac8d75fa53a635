"""The local page and the watchdog: what follows the scene's timing is shown here and never published.

    / (HTML)   /health (JSON)   /metrics (Prometheus)        systemd: READY, WATCHDOG, STOPPING over $NOTIFY_SOCKET

On the loopback interface unless configured otherwise. Only the loop feeds the watchdog.
"""

from __future__ import annotations

import html
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from wire.errors import ConfigError

__all__ = ["Health", "chip_figures", "notify"]

Gauges = Callable[[], Mapping[str, float]]


class Health:
    """Serves the gauges of the process's parts. listen: "host:port", ":port" (loopback) or "" for no page.

    `stalled_s` is the age of the last beat after which /health answers 503.
    """

    def __init__(self, listen: str, parts: Mapping[str, Gauges], stalled_s: float) -> None:
        self._parts, self._stalled_s = parts, stalled_s
        self._beat_at = time.monotonic()
        self._server: ThreadingHTTPServer | None = None
        if listen:
            host, _, port = listen.rpartition(":")
            try:
                self._server = ThreadingHTTPServer((host or "127.0.0.1", int(port)), self._handler())
            except (OSError, ValueError, OverflowError) as error:
                raise ConfigError(f"[health] listen is {listen!r}: {error}; use 127.0.0.1:8080, or leave it out") from error
            self._server.daemon_threads = True
            threading.Thread(target=self._server.serve_forever, name="health", daemon=True).start()

    @property
    def port(self) -> int:
        """The page's port; 0 without a page."""
        return int(self._server.server_address[1]) if self._server else 0

    def beat(self) -> None:
        """The loop released a slot: feed the watchdog."""
        self._beat_at = time.monotonic()
        notify("WATCHDOG=1")

    def figures(self) -> dict[str, Mapping[str, float]]:
        """part -> name -> value, now."""
        made = {name: dict(gauges()) for name, gauges in self._parts.items()}
        made["process"] = {"beat_age_s": round(time.monotonic() - self._beat_at, 3), **chip_figures()}
        return made

    def close(self) -> None:
        """Stop serving."""
        if self._server:
            self._server.shutdown()
            self._server.server_close()

    def _answer(self, path: str) -> tuple[int, str, str]:
        """(status, content type, body) of a page."""
        parts = self.figures()
        flat = [(part, name, value) for part, values in parts.items() for name, value in values.items()]
        if path == "/health":
            alive = parts["process"]["beat_age_s"] < self._stalled_s
            return (200 if alive else 503), "application/json", json.dumps({"alive": alive, **parts})
        if path == "/metrics":
            lines = (f"veilsight_{part}_{name} {value:g}" for part, name, value in flat)
            return 200, "text/plain; version=0.0.4", "\n".join(lines) + "\n"
        if path == "/":
            rows = "".join(f"<tr><td>{html.escape(p)}<td>{html.escape(n)}<td>{v:g}</tr>" for p, n, v in flat)
            return 200, "text/html", f"<!doctype html><title>Veilsight</title><h1>Veilsight</h1><table>{rows}</table>"
        return 404, "text/plain", "there are /, /health and /metrics\n"

    def _handler(health) -> type[BaseHTTPRequestHandler]:  # noqa: N805 - `self` is the request's
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, kind, body = health._answer(self.path)
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, format: str, *args: object) -> None:
                pass

        return Handler


def chip_figures() -> dict[str, float]:
    """Resident memory in MB and the hottest sensor in degrees Celsius, as far as the system tells."""
    made = {}
    status = Path("/proc/self/statm")
    if status.exists():
        made["rss_mb"] = round(int(status.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6, 1)
    hottest = -1
    for zone in Path("/sys/class/thermal").glob("thermal_zone*/temp"):
        try:
            hottest = max(hottest, int(zone.read_text()))
        except (OSError, ValueError):
            continue  # a sensor of a part that is switched off
    return made if hottest < 0 else {**made, "chip_celsius": hottest / 1000}


def notify(message: str) -> None:
    """Tell systemd (sd_notify): a datagram to $NOTIFY_SOCKET; nothing where there is none."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
        try:
            out.sendto(message.encode(), address)
        except OSError:
            return  # no one listens any more: the watchdog acts if it must
