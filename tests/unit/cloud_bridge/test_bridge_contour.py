"""Figures of a bridge: one a release, a function of z, none where nothing of now is known, in no store and no queue."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa

from cloud_bridge.api.live import Listener
from cloud_bridge.config import BridgeConfig
from cloud_bridge.contour.artist import Artist, ContourConfig
from cloud_bridge.store import tables
from tests.support.bridge_factory import DEVICE, Harness, a_state, make_manifest, release
from tests.support.contour_factory import make_decoder
from wire.errors import CheckpointError, ConfigError
from wire.protocol.contour import POSTURES, Contour, open_contour
from wire.protocol.message import FLAG_SPENT, open_features

MANIFEST = make_manifest()
CAMERA = "lab/door"


def drawing(folder: Path, knows: tuple[str, ...] = ("posture", "count")) -> Harness:
    return Harness(folder, MANIFEST, artist=Artist(make_decoder(knows=knows), MANIFEST, unsure_below=0.05))


def figures(harness: Harness) -> list[Contour]:
    """Everything that was published as a contour, verified."""
    sent = [message for message in harness.link.sent if message.topic == f"veilsight/v1/{CAMERA}/contour"]
    assert all(message.qos == 0 and not message.retain for message in sent)
    return [open_contour(m.payload, harness.key.public, "lab", "door", MANIFEST.model_id) for m in sent]


def stream(values: list[int], first: int = 0, flags: int = 0) -> list[bytes]:
    return [release(first + slot, value, manifest=MANIFEST, flags=flags) for slot, value in enumerate(values)]


def test_an_event_has_one_figure(tmp_path: Path) -> None:
    harness = drawing(tmp_path)
    harness.send(*stream(list(range(0, 100, 10))))
    assert [each.slot for each in figures(harness)] == [7, 8, 9] and len(harness.verdicts()) == 3
    assert all(each.boot_id == 1 and not each.unsure for each in figures(harness))


def test_a_figure_is_a_function_of_what_was_published(tmp_path: Path) -> None:
    """Everything of it is worked out anew from the releases' bytes, which hold z and nothing else of the scene."""
    harness, sent = drawing(tmp_path), stream([-40, 30, 0, 7, 99, -3, 12, 55])
    harness.send(*sent)
    z = [open_features(each, DEVICE.public, "lab", "door", MANIFEST.n, MANIFEST.model_id).z for each in sent]
    found = make_decoder().read(np.stack(z).reshape(1, 8, 4, 16), np.ones((1, 8), bool), float(MANIFEST.sigma))
    [figure] = figures(harness)
    assert figure.posture == pytest.approx(dict(zip(POSTURES, found.posture[0].tolist(), strict=True)), abs=1e-3)
    assert np.abs(figure.first.radii - found.first[0]).max() < 0.005
    assert np.abs(figure.second.spread - found.second_spread[0]).max() < 0.005


def test_another_z_is_another_figure(tmp_path: Path) -> None:
    """What fails where a figure is drawn of something else than the releases, such as of a clean code kept aside."""
    made = []
    for name, values in (("one", [20] * 8), ("other", [20] * 7 + [-150])):
        harness = drawing(tmp_path / name)
        harness.send(*stream(values))
        made.append(figures(harness)[0])
    assert np.abs(made[0].first.radii - made[1].first.radii).max() > 0.004


def test_what_the_codes_do_not_tell_is_left_open(tmp_path: Path) -> None:
    harness = drawing(tmp_path, knows=("count",))
    harness.send(*stream([5] * 8))
    [figure] = figures(harness)
    assert figure.posture is None and figure.moving is None and figure.right is None and figure.count is not None


def test_a_late_event_has_none(tmp_path: Path) -> None:
    harness = drawing(tmp_path)
    harness.now_s = 3_000.0
    harness.send(*[release(slot, 5, manifest=MANIFEST, time_s=60) for slot in range(9)])
    assert harness.verdicts() and all(verdict.late for verdict in harness.verdicts()) and figures(harness) == []


