"""The bridge's process: read the configuration, load the model, run.

    python -m cloud_bridge --config bridge.toml [--json-lines FILE]

Its exit code is 0, or 2 with the reason on stderr.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

from cloud_bridge.alerts.budget import AlertBudget
from cloud_bridge.config import BridgeConfig
from cloud_bridge.contour.artist import Artist
from cloud_bridge.inference.choice import open_member
from cloud_bridge.inference.member import Member
from cloud_bridge.log import set_up
from cloud_bridge.narrator import Narrator
from cloud_bridge.service import Service
from cloud_bridge.store.folder import one_at_a_time, own_folder
from cloud_bridge.store.place import Unneeded
from cloud_bridge.store.store import Store
from cloud_bridge.timeline import Timeline
from familial.evaluate.ood_detector import ReferenceDistribution
from familial.evaluate.sequential import AlertCalibration
from wire.artifact.checkpoint import base_hash, checkpoint_hash
from wire.artifact.manifest import EngineManifest
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
    set_up()
    try:
        _serve(BridgeConfig.load(options.config), options.json_lines)
    except VeilsightError as error:
        print(f"cloud_bridge: {error}", file=sys.stderr)
        return 2
    return 0


def _serve(config: BridgeConfig, json_lines: str | None) -> None:
    stop = threading.Event()
    set_on_signals(stop)
    with contextlib.ExitStack() as stack:
        stack.enter_context(own_folder(Path(config.state.dir), shared=config.run.place.fenced))
        timeline = Timeline(sys.stdout, _open(stack, json_lines))
        stack.enter_context(contextlib.suppress(Unneeded))
        counts = _run(config, timeline, stop)
        timeline.stats(counts)


def _run(config: BridgeConfig, timeline: Timeline, stop: threading.Event) -> dict[str, Any]:
    """Load, connect and serve; returns the counts."""
    manifest = EngineManifest.load(config.model.engine)
    folder = Path(config.state.dir)
    with one_at_a_time(folder):
        key = DeviceKey.load_or_make(folder / "bridge.key")
    with open_member(config.model, manifest) as member:
        return _bridge(config, manifest, member, key, timeline, stop)


def _bridge(
    config: BridgeConfig,
    manifest: EngineManifest,
    member: Member,
    key: DeviceKey,
    timeline: Timeline,
    stop: threading.Event,
) -> dict[str, Any]:
    """Connect and serve with what is loaded; returns the counts."""
    folder = Path(config.state.dir)
    reference = ReferenceDistribution.load(config.model.checkpoint, manifest)
    if base := base_hash(config.model.checkpoint):
        own = checkpoint_hash(config.model.checkpoint)
        timeline.note(f"the cloud member is a quantised one: {own[:12]}..., of {base[:12]}...")
    artist = Artist.load(config.contour, config.model.checkpoint, manifest, config.alerts.unsure_below)
    narrator = Narrator.of(manifest, config.alerts.unsure_below)
    budget = _budget(config, manifest)
    for line in budget.told() if budget else ():
        timeline.note(line)
    if not config.run.place.number:
        timeline.note(f"spare: waits for one of {config.run.place.of} shards")
    store = Store.open(config.store, folder, config.run.place, stop.is_set)
    ours = tuple(each for each in config.cameras if store.place.shard.has(config.shard_name(each.name)))
    config = replace(config, cameras=ours)
    try:
        service = Service(config, manifest, member, key, store, timeline, reference, budget, artist, narrator)
        return service.run(stop.is_set)
    finally:
        store.close()


def _budget(config: BridgeConfig, manifest: EngineManifest) -> AlertBudget | None:
    """The thresholds of `[alerts] false_per_day`; None where it is not given. Raises ConfigError, CheckpointError."""
    if config.alerts.false_per_day is None:
        return None
    folder = config.model.checkpoint
    calibration = AlertCalibration.load(folder, manifest)
    shape = (manifest.labels, manifest.event_releases, manifest.window.slot_s)
    budget = AlertBudget.of(config.alerts, calibration, *shape, folder)
    if budget is not None:
        budget.warn()
    return budget


def _open(stack: contextlib.ExitStack, json_lines: str | None) -> TextIO | None:
    """Open the file of JSON lines until the stack ends."""
    try:
        return stack.enter_context(open(json_lines, "w")) if json_lines else None
    except OSError as error:
        raise ConfigError(f"--json-lines {json_lines}: {error.strerror}") from error


if __name__ == "__main__":
    sys.exit(main())
