import csv
import gzip
import hashlib
import math
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import milligrad.data
from milligrad.data import TensorDataset, load_digits, load_names, make_circles, make_moons, make_spiral, xor
from milligrad.random import manual_seed

FOLDER = Path(milligrad.data.__file__).parent
GENERATED = [make_moons, make_circles, make_spiral]

counts = st.integers(1, 60)


def near(x, y):
    return math.dist(x, y) < 1e-12


def by_class(dataset):
    """The points of each class, in order."""
    groups = {}
    for x, y in dataset:
        groups.setdefault(y, []).append(x)
    return groups


@pytest.fixture(scope="module")
def rows():
    with gzip.open(FOLDER / "digits.csv.gz", "rt", newline="") as file:
        return [[int(field) for field in row] for row in csv.reader(file)]


def test_the_digits_are_1797_pictures_of_64_floats_and_a_digit():
    digits = load_digits()
    assert isinstance(digits, TensorDataset) and len(digits) == 1797
    for x, y in digits:
        assert type(x) is list and len(x) == 64 and {type(pixel) for pixel in x} == {float}
        assert min(x) >= 0 and max(x) <= 1
        assert type(y) is int
    assert min(map(min, digits.tensors[0])) == 0 and max(map(max, digits.tensors[0])) == 1


def test_the_digits_have_the_published_number_of_each_class():
    assert sorted(Counter(load_digits().tensors[1]).items()) == list(
        enumerate([178, 182, 177, 183, 181, 182, 181, 179, 174, 180])
    )


def test_the_digits_are_those_of_the_file(rows):
    assert load_digits(normalize=False)[:] == ([[float(p) for p in row[:-1]] for row in rows], [r[-1] for r in rows])
    assert load_digits()[:] == ([[p / 16 for p in row[:-1]] for row in rows], [row[-1] for row in rows])


def test_the_first_digit_is_the_zero_it_looks_like():
    x, y = load_digits(normalize=False)[0]
    assert y == 0
    assert x[:16] == [0, 0, 5, 13, 9, 1, 0, 0, 0, 0, 13, 15, 10, 15, 5, 0]
    assert sum(x) == 294
    assert sum(load_digits()[0][0]) == 294 / 16


def test_callers_cannot_spoil_each_others_digits():
    mine = load_digits()
    mine[0][0][:] = [9.0] * 64
    mine.tensors[1][0] = 5
    x, y = load_digits()[0]
    assert max(x) <= 1 and y == 0


def test_the_file_is_the_one_that_is_credited():
    credit = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert hashlib.sha256((FOLDER / "digits.csv.gz").read_bytes()).hexdigest() in credit
    for words in ("Alpaydin", "Kaynak", "UCI Machine Learning Repository", "10.24432/C50P49", "CC BY 4.0"):
        assert words in credit and words in " ".join(load_digits.__doc__.split())


def test_the_names_are_8403_different_ones_of_small_letters_in_order():
    names = load_names()
    assert len(names) == len({*names}) == 8403 and names == sorted(names)
    assert all(name.isascii() and name.isalpha() and name.islower() for name in names)
    assert {*map(len, names)} == {*range(2, 14)}
    assert {"emma", "olivia", "noah", "maximilianus"} < {*names}  # of both lists


def test_callers_cannot_spoil_each_others_names():
    load_names().clear()
    assert load_names()[0] == "aaren"


def test_the_names_are_those_that_are_credited():
    credit = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert hashlib.sha256((FOLDER / "names.txt.gz").read_bytes()).hexdigest() in credit
    for words in ("Ward", "2002", "Moby Word II", "stdlib", "public domain"):
        assert words in credit and words in " ".join(load_names.__doc__.split())


def test_xor_is_one_where_just_one_input_is():
    samples = list(xor())
    assert sorted(x for x, _ in samples) == [[0, 0], [0, 1], [1, 0], [1, 1]]
    assert all(y == int(a) ^ int(b) for (a, b), y in samples)


