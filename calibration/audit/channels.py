"""Whole devices with hostile eyes, on a real clock, and what a hostile broker learns of the scene besides z.

    planted_gate.py + planted_eye.py, a process each --TCP--> wiretap.py --> releases late or missing, other differences
    what the processes print, what they keep on disk --------------------> the eye's pixels, if they are there

The eye acts by a secret bit a slot, which stands for the scene.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from calibration.audit import planted_eye
from calibration.audit.wiretap import CONNECT, DISCONNECT, GONE, PUBLISH, Packet, Wiretap
from edge_runtime.gate.ledger import open_key
from familial.evaluate.intervals import auc_interval
from wire.artifact.manifest import EngineManifest
from wire.errors import DataError, MessageError
from wire.privacy.budget import slots_an_hour
from wire.protocol.keys import DeviceKey
from wire.protocol.message import coarse_time, open_features
from wire.protocol.state import open_state

__all__ = ["SLOT_S", "Heard", "Play", "play", "told_by_time"]

SLOT_S = 0.1
"""Real seconds of a slot: the device's clock runs faster than in a house."""

_ROOT = Path(__file__).resolve().parents[2]
_SITE = "audit"
_DELAY_S = SLOT_S / 2  # from a slot's end to its release, the most that the product allows: a loaded machine is fair
_PATIENCE_S = 240.0  # beyond the run itself, for its processes to start on a busy machine
_DELAYED_S = 30.0  # from the gate's look at its clock to the broker
_BLOCK = 5  # slots that are drawn anew together
_ACTED = {"sleeps": "missed", "dies": "missed", "speaks": "malformed"}  # what the gate counts where the eye acted
_TOPICS = {"state", "certificate", "features", "verdict/edge"}

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Play:
    """One run. eye: of `planted_eye.BEHAVIOURS`; key: of its secrets; leaky: a broken gate, for a control."""

    eye: str
    key: int
    leaky: bool = False


@dataclass(frozen=True, slots=True)
class Heard:
    """What came of a run.

    Attributes:
        lateness: float (slots,), real seconds after the median; SLOT_S where no release came.
        secrets: bool (slots,).
        different: what only this eye can explain, a line each time.
        spoken: where its pixels were found.
    """

    lateness: Floats
    secrets: npt.NDArray[np.bool_]
    different: Sequence[str]
    spoken: Sequence[str]


def play(engine: Path, folder: Path, plays: Sequence[Play], slots: int) -> list[Heard]:
    """Run a device for each of `plays`, all at once, for `slots` slots.

    Raises:
        DataError: a device published nothing: it could not be run here.
    """
    manifest = EngineManifest.load(engine)
    with Wiretap() as tap, ThreadPoolExecutor(len(plays)) as pool:
        return list(pool.map(lambda each: _play(engine, manifest, folder, tap, each, slots), plays))


