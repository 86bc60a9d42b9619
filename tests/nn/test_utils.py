"""Clipping of gradients: closed forms, what is counted once, and what must be refused."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from milligrad import Value, nn
from milligrad.nn.utils import clip_grad_norm_, clip_grad_value_


def with_grads(*grads, **options):
    values = [Value(1.0, **options) for _ in grads]
    for v, g in zip(values, grads):
        v.grad = g
    return values


def grads(values):
    return [v.grad for v in values]


def test_the_norm_is_returned_and_brought_down_to_the_bound():
    values = with_grads(3.0, -4.0)
    assert clip_grad_norm_(values, 1.0) == 5.0
    assert grads(values) == pytest.approx([3 / 5.000001, -4 / 5.000001], rel=1e-14)


def test_a_small_norm_changes_nothing():
    values = with_grads(3.0, -4.0)
    assert clip_grad_norm_(values, 6.0) == 5.0 and grads(values) == [3.0, -4.0]
    assert clip_grad_norm_(with_grads(0.0, 0.0), 0.0) == 0.0 and clip_grad_norm_([], 1.0) == 0.0


@pytest.mark.parametrize(
    "p, norm", [(1, 7.0), (2, 5.0), (3, 91 ** (1 / 3)), (0.5, 7 + 4 * math.sqrt(3)), (math.inf, 4.0)]
)
def test_other_norms(p, norm):
    values = with_grads(3.0, -4.0)
    assert clip_grad_norm_(values, 1.0, norm_type=p) == pytest.approx(norm, rel=1e-14)
    assert grads(values) == pytest.approx([3 / (norm + 1e-6), -4 / (norm + 1e-6)], rel=1e-14)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=6), st.floats(0.01, 100))
def test_the_direction_stays_and_the_norm_is_never_above_the_bound(gs, bound):
    values = with_grads(*gs)
    before = clip_grad_norm_(values, bound)
    assert before == pytest.approx(math.hypot(*gs), rel=1e-12)
    assert math.hypot(*grads(values)) <= bound * (1 + 1e-12)
    factor = min(1.0, bound / (before + 1e-6))
    assert grads(values) == pytest.approx([g * factor for g in gs], rel=1e-12)


@pytest.mark.parametrize("gs, p", [((3e200, -4e200), 2), ((1e154, 1e154), 2), ((3e153, 4e153), 3), ((1e308, 1e308), 1)])
def test_a_norm_whose_powers_overflow_is_infinite_and_leaves_gradients_of_0(gs, p):
    values = with_grads(*gs)
    assert clip_grad_norm_(values, 1.0, norm_type=p) == math.inf and grads(values) == [0.0, 0.0]
    with pytest.raises(ValueError, match=r"^the norm of the gradients is inf: no scaling makes it 1.0"):
        clip_grad_norm_(with_grads(*gs), 1.0, norm_type=p, error_if_nonfinite=True)


def test_a_norm_just_below_and_that_of_a_single_number_is_exact():
    assert clip_grad_norm_(with_grads(3e153, 4e153), 1.0) == pytest.approx(5e153, rel=1e-14)
    assert clip_grad_norm_(with_grads(3e200, -4e200), 1e300, norm_type=1) == 7e200
    values = with_grads(-1e200)
    assert clip_grad_norm_(values, 2.0) == 1e200 and grads(values) == [-2.0]


def test_no_square_vanishes():
    assert clip_grad_norm_(with_grads(3e-200, -4e-200), 1.0) == pytest.approx(5e-200, rel=1e-14, abs=0)


def test_modules_parameters_and_values_are_taken_alike():
    layer = nn.Linear(1, 2)
    layer([2.0])[0].backward()
    assert layer.weight.grad == [[2.0], [0.0]] and layer.bias.grad == [1.0, 0.0]
    assert clip_grad_norm_(layer.parameters(), 100.0) == pytest.approx(math.sqrt(5), rel=1e-15)
    assert clip_grad_norm_(layer.weight, 100.0) == 2.0
    assert clip_grad_norm_(layer.bias[0], 100.0) == 1.0
    clip_grad_value_(layer.parameters(), 1.5)
    assert layer.weight.grad == [[1.5], [0.0]]


def test_what_is_shared_counts_once_and_what_is_frozen_not_at_all():
    (v,), (frozen,) = with_grads(3.0), with_grads(4.0, requires_grad=False)
    assert clip_grad_norm_([v, nn.Parameter([v, v]), frozen], 1.5) == 3.0
    assert v.grad == pytest.approx(1.5, rel=1e-6) and frozen.grad == 4.0
    clip_grad_value_([v, frozen], 1.0)
    assert v.grad == 1.0 and frozen.grad == 4.0


def test_values_are_moved_to_the_nearest_bound():
    values = with_grads(-3.0, -1.0, 0.5, 2.0, math.inf, math.nan)
    clip_grad_value_(values, 1.0)
    assert grads(values)[:5] == [-1.0, -1.0, 0.5, 1.0, 1.0] and math.isnan(values[5].grad)
    clip_grad_value_(values, 0)
    assert grads(values)[:5] == [0.0] * 5


@pytest.mark.parametrize("g", [math.inf, -math.inf, math.nan])
def test_a_norm_that_is_not_finite_is_an_error_if_asked_for(g):
    values = with_grads(1.0, g)
    with pytest.raises(ValueError, match=r"^the norm of the gradients is (inf|nan): no scaling makes it 1.0"):
        clip_grad_norm_(values, 1.0, error_if_nonfinite=True)
    assert values[0].grad == 1.0
    assert not math.isfinite(clip_grad_norm_(values, 1.0))


@pytest.mark.parametrize("wrong", [-1.0, math.nan])
def test_a_bound_below_zero_is_refused_and_nothing_changes(wrong):
    values = with_grads(3.0)
    with pytest.raises(ValueError, match=r"^max_norm: expected a number >= 0, got"):
        clip_grad_norm_(values, wrong)
    with pytest.raises(ValueError, match=r"^clip_value: expected a number >= 0, got"):
        clip_grad_value_(values, wrong)
    for p in (wrong, 0):
        with pytest.raises(ValueError, match=r"^norm_type: expected a number > 0, got"):
            clip_grad_norm_(values, 1.0, norm_type=p)
    assert values[0].grad == 3.0


@pytest.mark.parametrize("wrong", ["a", None, [1.0]], ids=str)
def test_a_bound_that_is_no_number_is_refused(wrong):
    with pytest.raises(TypeError, match=r"^max_norm: expected a real number"):
        clip_grad_norm_(with_grads(3.0), wrong)
    with pytest.raises(TypeError, match=r"^clip_value: expected a real number"):
        clip_grad_value_(with_grads(3.0), wrong)
    with pytest.raises(TypeError, match=r"^norm_type: expected a real number"):
        clip_grad_norm_(with_grads(3.0), 1.0, wrong)


def test_what_is_no_parameter_is_refused_and_nothing_changes():
    values = with_grads(3.0)
    for wrong in (1.0, "a", None):
        for clip in (clip_grad_norm_, clip_grad_value_):
            with pytest.raises(TypeError, match=r"^parameters: expected Parameters or Values, got"):
                clip([*values, wrong], 1.0)
    assert values[0].grad == 3.0
