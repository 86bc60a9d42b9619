import math

import pytest
import torch

import milligrad
from milligrad import nn
from milligrad.engine import number
from milligrad.nested import elementwise, flatten, unflatten

X = torch.Generator().manual_seed(3)


def numbers(*size):
    return torch.randn(size, dtype=torch.float64, generator=X).tolist()


LAYERS = [  # name, arguments, options, shapes of inputs
    ("Linear", (3, 2), {}, [(3,), (4, 3), (2, 4, 3)]),
    ("Linear", (3, 2), {"bias": False}, [(3,), (4, 3), (2, 4, 3)]),
    ("Linear", (1, 1), {}, [(1,), (2, 1)]),
    ("LayerNorm", (3,), {}, [(3,), (4, 3), (2, 4, 3)]),
    ("LayerNorm", ((2, 3),), {"eps": 0.1}, [(2, 3), (4, 2, 3), (2, 1, 2, 3)]),
    ("LayerNorm", ([3],), {"bias": False}, [(3,), (4, 3)]),
    ("LayerNorm", (3,), {"elementwise_affine": False}, [(3,), (4, 3)]),
    ("RMSNorm", (3,), {}, [(3,), (4, 3), (2, 4, 3)]),
    ("RMSNorm", ((2, 3),), {"eps": 0.1}, [(2, 3), (4, 2, 3), (2, 1, 2, 3)]),
    ("RMSNorm", (3,), {"elementwise_affine": False}, [(3,), (4, 3)]),
    ("Conv2d", (2, 4, 3), {}, [(2, 5, 4), (2, 2, 5, 4)]),
    ("Conv2d", (2, 4, (2, 1)), {"stride": 2, "padding": (1, 0), "bias": False}, [(2, 5, 4), (2, 2, 5, 4)]),
    ("Conv2d", (2, 4, 3), {"padding": "same", "dilation": 2, "groups": 2}, [(2, 5, 4), (2, 2, 5, 4)]),
    ("Conv2d", (2, 4, 3), {"padding": 1}, [(2, 5, 4)]),
    ("MaxPool2d", (2,), {}, [(1, 4, 5), (2, 1, 4, 5)]),
    ("MaxPool2d", ((3, 2),), {"stride": (1, 2), "padding": 1, "dilation": (1, 2), "ceil_mode": True}, [(2, 4, 5)]),
    ("AvgPool2d", (2,), {}, [(1, 4, 5), (2, 1, 4, 5)]),
    ("AvgPool2d", ((3, 2),), {"stride": 2, "padding": 1, "ceil_mode": True, "count_include_pad": False}, [(2, 4, 5)]),
    ("AvgPool2d", (3,), {"stride": 1, "padding": 1, "divisor_override": 5}, [(2, 4, 5)]),
    ("Flatten", (), {}, [(3, 2), (3, 2, 4), (3, 2, 4, 2)]),
    ("Flatten", (0,), {}, [(3,), (3, 2, 4)]),
    ("Flatten", (1, 2), {}, [(3, 2, 4, 2)]),
]
layers = pytest.mark.parametrize("name, arguments, options, sizes", LAYERS)


def both(name, arguments, options):
    """The layer here and in PyTorch, with the same random parameters."""
    ours, theirs = getattr(nn, name)(*arguments, **options), getattr(torch.nn, name)(*arguments, **options).double()
    ours.load_state_dict({path: numbers(*p.shape) for path, p in theirs.named_parameters()})
    theirs.load_state_dict({path: torch.tensor(x, dtype=torch.float64) for path, x in ours.state_dict().items()})
    return ours, theirs


@layers
def test_values_and_all_gradients_of_each_layer(name, arguments, options, sizes, agree):
    ours, theirs = both(name, arguments, options)
    for size in sizes:
        ours.zero_grad()
        theirs.zero_grad()
        agree(ours, theirs, numbers(*size))
        grads = {path: p.grad for path, p in ours.named_parameters()}
        for path, p in theirs.named_parameters():
            expected = torch.tensor(grads[path], dtype=torch.float64)
            torch.testing.assert_close(p.grad, expected, rtol=1e-9, atol=1e-12)


@layers
def test_names_and_shapes_of_parameters_are_the_same(name, arguments, options, sizes):
    ours, theirs = getattr(nn, name)(*arguments, **options), getattr(torch.nn, name)(*arguments, **options)
    expected = [(path, tuple(p.shape)) for path, p in theirs.named_parameters()]
    assert [(path, p.shape) for path, p in ours.named_parameters()] == expected
    assert list(ours.state_dict()) == list(theirs.state_dict())


