"""The benchmark of sentences: what is right, what is not judged, and how often a guess would be right."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.model.sentences import COMMAND, Told, _counted, judged
from familial.train.rl.reward import Truth

NAN = float("nan")


def told(
    label: int,
    truth: int,
    began_s: float = NAN,
    said_s: float = NAN,
    sure: str = "probably",
    sentence: str = "s",
    most: int = 1,
    people: int = -1,
) -> Told:
    return Told(0, Truth(truth, most), began_s, label, sure, said_s, sentence, "w", False, people)


def test_a_time_is_judged_where_the_label_is_right_and_within_two_seconds() -> None:
    found = judged(
        [
            told(1, 1, began_s=5.0, said_s=3.0),
            told(1, 1, began_s=5.5, said_s=3.0),  # 2.5 s off
            told(2, 2, began_s=11.0, said_s=8.0),  # "8 seconds ago or earlier"
            told(2, 2, began_s=5.9, said_s=8.0),
            told(2, 1, began_s=5.0, said_s=5.0),  # another label
            told(1, 1, began_s=3.0),  # no time is said
            told(0, 0),
        ],
        8.0,
    )
    assert found["label"]["right"] == pytest.approx(6 / 7)
    assert (found["when"]["n"], found["when"]["right"], found["when"]["said"]) == (4, 0.5, 0.8)
    assert found["when"]["constant"] == 0.75  # "about 6 seconds ago" is right about three


def test_an_unclear_label_is_told_and_not_judged() -> None:
    found = judged([told(0, 0), told(1, -1, sentence="probably a fall; perhaps: a person falls")], 8.0)
    assert found["events"] == 1 and found["label"]["right"] == 1.0
    assert (found["different"], found["different_without_words"]) == (2, 2)


def test_each_word_has_its_own_share() -> None:
    found = judged([told(0, 0, sure="possibly"), told(1, 0, sure="possibly"), told(1, 1, began_s=1.0)], 8.0)["sure"]
    assert (found["possibly"]["right"], found["probably"]["right"]) == (0.5, 1.0)
    assert found["very probably"] == {"n": 0}


def test_a_commonest_count_is_no_skill() -> None:
    """Who always says "several" is right as often as it is so, and in a third of cases if all were equally common."""
    found = _counted([told(0, 0, most=most, people=2) for most in (0, 1, 2, 2, 2, 2)])
    assert found["several"]["right"] == pytest.approx(4 / 6) and found["several"]["even"] == pytest.approx(1 / 3)


def test_a_folder_that_is_no_checkpoint_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert COMMAND.main(["--checkpoint", str(tmp_path)]) == 2
    assert "config.json is missing" in capsys.readouterr().err
