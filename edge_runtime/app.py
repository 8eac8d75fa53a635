"""The gate: the process that `python -m edge_runtime` starts. It opens every part and runs the loop.

    python -m edge_runtime --config edge.toml            --check: say what can be opened and which confinements hold

Under systemd its lines go to the journal with their priority.

It starts the eye and the reader as processes of their own, or takes those that systemd started. It opens no camera, no
picture and no graph itself. Exit codes: 0 the source ended or a stop was asked for, 2 configuration or input, 3 a
privacy check failed, 1 anything unforeseen.
"""

from __future__ import annotations

import argparse
import json
import logging
import secrets
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from edge_runtime.box import check_box
from edge_runtime.capture.address import LIVE, backend_of, masked, tells_secrets
from edge_runtime.capture.clock import SlotClock
from edge_runtime.capture.sources import check_source
from edge_runtime.child_settings import ChildSettings
from edge_runtime.config import Config, load_config
from edge_runtime.confine import protect_gate, report, share_out_cores
from edge_runtime.gate.children import Child, accepted, inherited_sockets, spawned
from edge_runtime.gate.clients import EyeClient, ReaderClient
from edge_runtime.gate.ledger import Ledger, open_key
from edge_runtime.gate.loop import Loop
from edge_runtime.gate.sampler import Sampler
from edge_runtime.health import Health, Stats, notify
from edge_runtime.journal import start_log
from edge_runtime.link import MAX_SETTINGS
from edge_runtime.memory import give_back
from edge_runtime.uplink.publisher import Publisher
from wire import __version__
from wire.artifact.manifest import EngineManifest
from wire.errors import CameraError, ConfigError, PrivacyError, VeilsightError
from wire.files import disk_takes_nothing
from wire.privacy.budget import Budget, Terms
from wire.protocol.command import Orders
from wire.protocol.keys import DeviceKey, PublicKey
from wire.stopping import set_on_signals

__all__ = ["check", "main", "serve"]

log = logging.getLogger("veilsight")
_SPACE_S = 20.0  # between two looks at a disk that takes nothing
_Part = TypeVar("_Part")
_READY_S = 60.0  # for an eye to open a file and its engine


def main(argv: list[str] | None = None) -> int:
    """Run the process and return its exit code."""
    parser = argparse.ArgumentParser(prog="edge_runtime", description="camera -> noised feature tensor -> MQTT")
    parser.add_argument("--version", action="version", version=f"veilsight {__version__}")
    parser.add_argument("--config", required=True, help="edge.toml")
    parser.add_argument("--source", help="instead of [camera] source; without a password")
    parser.add_argument("--engine", help="instead of [engine] folder")
    parser.add_argument("--broker", help="instead of [broker] url")
    parser.add_argument("--summary", help="write local figures to this JSON file at the end; they are never published")
    parser.add_argument("--check", action="store_true", help="publish nothing: say what opens, and what confines it")
    parser.add_argument("--log-level", choices=("debug", "info", "warning", "error"), default="info")
    given = parser.parse_args(argv)
    start_log(given.log_level)
    flags = {"camera_source": given.source, "engine_folder": given.engine, "broker_url": given.broker}
    try:
        if given.source and tells_secrets(given.source):
            cure = "every user of this machine can read it there; write it into [camera] source"
            raise ConfigError(f"--source: no user, password or query belongs on a command line: {cure}")
        config = load_config(given.config, {name: value for name, value in flags.items() if value})
        cameras = check_box(given.config, config)
        if given.check:
            print(f"cameras of this box: {', '.join(cameras)}")
            return check(config)
        figures = serve(config)
    except VeilsightError as error:
        log.error("%s", error)
        return 3 if isinstance(error, PrivacyError) else 2
    if given.summary:
        Path(given.summary).write_text(json.dumps(figures, indent=1) + "\n")
    return 0


def check(config: Config) -> int:
    """Open camera and engine in confined processes, print what holds, and end. No key is read, nothing is published.

    Returns:
        0 where both children could be opened, else 2.

    Raises:
        ConfigError, ManifestError: `edge.toml` or the engine's manifest has a fault.
    """
    manifest = EngineManifest.load(config.engine_folder, _public_key(config.engine_signer))
    print(f"profile: {_terms(config, manifest).words}")
    print(f"\ngate\n{report(protect_gate())}")
    statuses = []
    for name, camera in (("eye", True), ("reader", False)):
        print(f"\n{name}", flush=True)
        running = spawned(name, ("--check",))()
        running.link.send(ChildSettings.of(config, share_out_cores()[1], camera).to_bytes())
        text = np.zeros(MAX_SETTINGS, np.uint8)
        while (length := running.link.receive(text, _READY_S)) > 0:
            print(text[:length].tobytes().decode(errors="replace"))
        if length < 0:
            print(f"no answer within {_READY_S:g} s; it is ended")
            running.end()
        statuses.append(running.wait())
    return 2 if any(statuses) else 0


