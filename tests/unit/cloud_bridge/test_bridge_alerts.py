"""Alerts: raised and cleared by verdicts in a row, alternating, over restarts too."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from cloud_bridge.alerts.lifecycle import BLIND, AlertBook
from cloud_bridge.alerts.rules import AlertRule

RULE = AlertRule(raise_at=0.6, raise_for=2, clear_at=0.4, clear_for=3)


def changes(book: AlertBook, *fall: float) -> list[bool | None]:
    out: list[bool | None] = []
    for p in fall:
        turned = book.update({"normal": 1 - p, "fall": p})
        out.append(turned[0].raised if turned else None)
    return out


def test_verdicts_in_a_row_raise_an_alert_and_clear_it() -> None:
    book = AlertBook(RULE, [])
    assert changes(book, 0.9, 0.5, 0.9, 0.6) == [None, None, None, True]
    assert changes(book, 0.4, 0.3, 0.5, 0.0, 0.0, 0.0) == [None, None, None, None, None, False]


def test_normal_is_no_alert() -> None:
    book = AlertBook(RULE, [])
    assert changes(book, *[0.0] * 10) == [None] * 10


def test_an_alert_stays_raised_over_a_restart() -> None:
    raised: list[str] = []
    changes(AlertBook(RULE, raised), 1.0, 1.0)
    assert raised == ["fall"]
    assert changes(AlertBook(RULE, list(raised)), 1.0, 1.0, 0.0, 0.0, 0.0) == [None, None, None, None, False]


def test_a_camera_that_sends_noise_alone_is_blind_once() -> None:
    book = AlertBook(RULE, [])
    turned = [book.condition(BLIND, spent) for spent in (False, True, True, False, False)]
    assert [[(c.label, c.raised) for c in row] for row in turned] == [[], [(BLIND, True)], [], [(BLIND, False)], []]


probability = st.floats(0, 1) | st.sampled_from([0.4, 0.6])


@settings(deadline=None)
@given(
    st.lists(st.tuples(probability, probability, st.booleans())),
    st.integers(1, 4),
    st.integers(1, 4),
    st.tuples(st.floats(0, 0.5), st.floats(0.51, 1)),
)
def test_raise_and_clear_alternate_for_every_label(
    rows: list[tuple[float, float, bool]], raise_for: int, clear_for: int, levels: tuple[float, float]
) -> None:
    rule = AlertRule(raise_at=levels[1], raise_for=raise_for, clear_at=levels[0], clear_for=clear_for)
    raised: list[str] = []
    book = AlertBook(rule, raised)
    history: dict[str, list[tuple[int, bool]]] = {"fall": [], "fight": []}
    for index, (fall, fight, restart) in enumerate(rows):
        for change in book.update({"normal": 0.5, "fall": fall, "fight": fight}):
            history[change.label].append((index, change.raised))
        if restart:
            book = AlertBook(rule, raised)
    for column, label in enumerate(history):
        turns = [turn for _, turn in history[label]]
        assert turns == [number % 2 == 0 for number in range(len(turns))]
        for index, turn in history[label]:
            row = [values[column] for values in rows[index + 1 - (raise_for if turn else clear_for) : index + 1]]
            assert all(p >= rule.raise_at if turn else p <= rule.clear_at for p in row)
        assert (label in raised) == bool(turns and turns[-1])
