"""Initial values: bounds, moments, structure, published gains, and what must be refused with nothing changed."""

import math
from statistics import fmean, pvariance

import pytest

import milligrad
from milligrad import nn
from milligrad.nested import flatten, full, unflatten
from milligrad.nn import init

N = 4000


@pytest.fixture(autouse=True)
def seed():
    milligrad.manual_seed(0)


def parameter(*size):
    return nn.Parameter(full(size, 7.0))


def numbers(p):
    return flatten(p.data)


def looks_uniform(xs, a, b):
    """Within [a, b], reaching for both ends, with the mean and the variance of the uniform distribution."""
    width = b - a
    assert a <= min(xs) < a + 0.01 * width and b - 0.01 * width < max(xs) <= b
    assert abs(fmean(xs) - (a + b) / 2) < 4 * width / math.sqrt(12 * len(xs))
    assert pvariance(xs) == pytest.approx(width**2 / 12, rel=0.06)


def looks_normal(xs, mean, std):
    """With the moments of the normal distribution, and 4.55 % of it further than two deviations from the mean."""
    assert abs(fmean(xs) - mean) < 4 * std / math.sqrt(len(xs))
    assert pvariance(xs) == pytest.approx(std**2, rel=0.1)
    assert sum(abs(x - mean) > 2 * std for x in xs) / len(xs) == pytest.approx(0.0455, abs=0.014)


