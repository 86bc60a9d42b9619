import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from milligrad import nn

SHAPES = [(2, 3), (3,), (1, 2, 2)]


def both(grads):
    """Parameters with the gradients `grads` (a flat list of 13 numbers), here and in PyTorch."""
    ours = [nn.Parameter(torch.zeros(size).tolist()) for size in SHAPES]
    theirs = [torch.nn.Parameter(torch.zeros(size, dtype=torch.float64)) for size in SHAPES]
    numbers = iter(grads)
    for p, q in zip(ours, theirs):
        for v in p.values():
            v.grad = next(numbers)
        q.grad = torch.tensor(p.grad, dtype=torch.float64)
    return ours, theirs


def same(ours, theirs):
    for p, q in zip(ours, theirs):
        torch.testing.assert_close(
            torch.tensor(p.grad, dtype=torch.float64), q.grad, rtol=1e-9, atol=1e-12, equal_nan=True
        )


gradients = st.lists(st.floats(-1e6, 1e6), min_size=13, max_size=13)


@settings(max_examples=50, deadline=None)
@given(gradients, st.sampled_from([0.0, 0.5, 3.0, 1e9]), st.sampled_from([0.5, 1, 2, 2.0, 3, 7.5, math.inf]))
def test_the_norm_is_clipped_alike(grads, max_norm, norm_type):
    ours, theirs = both(grads)
    norm = nn.utils.clip_grad_norm_(ours, max_norm, norm_type)
    expected = torch.nn.utils.clip_grad_norm_(theirs, max_norm, norm_type)
    assert norm == pytest.approx(expected.item(), rel=1e-9, abs=1e-12)
    same(ours, theirs)


@pytest.mark.parametrize("norm_type", [1, 2, 3, math.inf])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", [0, 12])
def test_a_norm_that_is_not_finite_does_the_same(bad, norm_type, place):
    grads = [float(i) for i in range(13)]
    grads[place] = bad
    ours, theirs = both(grads)
    norm = nn.utils.clip_grad_norm_(ours, 1.0, norm_type)
    expected = torch.nn.utils.clip_grad_norm_(theirs, 1.0, norm_type)
    assert norm == pytest.approx(expected.item(), nan_ok=True)
    same(ours, theirs)


@pytest.mark.parametrize("norm_type", [1, 2, 3, math.inf])
@pytest.mark.parametrize("size", [1e50, 1e102, 1e103, 1e153, 1e154, 1e200, 1e307])
@pytest.mark.parametrize("many", [True, False])
def test_a_norm_beyond_what_powers_can_hold_is_clipped_alike(size, norm_type, many):
    ours, theirs = both([size * (1 + i / 13) if many or i == 12 else 0.0 for i in range(13)])
    norm = nn.utils.clip_grad_norm_(ours, 1.0, norm_type)
    expected = torch.nn.utils.clip_grad_norm_(theirs, 1.0, norm_type)
    assert norm == pytest.approx(expected.item(), rel=1e-9)
    same(ours, theirs)


@settings(max_examples=50, deadline=None)
@given(gradients, st.sampled_from([0.0, 0.5, 3.0, math.inf]))
def test_values_are_clipped_alike(grads, clip_value):
    ours, theirs = both(grads)
    nn.utils.clip_grad_value_(ours, clip_value)
    torch.nn.utils.clip_grad_value_(theirs, clip_value)
    same(ours, theirs)


def test_nan_is_clipped_alike():
    ours, theirs = both([math.nan, math.inf, -math.inf] + [0.0] * 10)
    nn.utils.clip_grad_value_(ours, 2.0)
    torch.nn.utils.clip_grad_value_(theirs, 2.0)
    same(ours, theirs)
