"""The bridge's process: read the configuration, load the models, run; at SIGHUP, read the models anew.

    python -m cloud_bridge --config bridge.toml [--json-lines FILE]

Its exit code is 0, or 2 with the reason on stderr.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

from cloud_bridge.config import BridgeConfig
from cloud_bridge.log import set_up
from cloud_bridge.models import Models, open_models
from cloud_bridge.reload import Reload
from cloud_bridge.service import Service
from cloud_bridge.store.folder import one_at_a_time, own_folder
from cloud_bridge.store.place import Unneeded
from cloud_bridge.store.store import Store
from cloud_bridge.timeline import Timeline
from wire.errors import ConfigError, VeilsightError
from wire.protocol.keys import DeviceKey
from wire.stopping import set_on_signals

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the bridge; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m cloud_bridge", description="Read noised features from MQTT; publish verdicts and alerts."
    )
    parser.add_argument("--config", default="bridge.toml", help="the bridge's TOML file (default: bridge.toml)")
    parser.add_argument(
        "--json-lines", metavar="FILE", help="also write verdicts, alerts and counts as JSON, one document a line"
    )
    options = parser.parse_args(argv)
    try:
        _serve(options.config, options.json_lines)
    except VeilsightError as error:
        print(f"cloud_bridge: {error}", file=sys.stderr)
        return 2
    return 0


class _Stop(threading.Event):
    """Whether the process is to end.

    Attributes:
        wake: Called once it is.
    """

    def __init__(self) -> None:
        super().__init__()
        self.wake: Callable[[], None] = lambda: None

    def set(self) -> None:
        """Let it end."""
        super().set()
        self.wake()


def _serve(path: str, json_lines: str | None) -> None:
    config = BridgeConfig.load(path)
    set_up(config.log)
    stop = _Stop()
    set_on_signals(stop)
    with contextlib.ExitStack() as stack:
        stack.enter_context(own_folder(Path(config.state.dir), shared=config.run.place.fenced))
        timeline = Timeline(sys.stdout, _open(stack, json_lines))
        stack.enter_context(contextlib.suppress(Unneeded))
        counts = _run(path, config, timeline, stop)
        timeline.stats(counts)


def _run(path: str, config: BridgeConfig, timeline: Timeline, stop: _Stop) -> dict[str, Any]:
    """Load, connect and serve; returns the counts."""
    folder = Path(config.state.dir)
    with one_at_a_time(folder):
        key = DeviceKey.load_or_make(folder / "bridge.key")
    reload = Reload(lambda held: open_models(_with_models_of(path, config), held))
    reload.on_signal()
    models = open_models(config)
    try:
        return _bridge(config, models, key, timeline, stop, reload)
    finally:
        for model in models.values():
            model.close()


def _with_models_of(path: str, config: BridgeConfig) -> BridgeConfig:
    """The configuration that is in force, with the models that its file names now."""
    now = BridgeConfig.load(path)
    return replace(config, model=now.model, models=now.models)


def _bridge(
    config: BridgeConfig, models: Models, key: DeviceKey, timeline: Timeline, stop: _Stop, reload: Reload
) -> dict[str, Any]:
    """Connect and serve with what is loaded; returns the counts."""
    for line in (line for model in models.values() for line in model.told()):
        timeline.note(line)
    if not config.run.place.number:
        timeline.note(f"spare: waits for one of {config.run.place.of} shards")
    store = Store.open(config.store, Path(config.state.dir), config.run.place, stop.is_set)
    ours = tuple(each for each in config.cameras if store.place.shard.has(config.shard_name(each.name)))
    with contextlib.closing(store):
        service = Service(replace(config, cameras=ours), models, key, store, timeline, reload)
        stop.wake = service.hurry
        try:
            return service.run(stop.is_set)
        finally:
            for model in service.bridge.models.values():
                model.close()


def _open(stack: contextlib.ExitStack, json_lines: str | None) -> TextIO | None:
    """Open the file of JSON lines until the stack ends."""
    try:
        return stack.enter_context(open(json_lines, "w")) if json_lines else None
    except OSError as error:
        raise ConfigError(f"--json-lines {json_lines}: {error.strerror}") from error


if __name__ == "__main__":
    sys.exit(main())
