"""What the page's server gives: files that lie in memory, headers that bind the browser, numbers that are bounds."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import httpx
import pytest

import cloud_bridge.web.files as web_files
from benchmarks.cloud.simulated_ward import SimulatedWard
from cloud_bridge.web.bounds import SECONDS, bounds
from cloud_bridge.web.files import POLICY
from tests.support.api_server import MANIFEST, Api
from tests.support.bridge_factory import a_state, release
from tests.support.services import PATIENCE_S, ROOT

STATIC = ROOT / "cloud_bridge" / "web" / "static"
FILES = sorted(path.name for path in STATIC.iterdir())


# --- files and headers


@pytest.mark.parametrize("path", ["/", "/visitor", "/static/main.js", "/static/none", "/v1/cameras", "/health", "/%00"])
def test_every_answer_binds_the_browser(shared: Api, path: str) -> None:
    headers = shared.ask(path, "").headers
    assert headers["content-security-policy"] == POLICY
    assert headers["x-content-type-options"] == "nosniff" and headers["referrer-policy"] == "no-referrer"
    assert headers["x-frame-options"] == "DENY" and headers["cache-control"] in ("no-store", "no-cache")


def test_the_policy_lets_in_nothing_from_elsewhere() -> None:
    rules = dict(rule.split(" ", 1) for rule in POLICY.split("; "))
    assert rules["default-src"] == rules["frame-ancestors"] == rules["base-uri"] == rules["form-action"] == "'none'"
    assert {rules[name] for name in ("script-src", "style-src", "img-src", "connect-src")} == {"'self'"}
    assert rules["require-trusted-types-for"] == "'script'" and rules["trusted-types"] == "'none'"


@pytest.mark.parametrize("name", FILES)
def test_every_file_is_served_whole_and_once(shared: Api, name: str) -> None:
    answer = shared.ask(f"/static/{name}", "")
    assert answer.status_code == 200 and answer.content == (STATIC / name).read_bytes()
    again = shared.ask(f"/static/{name}", "", headers={"If-None-Match": answer.headers["etag"]})
    assert again.status_code == 304 and again.content == b""
    head = shared.ask(f"/static/{name}", "", "HEAD")
    assert head.status_code == 200 and head.content == b"" and head.headers["etag"] == answer.headers["etag"]


@pytest.mark.parametrize(
    "path",
    [
        "..%2ffacts.py",
        "../facts.py",
        "%2e%2e/facts.py",
        "....//facts.py",
        "%00",
        "main.js%00",
        "MAIN.JS",
    ],
)
def test_no_other_file_can_be_asked_for(shared: Api, path: str) -> None:
    assert shared.ask(f"/static/{path}", "").status_code in (404, 405)


@pytest.mark.parametrize("name", [name for name in FILES if name.endswith((".js", ".html", ".css"))])
def test_no_file_makes_markup_of_text_or_names_another_host(name: str) -> None:
    text = (STATIC / name).read_text()
    forbidden = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|DOMParser|srcdoc| on\w+="
    assert not re.search(forbidden, text)
    hosts = set(re.findall(r"https?://[\w.-]+", text)) - {"http://www.w3.org"}  # the name space of SVG
    assert not hosts
    assert name.endswith(".html") or "@import" not in text
    assert not re.search(r"<style|style=|<script>", text)


def test_every_word_that_is_asked_for_is_in_the_table() -> None:
    table = "".join((STATIC / name).read_text() for name in ("words_staff.js", "words_visitor.js"))
    known = set(re.findall(r'^  "?([\w. ]+?)"?: \[', table, re.M))
    scripts = [path.read_text() for path in STATIC.glob("*.js") if not path.name.startswith("words_")]
    asked = {key for text in scripts for key in re.findall(r'\bt\("([\w. ]+)"', text)}
    assert len(asked) > 80 and asked <= known, asked - known


def test_the_wheel_has_the_files(tmp_path: Path) -> None:
    command = [sys.executable, "setup.py", "-q", "build_py", "--build-lib", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (tmp_path / "cloud_bridge" / "web" / "static").iterdir()) == FILES


def test_a_file_is_read_once(shared: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web_files, "_FOLDER", Path("/nowhere"))
    assert shared.ask("/", "").status_code == 200


# --- who may, and what they get


@pytest.mark.parametrize("path", ["overview", "minute", "devices/lab/door", "bounds", "qr?link=http://x/"])
@pytest.mark.parametrize("who", ["", "old", "vs_nonsense"])
def test_nobody_gets_in_without_a_valid_token(shared: Api, path: str, who: str) -> None:
    assert shared.ask(f"/v1/{path}", who).status_code in (401, 429)


def test_the_overview_has_all_that_a_page_must_know(api: Api) -> None:
    found = api.ask("/v1/overview", "nurse").json()
    assert found["who"]["role"] == "nurse" and found["who"]["name"] == "nurse" and found["well"] is True
    assert [(each["camera"], each["open"], each["offline"]) for each in found["cameras"]] == [
        ("lab/door", ["fall"], False),
        ("lab/hall", [], False),
    ]
    (alert,) = found["alerts"]
    assert (alert["id"], alert["open"], alert["sentence"]) == (api.alert, True, "someone lies on the floor")
    assert found["quiet"] == "normal" and abs(found["now_s"] - time.time()) < PATIENCE_S


def test_a_device_that_says_offline_is_offline(api: Api) -> None:
    api.harness.send(a_state("offline", 1, 2), name="state")
    door, hall = api.ask("/v1/overview").json()["cameras"]
    assert (door["offline"], hall["offline"]) == (True, False)
    assert api.ask("/v1/devices/lab/door").json()["counts"]["received"] == 12


def test_a_risk_that_is_over_is_told_until_somebody_has_seen_it(tmp_path: Path) -> None:
    """A fall that ends; then what is of a camera, and what is long ago, is not told."""
    cameras = ["lab/door", "lab/hall"]
    with SimulatedWard(tmp_path, MANIFEST, cameras) as ward:
        number = ward.alert("lab/door", "fall")
        ward.alert("lab/door", "stale")
        ward.alert("lab/hall", "fight", at_s=time.time() - 86_400.0)
        for camera, label in (("lab/door", "fall"), ("lab/door", "stale"), ("lab/hall", "fight")):
            ward.alert(camera, label, raised=False)

        def told() -> list[tuple[str, bool]]:
            head = {"Authorization": f"Bearer {ward.tokens['nurse']}"}
            rows = httpx.get(f"{ward.url}/v1/overview", headers=head, timeout=PATIENCE_S).json()["alerts"]
            return [(row["id"], row["open"]) for row in rows]

        assert told() == [(number, False)]
        head = {"Authorization": f"Bearer {ward.tokens['nurse']}"}
        httpx.post(f"{ward.url}/v1/alerts/{number}/acknowledge", headers=head, timeout=PATIENCE_S).raise_for_status()
        assert told() == []
        again = ward.alert("lab/door", "fall")
        assert told() == [(again, True)]


def test_what_the_bridge_cannot_write_is_said_without_its_words(api: Api) -> None:
    api.harness.bridge.trouble, api.harness.bridge._looked_s = "the disk of ward 3 is full", -1e9
    api.harness.bridge.look()
    answer = api.ask("/v1/overview")
    assert answer.json()["well"] is False and "disk" not in answer.text


def test_another_site_s_cameras_are_nowhere(api: Api) -> None:
    api.harness.now_s = time.time()
    api.harness.send(release(12, 5, manifest=MANIFEST, time_s=960))
    assert api.ask("/v1/minute", "lab").json()["rows"]
    found = api.ask("/v1/overview", "stranger").json()
    assert (found["cameras"], found["alerts"]) == ([], [])
    assert api.ask("/v1/minute", "stranger").json()["rows"] == {}
    hidden, unknown = (api.ask(f"/v1/devices/lab/{name}", "stranger") for name in ("door", "nobody"))
    assert hidden.status_code == unknown.status_code == 404
    assert hidden.json()["detail"].replace("door", "nobody") == unknown.json()["detail"]


def test_the_last_minute_is_the_last_minute(api: Api) -> None:
    assert api.ask("/v1/minute").json()["rows"] == {}  # all verdicts are old
    api.harness.now_s = time.time()
    api.harness.send(release(12, 5, manifest=MANIFEST, time_s=960))
    rows = api.ask("/v1/minute").json()["rows"]
    assert list(rows) == ["lab/door"] and [row[1] for row in rows["lab/door"]] == ["normal"]


def test_who_has_seen_an_alert_is_told_to_all(api: Api) -> None:
    head = {"Authorization": f"Bearer {api.tokens['viewer']}"}
    with api.http.stream("GET", "/v1/stream", headers=head) as stream:
        lines = stream.iter_lines()
        assert next(lines) == "event: ready"
        api.ask(f"/v1/alerts/{api.alert}/acknowledge", "nurse", "POST")
        api.ask(f"/v1/alerts/{api.alert}/comments", "nurse", "POST", json={"words": "with her"})
        seen = json.loads(next(line for line in lines if '"seen_by"' in line).removeprefix("data: "))
        said = json.loads(next(line for line in lines if '"count"' in line).removeprefix("data: "))
    assert (seen["type"], seen["id"], seen["seen_by"]) == ("seen", api.alert, "nurse")
    assert (said["type"], said["id"], said["count"]) == ("comment", api.alert, 1) and "with her" not in str(said)


# --- the page for visitors


def test_the_page_for_visitors_is_the_same_for_every_name(shared: Api) -> None:
    answers = [shared.ask(f"/visitor/{name}", "") for name in ("lab/door", "lab/nobody", "elsewhere", "elsewhere/x")]
    assert len({(each.status_code, each.content) for each in answers}) == 1
    for name in ("%3Cscript%3E", "a/b/c", "a%0d%0ab"):
        assert shared.ask(f"/visitor/{name}", "").status_code in (404, 422)


def test_the_numbers_for_visitors_are_the_certificate_s(shared: Api) -> None:
    found = shared.ask("/v1/visitor", "").json()
    event = MANIFEST.certificate().document()["event"]
    assert found["n"] == MANIFEST.n and found["labels"] == [*MANIFEST.labels]
    assert found["spans"]["event"]["name_one_of"]["1000"] == "46.4"
    assert Decimal(found["spans"]["event"]["bits"]) >= Decimal(str(event["bits"]))
    assert not {"camera", "cameras", "alerts"} & found.keys()


def test_no_visitor_waits_for_them(tmp_path: Path) -> None:
    """Working them out takes long, and a visitor has no token: it is done before anybody can ask."""
    bounds.cache_clear()
    with Api(tmp_path) as api:
        before = bounds.cache_info()
        assert before.misses == 1 and api.ask("/v1/visitor", "").status_code == 200
        assert bounds.cache_info().misses == 1


def test_every_number_is_a_bound_rounded_up() -> None:
    certificate = MANIFEST.certificate()
    found = bounds((certificate,))
    for cameras, rows in found["cameras"].items():
        assert [row["seconds"] for row in rows] == [*SECONDS]
        for row in rows:
            exact = certificate.reveals(certificate.releases_touched(row["seconds"]), int(cameras))
            assert row["releases"] == exact["releases"] and Decimal(row["bits"]) >= Decimal(repr(exact["bits"]))
            for kind in ("name_one_of", "attribute"):
                for name, chance in exact[kind].items():
                    shown = Decimal(row[kind][name])
                    assert Decimal(repr(chance)) * 100 <= shown <= min(Decimal(100), Decimal(repr(chance)) * 101)


@pytest.mark.parametrize(("views", "together"), [(1, 1), (2, 2), (3, 4), (4, 4)])
def test_the_cameras_of_a_scene_add_up(views: int, together: int) -> None:
    certificate = MANIFEST.certificate()
    found = bounds((certificate,), views)
    exact = certificate.reveals(MANIFEST.event_releases, together)
    assert found["views"] == together and found["spans"]["event"]["releases"] == exact["releases"]
    assert Decimal(found["spans"]["event"]["bits"]) >= Decimal(repr(exact["bits"]))
    assert found["cameras"] == bounds((certificate,))["cameras"]


def test_visitors_of_a_scene_are_told_the_sum(tmp_path: Path) -> None:
    with Api(tmp_path, views=2) as api:
        found = api.ask("/v1/visitor", "").json()
    alone = bounds((MANIFEST.certificate(),))
    assert found["views"] == 2 and found["spans"] == bounds((MANIFEST.certificate(),), 2)["spans"] != alone["spans"]
    assert found["in_view"] == [row for row in alone["cameras"]["2"] if row["seconds"] in (2, 10, 60, 300)]


def test_of_several_certificates_the_worst_counts() -> None:
    own = MANIFEST.certificate()
    worse = own.at(own.sigma / 2)
    assert bounds((own, worse)) == bounds((worse, own))
    assert bounds((own, worse))["cameras"] == bounds((worse,))["cameras"]
    assert bounds((own, worse))["time_in_view_s"] == bounds((worse,))["time_in_view_s"]
    assert bounds((own, worse))["spans"] == bounds((worse,))["spans"] != bounds((own,))["spans"]
    assert replace(own, sigma=worse.sigma) == worse


@pytest.mark.parametrize("link", ["javascript:alert(1)", "", "http://a b", "ftp://x/", "https://x/" + "y" * 400])
def test_only_an_address_becomes_a_code(shared: Api, link: str) -> None:
    assert shared.ask("/v1/qr", params={"link": link}).status_code == 422


def test_a_code_says_its_link(shared: Api) -> None:
    """Read by a decoder that is not ours."""
    import cv2
    import numpy as np

    link = "https://bridge.example:8443/visitor/ward-3/corridor"
    found = shared.ask("/v1/qr", params={"link": link}).json()
    picture = np.full((found["size"], found["size"]), 255, np.uint8)
    for x, y in re.findall(r"M(\d+) (\d+)h1v1h-1z", found["path"]):
        picture[int(y), int(x)] = 0
    large = cv2.resize(picture, None, fx=8, fy=8, interpolation=cv2.INTER_NEAREST)
    assert cv2.QRCodeDetector().detectAndDecode(large)[0] == link
