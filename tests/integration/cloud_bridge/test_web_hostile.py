"""Whatever the network says is shown as text: markup, huge and piled letters, other directions, control characters."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Route, expect

from benchmarks.cloud.simulated_ward import SimulatedWard
from tests.support.bridge_factory import make_manifest
from tests.support.browser import DESK, PHONE, Visit, visiting

SCRIPT = "<img src=x onerror=alert(1)><script>alert(2)</script>"
HOSTILE = {
    "markup": SCRIPT,
    "huge": "W" * 5000,
    "piled": "e" + "\u0301" * 3000,
    "right to left": "\u202e" + "dekcah" + "\u2066\u05d0\u05d1\u05d2",
    "control": "a\0b\x1b[31mc\u2028d\ufeffe",
    "template": "{{7*7}} ${7*7} {who}",
    "address": "javascript:alert(3)",
}
NAMES = [f"ward-{n}/{text[:100]}" for n, text in enumerate(HOSTILE.values())]
PLAIN = "ward-9/plain"


@pytest.fixture(scope="module")
def ward(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimulatedWard]:
    with SimulatedWard(tmp_path_factory.mktemp("hostile"), make_manifest(), [*NAMES, PLAIN]) as ward:
        for name, text in zip(NAMES, HOSTILE.values(), strict=True):
            ward.verdict(name, label=text[:64], sentence=text)
            ward.alert(name, text[:64], sentence=text)
        yield ward


def unharmed(visit: Visit) -> None:
    """Nothing ran, nothing became an element, nothing turned or hid the words around it."""
    assert visit.faults == []
    assert visit.page.evaluate("document.querySelectorAll('img, script:not([src]), iframe, object').length") == 0
    assert visit.page.evaluate("document.querySelectorAll('a[href^=javascript]').length") == 0
    shown = visit.page.evaluate("document.body.textContent")
    assert not any(mark in shown for mark in "\0\x1b\u202e\u2066\u2028\ufeff")
    assert "\u0301" * 4 not in shown
    assert visit.too_wide == []


@pytest.mark.parametrize("size", [PHONE, DESK], ids=["phone", "desk"])
def test_names_labels_and_sentences_stay_text(browser: Browser, ward: SimulatedWard, size: tuple[int, int]) -> None:
    with visiting(browser, ward, "nurse", viewport={"width": size[0], "height": size[1]}) as visit:
        expect(visit.page.locator("#open li")).to_have_count(len(NAMES))
        expect(visit.page.locator("#open")).to_contain_text(SCRIPT)
        expect(visit.page.locator("#open")).to_contain_text("${7*7} {who}")
        unharmed(visit)
        tallest = visit.page.evaluate(
            "Math.max(...[...document.querySelectorAll('#open li')].map((e) => e.offsetHeight))"
        )
        assert tallest < 3 * size[1]  # a huge sentence hides no other alert
        for view in ("cameras", "visitors", "settings"):
            visit.see(view)
            unharmed(visit)
        visit.see("cameras")
        expect(visit.page.locator(".camera")).to_have_count(len(NAMES) + 1)
        ward.verdict(NAMES[0], label=SCRIPT[:64], sentence=SCRIPT)
        expect(visit.page.locator(".camera").first).to_contain_text("<img src=x")
        unharmed(visit)


def test_comments_stay_text(browser: Browser, ward: SimulatedWard) -> None:
    with visiting(browser, ward, "nurse") as visit:
        visit.page.get_by_role("button", name="Comment").first.click()
        for text in (SCRIPT, "W" * 1000, "\u05d0\u05d1 one two"):
            visit.page.get_by_label("Your words").fill(text)
            visit.page.get_by_role("button", name="Send").click()
            expect(visit.page.locator(".comments li").last).to_contain_text(text[:40])
        unharmed(visit)


def test_a_camera_and_a_device_with_a_hostile_name(browser: Browser, ward: SimulatedWard) -> None:
    """The API refuses such names; the page says so, and stays whole."""
    with visiting(browser, ward, "nurse") as visit:
        for view in ("camera", "device", "visitors"):
            visit.page.evaluate("(view) => { location.hash = view; }", f"#/{view}/ward-0/{SCRIPT.replace('/', '%2f')}")
            visit.page.locator("main h1").wait_for()
            visit.wait("!document.querySelector('main').textContent.includes('…')")
            assert [fault for fault in visit.faults if "422" not in fault and "404" not in fault] == []
            visit.faults.clear()
            unharmed(visit)


def test_a_server_that_lies_cannot_run_anything(browser: Browser, ward: SimulatedWard) -> None:
    """Every text of every answer is markup, and every kind of value is another than it should be."""

    def lie(route: Route) -> None:
        answer = json.loads(route.fetch().body())
        route.fulfill(json=_soiled(answer))

    with visiting(browser, ward) as visit:
        visit.page.route("**/v1/devices/**", lie)
        visit.page.route("**/v1/bounds", lambda route: route.fulfill(json={"cameras": SCRIPT}))
        visit.page.route("**/v1/alerts?**", lie)
        visit.sign_in(ward.tokens["nurse"])
        visit.page.get_by_role("button", name="Show earlier alerts").click()
        expect(visit.page.locator("main section")).to_contain_text("<img src=x")
        visit.page.goto(f"{ward.url}/#/device/{PLAIN}")
        expect(visit.page.locator("dl")).to_contain_text("<img src=x")
        assert visit.page.evaluate("document.querySelectorAll('img, script:not([src])').length") == 0


def _soiled(value: object) -> object:
    if isinstance(value, dict):
        return {key: _soiled(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_soiled(each) for each in value]
    return SCRIPT if isinstance(value, str) else value


def test_the_page_s_own_policy_stops_what_would_slip_through(browser: Browser, ward: SimulatedWard) -> None:
    """The second lock: even a script of ours could make no markup of a text, run no text, and call no other host."""
    tries = {
        "markup": "(() => { document.querySelector('main').innerHTML = '<b>x</b>'; return 'made'; })()",
        "code": "(() => { const s = document.createElement('script'); s.textContent = 'window.ran = 1'; "
        "document.body.append(s); return window.ran ? 'made' : 'stopped'; })()",
        "style": "(() => { const s = document.createElement('style'); s.textContent = 'body{display:none}'; "
        "document.head.append(s); return getComputedStyle(document.body).display === 'none' ? 'made' : 'stopped'; })()",
        "call": "fetch('https://elsewhere.invalid/').then(() => 'made')",
    }
    with visiting(browser, ward, "nurse") as visit:
        for name, text in tries.items():
            done = visit.page.evaluate(f"Promise.resolve().then(() => {text}).catch(() => 'stopped')")
            assert done == "stopped", name
