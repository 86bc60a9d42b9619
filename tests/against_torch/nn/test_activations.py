import pytest
import torch

from milligrad import nn

ACTIVATIONS = [
    ("ReLU", {}),
    ("LeakyReLU", {}),
    ("LeakyReLU", {"negative_slope": 0.3}),
    ("ELU", {}),
    ("ELU", {"alpha": 0.3}),
    ("GELU", {}),
    ("GELU", {"approximate": "tanh"}),
    ("SiLU", {}),
    ("Sigmoid", {}),
    ("Tanh", {}),
    ("Softplus", {}),
    ("Softplus", {"beta": 2.0, "threshold": 1.0}),
    ("Softmax", {"dim": -1}),
    ("Softmax", {"dim": 0}),
    ("LogSoftmax", {"dim": -1}),
    ("LogSoftmax", {"dim": 0}),
]
activations = pytest.mark.parametrize("name, options", ACTIVATIONS)


@activations
@pytest.mark.parametrize("size", [(4,), (3, 4), (2, 3, 4)])
def test_each_activation_of_samples_and_batches(name, options, size, agree):
    x = torch.linspace(-3, 3, torch.Size(size).numel(), dtype=torch.float64).reshape(size).tolist()
    agree(getattr(nn, name)(**options), getattr(torch.nn, name)(**options), x)


@activations
def test_the_repr_of_each_activation_is_the_same(name, options):
    assert repr(getattr(nn, name)(**options)) == repr(getattr(torch.nn, name)(**options))
