"""Health: red within 30 s of a dead camera, broker or database, and of a bridge that stands still; green otherwise."""

from __future__ import annotations

import time
from pathlib import Path

from cloud_bridge.api.tokens import Caller
from cloud_bridge.api.wellness import judge
from cloud_bridge.bridge import Bridge
from tests.support.api_server import Api
from tests.support.bridge_factory import OTHER, Harness, make_manifest, release

MANIFEST = make_manifest(slot_s=1.0)
WARD = Caller("w", "viewer", frozenset({"*"}), 1e12)


def look(bridge: Bridge) -> None:
    bridge._looked_s = -1e9
    bridge.look()


def send(harness: Harness, now_s: float, slot: int, hall: bool = True) -> None:
    harness.now_s = now_s
    harness.send(release(slot, manifest=MANIFEST))
    if hall:
        harness.send(release(slot, manifest=MANIFEST, key=OTHER, camera="hall"), camera="lab/hall")


def test_a_camera_that_is_silent_is_named_within_thirty_seconds(tmp_path: Path) -> None:
    harness = Harness(tmp_path, MANIFEST)
    red_after_s = -1
    for second in range(60):
        send(harness, float(second), second, hall=second < 10)
        look(harness.bridge)
        found = judge(harness.bridge.health, WARD)
        if found["status"] == "failing" and red_after_s < 0:
            red_after_s = second - 9
            assert found["silent"] == ["lab/hall"] and found["broker"] == found["database"] == found["bridge"] == "ok"
    assert 10 <= red_after_s <= 30
    send(harness, 60.0, 60)
    look(harness.bridge)
    assert judge(harness.bridge.health, WARD) == {
        "status": "ok",
        "bridge": "ok",
        "database": "ok",
        "broker": "ok",
        "models": "ok",
        "silent": [],
        "unknown_models": {},
    }


def test_another_site_s_cameras_are_not_named() -> None:
    found = {"connected": True, "silent": ["lab/door"], "looked_s": time.monotonic()}
    assert judge(found, Caller("x", "viewer", frozenset({"other"}), 1e12))["status"] == "ok"
    assert judge(found, Caller("x", "viewer", frozenset({"lab"}), 1e12))["silent"] == ["lab/door"]


def test_broker_database_and_a_bridge_that_stands_still(tmp_path: Path) -> None:
    harness = Harness(tmp_path, MANIFEST)
    send(harness, 0.0, 0)
    harness.link.connected = False
    look(harness.bridge)
    assert judge(harness.bridge.health, WARD)["broker"] == "failing"
    harness.link.connected, harness.bridge.trouble = True, "no space left"
    look(harness.bridge)
    found = judge(harness.bridge.health, WARD)
    assert (found["status"], found["database"], found["broker"]) == ("failing", "failing", "ok")
    harness.bridge.trouble = ""
    look(harness.bridge)
    assert judge(harness.bridge.health, WARD)["status"] == "ok"
    assert judge(harness.bridge.health, WARD, time.monotonic() + 29.0)["bridge"] == "failing"
    assert judge({}, WARD)["status"] == "failing"


def test_models_that_a_reload_did_not_take_and_a_camera_of_none_of_them_are_named() -> None:
    well = {"connected": True, "looked_s": time.monotonic(), "unknown_models": {}}
    assert judge(well, WARD)["status"] == "ok"
    found = judge({**well, "reload": "[[models]] 1: no manifest"}, WARD)
    assert (found["status"], found["models"]) == ("failing", "failing")
    strange = {**well, "unknown_models": {"lab/door": "00000000000000ab"}}
    assert judge(strange, WARD)["status"] == "failing"
    assert judge(strange, WARD)["unknown_models"] == {"lab/door": "00000000000000ab"}
    assert judge(strange, Caller("x", "viewer", frozenset({"other"}), 1e12))["status"] == "ok"


def test_the_api_answers_503_and_says_what_is_dead(tmp_path: Path) -> None:
    with Api(tmp_path) as api:
        look(api.harness.bridge)
        assert api.ask("/v1/health").status_code == 200
        api.harness.link.connected = False
        look(api.harness.bridge)
        answer = api.ask("/v1/health")
        assert (answer.status_code, answer.json()["broker"]) == (503, "failing")
        assert api.ask("/health", "").status_code == 200  # whoever restarts a bridge must not for a dead camera
        assert "veilsight_bridge_connected 0" in api.ask("/metrics").text
        assert api.ask("/v1/health", "").status_code == 401