def _play(engine: Path, manifest: EngineManifest, folder: Path, tap: Wiretap, how: Play, slots: int) -> Heard:
    name = f"{how.eye}-{how.key}"
    home = folder / name
    home.mkdir(parents=True)
    (home / "edge.toml").write_text(_config(engine, manifest, home, name, tap.port, slots))
    key = open_key(home / "device.key", home / "state")
    command = [sys.executable, "-m", "calibration.audit.planted_gate", "--eye", f"{how.eye}@{how.key}"]
    command += [*(["--leaky"] if how.leaky else []), "--config", str(home / "edge.toml")]
    path = os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH", ""))))
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "--summary", str(home / "summary.json")],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=home,
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        )
        try:
            status = process.wait(slots * SLOT_S + _PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            status = process.wait()
    time.sleep(SLOT_S)  # for the last packets
    client = f"veilsight-{_SITE}-{name}-{key.public.hex[:8]}"
    packets = [packet for packet in tap.packets() if packet.client == client]
    figures = {} if status else json.loads((home / "summary.json").read_text())
    releases, different = _opened(packets, manifest, key, name)
    if len(releases) < slots // 4 or figures and not figures["eye"][_ACTED.get(how.eye, "answered")]:
        said = (home / "log").read_text(errors="replace")[-800:]
        raise DataError(
            f"the device with the eye that {how.eye} released {len(releases)} of {slots} slots, and its eye did "
            f"{figures.get('eye')}; its log ends: {said!r}; run the audit again when the machine is less busy"
        )
    late = _lateness(releases)
    missing = int(np.isnan(late).sum()) - (int(figures["clock"]["skipped_slots"]) if figures else 0)
    different += [f"the gate ended with {status}"] if status else []
    different += ["a slot is missing that the gate's own clock did not skip"] * max(0, missing)
    secrets = np.array([bool(planted_eye.secret(how.key, slot)) for slot in range(len(late))])
    return Heard(np.nan_to_num(late, nan=SLOT_S), secrets, different, _spoken(home, packets, how.key))


def _config(engine: Path, manifest: EngineManifest, home: Path, camera: str, port: int, slots: int) -> str:
    """Return `edge.toml`; the scene is not looked at."""
    speed = manifest.window.slot_s / SLOT_S
    sections: Mapping[str, Mapping[str, Any]] = {
        "device": {"site": _SITE, "camera": camera, "key": str(home / "device.key"), "state_dir": str(home / "state")},
        "camera": {"source": "synthetic://walk", "speed": speed},
        "engine": {"folder": str(engine.resolve())},
        "broker": {"url": f"mqtt://127.0.0.1:{port}", "required": True},
        "run": {"windows": slots, "release_delay_s": _DELAY_S * speed},
    }
    lines = []
    for section, values in sections.items():
        lines += [f"[{section}]", *(f"{name} = {json.dumps(value)}" for name, value in values.items())]
    return "\n".join(lines) + "\n"


def _spoken(home: Path, packets: Sequence[Packet], key: int) -> list[str]:
    """Return where the eye's pixels are: in what the gate printed, in its files and their names, in its messages."""
    texts = {str(path.relative_to(home)): path.read_bytes() for path in sorted(home.rglob("*")) if path.is_file()}
    texts["names of files"] = "\n".join(texts).encode()
    texts |= {f"packet {index}": packet.body for index, packet in enumerate(packets)}
    forms = planted_eye.written(planted_eye.mark(key))
    return [name for name, text in texts.items() if any(form in text for form in forms)]


# --- what a subscriber makes of it ------------------------------------------------------------------------------------


_Release = tuple[int, float]  # slot, and when it came


def _opened(
    packets: Sequence[Packet], manifest: EngineManifest, key: DeviceKey, camera: str
) -> tuple[list[_Release], list[str]]:
    """Return the releases, and what in a device's packets cannot be explained without its eye."""
    releases, different, states = list[_Release](), list[str](), list[str]()
    ends = [packet.kind for packet in packets if packet.kind in (CONNECT, DISCONNECT, GONE)]
    if ends != [CONNECT, DISCONNECT, GONE]:
        different.append(f"connections began and ended as {ends}: another Last Will, or another reconnect")
    for packet in (packet for packet in packets if packet.kind == PUBLISH):
        name = packet.topic.removeprefix(f"veilsight/v1/{_SITE}/{camera}/")
        try:
            if name == "features":
                releases.append(_release(packet, manifest, key, camera))
            elif name == "state":
                states.append(_state(packet, key, camera))
            elif name not in _TOPICS:
                raise MessageError("topic", f"{packet.topic} is not one of a device's")
        except MessageError as error:
            different.append(f"{name}: {error}")
    hours = 1 + len(releases) // slots_an_hour(manifest.window.slot_s)
    changes = sum(one != two for one, two in pairwise(states))
    if changes > 1 + hours:  # the last says offline, and `watching` may change once an hour
        different += ["a state"] * (changes - 1 - hours)
    sizes = {len(packet.body) for packet in packets if packet.topic.endswith("/verdict/edge")}
    different += ["the size of a verdict"] * max(0, len(sizes) - 1)
    slots = [slot for slot, _ in releases]
    different += ["a slot twice, or out of order"] * sum(one >= two for one, two in pairwise(slots))
    return releases, different


def _release(packet: Packet, manifest: EngineManifest, key: DeviceKey, camera: str) -> _Release:
    """Return slot and time of a release of which slot, z, constants and clock explain every byte."""
    read = open_features(packet.body, key.public, _SITE, camera, manifest.n, manifest.model_id, len(manifest.sigmas))
    if read.seal(key, _SITE, camera) != packet.body or read.flags:
        raise MessageError("bytes", f"slot {read.slot}: bytes or flags that its fields do not explain")
    if not coarse_time(packet.at - _DELAYED_S) <= read.time_s <= coarse_time(packet.at):
        raise MessageError("time", f"slot {read.slot}: it says {read.time_s}, and came at {packet.at:.1f}")
    return read.slot, packet.at


def _state(packet: Packet, key: DeviceKey, camera: str) -> str:
    """Return what of a state may change."""
    state = open_state(packet.body, key.public, _SITE, camera)
    return f"{state.online} {state.watching} {state.blind}"


def _lateness(releases: Sequence[_Release]) -> Floats:
    """Return when each slot's release came after its turn, less the median; not a number where none came."""
    late = np.full(max(slot for slot, _ in releases) + 1, np.nan)
    for slot, at in releases:
        late[slot] = at - slot * SLOT_S
    return late - float(np.nanmedian(late))


def told_by_time(heard: Heard) -> tuple[float, tuple[float, float]]:
    """Return the AUC of the secrets by the times of the releases, and its interval.

    The attacker knows the secrets of one half of the slots, fits to them a Gaussian for each secret, of the ranks of a
    release's lateness and of the next one's, and judges the other half by the likelihood ratio; then the reverse.
    """
    late, slots = heard.lateness, np.arange(len(heard.lateness))
    rank = np.argsort(np.argsort(late)) / len(late)
    seen = np.stack([rank, np.roll(rank, -1), np.minimum(late, SLOT_S) / SLOT_S], axis=1)
    half, scores = (2 * slots // len(slots)), np.zeros(len(slots))
    for side in (0, 1):
        learn, test = half != side, half == side
        for secret, sign in ((True, 1.0), (False, -1.0)):
            mine = seen[learn & (heard.secrets == secret)]
            mean, spread = mine.mean(axis=0), mine.std(axis=0) + 1e-3
            scores[test] -= sign * (((seen[test] - mean) / spread) ** 2 / 2 + np.log(spread)).sum(axis=1)
    return auc_interval(scores, heard.secrets, slots // _BLOCK, half, seed=1)