FUNCTIONS = {
    "uniform_": {},
    "normal_": {},
    "trunc_normal_": {},
    "ones_": {},
    "zeros_": {},
    "constant_": {"value": 3.0},
    "eye_": {},
    "xavier_uniform_": {},
    "xavier_normal_": {},
    "kaiming_uniform_": {},
    "kaiming_normal_": {},
    "orthogonal_": {},
    "sparse_": {"sparsity": 0.5},
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_parameter_is_filled_in_place_and_returned(name):
    p = parameter(3, 2)
    values = p.values()
    p[0][0].grad = 5.0
    assert getattr(init, name)(p, **FUNCTIONS[name]) is p
    assert all(a is b for a, b in zip(p.values(), values)) and 7.0 not in numbers(p)
    assert p[0][0].grad == 5.0 and p.shape == (3, 2) and all(v.requires_grad and v.is_leaf for v in values)


@pytest.mark.parametrize("name", [name for name in FUNCTIONS if name not in ("ones_", "zeros_", "constant_", "eye_")])
def test_a_seed_repeats_the_numbers(name):
    drawn = []
    for seed in (1, 1, 2):
        milligrad.manual_seed(seed)
        drawn.append(numbers(getattr(init, name)(parameter(3, 3), **FUNCTIONS[name])))
    assert drawn[0] == drawn[1] != drawn[2]


def test_uniform_and_normal():
    looks_uniform(numbers(init.uniform_(parameter(N))), 0.0, 1.0)
    looks_uniform(numbers(init.uniform_(parameter(N), -3.0, 5.0)), -3.0, 5.0)
    looks_normal(numbers(init.normal_(parameter(N))), 0.0, 1.0)
    looks_normal(numbers(init.normal_(parameter(N), 5.0, 0.1)), 5.0, 0.1)
    assert numbers(init.uniform_(parameter(3), 2.0, 2.0)) == numbers(init.normal_(parameter(3), 2.0, 0.0)) == [2.0] * 3


def test_truncated_normal_has_the_moments_of_the_truncated_distribution():
    xs = numbers(init.trunc_normal_(parameter(N)))
    density, mass = math.exp(-2) / math.sqrt(2 * math.pi), math.erf(math.sqrt(2))
    assert -2 <= min(xs) < -1.9 and 1.9 < max(xs) <= 2
    assert abs(fmean(xs)) < 0.06 and pvariance(xs) == pytest.approx(1 - 4 * density / mass, rel=0.06)
    xs = numbers(init.trunc_normal_(parameter(N), 1.0, 0.5, 1.0, 9.0))
    assert min(xs) >= 1.0 and fmean(xs) == pytest.approx(1 + 0.5 * math.sqrt(2 / math.pi), rel=0.03)


def test_constants():
    assert init.constant_(parameter(2, 2), -1.5).data == [[-1.5] * 2] * 2
    assert init.ones_(parameter(2)).data == [1.0, 1.0] and init.zeros_(parameter(1, 1, 1)).data == [[[0.0]]]


def test_eye_is_the_identity_also_if_it_is_not_square():
    assert init.eye_(parameter(2, 3)).data == [[1, 0, 0], [0, 1, 0]]
    assert init.eye_(parameter(3, 2)).data == [[1, 0], [0, 1], [0, 0]]


def test_dirac_passes_channels_on():
    layer = nn.Conv2d(2, 3, 3, padding=1, bias=False)
    init.dirac_(layer.weight)
    image = unflatten(map(float, range(18)), (2, 3, 3))
    assert [v.data for v in flatten(layer(image)[:2])] == flatten(image)
    assert [v.data for v in flatten(layer(image)[2])] == [0.0] * 9
    grouped = nn.Conv2d(4, 4, 1, groups=2, bias=False)
    init.dirac_(grouped.weight, groups=2)
    assert [m[0][0].data for m in grouped([[[1.0]], [[2.0]], [[3.0]], [[4.0]]])] == [1, 2, 3, 4]
    assert init.dirac_(parameter(1, 1, 3)).data == [[[0, 1, 0]]]


def test_fans():
    assert init.fans(parameter(3, 5)) == (5, 3)
    assert init.fans(parameter(4, 2, 3, 5)) == (30, 60)


def test_the_published_gains():
    gains = {"linear": 1, "conv1d": 1, "conv2d": 1, "conv3d": 1, "sigmoid": 1, "tanh": 5 / 3, "selu": 0.75}
    for name, gain in gains.items():
        assert init.calculate_gain(name) == gain
    assert init.calculate_gain("relu") == pytest.approx(1.4142135623730951, rel=1e-15)
    assert init.calculate_gain("leaky_relu") == pytest.approx(1.4141428569978354, rel=1e-15)
    assert init.calculate_gain("leaky_relu", 0.2) == pytest.approx(math.sqrt(2 / 1.04), rel=1e-15)
    with pytest.raises(ValueError, match=r"^nonlinearity: expected one of linear, .*, got 'gelu'"):
        init.calculate_gain("gelu")


def test_xavier():
    bound = math.sqrt(6 / 130)
    looks_uniform(numbers(init.xavier_uniform_(parameter(50, 80))), -bound, bound)
    looks_uniform(numbers(init.xavier_uniform_(parameter(50, 80), 2.0)), -2 * bound, 2 * bound)
    looks_normal(numbers(init.xavier_normal_(parameter(50, 80))), 0.0, math.sqrt(2 / 130))
    looks_normal(numbers(init.xavier_normal_(parameter(10, 4, 10, 10), 3.0)), 0.0, 3 * math.sqrt(2 / 1400))


@pytest.mark.parametrize("mode, fan", [("fan_in", 80), ("fan_out", 50)])
def test_kaiming(mode, fan):
    bound = math.sqrt(6 / fan)
    looks_uniform(numbers(init.kaiming_uniform_(parameter(50, 80), mode=mode)), -bound, bound)
    looks_normal(numbers(init.kaiming_normal_(parameter(50, 80), mode=mode)), 0.0, math.sqrt(2 / fan))
    bound = math.sqrt(3 / fan) * 5 / 3
    looks_uniform(numbers(init.kaiming_uniform_(parameter(50, 80), mode=mode, nonlinearity="tanh")), -bound, bound)
    std = math.sqrt(2 / (1 + 5) / fan)
    looks_normal(numbers(init.kaiming_normal_(parameter(50, 80), math.sqrt(5), mode)), 0.0, std)


@pytest.mark.parametrize("size", [(4, 4), (3, 7), (7, 3), (1, 5), (5, 1), (4, 2, 3), (2, 2, 1, 2)])
@pytest.mark.parametrize("gain", [1.0, 2.5])
def test_orthogonal_rows_or_columns_are_orthonormal(size, gain):
    rows = [flatten(row) for row in init.orthogonal_(parameter(*size), gain).data]
    vectors = rows if len(rows) <= len(rows[0]) else list(zip(*rows))
    for i, u in enumerate(vectors):
        for j, v in enumerate(vectors):
            assert sum(a * b for a, b in zip(u, v)) == pytest.approx(gain**2 * (i == j), abs=1e-12)


def test_orthogonal_matrices_have_no_preferred_sign():
    signs = [init.orthogonal_(parameter(1, 1)).data[0][0] for _ in range(200)]
    assert 60 < signs.count(1.0) < 140 and signs.count(1.0) + signs.count(-1.0) == 200


def test_sparse_columns_have_that_many_zeros():
    p = init.sparse_(parameter(10, 40), 0.25, std=2.0)
    assert all(list(column).count(0.0) == 3 for column in zip(*p.data))  # 2.5 rounded up
    assert pvariance([x for x in numbers(p) if x]) == pytest.approx(4, rel=0.25)
    assert len({tuple(x == 0 for x in column) for column in zip(*p.data)}) > 10
    assert 0.0 not in numbers(init.sparse_(parameter(3, 3), 0.0))
    assert numbers(init.sparse_(parameter(3, 3), 1.0)) == [0.0] * 9


REFUSED = [
    (init.uniform_, (3,), {"a": 2.0, "b": 1.0}, r"^b: expected at least a = 2.0, got 1.0"),
    (init.uniform_, (3,), {"a": math.nan}, r"^b: expected at least a = nan"),
    (init.normal_, (3,), {"std": -1.0}, r"^std: expected a number >= 0, got -1.0"),
    (init.normal_, (3,), {"std": math.nan}, r"^std: expected a number >= 0, got nan"),
    (init.trunc_normal_, (3,), {"std": 0.0}, r"^std: expected a number > 0, got 0.0"),
    (init.trunc_normal_, (3,), {"a": 2.0}, r"^b: expected more than a = 2.0, got 2.0"),
    (init.trunc_normal_, (3,), {"a": 50.0, "b": 51.0}, r"^a, b: expected bounds within reach of mean 0.0 and std 1.0"),
    (init.eye_, (3,), {}, r"^parameter: expected a matrix \(2 dimensions\), got the shape \(3,\)"),
    (init.sparse_, (3,), {"sparsity": 0.5}, r"^parameter: expected a matrix \(2 dimensions\), got the shape \(3,\)"),
    (init.sparse_, (3, 3), {"sparsity": 1.5}, r"^sparsity: expected a number between 0 and 1, got 1.5"),
    (init.sparse_, (3, 3), {"sparsity": math.nan}, r"^sparsity: expected a number between 0 and 1, got nan"),
    (init.sparse_, (3, 3), {"sparsity": 0.5, "std": -1.0}, r"^std: expected a number >= 0, got -1.0"),
    (init.dirac_, (3, 3), {}, r"^parameter: expected 3, 4 or 5 dimensions, got the shape \(3, 3\)"),
    (init.dirac_, (3, 3, 1), {"groups": 2}, r"^groups: expected a divisor of 3, got 2"),
    (init.dirac_, (3, 3, 1), {"groups": 0}, r"^groups: expected a divisor of 3, got 0"),
    (init.xavier_uniform_, (3,), {}, r"^parameter: expected at least 2 dimensions, got the shape \(3,\)"),
    (init.xavier_normal_, (3,), {}, r"^parameter: expected at least 2 dimensions, got the shape \(3,\)"),
    (init.kaiming_uniform_, (3,), {}, r"^parameter: expected at least 2 dimensions, got the shape \(3,\)"),
    (init.kaiming_normal_, (3, 3), {"mode": "fan"}, r"^mode: expected 'fan_in' or 'fan_out', got 'fan'"),
    (init.kaiming_uniform_, (3, 3), {"nonlinearity": "x"}, r"^nonlinearity: expected one of .*, got 'x'"),
    (init.orthogonal_, (3,), {}, r"^parameter: expected at least 2 dimensions, got the shape \(3,\)"),
]


@pytest.mark.parametrize("function, size, options, message", REFUSED)
def test_bad_options_are_refused_and_nothing_changes(function, size, options, message):
    p = parameter(*size)
    with pytest.raises(ValueError, match=message):
        function(p, **options)
    assert set(numbers(p)) == {7.0}


NUMBERS = [("uniform_", "a"), ("uniform_", "b"), ("normal_", "std"), ("constant_", "value")]


@pytest.mark.parametrize("name, option", NUMBERS)
def test_what_is_no_number_is_refused_and_nothing_changes(name, option):
    p = parameter(3)
    with pytest.raises(TypeError, match=rf"^{option}: expected a real number"):
        getattr(init, name)(p, **{option: "1"})
    assert numbers(p) == [7.0] * 3
