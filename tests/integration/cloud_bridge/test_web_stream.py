"""What the page knows and when: an alert at once, a lost stream at once, and who may answer."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import APIResponse, Browser, Route, expect

from benchmarks.cloud.simulated_ward import SimulatedWard
from cloud_bridge.api.tokens import remove_token
from tests.support.bridge_factory import make_manifest
from tests.support.browser import visiting
from tests.support.services import free_port

CAMERAS = ["ward-3/corridor", "ward-3/room-12", "ward-4/hall"]


class Frozen:
    """A network between a page and a server that can stop to deliver, without ending any connection."""

    def __init__(self, port: int) -> None:
        self._to, self._listener = port, socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.frozen = threading.Event()
        self._open: list[socket.socket] = [self._listener]

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self._to))
                self._open += [near, far]
                for pair in ((near, far), (far, near)):
                    threading.Thread(target=self._relay, args=pair, daemon=True).start()

    def _relay(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                if not self.frozen.is_set():
                    target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    def __enter__(self) -> Frozen:
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for each in self._open:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()


@pytest.fixture
def ward(tmp_path: Path) -> Iterator[SimulatedWard]:
    with SimulatedWard(tmp_path, make_manifest(), CAMERAS) as ward:
        ward.verdict(*CAMERAS)
        yield ward


def test_an_alert_is_seen_answered_and_over(browser: Browser, ward: SimulatedWard) -> None:
    with visiting(browser, ward, "nurse") as visit, visiting(browser, ward, "viewer") as other:
        expect(visit.page.locator(".calm")).to_contain_text("No open alerts")
        ward.alert("ward-3/room-12", "fall", sentence="One person falls.")
        card, theirs = visit.page.locator("#open li"), other.page.locator("#open li")
        expect(card).to_contain_text("One person falls.")
        expect(visit.page.locator(".badge")).to_contain_text("1")
        visit.page.get_by_role("button", name="I have seen it").click()
        expect(card).to_contain_text("Seen by nurse")
        expect(theirs).to_contain_text("Seen by nurse")  # on every page, at once
        visit.page.get_by_role("button", name="Comment").click()
        visit.page.get_by_label("Your words").fill("I am with her.\nAll is well.")
        visit.page.get_by_role("button", name="Send").click()
        expect(visit.page.locator(".comments li")).to_contain_text("I am with her.")
        other.page.get_by_role("button", name="Comment").click()
        expect(other.page.locator(".comments")).to_contain_text("I am with her.")
        ward.alert("ward-3/room-12", "fall", raised=False)
        expect(visit.page.locator(".calm")).to_contain_text("No open alerts")
        assert visit.faults == [] == other.faults


def test_a_viewer_may_look_and_not_answer(browser: Browser, ward: SimulatedWard) -> None:
    ward.alert("ward-3/room-12", "fall")
    with visiting(browser, ward, "viewer") as visit:
        expect(visit.page.locator("#open li")).to_contain_text("Fall")
        expect(visit.page.get_by_role("button", name="I have seen it")).to_have_count(0)
        visit.page.get_by_role("button", name="Comment").click()
        expect(visit.page.locator(".comments")).to_contain_text("may look, not answer")
        expect(visit.page.locator("textarea")).to_have_count(0)


def test_an_alert_that_is_over_stays_until_somebody_has_seen_it(browser: Browser, ward: SimulatedWard) -> None:
    with visiting(browser, ward, "nurse") as visit:
        ward.alert("ward-3/room-12", "fall")
        expect(visit.page.locator("#open li")).to_have_count(1)
        ward.alert("ward-3/room-12", "fall", raised=False)
        expect(visit.page.locator("#open .tag")).to_have_text("over")
        visit.page.reload()
        expect(visit.page.locator("#open .tag")).to_have_text("over")  # the store says so, too
        visit.page.get_by_role("button", name="I have seen it").click()
        expect(visit.page.locator("#open li")).to_have_count(0)
        ward.alert("ward-3/corridor", "late")
        expect(visit.page.locator("#open li")).to_have_count(1)
        ward.alert("ward-3/corridor", "late", raised=False)  # of a camera: nobody needs to go
        expect(visit.page.locator("#open li")).to_have_count(0)


def test_an_alert_that_is_told_again_is_the_same_alert(browser: Browser, ward: SimulatedWard) -> None:
    first = ward.alert("ward-3/room-12", "fall", sentence="One person falls.")
    with visiting(browser, ward, "nurse") as visit:
        expect(visit.page.locator("#open li")).to_have_count(1)
        again = ward.alert("ward-3/room-12", "fall", sentence="One person lies there.")
        assert again != first
        expect(visit.page.locator("#open li")).to_contain_text("nobody has answered")
        expect(visit.page.locator("#open li")).to_have_count(1)
        visit.page.reload()
        expect(visit.page.locator("#open li")).to_contain_text("One person lies there.")
        visit.page.get_by_role("button", name="I have seen it").click()
        expect(visit.page.locator("#open li")).to_contain_text("Seen by nurse")
        ward.alert("ward-3/room-12", "fall", raised=False)
        expect(visit.page.locator("#open li")).to_have_count(0)
        visit.page.reload()
        expect(visit.page.locator(".calm")).to_contain_text("No open alerts")  # any of its changes was seen


def test_an_old_answer_does_not_hide_a_new_comment(browser: Browser, ward: SimulatedWard) -> None:
    """The list that was asked for before the comment comes after it."""
    ward.alert("ward-3/room-12", "fall")
    held: list[tuple[Route, APIResponse]] = []

    def hold(route: Route) -> None:
        if held:
            route.continue_()
        else:
            held.append((route, route.fetch()))

    with visiting(browser, ward, "nurse") as visit:
        comment = visit.page.get_by_role("button", name="Comment")
        comment.click()
        words = visit.page.get_by_label("Your words")
        words.wait_for()
        comment.click()
        visit.page.route(re.compile(r"/v1/alerts/[0-9a-f]{32}$"), hold)
        comment.click()
        visit.page.get_by_text("No comments yet").wait_for()
        words.fill("I am with her.")
        visit.page.get_by_role("button", name="Send").click()
        said = visit.page.locator(".comments li")
        expect(said).to_have_count(1)
        visit.wait("performance.getEntriesByType('resource').filter((e) => e.name.includes('/v1/alerts/')).length > 2")
        ((route, answer),) = held
        route.fulfill(response=answer)
        visit.page.evaluate("fetch('/health').then(() => new Promise((done) => setTimeout(done, 300)))")
        assert said.count() == 1


def test_what_is_typed_while_a_comment_is_sent_stays(browser: Browser, ward: SimulatedWard) -> None:
    ward.alert("ward-3/room-12", "fall")
    held: list[tuple[Route, APIResponse]] = []
    with visiting(browser, ward, "nurse") as visit:
        visit.page.route("**/comments", lambda route: held.append((route, route.fetch())))
        visit.page.get_by_role("button", name="Comment").click()
        words = visit.page.get_by_label("Your words")
        words.fill("I am with her.")
        visit.page.get_by_role("button", name="Send").click()
        expect(visit.page.locator(".comments li")).to_have_count(1)  # the stream was faster than the answer
        expect(visit.page.get_by_role("button", name="Send")).to_be_disabled()
        words.fill("A doctor comes.")
        ((route, answer),) = held
        route.fulfill(response=answer)
        expect(visit.page.get_by_role("button", name="Send")).to_be_enabled()
        expect(words).to_have_value("A doctor comes.")


def test_a_late_page_knows_every_open_alert_from_its_first_answer(browser: Browser, ward: SimulatedWard) -> None:
    """Before the first event, and with the stream held back: what is open is in the overview."""
    ward.alert("ward-3/room-12", "fall")
    ward.alert("ward-4/hall", "blind")
    with visiting(browser, ward) as visit:
        visit.page.goto(ward.url)
        answer = visit.context.request.get(
            f"{ward.url}/v1/overview", headers={"Authorization": f"Bearer {ward.tokens['viewer']}"}
        )
        found = json.loads(answer.body())
        assert sorted((each["camera"], each["label"]) for each in found["alerts"]) == [
            ("ward-3/room-12", "fall"),
            ("ward-4/hall", "blind"),
        ]
        visit.sign_in(ward.tokens["viewer"])
        expect(visit.page.locator("#open li")).to_have_count(2)


def test_a_lost_stream_is_said_at_once_and_comes_back_with_what_was_missed(browser: Browser, tmp_path: Path) -> None:
    port = free_port()
    with SimulatedWard(tmp_path, make_manifest(), CAMERAS, port) as ward:
        ward.verdict(*CAMERAS)
        token = ward.tokens["nurse"]
        context = browser.new_context(locale="en-GB")
        page = context.new_page()
        page.goto(ward.url)
        page.fill("#token", token)
        page.keyboard.press("Enter")
        expect(page.locator(".pill")).to_have_text("Live")
        expect(page.locator(".calm")).to_contain_text("No open alerts")
    expect(page.locator(".banner")).to_contain_text("No connection: no alerts arrive here.")
    expect(page.locator(".pill")).to_have_text("Not connected")
    expect(page.locator(".calm")).not_to_contain_text("No open alerts")  # nobody knows
    with SimulatedWard(tmp_path, make_manifest(), CAMERAS, port) as again:
        again.alert("ward-3/room-12", "fall", sentence="while nobody listened")
        expect(page.locator(".pill")).to_have_text("Live")
        expect(page.locator("#open li")).to_contain_text("while nobody listened")
        expect(page.locator(".banner")).to_have_count(0)
        again.alert("ward-4/hall", "fight")
        expect(page.locator("#open li")).to_have_count(2)
        context.close()


def test_a_stream_that_says_nothing_is_lost(browser: Browser, ward: SimulatedWard) -> None:
    """A network that swallows everything and ends nothing; the page's clock goes on by hand."""
    with Frozen(ward.server.port) as network, visiting(browser, ward) as visit:
        visit.url = f"http://127.0.0.1:{network.port}"
        visit.page.clock.install()
        visit.sign_in(ward.tokens["nurse"])
        visit.page.clock.fast_forward(3_000)
        expect(visit.page.locator(".pill")).to_have_text("Live")
        network.frozen.set()
        visit.page.clock.fast_forward(13_000)
        expect(visit.page.locator(".banner")).to_contain_text("no alerts arrive here")
        expect(visit.page.locator(".pill")).to_have_text("Not connected")
        network.frozen.clear()
        visit.page.clock.fast_forward(20_000)
        expect(visit.page.locator(".pill")).to_have_text("Live")


