"""The device's process: read the configuration, open every part, run the loop.

    python -m edge_runtime --config edge.toml

Exit codes: 0 the source ended or a stop was asked for, 2 configuration or input, 3 a privacy check failed,
4 the camera or the GPU is lost and a restart may help, 1 anything unforeseen.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import logging
import secrets
import signal
import time
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any

from edge_runtime.capture.camera import Camera, CameraLost
from edge_runtime.capture.clock import SlotClock
from edge_runtime.config import Config, load_config
from edge_runtime.eye.engine.base import self_test
from edge_runtime.eye.engine.registry import open_engine
from edge_runtime.gate.ledger import Ledger, open_key
from edge_runtime.gate.loop import Loop
from edge_runtime.gate.sampler import Sampler
from edge_runtime.health import Health, Stats, notify
from edge_runtime.uplink.publisher import Publisher
from wire import __version__
from wire.artifact.manifest import EngineManifest
from wire.errors import DeviceLost, PrivacyError, VeilsightError
from wire.privacy.budget import Budget, Terms
from wire.protocol.command import Orders
from wire.protocol.keys import DeviceKey, PublicKey

__all__ = ["main", "serve"]

log = logging.getLogger("veilsight")
_M_MMAP_THRESHOLD = -3  # of glibc's mallopt
_LOST_MARK = "camera-lost"  # file in [device] state_dir: when the camera was last given up
_LOST_AGAIN_S = 3600.0


def main(argv: list[str] | None = None) -> int:
    """Run the process and return its exit code."""
    parser = argparse.ArgumentParser(prog="edge_runtime", description="camera -> noised feature tensor -> MQTT")
    parser.add_argument("--config", required=True, help="edge.toml")
    parser.add_argument("--source", help="instead of [camera] source")
    parser.add_argument("--engine", help="instead of [engine] folder")
    parser.add_argument("--broker", help="instead of [broker] url")
    parser.add_argument("--summary", help="write local figures to this JSON file at the end; they are never published")
    given = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    flags = {"camera_source": given.source, "engine_folder": given.engine, "broker_url": given.broker}
    try:
        figures = serve(load_config(given.config, {name: value for name, value in flags.items() if value}))
    except VeilsightError as error:
        log.error("%s", error)
        return 4 if isinstance(error, (CameraLost, DeviceLost)) else 3 if isinstance(error, PrivacyError) else 2
    if given.summary:
        Path(given.summary).write_text(json.dumps(figures, indent=1) + "\n")
    return 0


def serve(config: Config) -> dict[str, Any]:
    """Open every part, run the loop to its end and return the local figures."""
    manifest = EngineManifest.load(config.engine_folder, _public_key(config.engine_signer))
    terms = _terms(config, manifest)
    clock = SlotClock(manifest.window.slot_s, config.run_release_delay_s, config.camera_speed)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: clock.stop.set())
    state_dir = Path(config.device_state_dir)
    stats = Stats("windows", "alone", "late", "failed", "verdicts", "undecided", "payload_bytes")
    with ExitStack() as stack:
        key = open_key(config.device_key, state_dir)
        camera = Camera(config, manifest.window, clock, _lost_after_s(config.camera_lost_after_s, state_dir))
        if camera.at_once:
            clock.start()
        stack.enter_context(camera)
        engine = stack.enter_context(closing(open_engine(config, manifest)))
        self_test(engine)
        noise = [Sampler(table, manifest.n) for table in manifest.tables(config.engine_folder)]
        ledger = Ledger(state_dir, terms.price, clock.slot_s, *terms.cut_off, key_id=key.public.hex)
        stack.callback(ledger.close)
        orders = _orders(config, terms, state_dir)
        boot_id = ledger.boots << 32 | secrets.randbits(32)
        state = _state(boot_id, manifest, key, orders.profile)
        publisher = Publisher(config, key, state, terms.certificate.to_json().encode())
        parts = {"loop": stats.figures, "ledger": ledger.totals, "publisher": publisher.figures}
        parts |= {"camera": camera.figures, "commands": orders.figures}
        health = Health(config.health_listen, parts, stalled_s=10 + 10 * clock.slot_s)
        stack.callback(health.close)
        log.info("%s: %s, profile %s; %s", _camera_name(config), camera.name, orders.profile, terms.words)
        notify("READY=1")
        names = (config.device_site, config.device_camera)
        loop = Loop(camera, clock, engine, noise, terms, orders, ledger, publisher, health, key, names, boot_id, stats)
        _give_memory_back()
        try:
            with publisher:
                publisher.reason = loop.run(config.run_windows)
        except CameraLost:
            (state_dir / _LOST_MARK).touch()
            raise
        return {**health.figures(), "cpu_s": round(time.process_time(), 3)}


def _public_key(text: str) -> PublicKey | None:
    return PublicKey.parse(text) if text else None


def _camera_name(config: Config) -> str:
    return f"{config.device_site}/{config.device_camera}"


def _terms(config: Config, manifest: EngineManifest) -> Terms:
    """The terms that `[privacy]` sets for this engine."""
    bits = (config.privacy_bits_per_event, config.privacy_bits_per_hour, config.privacy_bits_per_day)
    budget = Budget(*bits, config.privacy_over_budget)
    return Terms.of(manifest, config.privacy_max_profile, budget, config.privacy_adaptive_level)


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


def _give_memory_back() -> None:
    """Make glibc return memory to the system: what loading needed, now; later, every block of 64 kB at its `free`."""
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, 1 << 16)


def _lost_after_s(lost_after_s: float, state_dir: Path) -> float:
    """How long a camera may be lost before the process ends: longer where that happened less than an hour ago."""
    mark = state_dir / _LOST_MARK
    wait_s = _LOST_AGAIN_S - (time.time() - mark.stat().st_mtime) if mark.exists() else 0.0
    return max(lost_after_s, wait_s) if lost_after_s else 0.0
