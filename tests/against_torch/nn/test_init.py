import math

import pytest
import torch

from milligrad import manual_seed, nn
from milligrad.nested import flatten, full
from milligrad.nn import init

GAINS = [("linear", None), ("conv2d", None), ("sigmoid", None), ("tanh", None), ("relu", None), ("selu", None)]
GAINS += [("leaky_relu", None), ("leaky_relu", 0.0), ("leaky_relu", 0.2), ("leaky_relu", -1.5)]


@pytest.mark.parametrize("nonlinearity, param", GAINS)
def test_gains_are_the_same(nonlinearity, param):
    expected = torch.nn.init.calculate_gain(nonlinearity, param)
    assert init.calculate_gain(nonlinearity, param) == pytest.approx(expected, rel=1e-15)


@pytest.mark.parametrize("size", [(2, 3), (4, 2, 3), (4, 2, 3, 5)])
def test_fans_are_the_same(size):
    assert init.fans(nn.Parameter(full(size, 0.0))) == torch.nn.init._calculate_fan_in_and_fan_out(torch.zeros(size))


@pytest.mark.parametrize("size", [(3, 3), (2, 5), (5, 2)])
def test_eye_is_the_same(size):
    assert init.eye_(nn.Parameter(full(size, 7.0))).data == torch.nn.init.eye_(torch.zeros(size)).tolist()


@pytest.mark.parametrize("size", [(4, 2, 3), (2, 4, 3, 4), (6, 2, 1, 2), (2, 2, 3, 3, 3), (4, 4, 2, 5)])
@pytest.mark.parametrize("groups", [1, 2])
def test_dirac_is_the_same(size, groups):
    expected = torch.nn.init.dirac_(torch.zeros(size), groups)
    assert init.dirac_(nn.Parameter(full(size, 7.0)), groups).data == expected.tolist()


RANDOM = [
    ("uniform_", (30, 40), {}),
    ("uniform_", (1200,), {"a": -3.0, "b": -1.0}),
    ("normal_", (30, 40), {}),
    ("normal_", (30, 40), {"mean": 2.0, "std": 0.1}),
    ("trunc_normal_", (30, 40), {}),
    ("trunc_normal_", (30, 40), {"mean": 1.0, "std": 2.0, "a": 0.0, "b": 1.5}),
    ("xavier_uniform_", (30, 40), {}),
    ("xavier_uniform_", (10, 12, 2, 5), {"gain": 3.0}),
    ("xavier_normal_", (30, 40), {}),
    ("xavier_normal_", (10, 12, 2, 5), {"gain": 3.0}),
    ("kaiming_uniform_", (30, 40), {}),
    ("kaiming_uniform_", (10, 12, 2, 5), {"a": 0.5, "mode": "fan_out"}),
    ("kaiming_uniform_", (30, 40), {"nonlinearity": "relu"}),
    ("kaiming_normal_", (30, 40), {}),
    ("kaiming_normal_", (10, 12, 2, 5), {"a": 0.5, "mode": "fan_out"}),
    ("kaiming_normal_", (30, 40), {"nonlinearity": "tanh"}),
    ("orthogonal_", (30, 40), {}),
    ("orthogonal_", (40, 30), {"gain": 2.0}),
    ("sparse_", (30, 40), {"sparsity": 0.3}),
    ("sparse_", (30, 40), {"sparsity": 0.91, "std": 2.0}),
]


@pytest.mark.parametrize("name, size, options", RANDOM)
def test_random_numbers_have_the_same_distribution(name, size, options):
    manual_seed(0)
    torch.manual_seed(0)
    ours = getattr(init, name)(nn.Parameter(full(size, 0.0)), **options)
    theirs = getattr(torch.nn.init, name)(torch.empty(size, dtype=torch.float64), **options)
    a, b = torch.tensor(flatten(ours.data)).sort().values, theirs.flatten().float().sort().values
    points = torch.cat([a, b])
    n = len(a)
    steps = (torch.searchsorted(a, points, right=True) - torch.searchsorted(b, points, right=True)).abs() / n
    assert steps.max() <= 1.95 * math.sqrt(2 / n)  # Kolmogorov and Smirnov: exceeded by chance in 1 of 1,000 cases