def test_a_network_that_goes_is_said_before_the_next_answer(browser: Browser, ward: SimulatedWard) -> None:
    with visiting(browser, ward, "nurse") as visit:
        visit.context.set_offline(True)
        expect(visit.page.locator(".banner")).to_contain_text("No connection")
        visit.context.set_offline(False)
        expect(visit.page.locator(".pill")).to_have_text("Live")


def test_a_token_that_ends_signs_out_and_says_so(browser: Browser, ward: SimulatedWard, tmp_path: Path) -> None:
    with visiting(browser, ward, "nurse") as visit:
        names = [row["name"] for row in json.loads((tmp_path / "tokens.json").read_text())["tokens"]]
        remove_token(tmp_path / "tokens.json", next(name for name in names if name.startswith("nurse")))
        time.sleep(1.1)  # the file is looked at once a second
        visit.page.evaluate("window.dispatchEvent(new Event('offline'))")
        expect(visit.page.locator(".signin [role=alert]")).to_contain_text("Your token has ended.")
        assert visit.page.evaluate("sessionStorage.length") == 0


def test_a_wrong_token_is_refused_in_words(browser: Browser, ward: SimulatedWard) -> None:
    with visiting(browser, ward) as visit:
        visit.page.goto(ward.url)
        visit.page.fill("#token", "vs_nonsense")
        visit.page.keyboard.press("Enter")
        expect(visit.page.locator(".signin [role=alert]")).to_contain_text("This token is not valid")
        assert visit.page.evaluate("sessionStorage.length") == 0


def test_a_bridge_that_cannot_write_is_said(browser: Browser, ward: SimulatedWard) -> None:
    ward.trouble = "the disk is full"
    with visiting(browser, ward, "nurse") as visit:
        expect(visit.page.locator(".banner")).to_contain_text("cannot store anything")
        expect(visit.page.locator("body")).not_to_contain_text("the disk is full")


def test_an_answer_that_fails_is_said_on_the_card(browser: Browser, ward: SimulatedWard) -> None:
    ward.alert("ward-3/room-12", "fall")

    def refuse(route: Route) -> None:
        route.fulfill(status=503, json={"detail": "the store does not answer; try again"})

    with visiting(browser, ward, "nurse") as visit:
        visit.page.route("**/acknowledge", refuse)
        visit.page.get_by_role("button", name="I have seen it").click()
        expect(visit.page.locator("#open .error")).to_contain_text("the store does not answer")
        expect(visit.page.locator("#open li")).not_to_contain_text("Seen by")
        visit.page.unroute("**/acknowledge")
        visit.page.get_by_role("button", name="I have seen it").click()
        expect(visit.page.locator("#open li")).to_contain_text("Seen by")
