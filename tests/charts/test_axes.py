"""Axes: the ticks are round, hold the numbers, are told apart, and stand where their numbers are."""

import math
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from milligrad.charts.axes import Frame, is_far, logarithmic, span, values
from milligrad.charts.chart import Chart
from tests.charts.reading import assert_legible, number, parsed, ticks

FINITE = st.floats(allow_nan=False, allow_infinity=False)
ORDINARY = st.floats(-1e6, 1e6)
POSITIVE = st.floats(min_value=5e-324, max_value=1.7e308)


def is_round(x):
    """1, 2 or 5 times a power of ten, or the float next to it: the least ones have but few digits."""
    power = math.floor(math.log10(x))
    return any(math.isclose(x, float(f"{m}e{e}"), rel_tol=1e-6) for e in (power, power + 1) for m in (1, 2, 5))


@pytest.mark.parametrize(
    ("numbers", "labels"),
    [
        ([0.0, 1.0], ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]),
        ([0.13, 2.31], ["0.0", "0.5", "1.0", "1.5", "2.0", "2.5"]),
        ([-3.0, 4.0], ["−4", "−2", "0", "2", "4"]),
        ([0.031, 0.036], ["0.031", "0.032", "0.033", "0.034", "0.035", "0.036"]),
        ([0, 5_000_000], ["0", "1e+06", "2e+06", "3e+06", "4e+06", "5e+06"]),
        ([0.5], ["0.44", "0.46", "0.48", "0.50", "0.52", "0.54", "0.56"]),
        ([0.0], ["−1.0", "−0.5", "0.0", "0.5", "1.0"]),
        ([], ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]),
    ],
)
def test_ticks_are_those_that_one_would_choose(numbers, labels):
    assert values(numbers).labels == labels


@pytest.mark.parametrize(
    ("numbers", "labels"),
    [
        ([0.0, 1.0], ["0%", "20%", "40%", "60%", "80%", "100%"]),
        ([0.877, 0.998], ["85%", "90%", "95%", "100%"]),
        ([1.0], ["80%", "85%", "90%", "95%", "100%"]),
        ([0.9712, 0.9731], ["97.10%", "97.15%", "97.20%", "97.25%", "97.30%", "97.35%"]),
    ],
)
def test_shares_are_in_percent_and_end_at_100(numbers, labels):
    assert values(numbers, percent=True).labels == labels


@given(st.lists(FINITE, min_size=1, max_size=5))
def test_all_numbers_lie_between_the_ends_and_the_ticks_are_even_and_told_apart(numbers):
    axis = values(numbers)
    assert all(-1e-9 <= axis.normalize(x) <= 1 + 1e-9 for x in numbers)
    assert 2 <= len(axis.ticks) <= 8 and len({*axis.labels}) == len(axis.labels)
    assert (axis.ticks[0], axis.ticks[-1]) == (axis.lo, axis.hi)
    for x, label in zip(axis.ticks, axis.labels):
        if abs(x) < 1.7e308:  # what is shown of the largest numbers is rounded up, beyond them
            assert number(label) == pytest.approx(x, rel=1e-6, abs=1e-9 * (axis.hi / 2 - axis.lo / 2))


@given(st.lists(ORDINARY, min_size=1, max_size=5))
def test_the_steps_of_ticks_are_1_2_or_5(numbers):
    axis = values(numbers)
    steps = [b - a for a, b in pairwise(axis.ticks)]
    assert is_round(steps[0]) and steps == pytest.approx([steps[0]] * len(steps), rel=1e-6)
    assert all(abs(x / steps[0] - round(x / steps[0])) < 1e-3 for x in axis.ticks)


@given(st.lists(POSITIVE, min_size=1, max_size=5).filter(is_far))
@example([2.225073858507e-311, 5e-324])
def test_a_logarithmic_axis_holds_its_numbers_between_round_ones(numbers):
    axis = logarithmic(numbers)
    assert axis.ticks[0] <= min(numbers) and max(numbers) <= axis.ticks[-1]
    assert 2 <= len(axis.ticks) <= 7 and axis.ticks == sorted({*axis.ticks})
    for x in axis.ticks[1:-1]:
        assert is_round(x)
    middle = math.exp((math.log(axis.lo) + math.log(axis.hi)) / 2)
    assert axis.normalize(middle) == pytest.approx(0.5)


def test_a_factor_of_50_makes_an_axis_logarithmic_if_all_is_above_0():
    assert is_far([1.0, 51.0]) and not is_far([1.0, 49.0])
    assert not is_far([0.0, 1.0]) and not is_far([-1.0, 1000.0]) and not is_far([])
    assert logarithmic([0.007, 0.4]).labels == ["0.005", "0.01", "0.02", "0.05", "0.1", "0.2", "0.5"]
    assert logarithmic([0.012, 2.3]).labels == ["0.01", "0.1", "1", "10"]
    assert logarithmic([1e-300, 1e300]).labels == ["1e−300", "1e−200", "1e−100", "1", "1e+100", "1e+200", "1e+300"]


@given(st.integers(0, 10**6), st.integers(0, 5000))
def test_epochs_have_whole_numbers_for_ticks_within_them(first, n):
    axis = span([first, first + n], 280.0, whole=True)
    assert axis.ticks and all(x == int(x) for x in axis.ticks)
    if n:
        assert all(first <= x <= first + n for x in axis.ticks)
        assert (axis.lo, axis.hi) == (first, first + n)


@given(FINITE, FINITE, FINITE, FINITE)
@example(-4.02316069497655e-195, -4.02316069497655e-195, 8.935e99, 8.96499999999998e99)
def test_the_labels_of_a_frame_never_lie_on_each_other(a, b, c, d):
    x, y = span([a, b], 280.0), values([c, d])
    frame = Frame(x, y, 356.0, 20.0, 180.0)
    assert_legible(Chart("", "", 356.0, 260.0, frame.drawn("epoch")))


@given(st.tuples(ORDINARY, ORDINARY).filter(lambda e: abs(e[0] - e[1]) > 1e-3))
def test_a_tick_stands_where_its_number_is(ends):
    frame = Frame(span(ends, 280.0), values(ends), 356.0, 20.0, 180.0)
    root = parsed(Chart("", "", 356.0, 260.0, frame.drawn()))
    for x, place in ticks(root, "x"):
        assert frame.at(x, frame.y.lo)[0] == pytest.approx(place, abs=0.6)
    for y, place in ticks(root, "y"):
        assert frame.at(frame.x.lo, y)[1] == pytest.approx(place, abs=0.6)
    assert frame.at(frame.x.lo, frame.y.hi) == pytest.approx((frame.left, frame.top))
    assert frame.at(frame.x.hi, frame.y.lo) == pytest.approx((frame.right, frame.bottom))
