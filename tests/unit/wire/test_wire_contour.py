"""The contour message: small, signed, read back as it was, and refused with a reason whatever anybody writes."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.contour_factory import make_contour
from wire.errors import MessageError
from wire.protocol.contour import (
    FIGURES,
    ILLUSTRATION,
    LONGEST,
    RAYS,
    WIDEST,
    Contour,
    Outline,
    between,
    contour_fields,
    open_contour,
    seal_contour,
)
from wire.protocol.document import MAX_DOCUMENT, seal_document
from wire.protocol.keys import DeviceKey
from wire.protocol.topics import TOPICS

KEY, OTHER = DeviceKey(b"k" * 32), DeviceKey(b"o" * 32)
FIELDS = contour_fields(make_contour())
JUNK = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(allow_nan=False, allow_infinity=False), st.text()
)


def opened(payload: bytes, model_id: int = 9, camera: str = "door") -> Contour:
    return open_contour(payload, KEY.public, "lab", camera, model_id)


def changed(**fields: Any) -> bytes:
    return seal_document("contour", {**FIELDS, **fields}, KEY, "lab", "door")


def test_it_is_read_as_it_was_written() -> None:
    made = make_contour(lying=0.3, moving=None, unsure=True, time_s=120)
    found = opened(seal_contour(made, KEY, "lab", "door"))
    assert (found.boot_id, found.slot, found.model_id, found.time_s) == (1, 7, 9, 120)
    assert found.unsure and found.moving is None and found.right is None
    assert found.posture == pytest.approx(made.posture, abs=1e-3) and found.count == pytest.approx(made.count, abs=1e-3)
    for name in ("first", "second"):
        mine, read = getattr(made, name), getattr(found, name)
        assert np.abs(read.radii - mine.radii).max() <= LONGEST / 255
        assert np.abs(read.spread - mine.spread).max() <= WIDEST / 255


def test_the_largest_one_fits_and_says_what_it_is() -> None:
    chances: dict[str, Any] = {"posture": dict.fromkeys(("upright", "bent", "lying", "fighting"), 0.2512)}
    made = make_contour(boot=2**64 - 1, slot=2**53 - 1, model_id=2**64 - 1, moving=0.123, right=0.456, **chances)
    payload = seal_contour(made, KEY, "w" * 63, "c" * 63)
    assert len(payload) < MAX_DOCUMENT
    document = json.loads(payload)
    assert document["text"] == ILLUSTRATION and "not a picture" in document["text"]
    assert set(document) == set(TOPICS["contour"].fields)


def test_figures_lie_on_the_way_from_one_to_the_next() -> None:
    former, newest = make_contour(lying=0.0), make_contour(lying=1.0, slot=8)
    steps = [between(former, newest, (k + 1) / FIGURES) for k in range(FIGURES)]
    assert all(step.slot == 8 for step in steps)
    assert np.allclose(steps[-1].first.radii, newest.first.radii)
    reach = [float(step.first.radii[0]) for step in steps]  # to the right
    assert reach == sorted(reach) and reach[0] < reach[-1] - 0.2
    assert np.allclose(np.diff(reach), reach[1] - reach[0])
    assert [step.posture["lying"] for step in steps if step.posture] == pytest.approx([k / 8 for k in range(1, 9)])


def test_a_device_that_began_anew_has_no_way_from_its_former_figure() -> None:
    newest = make_contour(lying=1.0, boot=2)
    assert between(make_contour(), newest, 0.5) is newest


def test_what_is_not_known_on_one_side_is_taken_from_the_newest() -> None:
    found = between(make_contour(posture=None, moving=None), make_contour(moving=0.5), 0.5)
    assert found.posture == make_contour().posture and found.moving == 0.5


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"text": "a picture"}, "values"),
        ({"figures": 25}, "values"),
        ({"unsure": 1}, "values"),
        ({"slot": -1}, "values"),
        ({"slot": 1.0}, "values"),
        ({"slot": 2**60}, "values"),
        ({"time_s": 61}, "values"),
        ({"boot_id": 7}, "values"),
        ({"model_id": "9"}, "values"),
        ({"upright": 1.0}, "values"),
        ({"upright": None}, "values"),
        ({"upright": True}, "values"),
        ({"moving": 1.5}, "values"),
        ({"right": "left"}, "values"),
        ({"first": "AAAA"}, "shape"),
        ({"first": "%" * 128}, "shape"),
        ({"second": base64.b64encode(bytes(2 * RAYS + 1)).decode()}, "shape"),
        ({"second": 5}, "shape"),
        ({"x": 0.3}, "malformed"),
    ],
)
def test_a_wrong_field_is_refused_with_its_reason(fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(MessageError) as refused:
        opened(changed(**fields))
    assert refused.value.reason == reason


@given(st.dictionaries(st.sampled_from(sorted(FIELDS)), JUNK, min_size=1))
def test_whatever_stands_in_a_field_is_read_or_refused(fields: dict[str, Any]) -> None:
    try:
        payload = changed(**fields)
    except MessageError:
        return  # too long for a document
    try:
        found = opened(payload)
    except MessageError:
        return
    assert np.isfinite(found.first.radii).all() and found.first.radii.shape == (RAYS,)


@given(st.binary(max_size=2000))
def test_whatever_comes_is_refused(payload: bytes) -> None:
    with pytest.raises(MessageError):
        opened(payload)


def test_another_key_camera_kind_or_model_is_refused() -> None:
    made = make_contour()
    with pytest.raises(MessageError, match="not signed"):
        opened(seal_contour(made, OTHER, "lab", "door"))
    with pytest.raises(MessageError, match="not signed"):
        opened(seal_contour(made, KEY, "lab", "door"), camera="hall")
    with pytest.raises(MessageError, match="not signed"):
        opened(seal_document("bridge", FIELDS, KEY, "lab", "door"))
    with pytest.raises(MessageError, match="model"):
        opened(seal_contour(made, KEY, "lab", "door"), model_id=8)


def test_nothing_is_signed_that_no_reader_takes() -> None:
    nothing = Outline(np.full(RAYS, np.nan), np.zeros(RAYS))
    for wrong in (make_contour(moving=2.0), make_contour(first=nothing), make_contour(time_s=1)):
        with pytest.raises(MessageError):
            seal_contour(wrong, KEY, "lab", "door")
