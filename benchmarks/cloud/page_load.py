"""`python -m benchmarks.page_load`: frames that the page drops while 100 cameras send a verdict a second.

    SimulatedWard: a verdict of each camera a slot, spread over the slot --> API --> headless Chromium, on "Cameras"
    requestAnimationFrame in the page: times of frames; long tasks; the browser's own count of its work

The peer is an empty page of the same server in the same browser, measured before and after: on a machine that others
use, it drops frames too. A frame is dropped where the next one comes later than one and a half of its time. An alert is
raised and cleared every few seconds, so that cards move, and verdicts are counted. Must hold: all that were made are
shown, no larger share of frames is dropped than of an empty page, and a page that is loaded again shows an open alert
within a second.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Error, Page, sync_playwright

from benchmarks.cloud.simulated_ward import SimulatedWard
from benchmarks.harness import add_engine, add_untimed, engine_folder
from benchmarks.runner import Benchmark, Report
from wire.artifact.manifest import EngineManifest
from wire.errors import ConfigError, VeilsightError

__all__ = ["COMMAND", "campaign", "chromium", "judge"]

_FRAME_MS, _LATE = 1000.0 / 60.0, 1.5
_EMPTY_S = 10.0
_KNOWN_MS = 1000.0  # in which a page knows what is open
_BURSTS = 20  # into which the verdicts of a slot are spread
_ALERT_S = 5.0
_WATCH = """() => { window.frames_ = []; window.long_ = []; window.watching_ = true;
    new PerformanceObserver((list) => { for (const each of list.getEntries()) window.long_.push(each.duration); })
        .observe({ entryTypes: ["longtask"] });
    const next = (at) => { window.frames_.push(at); if (window.watching_) requestAnimationFrame(next); };
    requestAnimationFrame(next); }"""
_END = "() => { window.watching_ = false; return [window.frames_, window.long_]; }"


@contextmanager
def chromium() -> Iterator[Browser]:
    """The distribution's Chromium for the block. Raises ConfigError where there is none."""
    path = shutil.which("chromium")
    if path is None:
        raise ConfigError("no chromium on the path; install it, for example: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


class _Load:
    """Makes verdicts and alerts in a thread of its own, until the block ends."""

    def __init__(self, ward: SimulatedWard, cameras: list[str], slot_s: float) -> None:
        self._ward, self._cameras, self._slot_s = ward, cameras, slot_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="load", daemon=True)
        self.made = 0
        self.late_s = 0.0

    def _run(self) -> None:
        due, turn, raised = time.monotonic(), 0, ""
        groups = [self._cameras[n::_BURSTS] for n in range(min(_BURSTS, len(self._cameras)))]
        step_s = self._slot_s / len(groups)
        while not self._stop.wait(max(0.0, due - time.monotonic())):
            self.late_s = max(self.late_s, time.monotonic() - due)
            group = groups[turn % len(groups)]
            self._ward.verdict(*group, unsure=turn % 7 == 0)
            self.made += len(group)
            if turn % max(1, round(_ALERT_S / step_s)) == 0:
                if raised:
                    self._ward.alert(raised, "fall", raised=False)
                raised = group[0]
                self._ward.alert(raised, "fall", sentence="One person falls to the left.")
            due, turn = due + step_s, turn + 1

    def __enter__(self) -> _Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def campaign(
    browser: Browser, manifest: EngineManifest, cameras: int, seconds: float, empty_s: float
) -> dict[str, Any]:
    """Measure an empty page, ours under load, and the empty page again; returns the figures.

    Args:
        browser: A running one.
        manifest: Of any engine; its slot is the time between two verdicts of a camera.
        cameras: How many send.
        seconds: For how long ours is measured.
        empty_s: For how long the empty page is measured, each time.
    """
    names = [f"ward-{n // 20}/room-{n:03}" for n in range(cameras)]
    with (
        tempfile.TemporaryDirectory(prefix="veilsight-page-") as folder,
        SimulatedWard(Path(folder), manifest, names) as ward,
        browser.new_page(viewport={"width": 1280, "height": 860}) as page,
    ):
        ward.verdict(*names)
        ward.alert(names[0], "not watching")
        before = _empty(page, ward, empty_s)
        ours = _ours(page, ward, _Load(ward, names, manifest.window.slot_s), seconds)
        after = _empty(page, ward, empty_s)
    empty = {name: before[name] + after[name] for name in ("frames", "dropped")}
    share = empty["dropped"] / max(1, empty["frames"])
    return {**ours, "cameras": cameras, "empty_frames": empty["frames"], "empty_dropped_share": share}


def _empty(page: Page, ward: SimulatedWard, seconds: float) -> dict[str, Any]:
    page.goto(f"{ward.url}/health")
    return _frames(page, seconds)