def serve(config: Config) -> dict[str, Any]:
    """Open every part, run the loop to its end and return the local figures."""
    manifest = EngineManifest.load(config.engine_folder, _public_key(config.engine_signer))
    terms, live = _terms(config, manifest), backend_of(config.camera_source) in LIVE
    clock = SlotClock(manifest.window.slot_s, config.run_release_delay_s, config.camera_speed)
    manifest.check(config.engine_folder)
    check_source(config.camera_source)
    set_on_signals(clock.stop)
    if live:  # slot 0 begins when the process starts; for a file or a scene, when the eye is ready
        clock.start()
    state_dir = Path(config.device_state_dir)
    stats = Stats("windows", "alone", "verdicts", "undecided", "payload_bytes")
    with ExitStack() as stack:
        sockets = inherited_sockets()
        eye = EyeClient(_child("eye", config, clock, sockets), manifest.n, follows=not live)
        stack.callback(eye.close)
        key = _with_space(clock, lambda: open_key(config.device_key, state_dir))
        noise = [Sampler(table, manifest.n) for table in manifest.tables(config.engine_folder)]
        own_book = (state_dir, terms.price, clock.slot_s, *terms.cut_off)
        ledger = _with_space(clock, lambda: Ledger(*own_book, key_id=key.public.hex))
        stack.callback(ledger.close)
        orders = _orders(config, terms, state_dir)
        boot_id = ledger.boots << 32 | secrets.randbits(32)
        state = _state(boot_id, manifest, key, orders.profile)
        publisher = Publisher(config, key, state, terms.certificate.to_json().encode())
        if not live and not eye.ready(_READY_S):
            raise CameraError(f"{masked(config.camera_source)}: {eye.says}; to see why, add --check")
        reader = ReaderClient(_child("reader", config, clock, sockets), manifest.labels)
        stack.callback(reader.close)
        parts: dict[str, Callable[[], Mapping[str, float | str]]] = {"eye": eye.figures, "reader": reader.figures}
        parts |= {"loop": stats.figures, "ledger": ledger.totals, "publisher": publisher.figures}
        parts["outbox"] = publisher.outbox.figures
        parts |= {"commands": orders.figures, "clock": clock.figures}
        health = Health(config.health_listen, parts, stalled_s=10 + 10 * clock.slot_s)
        stack.callback(health.close)
        log.info("%s: %s, profile %s", _camera_name(config), masked(config.camera_source), orders.profile)
        log.info("%s", terms.words)
        notify("READY=1")
        names = (config.device_site, config.device_camera)
        refresh = round(config.run_refresh_eye_min * 60 / clock.slot_s) if live else 0
        own = (terms, orders, ledger, publisher, health, key, names, boot_id, stats, refresh)
        loop = Loop(manifest, clock, eye, reader, noise, *own)
        give_back()
        clock.start()
        eye.begin(clock.zero_s)
        with publisher:
            publisher.reason = loop.run(config.run_windows)
            notify("STOPPING=1")
        return {**health.figures(), "cpu_s": round(time.process_time(), 3)}


def _with_space(clock: SlotClock, open_part: Callable[[], _Part]) -> _Part:
    """Open key or ledger; where the disk is full or read-only, wait for its end, and tell systemd so."""
    while True:
        try:
            return open_part()
        except VeilsightError as error:
            if not disk_takes_nothing(error):
                raise
            log.error("%s; waiting until it can be written", error)
            notify(f"EXTEND_TIMEOUT_USEC={round(3e6 * _SPACE_S)}")
            if clock.stop.wait(_SPACE_S):
                raise


def _child(name: str, config: Config, clock: SlotClock, sockets: Mapping[str, socket.socket]) -> Child:
    """The eye or the reader: the one that systemd started where it gave us a socket, else one that we spawn."""
    begin = accepted(sockets[name], clock.stop) if name in sockets else spawned(name)
    cores = set() if name in sockets else share_out_cores()[1]  # a unit has chosen its cores itself
    return Child(name, begin, lambda: ChildSettings.of(config, cores, name == "eye", clock.zero_s).to_bytes())


def _public_key(text: str) -> PublicKey | None:
    return PublicKey.parse(text) if text else None


def _camera_name(config: Config) -> str:
    return f"{config.device_site}/{config.device_camera}"


def _terms(config: Config, manifest: EngineManifest) -> Terms:
    """The terms that `[privacy]` sets for this engine."""
    bits = (config.privacy_bits_per_event, config.privacy_bits_per_hour, config.privacy_bits_per_day)
    budget = Budget(*bits, config.privacy_over_budget)
    switched, cameras = config.privacy_adaptive_level, config.device_scene_cameras
    return Terms.of(manifest, config.privacy_max_profile, budget, switched, cameras)


def _orders(config: Config, terms: Terms, state_dir: Path) -> Orders:
    """The profile in force, and the operator whose commands may change it."""
    operator = _public_key(config.privacy_operator_key)
    file = state_dir / "command.json"
    return Orders(file, operator, _camera_name(config), [*terms.profiles], config.privacy_profile)


def _state(boot_id: int, manifest: EngineManifest, key: DeviceKey, profile: str) -> dict[str, Any]:
    """The fields of the state topic at the start; `wire/protocol/topics.py` lists what each depends on."""
    return {
        "boot_id": boot_id,
        "model_id": manifest.model_id,
        "slot_s": manifest.window.slot_s,
        "started_at": round(time.time()),
        "public_key": key.public.hex,
        "software": f"veilsight/{__version__}",
        "profile": profile,
        "blind": False,
    }
