"""What is sent to a server and what is read of its answers, against anything at all."""

from __future__ import annotations

import base64
import io
import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cloud_bridge.inference.answers import logprobs_of, most_bytes, words_of
from cloud_bridge.inference.prompts import encode
from tests.support.any_json import ANY_JSON
from wire.errors import RemoteError

HIDDEN, MOST = 8, 5
DTYPES = (
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
    torch.int64,
    torch.uint8,
    torch.bool,
    torch.complex64,
)
NUMBERS = st.floats(width=32) | st.floats(-100.0, 100.0, width=32)


@st.composite
def tensors(draw: st.DrawFn) -> Any:
    """Tensors of any shape, number format, layout and content, and things that are none."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.sampled_from([None, "x", 1.0, [[0.0] * HIDDEN], np.zeros((2, HIDDEN), np.float32)]))
    shape = draw(st.just((draw(st.integers(0, MOST + 1)), HIDDEN)) | st.lists(st.integers(0, 9), max_size=4).map(tuple))
    values = draw(st.lists(NUMBERS, min_size=1, max_size=8))
    tensor = torch.tensor([values[k % len(values)] for k in range(math.prod(shape))]).reshape(shape)
    tensor = tensor.to(draw(st.just(torch.float32) | st.sampled_from(DTYPES)))
    change = draw(st.sampled_from(["none", "none", "view", "turned", "sparse", "gradient"]))
    if change == "view" and tensor.ndim:
        return torch.cat((tensor, tensor))[: len(tensor)]
    if change == "turned" and tensor.ndim == 2:
        return tensor.T.contiguous().T
    if change == "sparse" and tensor.ndim == 2 and tensor.dtype == torch.float32:
        return tensor.to_sparse()
    if change == "gradient" and tensor.dtype == torch.float32:
        return tensor.requires_grad_()
    return tensor


@settings(max_examples=400, deadline=None)
@given(tensors())
def test_only_what_a_model_can_read_is_sent(tensor: Any) -> None:
    """Sent is a dense float32 (1..5, 8) of finite numbers, equal to the one that was given; all else is refused."""
    try:
        sent = encode(tensor, HIDDEN, MOST)
    except RemoteError as error:
        assert "it was not sent" in str(error)
        good = isinstance(tensor, torch.Tensor) and tensor.layout == torch.strided and tensor.dtype == torch.float32
        assert not (good and tensor.ndim == 2 and tensor.shape[1] == HIDDEN and 0 < len(tensor) <= MOST) or not bool(
            (tensor.abs() <= 1e4).all()
        )
        return
    raw = base64.b64decode(sent, validate=True)
    found = torch.load(io.BytesIO(raw), weights_only=True)
    assert type(found) is torch.Tensor and found.layout == torch.strided and found.dtype == torch.float32
    assert 1 <= found.shape[0] <= MOST and found.shape[1:] == (HIDDEN,) and found.is_contiguous()
    assert not found.requires_grad and torch.equal(found, tensor) and bool(found.isfinite().all())
    assert found.untyped_storage().nbytes() == found.numel() * 4 and len(raw) < 4096


# --- answers

WANTED, VOCABULARY = range(2, 5), 11


def an_answer() -> dict[str, Any]:
    """A good one, of two choices."""
    top = {"token_id:7": -0.5, "token_id:2": -1.5, "token_id:3": -2.5, "token_id:4": -9999.0}
    logprobs = {"text_offset": [0], "token_logprobs": [-0.5], "tokens": ["token_id:7"], "top_logprobs": [top]}
    choice = {"text": "a", "logprobs": logprobs, "finish_reason": "length", "token_ids": [7, 1]}
    choices = [{"index": 1, **choice}, {"index": 0, **choice}]
    return {"id": "cmpl-1", "object": "text_completion", "model": "m", "choices": choices, "usage": {"total_tokens": 9}}


def as_bytes(document: Any) -> bytes:
    return json.dumps(document).encode()


def check(body: bytes) -> bool:
    """Read it both ways: good values or a RemoteError, nothing else. Returns whether it was good."""
    good = 0
    try:
        rows = logprobs_of(body, "m", 2, WANTED, VOCABULARY)
        assert [len(row) for row in rows] == [3, 3] and all(math.isfinite(value) for row in rows for value in row)
        assert all(sum(map(math.exp, row)) <= 1.01 for row in rows)
        good += 1
    except RemoteError as error:
        assert len(str(error)) < 200
    try:
        sentences = words_of(body, "m", 2, 4, VOCABULARY)
        assert all(len(words) <= 4 and all(0 <= word < VOCABULARY for word in words) for words in sentences)
        good += 1
    except RemoteError as error:
        assert len(str(error)) < 200
    return good == 2


def test_a_good_answer_is_read_in_the_order_of_the_question() -> None:
    answer = an_answer()
    assert check(as_bytes(answer))
    answer["choices"][1]["logprobs"] = {"top_logprobs": [{f"token_id:{n}": -3.0 - n for n in (2, 3, 4)}]}
    rows = logprobs_of(as_bytes(answer), "m", 2, WANTED, VOCABULARY)
    assert rows == [[-5.0, -6.0, -7.0], [-1.5, -2.5, -9999.0]]


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200) | ANY_JSON.map(as_bytes))
def test_an_answer_may_be_anything(body: bytes) -> None:
    assert not check(body)


def places(document: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value of a document."""
    keys = document if isinstance(document, dict) else range(len(document)) if isinstance(document, list) else ()
    return [path, *(place for key in keys for place in places(document[key], (*path, key)))]


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_any_field_of_an_answer_may_be_anything(data: st.DataObject) -> None:
    answer = an_answer()
    path = data.draw(st.sampled_from(places(answer)[1:]))
    where = answer
    for key in path[:-1]:
        where = where[key]
    if data.draw(st.booleans()):
        where[path[-1]] = data.draw(ANY_JSON)
    else:
        del where[path[-1]]
    check(as_bytes(answer))


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 255))
def test_any_byte_of_an_answer_may_be_wrong_or_the_last(place: int, byte: int) -> None:
    body = bytearray(as_bytes(an_answer()))
    cut = place % len(body)
    body[cut] = byte
    check(bytes(body))
    assert not check(bytes(body[:cut]))


def test_how_long_an_answer_may_be_grows_with_what_is_asked() -> None:
    assert most_bytes(1, 4) < most_bytes(2, 4) < most_bytes(64, 9) < 1 << 20
    with pytest.raises(RemoteError, match="too long"):
        logprobs_of(as_bytes(an_answer() | {"x": "y" * most_bytes(2, 4)}), "m", 2, WANTED, VOCABULARY)
