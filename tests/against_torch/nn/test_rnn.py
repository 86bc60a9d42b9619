"""The recurrent layers against PyTorch's: outputs, final states, gradients of parameters, inputs and initial states."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from milligrad import Value, manual_seed, nn, ops
from milligrad.engine import number
from milligrad.nested import elementwise, flatten, transpose

torch.set_num_threads(1)

KINDS = ["RNN", "GRU", "LSTM"]


def tensor(x):
    return torch.tensor(elementwise(number, x), dtype=torch.float64)


def close(actual, expected):
    actual = tensor(actual)
    assert actual.shape == expected.shape
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-12)


def pair(kind, *sizes, **options):
    """The same layer twice: PyTorch's, and milligrad's with its numbers."""
    theirs = getattr(torch.nn, kind)(*sizes, dtype=torch.float64, **options)
    ours = getattr(nn, kind)(*sizes, **options)
    ours.load_state_dict({path: p.tolist() for path, p in theirs.state_dict().items()})
    return ours, theirs


def twins(*shape):
    """The same random numbers as Values and as a tensor, both to be differentiated."""
    numbers = torch.randn(*shape, dtype=torch.float64, requires_grad=True)
    return elementwise(Value, numbers.tolist()), numbers


def states(kind, *shape):
    """An initial state as the layer takes it, for both, and each one's parts."""
    parts = [twins(*shape) for _ in range(2 if kind == "LSTM" else 1)]
    ours, theirs = zip(*parts)
    return (ours, theirs) if kind == "LSTM" else (ours[0], theirs[0])


def parts_of(result):
    """All of a layer's result in one list: output, h_n and, if there is one, c_n."""
    output, last = result
    return [output, *last] if isinstance(last, tuple) else [output, last]


def compare(ours, theirs, inputs, kind, hx=(None, None)):
    """Results, and the gradients of a sum of them with different weights."""
    x, x_torch = inputs
    results = parts_of(ours(x) if hx[0] is None else ours(x, hx[0]))
    expected = parts_of(theirs(x_torch) if hx[1] is None else theirs(x_torch, hx[1]))
    seeds = [torch.randn_like(t) for t in expected]
    for actual, wanted in zip(results, expected, strict=True):
        close(actual, wanted)

    sum((t * seed).sum() for t, seed in zip(expected, seeds)).backward()
    values = [v for result in results for v in flatten(result)]
    ops.dot(values, [float(g) for seed in seeds for g in seed.flatten()]).backward()
    for name, p in theirs.named_parameters():
        close(dict(ours.named_parameters())[name].grad, p.grad)
    close(elementwise(lambda v: v.grad, x), x_torch.grad)
    if hx[0] is not None:
        ours_parts, theirs_parts = hx if kind == "LSTM" else ([hx[0]], [hx[1]])
        for values, numbers in zip(ours_parts, theirs_parts, strict=True):
            close(elementwise(lambda v: v.grad, values), numbers.grad)


@settings(max_examples=25, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    sizes=st.tuples(*[st.integers(1, 4)] * 2),
    length=st.integers(1, 4),
    samples=st.sampled_from([None, 1, 3]),
    bias=st.booleans(),
    batch_first=st.booleans(),
    with_state=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_results_and_gradients_are_pytorchs(kind, sizes, length, samples, bias, batch_first, with_state, seed):
    torch.manual_seed(seed)
    ours, theirs = pair(kind, *sizes, bias=bias, batch_first=batch_first)
    batch = () if samples is None else (samples,)
    shape = (*batch, length, sizes[0]) if batch_first else (length, *batch, sizes[0])
    hx = states(kind, 1, *batch, sizes[1]) if with_state else (None, None)
    compare(ours, theirs, twins(*shape), kind, hx)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batch_first", [False, True])
def test_a_batch_with_an_initial_state_is_pytorchs(kind, batch_first):
    torch.manual_seed(1)
    ours, theirs = pair(kind, 3, 2, batch_first=batch_first)
    shape = (2, 4, 3) if batch_first else (4, 2, 3)
    compare(ours, theirs, twins(*shape), kind, states(kind, 1, 2, 2))


@pytest.mark.parametrize("samples", [None, 2])
def test_relu_is_pytorchs_and_its_corner_too(samples):
    torch.manual_seed(2)
    ours, theirs = pair("RNN", 3, 4, nonlinearity="relu")
    batch = () if samples is None else (samples,)
    compare(ours, theirs, twins(5, *batch, 3), "RNN")
    ours.load_state_dict({path: torch.zeros_like(p).tolist() for path, p in theirs.state_dict().items()})
    torch.nn.init.zeros_(theirs.weight_ih_l0)
    torch.nn.init.zeros_(theirs.weight_hh_l0)
    torch.nn.init.zeros_(theirs.bias_ih_l0)
    torch.nn.init.zeros_(theirs.bias_hh_l0)
    for p in [*ours.parameters(), *theirs.parameters()]:
        p.zero_grad() if isinstance(p, nn.Parameter) else setattr(p, "grad", None)
    compare(ours, theirs, twins(2, *batch, 3), "RNN")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scale", [0.0, 40.0, 1e4])
def test_saturated_gates_are_pytorchs(kind, scale):
    torch.manual_seed(3)
    ours, theirs = pair(kind, 2, 3)
    x = torch.randn(3, 2, dtype=torch.float64) * scale
    inputs = elementwise(Value, x.tolist()), x.requires_grad_()
    compare(ours, theirs, inputs, kind)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bias", [False, True])
def test_parameters_have_pytorchs_names_order_shapes_and_bounds(kind, bias):
    manual_seed(0)
    ours, theirs = getattr(nn, kind)(3, 16, bias=bias), getattr(torch.nn, kind)(3, 16, bias=bias)
    expected = {name: tuple(p.shape) for name, p in theirs.state_dict().items()}
    assert [(name, p.shape) for name, p in ours.named_parameters()] == list(expected.items())
    for name, p in ours.named_parameters():
        numbers = flatten(p.data)
        assert -0.25 <= min(numbers) < -0.15 and 0.15 < max(numbers) <= 0.25, name
        assert max(theirs.state_dict()[name].abs().flatten()) <= 0.25


@pytest.mark.parametrize("kind", KINDS)
def test_stacked_layers_are_pytorchs_num_layers(kind):
    torch.manual_seed(4)
    theirs = getattr(torch.nn, kind)(2, 3, num_layers=2, dtype=torch.float64)
    layers = getattr(nn, kind)(2, 3), getattr(nn, kind)(3, 3)
    for i, layer in enumerate(layers):
        own = {k.replace(f"_l{i}", "_l0"): p.tolist() for k, p in theirs.state_dict().items() if k.endswith(f"_l{i}")}
        layer.load_state_dict(own)
    x = torch.randn(4, 2, 2, dtype=torch.float64)
    first, _ = layers[0](x.tolist())
    close(layers[1](first)[0], theirs(x)[0])


@pytest.mark.parametrize("kind", KINDS)
def test_a_split_sequence_gives_what_the_whole_gives(kind):
    torch.manual_seed(5)
    ours, theirs = pair(kind, 2, 3)
    x = torch.randn(5, 2, 2, dtype=torch.float64)
    first, state = ours(x[:2].tolist())
    second, _ = ours(x[2:].tolist(), state)
    close(first + second, theirs(x)[0])
    close(transpose(first + second), theirs(x)[0].transpose(0, 1))
