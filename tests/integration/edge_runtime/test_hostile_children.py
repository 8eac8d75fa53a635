"""The real gate with hostile eyes and readers: whatever they do, nothing but z is another in what leaves.

An honest run is the measure: every other one must have its slots, sizes, fields, state, log and files
(`tests/support/hostile_runs.py`). What z may tell is held against the bound, what times may tell against chance.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.broker import child_env
from familial.evaluate.intervals import binomial_interval
from tests.support.attacks import ATTACKS
from tests.support.hostile_eye import CONVERSATIONS
from tests.support.hostile_reader import READERS
from tests.support.hostile_runs import LIVE, SCENE, Arena, Play, Run, faults, guessed, may_be_right, told_by_time
from tests.support.timekeeping import Wakeups
from wire.privacy.certificate import guess_bound

pytestmark = pytest.mark.alone  # some forty devices at once, and each must keep the gate's clock

EYES, READER = "tests.support.hostile_eye", "tests.support.hostile_reader"
FALSE_ALARM = 1e-4
STEADY_S = 0.01
SMALL_AUC = 0.6
"""What the lower end of the area under the ROC curve may be: a millisecond of load in the 20 of a release's time."""
LONG = 150  # releases for a statistic
ANSWERING = ("lies", "attacks")


def said(run: Run) -> list[Mapping[str, float]]:
    return [verdict.probabilities for _, verdict in run.heard.of("edge")]


@pytest.fixture(scope="module")
def arena(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arena]:
    with Arena(tmp_path_factory.mktemp("hostile")) as made:
        yield made


@pytest.fixture(scope="module")
def eyes(arena: Arena) -> dict[str, Run]:
    sources = {name: LIVE if name == "says-last" else SCENE for name in CONVERSATIONS}
    return arena.play({name: Play(eye=f"{EYES}:{name}", source=source) for name, source in sources.items()})


@pytest.fixture(scope="module")
def reading(arena: Arena) -> dict[str, Play]:
    plays = {name: Play(eye=f"{EYES}:honest", reader=f"{READER}:{name}") for name in READERS}
    return {**plays, "attacks": Play(eye=f"{EYES}:honest", reader=f"{READER}:attacks@{arena.folder}")}


@pytest.fixture(scope="module")
def readers(arena: Arena, reading: dict[str, Play]) -> dict[str, Run]:
    return arena.play(reading)


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_whatever_an_eye_says_or_does_only_z_can_tell(eyes: dict[str, Run], name: str) -> None:
    run = eyes[name]
    assert faults(run, eyes["honest"]) == []
    assert {verdict.last_slot for _, verdict in run.heard.of("edge")} <= set(run.slots)


@pytest.mark.parametrize("name", [*READERS, "attacks"])
def test_whatever_a_reader_says_or_does_only_verdicts_can_tell(
    eyes: dict[str, Run], readers: dict[str, Run], name: str
) -> None:
    assert faults(readers[name], eyes["honest"]) == []
    if name not in ANSWERING:
        assert said(readers[name]) == []


@pytest.mark.parametrize("name", ANSWERING)
def test_what_a_reader_answers_is_told(
    arena: Arena, reading: dict[str, Play], readers: dict[str, Run], name: str
) -> None:
    """On a busy machine a reader may start later than a short run ends: then it gets a long one."""
    found = said(readers[name])
    if not found:
        found = said(arena.play({f"{name}-long": replace(reading[name], windows=LONG)})[f"{name}-long"])
    assert found  # the one that attacks answers only where no attack went well
    if name == "lies":
        assert all(each == {"normal": 0.0, "fall": 1.0, "fight": 0.0} for each in found)


def test_free_of_confinement_the_attacks_go_well(arena: Arena) -> None:
    """So that what fails in a confined child fails by its confinement."""
    command = [sys.executable, "-m", EYES, "--attack", str(arena.folder)]
    (arena.folder / "camera-state").mkdir(exist_ok=True)
    (arena.folder / "camera.key").touch()
    done = subprocess.run(command, env=child_env(), capture_output=True, text=True, timeout=60, check=True)
    lacking = set(ATTACKS) - set(json.loads(done.stdout.splitlines()[-1]))
    assert lacking <= {"the gate's memory", "the gate is traced"}  # the kernel may keep those from anybody
    for place in (Path("/tmp"), Path("/dev/shm")):
        (place / arena.name).unlink()
    (Path("/tmp") / f"{arena.name}-folder").rmdir()
    (arena.folder / "camera-state" / "planted").unlink()
    (arena.folder / "engine" / "planted").unlink()
    assert arena.caught
    arena.caught.clear()


def test_no_attack_of_a_confined_eye_goes_well(arena: Arena) -> None:
    plays = {"attacked": Play(eye=f"{EYES}:attacks@{arena.folder}"), "unattacked": Play()}
    arena.caught.clear()
    runs = arena.play(plays)
    assert faults(runs["attacked"], runs["unattacked"]) == []
    eye = runs["attacked"].figures["eye"]
    assert eye["says"] == "watching" and eye["answered"] > 7  # it says otherwise as soon as an attack went well
    assert arena.caught == []
    left = [place / arena.name for place in (Path("/tmp"), Path("/dev/shm"))]
    left += [Path("/tmp") / f"{arena.name}-folder", arena.folder / "engine" / "planted"]
    assert not any(path.exists() for path in left)


@pytest.mark.slow
def test_z_tells_as_much_as_the_bound_and_no_more(arena: Arena) -> None:
    """The best test of the best code: between two scenes whose codes are +C and -C, it is right with Phi(S)."""
    run = arena.play({"loud": Play(eye=f"{EYES}:shouts", windows=LONG, speed=3.0)})["loud"]
    manifest = arena.rig.manifest
    bound = guess_bound(float(manifest.clip_norm / manifest.sigma), 0.5)
    low, high = binomial_interval(*guessed(run), 1.0 - 2.0 * FALSE_ALARM)
    assert low <= may_be_right(run, bound) <= high


@pytest.mark.slow
def test_release_times_do_not_tell_the_secret(arena: Arena) -> None:
    names = ("hesitates", "loads", "late", "dies-by-division")
    with Wakeups() as wakeups:
        runs = arena.play({f"timed-{name}": Play(eye=f"{EYES}:{name}", windows=LONG, tap=True) for name in names})
    if wakeups.late_s > STEADY_S:
        pytest.skip(f"this machine is too busy to keep time: {wakeups.late_s * 1e3:.0f} ms late one time in twenty")
    told = {camera: told_by_time(run) for camera, run in runs.items()}
    assert {camera: found for camera, found in told.items() if max(found[1][0], 1.0 - found[1][1]) > SMALL_AUC} == {}
