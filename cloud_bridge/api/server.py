"""The API's server, in a thread of the bridge's process.

ApiServer(config, engine, health, facts)  --> a socket, uvicorn, the application and its page
the bridge's thread --tell--> whoever listens to /v1/stream
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import uvicorn
from sqlalchemy.engine import Engine

from cloud_bridge.api.config import ApiConfig
from cloud_bridge.api.live import Hub
from cloud_bridge.api.metrics import Metrics
from cloud_bridge.api.routes import Health, make_app
from cloud_bridge.api.tokens import TokenFile
from cloud_bridge.commands.desk import CommandDesk
from cloud_bridge.telemetry.stages import Stages
from cloud_bridge.web.facts import Facts
from wire.errors import ConfigError
from wire.protocol.contour import Contour, contour_fields
from wire.protocol.message import Alert, Verdict, trace_id

__all__ = ["ApiServer"]

_END_S = 5.0
_LISTENERS = 128  # connections that wait to be taken
_AT_ONCE = 256  # connections that are served


class ApiServer:
    """The API, for a `with` block."""

    def __init__(
        self,
        config: ApiConfig,
        engine: Engine,
        health: Health,
        facts: Facts,
        desk: CommandDesk | None = None,
        stages: Stages | None = None,
        shard_name: Callable[[str], str] = str,
    ) -> None:
        """Take the port. Raises ConfigError where it cannot be had, or the files cannot be used.

        The arguments are those of `make_app`, and the bridge's moments; None: nothing is read here.
        """
        host, port = config.address
        self._hub, self._metrics = Hub(), Metrics(stages or Stages())
        tokens = TokenFile(Path(config.tokens))
        app = make_app(engine, tokens, config, self._hub, health, facts, self._metrics, desk, shard_name)
        try:
            family = socket.AF_INET6 if host.version == 6 else socket.AF_INET
            self._socket = socket.create_server((str(host), port), family=family, backlog=_LISTENERS)
        except OSError as error:
            raise ConfigError(
                f"[api] listen {config.listen}: {error.strerror}; free the port or name another"
            ) from error
        settings = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            server_header=False,
            limit_concurrency=_AT_ONCE,
            timeout_keep_alive=10,
            timeout_graceful_shutdown=int(_END_S) - 2,
            h11_max_incomplete_event_size=16 * 1024,
            ssl_certfile=config.cert or None,
            ssl_keyfile=config.key or None,
        )
        try:
            settings.load()
        except OSError as error:
            self._socket.close()
            raise ConfigError(f"[api] cert {config.cert}, key {config.key}: {error}") from error
        self._server = uvicorn.Server(settings)
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],), name="api", daemon=True)

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self._socket.getsockname()[1])

    def __enter__(self) -> ApiServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._hub.end()
        self._server.should_exit = True
        self._thread.join(_END_S)
        self._socket.close()

    def tell(self, camera: str, made: Verdict | Alert, number: str) -> None:
        """Give a verdict, or an alert with its id, to whoever listens; any thread, never waits."""
        self._metrics.tell(camera, made)
        slot = made.last_slot if isinstance(made, Verdict) else made.slot
        shown = {
            "camera": camera,
            "boot_id": f"{made.boot_id:016x}",
            "label": made.label,
            "probability": made.probability,
            "sentence": made.sentence,
            "time_s": made.time_s,
            "told_s": time.time(),
            "trace": trace_id(camera, made.boot_id, slot),
        }
        if isinstance(made, Verdict):
            self._hub.publish("verdict", {**shown, "last_slot": slot, "late": made.late, "unsure": made.unsure})
        else:
            more = {"first_id": made.first_id, "severity": made.severity, "slot": slot, "raised": made.raised}
            self._hub.publish("alert", {**shown, "id": number, **more})

    def show(self, camera: str, contour: Contour) -> None:
        """Give a figure to whoever looks at the camera; any thread, never waits."""
        if self._hub.count:
            self._hub.publish("contour", {"camera": camera, "told_s": time.time(), **contour_fields(contour)})