def test_callers_cannot_spoil_each_others_xor():
    xor()[0][0][0] = 7.0
    assert xor()[0] == ([0.0, 0.0], 0)


@settings(max_examples=25, deadline=None)
@given(counts)
def test_moons_are_the_upper_half_of_one_circle_and_the_lower_half_of_another(n):
    moons = by_class(make_moons(n))
    for x, y in moons.get(0, []):
        assert abs(math.hypot(x, y) - 1) < 1e-12 and y > -1e-12
    for x, y in moons[1]:
        assert abs(math.hypot(x - 1, y - 0.5) - 1) < 1e-12 and y < 0.5 + 1e-12


@settings(max_examples=25, deadline=None)
@given(st.integers(4, 60))
def test_moons_go_from_tip_to_tip_in_equal_steps(n):
    upper, lower = by_class(make_moons(n)).values()
    assert near(upper[0], (1, 0)) and near(upper[-1], (-1, 0))
    assert near(lower[0], (0, 0.5)) and near(lower[-1], (2, 0.5))
    for moon in (upper, lower):
        steps = [math.dist(a, b) for a, b in pairwise(moon)]
        assert max(steps) - min(steps) < 1e-12


@settings(max_examples=25, deadline=None)
@given(counts, st.floats(0, 0.99))
def test_circles_have_the_radii_1_and_factor_in_equal_steps(n, factor):
    circles = by_class(make_circles(n, factor=factor))
    for label, radius in ((0, 1.0), (1, factor)):
        circle = circles.get(label, [])
        for i, point in enumerate(circle):
            angle = 2 * math.pi * i / len(circle)
            assert near(point, (radius * math.cos(angle), radius * math.sin(angle)))


def test_circles_of_eight_samples_point_along_the_axes():
    outer, inner = by_class(make_circles(8, factor=0.5)).values()
    assert all(map(near, outer, [(1, 0), (0, 1), (-1, 0), (0, -1)]))
    assert all(map(near, inner, [(0.5, 0), (0, 0.5), (-0.5, 0), (0, -0.5)]))


@settings(max_examples=25, deadline=None)
@given(counts, st.integers(1, 5), st.floats(-3, 3))
def test_a_spiral_arm_turns_in_proportion_to_its_radius(n, classes, turns):
    arms = by_class(make_spiral(n * classes, classes, turns))
    assert sorted(arms) == list(range(classes))
    for label, arm in arms.items():
        assert len(arm) == n
        for i, point in enumerate(arm, start=1):
            angle = 2 * math.pi * (turns * i / n + label / classes)
            assert abs(math.hypot(*point) - i / n) < 1e-12
            assert near(point, (i / n * math.cos(angle), i / n * math.sin(angle)))


def test_a_spiral_of_no_turns_is_a_star():
    east, west = by_class(make_spiral(4, classes=2, turns=0)).values()
    assert all(map(near, east, [(0.5, 0), (1, 0)])) and all(map(near, west, [(-0.5, 0), (-1, 0)]))


def test_a_positive_number_of_turns_goes_counterclockwise():
    (arm,) = by_class(make_spiral(4, classes=1, turns=1)).values()
    assert all(map(near, arm, [(0, 0.25), (-0.5, 0), (0, -0.75), (1, 0)]))