def _ours(page: Page, ward: SimulatedWard, load: _Load, seconds: float) -> dict[str, Any]:
    page.goto(ward.url)
    page.fill("#token", ward.tokens["nurse"])
    page.keyboard.press("Enter")
    page.wait_for_selector(".pill[data-state=live]")
    known_ms = _known_ms(page)
    page.goto(f"{ward.url}/#/cameras")
    page.wait_for_selector(".camera")
    page.evaluate("import('/static/main.js').then((main) => { window.counts_ = main.counts; })")
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable")
    worked = _work(session)
    began = time.monotonic()
    with load:
        found = _frames(page, seconds)
        busy_s = _work(session) - worked
        passed_s = time.monotonic() - began
    shown = _shown(page, load.made)
    found["busy_share"] = busy_s / passed_s
    return {
        **found,
        "known_ms": known_ms,
        "seconds": seconds,
        "made": load.made,
        "shown": shown,
        "feeder_late_s": load.late_s,
    }


def _known_ms(page: Page) -> float:
    """From the beginning of a load to the first open alert on the page; what waiting costs here is in it."""
    page.reload()
    page.wait_for_selector("#open li")
    return float(page.evaluate("performance.now()"))


def _shown(page: Page, made: int) -> int:
    """How many verdicts the page has taken, as soon as it has all, or after a while."""
    until_s = time.monotonic() + 20.0
    while (count := int(page.evaluate("window.counts_().verdicts"))) < made and time.monotonic() < until_s:
        time.sleep(0.1)
    return count


def _work(session: Any) -> float:
    """Seconds that the page's main thread has worked."""
    rows = session.send("Performance.getMetrics")["metrics"]
    return float(next(row["value"] for row in rows if row["name"] == "TaskDuration"))


def _frames(page: Page, seconds: float) -> dict[str, Any]:
    page.evaluate(_WATCH)
    page.wait_for_timeout(1000.0 * seconds)
    times, long = page.evaluate(_END)
    gaps = [after - before for before, after in zip(times, times[1:], strict=False)]
    dropped = sum(round(gap / _FRAME_MS) - 1 for gap in gaps if gap > _LATE * _FRAME_MS)
    return {
        "frames": len(gaps),
        "dropped": dropped,
        "dropped_share": dropped / max(1, len(gaps) + dropped),
        "worst_ms": max(gaps, default=0.0),
        "long_tasks": len(long),
        "longest_task_ms": max(long, default=0.0),
    }


def _options(parser: argparse.ArgumentParser) -> None:
    add_engine(parser)
    parser.add_argument("--cameras", type=int, default=100, help="cameras (default 100)")
    parser.add_argument("--seconds", type=float, default=60.0, help="of the page under load (default 60)")
    add_untimed(parser)


def judge(found: Mapping[str, Any], timed: bool) -> list[str]:
    """What must hold and does not. timed: judge frames and the wait for an open alert, too."""
    wrong = list[str]()
    if found["shown"] < found["made"]:
        wrong.append(f"{found['made'] - found['shown']} of {found['made']} verdicts were not shown")
    if timed and found["dropped_share"] > found["empty_dropped_share"]:
        empty = f"{found['empty_dropped_share']:.2%} of an empty page's"
        wrong.append(f"{found['dropped']} frames were dropped, {found['dropped_share']:.2%}; {empty}")
    if timed and not found["known_ms"] <= _KNOWN_MS:
        wrong.append(f"an open alert was shown after {found['known_ms']:.0f} ms; {_KNOWN_MS:.0f} at most")
    return wrong


def _measure(args: argparse.Namespace) -> Report:
    manifest = EngineManifest.load(engine_folder(args))
    try:
        with chromium() as browser:
            found = campaign(browser, manifest, args.cameras, args.seconds, min(_EMPTY_S, args.seconds))
    except Error as error:
        raise VeilsightError(f"the browser failed: {error}") from error
    kept = 1.0 - found["dropped_share"]
    kept_empty = 1.0 - found["empty_dropped_share"]
    rows = [
        ["page", "frames", "dropped", "worst ms", "tasks over 50 ms", "main thread busy"],
        ["empty, before and after", f"{found['empty_frames']}", f"{found['empty_dropped_share']:.2%}", "", "", ""],
        [
            f"{args.cameras} cameras, {args.seconds:g} s",
            f"{found['frames']}",
            f"{found['dropped_share']:.2%}",
            f"{found['worst_ms']:.0f}",
            f"{found['long_tasks']}",
            f"{found['busy_share']:.1%}",
        ],
    ]
    notes = [
        f"{found['made']} verdicts made, {found['shown']} shown; the feeder was late by {found['feeder_late_s']:.2f} s",
        f"a page that is loaded again shows an open alert after {found['known_ms']:.0f} ms",
    ]
    return Report(kept / kept_empty, found, rows, notes, judge(found, not args.untimed))


COMMAND = Benchmark("page_load", __doc__, "the share of frames that an empty page keeps", _options, _measure)

if __name__ == "__main__":
    sys.exit(COMMAND.main())
