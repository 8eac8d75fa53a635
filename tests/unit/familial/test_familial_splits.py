"""Seeds of rendered clips: no two users share one, and all seeds come from the table."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import pytest

from calibration.audit.targets import bodies, people
from familial.data.splits import CLIPS, IDENTITIES, SeedRange, clip_seeds, identities
from wire.errors import DataError

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize("table", [CLIPS, IDENTITIES], ids=["clips", "identities"])
def test_no_two_users_share_a_seed(table: dict[str, SeedRange]) -> None:
    rows = sorted(table.items(), key=lambda row: row[1].first)
    assert all(row.first < row.end for _, row in rows)
    overlaps = [f"{a} and {b}" for (a, first), (b, second) in pairwise(rows) if first.end > second.first]
    assert not overlaps, f"ranges of {', '.join(overlaps)} overlap: move the newer row in familial/data/splits.py"


def test_training_keeps_the_seeds_of_the_shipped_recipes() -> None:
    """The shipped checkpoints were trained, calibrated and given their OOD reference on these seeds."""
    assert clip_seeds("training", 3000) == range(3000)
    assert clip_seeds("held_out", 300) == range(1_000_000, 1_000_300)
    assert clip_seeds("ood_reference", 150) == range(2_000_000, 2_000_150)
    assert clip_seeds("int8", 3) == range(7_300_000, 7_300_003)


def test_the_audit_draws_people_and_rooms_from_its_own_rows() -> None:
    shots, owners, _ = people(100, 12)
    assert {shot.seed for shot in shots} <= set(clip_seeds("audit_people", 100_000))
    assert len({shot.seed for shot in shots}) == len(shots) == len(owners)
    assert {shot.identity for shot in shots} == set(identities("audit_people", 100))
    others, _, _ = bodies(400)
    assert {shot.seed for shot in others} == set(clip_seeds("audit_bodies", 400))
    assert {shot.identity for shot in others} == set(identities("audit_bodies", 400))
    with pytest.raises(DataError, match="audit tries to name"):
        people(101, 1)


def test_asking_for_more_than_a_range_holds_is_an_error_with_its_size() -> None:
    with pytest.raises(DataError, match=r"clips of benchmarks\.frontier: 100001 rendered clips .*give 0 to 100000"):
        clip_seeds("frontier", 100_001)
    with pytest.raises(DataError, match="-1 rendered clips"):
        clip_seeds("frontier", -1)
    with pytest.raises(DataError, match="'fresh' has no range of seeds; known are training, .*add a row"):
        clip_seeds("fresh", 1)


def test_every_row_has_a_user_and_every_user_a_row() -> None:
    """A call of `rendered_clips` or `render_clip` with numbers of its own would be a range that nobody checks."""
    text = {
        path: path.read_text()
        for package in ("familial", "calibration", "benchmarks")
        for path in (ROOT / package).rglob("*.py")
        if path.name != "splits.py"
    }
    used = {use for source in text.values() for use in re.findall(r'(?:clip_seeds|identities)\("(\w+)"', source)}
    assert used == CLIPS.keys() | IDENTITIES.keys()
    beside = [str(path) for path, source in text.items() if re.search(r"(?:seed|SEED)\w* *=.*\b\d+_000\b", source)]
    assert not beside, f"{', '.join(beside)}: take the seeds from familial.data.splits"