@settings(max_examples=25, deadline=None)
@given(counts)
def test_an_odd_sample_goes_to_the_second_class(n):
    for make in (make_moons, make_circles):
        assert make(n).tensors[1] == [0] * (n // 2) + [1] * (n - n // 2)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 7), st.integers(0, 50))
def test_the_arms_of_a_spiral_differ_by_one_sample_at_most(classes, more):
    labels = make_spiral(classes + more, classes).tensors[1]
    sizes = Counter(labels)
    assert labels == sorted(labels) and len(labels) == classes + more and len(sizes) == classes
    assert max(sizes.values()) - min(sizes.values()) <= 1


@pytest.mark.parametrize("make", GENERATED)
def test_samples_are_two_floats_and_an_int(make):
    dataset = make(30, noise=0.1, seed=0)
    assert isinstance(dataset, TensorDataset) and len(dataset) == 30
    for x, y in dataset:
        assert type(x) is list and [type(number) for number in x] == [float, float] and type(y) is int


@pytest.mark.parametrize("make", GENERATED)
def test_noise_is_settled_by_its_seed(make):
    assert make(30, noise=0.1, seed=4)[:] == make(30, noise=0.1, seed=4)[:]
    assert make(30, noise=0.1, seed=4)[:] != make(30, noise=0.1, seed=5)[:]
    assert make(30, seed=4)[:] == make(30, seed=5)[:] == make(30)[:]


@pytest.mark.parametrize("make", GENERATED)
def test_without_a_seed_noise_comes_from_the_generator_of_milligrad(make):
    manual_seed(2)
    first = make(30, noise=0.1)[:]
    second = make(30, noise=0.1)[:]
    manual_seed(2)
    assert make(30, noise=0.1)[:] == first != second


@pytest.mark.parametrize("make", GENERATED)
def test_noise_has_mean_0_and_the_standard_deviation_asked_for(make):
    n, noise = 5000, 0.3
    clean, noisy = make(n).tensors[0], make(n, noise=noise, seed=1).tensors[0]
    errors = [b - a for x, y in zip(clean, noisy) for a, b in zip(x, y)]
    mean = math.fsum(errors) / len(errors)
    deviation = math.sqrt(math.fsum((e - mean) ** 2 for e in errors) / len(errors))
    # 5 standard errors of each estimate, from 10,000 numbers
    assert abs(mean) < 5 * noise / math.sqrt(2 * n)
    assert abs(deviation - noise) < 5 * noise / math.sqrt(4 * n)


@pytest.mark.parametrize("make", GENERATED)
def test_n_samples_is_a_whole_number_of_1_or_more(make):
    for n in (0, -3):
        with pytest.raises(ValueError, match=rf"n_samples: expected \d or more, got {n}"):
            make(n)
    for n in (10.0, "10", None, (5, 5), True):
        with pytest.raises(TypeError, match="n_samples: expected a whole number"):
            make(n)


@pytest.mark.parametrize("make", GENERATED)
def test_noise_is_a_finite_number_of_0_or_more(make):
    for noise in (-0.1, math.nan, math.inf):
        with pytest.raises(ValueError, match="noise: expected a finite standard deviation, 0 or more"):
            make(10, noise=noise)
    with pytest.raises(TypeError, match="noise: expected a real number"):
        make(10, noise="much")


@pytest.mark.parametrize("make", GENERATED)
def test_a_seed_is_a_whole_number(make):
    with pytest.raises(TypeError, match="seed: expected a whole number"):
        make(10, noise=0.1, seed=0.5)


@pytest.mark.parametrize("factor", [-0.1, 1, 1.5, math.nan])
def test_the_inner_circle_is_inside(factor):
    with pytest.raises(ValueError, match="factor: expected a number from 0 to below 1"):
        make_circles(10, factor=factor)


def test_a_spiral_needs_a_class_and_a_sample_for_each_and_finite_turns():
    with pytest.raises(ValueError, match="classes: expected 1 or more, got 0"):
        make_spiral(10, classes=0)
    with pytest.raises(TypeError, match="classes: expected a whole number"):
        make_spiral(10, classes=2.0)
    with pytest.raises(ValueError, match="n_samples: expected 3 or more, got 2"):
        make_spiral(2, classes=3)
    for turns in (math.inf, math.nan):
        with pytest.raises(ValueError, match="turns: expected a finite number"):
            make_spiral(10, turns=turns)