@layers
def test_the_repr_is_the_same(name, arguments, options, sizes):
    assert repr(getattr(nn, name)(*arguments, **options)) == repr(getattr(torch.nn, name)(*arguments, **options))


@pytest.mark.parametrize("options", [{}, {"padding_idx": 1}, {"padding_idx": -1}])
def test_embedding(options, agree):
    ours, theirs = both("Embedding", (4, 3), options)
    for index in (0, [1, 3, 3, 0], [[1, 2], [3, 1]]):
        ours.zero_grad()
        theirs.zero_grad()
        out = ours(index)
        torch.testing.assert_close(
            torch.tensor(unflatten(map(number, flatten(out)), tuple(theirs(torch.tensor(index)).shape))).double(),
            theirs(torch.tensor(index)).detach(),
        )
        milligrad.sum([x * x for x in flatten(out)]).backward()
        theirs(torch.tensor(index)).square().sum().backward()
        torch.testing.assert_close(torch.tensor(ours.weight.grad, dtype=torch.float64), theirs.weight.grad)
    assert repr(ours) == repr(theirs)


def test_the_row_for_padding_starts_at_zero_in_both():
    ours, theirs = nn.Embedding(4, 2, padding_idx=-2), torch.nn.Embedding(4, 2, padding_idx=-2)
    assert ours.weight.data[2] == theirs.weight.tolist()[2] == [0.0, 0.0]
    assert ours.padding_idx == theirs.padding_idx == 2


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("p", [0.0, 1.0])
def test_dropout_that_is_certain(p, training, agree):
    agree(nn.Dropout(p).train(training), torch.nn.Dropout(p).train(training), numbers(3, 4))


@pytest.mark.parametrize("p", [0.2, 0.5])
def test_dropout_scales_what_is_left_alike(p):
    ours = set(flatten(nn.Dropout(p)([1.0] * 1000)))
    theirs = set(torch.nn.Dropout(p)(torch.ones(1000, dtype=torch.float64)).tolist())
    assert sorted(ours) == pytest.approx(sorted(theirs), rel=1e-12)


@pytest.mark.parametrize(
    "name, arguments",
    [("Linear", (5, 40)), ("Linear", (400, 2)), ("Conv2d", (4, 20, 3)), ("Embedding", (30, 40)), ("LayerNorm", (9,))],
)
def test_initial_values_have_the_same_distribution(name, arguments):
    milligrad.manual_seed(1)
    torch.manual_seed(1)
    ours, theirs = getattr(nn, name)(*arguments), getattr(torch.nn, name)(*arguments)
    for path, p in theirs.named_parameters():
        a, b = sorted(flatten(dict(ours.named_parameters())[path].data)), sorted(p.double().flatten().tolist())
        steps = [(sum(x <= v for x in a) / len(a), sum(x <= v for x in b) / len(b)) for v in a + b]
        distance = max(abs(f - g) for f, g in steps)  # of Kolmogorov and Smirnov
        assert distance <= 1.95 * math.sqrt(2 / len(a))  # which chance exceeds in one of 1,000 cases
        if name in ("Linear", "Conv2d"):
            bound = 1 / math.sqrt(theirs.weight[0].numel())
            assert -bound <= a[0] and a[-1] <= bound and (len(a) < 20 or max(map(abs, a)) > 0.75 * bound)


def test_a_convolutional_network_agrees(agree):
    def network(lib):
        return lib.Sequential(
            lib.Conv2d(1, 2, 3, padding=1),
            lib.ReLU(),
            lib.MaxPool2d(2),
            lib.Flatten(),
            lib.Linear(8, 5),
            lib.LayerNorm(5),
            lib.GELU(),
            lib.Linear(5, 3),
            lib.LogSoftmax(-1),
        )

    ours, theirs = network(nn), network(torch.nn).double()
    theirs.load_state_dict({path: torch.tensor(x, dtype=torch.float64) for path, x in ours.state_dict().items()})
    agree(ours, theirs, numbers(2, 1, 4, 4))
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert flatten(p.grad) == pytest.approx(q.grad.flatten().tolist(), rel=1e-9, abs=1e-12)
    assert elementwise(bool, ours.train(False)([[[[0.0] * 4] * 4]]))
