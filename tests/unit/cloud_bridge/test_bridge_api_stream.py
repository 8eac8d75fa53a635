"""What the API tells as it happens: to whom, for how long, and what becomes of those who do not listen."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from pathlib import Path
from typing import Any

import httpx

from cloud_bridge.api.live import Hub, Listener
from cloud_bridge.api.tokens import remove_token
from cloud_bridge.client import BridgeClient
from tests.support.api_server import MANIFEST, Api
from tests.support.bridge_factory import OTHER, release
from tests.support.services import until


def test_the_client_hears_what_happens_and_answers(api: Api) -> None:
    heard: list[dict[str, Any]] = []

    async def listen() -> None:
        async with BridgeClient(api.url, api.tokens["nurse"]) as bridge:
            assert [each["camera"] for each in await bridge.cameras()] == ["lab/door", "lab/hall"]
            assert len([row async for row in bridge.history("verdicts", camera="lab/door")]) == 5
            async for alert in bridge.alerts():
                heard.append(alert)
                await bridge.acknowledge(alert["id"])
                heard.append(await bridge.comment(alert["id"], "seen"))
                return

    thread = threading.Thread(target=lambda: asyncio.run(listen()))
    thread.start()
    until(lambda: api.server._hub.count == 1)
    slot = 12
    while thread.is_alive():  # cleared after four quiet verdicts
        api.harness.now_s += 1.0
        api.harness.send(release(slot, 0, manifest=MANIFEST, time_s=960))
        slot += 1
        thread.join(0.05)
    first, answered = heard
    assert (first["label"], first["raised"], first["camera"]) == ("fall", False, "lab/door")
    assert answered["seen_by"] == "nurse" and answered["comments"][0]["words"] == "seen"
    until(lambda: api.server._hub.count == 0)


def test_a_listener_hears_only_its_own_cameras(api: Api) -> None:
    head = {"Authorization": f"Bearer {api.tokens['stranger']}"}
    with api.http.stream("GET", "/v1/stream", headers=head) as strange, httpx.Client(timeout=60.0) as other:
        own = {"Authorization": f"Bearer {api.tokens['viewer']}"}
        with other.stream("GET", f"{api.url}/v1/stream?kind=verdict&camera=lab/door", headers=own) as mine:
            lines, nothing = mine.iter_lines(), strange.iter_lines()
            assert next(lines) == next(nothing) == "event: ready"
            until(lambda: api.server._hub.count == 2)
            api.harness.now_s = 1020.0
            api.harness.send(release(12, manifest=MANIFEST, time_s=960, key=OTHER, camera="hall"), camera="lab/hall")
            api.harness.send(release(12, manifest=MANIFEST, time_s=960))
            data = next(line for line in lines if line.startswith("data: {") and line != "data: {}")
            assert json.loads(data.removeprefix("data: "))["camera"] == "lab/door"
            queues = [len(each._queue) for each in api.server._hub._listeners]
            assert queues == [0, 0]


def test_a_stream_says_no_more_once_its_token_is_taken_out(api: Api, tmp_path: Path) -> None:
    head = {"Authorization": f"Bearer {api.tokens['viewer']}"}
    with api.http.stream("GET", "/v1/stream?kind=verdict", headers=head) as stream:
        lines = stream.iter_lines()  # the response is closed with it
        assert next(lines) == "event: ready"
        until(lambda: api.server._hub.count == 1)
        (listener,) = api.server._hub._listeners
        assert listener._wants("lab/door")
        remove_token(tmp_path / "tokens.json", "viewer")
        until(lambda: not listener._wants("lab/door"))


def test_a_listener_that_sleeps_loses_the_oldest_and_is_told() -> None:
    async def play() -> list[dict[str, Any]]:
        listener, found = Listener("", lambda camera: True), list[dict[str, Any]]()
        for number in range(300):
            listener.put("verdict", {"camera": "a/b", "n": number})
        async for event in listener.events():
            found.append(event)
            if len(found) == 257:
                return found
        return found

    found = asyncio.run(play())
    assert found[0] == {"type": "lost", "count": 44} and found[1]["n"] == 44 and found[-1]["n"] == 299


def test_a_hub_without_a_loop_costs_nothing() -> None:
    hub, began = Hub(), time.thread_time()
    for _ in range(10_000):
        hub.publish("verdict", {"camera": "a/b"})
    assert time.thread_time() - began < 5.0
