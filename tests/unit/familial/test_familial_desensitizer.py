"""The integer core, compared with a slow reference in Python's own integers, for any float the network may produce."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from familial.model.desensitizer import Desensitizer, Sharpen, integer_code, straight_through

C = 64
FLOATS = st.one_of(
    st.floats(-70, 70, width=32),
    st.floats(width=32, allow_nan=False),
    st.sampled_from([math.nan, math.inf, -math.inf, 3.4e38, -3.4e38, 2147483648.0, -2147483648.0, 0.5, -0.5, 63.5]),
)


def reference(x: list[float]) -> list[int]:
    """Steps 1 and 2 for finite x, without any fixed width."""
    a = [max(-C, min(C, round(v))) for v in x]
    b = [max(-C, min(C, math.trunc(v))) for v in x]
    for code in (a, b):
        if sum(v * v for v in code) <= C * C:
            return code
    return [0] * len(x)


@settings(max_examples=60, deadline=None)
@given(st.lists(FLOATS, min_size=64, max_size=64))
def test_the_norm_never_exceeds_c(values: list[float]) -> None:
    code = integer_code(torch.tensor(values).reshape(1, 4, 16), C)
    assert code.dtype == torch.int32
    assert sum(int(v) ** 2 for v in code.flatten()) <= C * C


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-12, 12, width=32), min_size=64, max_size=64))
def test_the_code_equals_the_reference(values: list[float]) -> None:
    code = integer_code(torch.tensor(values).reshape(1, 4, 16), C)
    assert code.flatten().tolist() == reference(values)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e38])
def test_values_beyond_int32_still_give_a_bounded_norm(bad: float) -> None:
    x = torch.randn(3, 4, 16) * 5
    x[0] = bad
    x[1, 2, 3] = bad
    code = integer_code(x, C)
    assert ((code.long() ** 2).sum(dim=(1, 2)) <= C * C).all()
    assert code[2].abs().sum() > 0


def test_a_code_that_rounds_out_of_the_ball_is_truncated() -> None:
    x = torch.full((1, 4, 16), 7.96)  # |x| = 63.7, rounded it is 64 = C
    assert set(integer_code(x, C).flatten().tolist()) == {8}
    x[0, 0, 0] = 8.51  # rounds to 9: 64.1 > C, so the truncated code is taken
    assert set(integer_code(x, C).flatten().tolist()) == {7, 8}
    assert integer_code(torch.full((1, 4, 16), 9.0), C).abs().sum() == 0


def test_straight_through_gives_the_code_with_gradient_one() -> None:
    x = (torch.randn(2, 4, 16) * 6).requires_grad_()
    code = straight_through(x, C)
    assert torch.equal(code.detach(), integer_code(x.detach(), C).float())
    code.sum().backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    assert x.grad is not None and torch.equal(x.grad, torch.ones_like(x))


def test_rounding_a_desensitized_code_rarely_leaves_the_ball() -> None:
    torch.manual_seed(2)
    made = Desensitizer(32, 16, 4, 16, C)
    with torch.no_grad():
        made.outer.weight.mul_(1e3)
        x = made(torch.randn(500, 32))
    norms = x.flatten(1).norm(dim=1)
    assert float(norms.max()) <= C - 1 + 1e-3 and float(norms.min()) > C - 2
    rounded = torch.round(x)
    tripped = (rounded.flatten(1).norm(dim=1) > C).float().mean()
    assert float(tripped) < 0.01


def test_nan_weights_give_a_code_inside_the_ball() -> None:
    made = Desensitizer(32, 16, 4, 16, C)
    with torch.no_grad():
        made.outer.weight.fill_(np.nan)
        code = integer_code(made(torch.randn(3, 32)), C)
    assert ((code.long() ** 2).sum(dim=(1, 2)) <= C * C).all()


CORNERS = torch.tensor([[1.0, 0.0], [-0.8, 0.6], [-0.8, -0.6]])


def test_sharpened_codes_lie_at_a_prototype_or_between_those_that_are_likely() -> None:
    sharpen = Sharpen(CORNERS, 6.0, (0.0, 0.0, 0.0))
    at = sharpen(CORNERS)
    assert float((at - CORNERS).norm(dim=1).max()) < 0.3
    near = sharpen(0.6 * CORNERS[:1])
    assert float((near - CORNERS[:1]).norm()) < float((0.6 * CORNERS[:1] - CORNERS[:1]).norm())
    torch.testing.assert_close(sharpen(torch.zeros(1, 2))[0], CORNERS.mean(dim=0))
    assert float(sharpen(torch.randn(100, 2)).norm(dim=1).max()) <= 1.0


def test_a_bias_moves_the_border_between_labels() -> None:
    border = 0.5 * (CORNERS[:1] + CORNERS[1:2])
    along = CORNERS[0] - CORNERS[1]
    even, strict = (float(Sharpen(CORNERS, 6.0, (0.0, bias, -9.0))(border) @ along) for bias in (0.0, -2.0))
    assert strict > even + 0.5


def test_the_code_of_a_sharpened_family_stays_in_the_ball_and_in_its_plane() -> None:
    torch.manual_seed(0)
    plain = Desensitizer(8, 16, 4, 16, C, rank=2, aside=2).eval()
    sharp = Desensitizer(8, 16, 4, 16, C, rank=2, aside=2, sharpen=Sharpen(CORNERS, 4.0, (0.0, -1.0, 1.0))).eval()
    with torch.no_grad():
        plain.outer.weight *= 400
        sharp.load_state_dict(plain.state_dict())
        before, x = (each(torch.randn(50, 8, generator=torch.Generator().manual_seed(1))) for each in (plain, sharp))
    assert float(x.flatten(1).norm(dim=1).max()) < C - 1 and not torch.allclose(x, before)
    assert plain.plane is not None
    beside = plain.plane[2:].T
    torch.testing.assert_close(x.flatten(1) @ beside, before.flatten(1) @ beside)  # attributes are left alone
    inside = x.flatten(1) @ plain.plane.T @ plain.plane
    torch.testing.assert_close(inside, x.flatten(1), atol=1e-3, rtol=1e-4)