def test_a_blind_camera_has_none(tmp_path: Path) -> None:
    harness = drawing(tmp_path)
    harness.send(*stream([5] * 9))
    count = len(figures(harness))
    harness.send(*stream([0] * 4, 9, FLAG_SPENT))
    assert len(figures(harness)) == count == 2 and any(alert.label == "blind" for alert in harness.alerts())
    harness.send(*stream([5] * 2, 13))
    assert len(figures(harness)) > count


def test_a_camera_that_does_not_watch_has_none(tmp_path: Path) -> None:
    harness = drawing(tmp_path)
    harness.send(*stream([5] * 8))
    harness.send(a_state("online", watching=False), name="state")
    harness.send(*stream([5] * 3, 8))
    assert [each.slot for each in figures(harness)] == [7]
    harness.send(a_state("online", count=2), name="state")
    harness.send(*stream([5], 11))
    assert [each.slot for each in figures(harness)] == [7, 11]


def test_a_batch_of_one_camera_gives_its_newest_figure(tmp_path: Path) -> None:
    from cloud_bridge.ingest.transport import Inbound

    harness = drawing(tmp_path)
    harness.bridge.handle([Inbound(CAMERA, "features", payload, False) for payload in stream([5] * 12)])
    assert len(harness.verdicts()) == 5 and [each.slot for each in figures(harness)] == [11]


def test_nothing_is_stored_and_nothing_waits_for_a_broker(tmp_path: Path) -> None:
    harness = drawing(tmp_path)
    harness.link.connected = False
    harness.send(*stream([5] * 10))
    with harness.bridge._store.engine.connect() as connection:
        waiting = [bytes(row[0]) for row in connection.execute(sa.select(tables.outbox.c.payload))]
    assert waiting and not any(b"not a picture" in payload for payload in waiting)
    harness.link.connected = True
    harness.bridge.rest()
    assert len(harness.verdicts()) == 3 and figures(harness) == []


def test_whoever_looks_gets_it_after_the_commit(tmp_path: Path) -> None:
    harness, seen = drawing(tmp_path), list[tuple[str, int]]()
    harness.bridge.viewers.append(lambda camera, contour: seen.append((camera, contour.slot)))
    harness.send(*stream([5] * 9))
    assert seen == [(CAMERA, 7), (CAMERA, 8)]


def test_without_an_artist_there_is_none(tmp_path: Path) -> None:
    harness = Harness(tmp_path, MANIFEST)
    harness.send(*stream([5] * 9))
    assert len(harness.verdicts()) == 2 and figures(harness) == []


# --- what is loaded, and for whom -------------------------------------------------------------------------------------


def test_a_checkpoint_decides_by_itself(tmp_path: Path) -> None:
    assert Artist.load(ContourConfig(), tmp_path, MANIFEST, 0.0) is None
    make_decoder().save(tmp_path)
    assert Artist.load(ContourConfig(), tmp_path, MANIFEST, 0.0) is not None
    assert Artist.load(ContourConfig("off"), tmp_path, MANIFEST, 0.0) is None


def test_one_that_is_wanted_and_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has no contour; python -m familial.contour.train"):
        Artist.load(ContourConfig("on"), tmp_path, MANIFEST, 0.0)


def test_another_familys_contour_stops_the_bridge_by_name(tmp_path: Path) -> None:
    make_decoder("d" * 64, family="somebody-elses").save(tmp_path)
    with pytest.raises(CheckpointError, match="'somebody-elses'"):
        Artist.load(ContourConfig(), tmp_path, MANIFEST, 0.0)


def test_the_key_has_three_values() -> None:
    cameras = [{"site": "lab", "camera": "door", "public_key": DEVICE.public.hex}]
    assert BridgeConfig.parse({"cameras": cameras, "contour": {"enabled": "off"}}).contour.enabled == "off"
    with pytest.raises(ConfigError, match=r'\[contour\] enabled is \'yes\'; give "auto", "on" or "off"'):
        BridgeConfig.parse({"cameras": cameras, "contour": {"enabled": "yes"}})


@pytest.mark.parametrize(("kind", "gets"), [("", False), ("verdict", False), ("contour", True)])
def test_figures_are_for_who_asks_for_them(kind: str, gets: bool) -> None:
    listener = Listener(kind, lambda camera: True)
    listener.put("contour", {"camera": CAMERA})
    assert bool(listener._queue) == gets
