"""A camera is deleted with the command while a bridge runs: the broker keeps nothing of it in the bridge's name."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloud_bridge.store.__main__ import main
from tests.support.bridge_factory import release
from tests.support.bridge_process import Peer, bridge_process, save_checkpoint, wait_for, write_config
from tests.support.databases import running_postgres
from tests.support.services import PATIENCE_S, until
from wire.protocol.message import FLAG_SPENT, coarse_time

OPEN = "lab/door/alert/open"


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    """As [store] url takes it."""
    if request.param == "sqlite":
        yield ""
        return
    with running_postgres() as server:
        yield server.new_database()


def test_a_late_subscriber_hears_nothing_of_it(
    mosquitto: int, tmp_path: Path, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    _, manifest = save_checkpoint(tmp_path)
    config = write_config(tmp_path, mosquitto, ingest={"stale_after_s": 3600.0}, store={"url": url})
    with bridge_process(config) as process, Peer(mosquitto) as peer:
        spent = release(0, flags=FLAG_SPENT, manifest=manifest, time_s=coarse_time(time.time()))
        peer.publish("features", spent)
        until(lambda: any(name == OPEN and b"blind" in payload for name, payload in peer.heard()))
        assert main(["--config", str(config), "--delete", "--camera", "lab/door"]) == 0
        assert "retained 1" in capsys.readouterr().out
        until(lambda: (OPEN, b"") in peer.heard())
        with Peer(mosquitto) as late:
            peer.publish("contour", b"after all that was kept")
            wait_for(late, "lab/door/contour")
            assert OPEN not in {name for name, _ in late.heard()} and late.heard()[0][0] == "lab/hall/alert/open"
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0 and "Traceback" not in err, err
