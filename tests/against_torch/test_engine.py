"""Graphs and their second backward against PyTorch with retain_graph=True, and NumPy's numbers as operands."""

import math
import operator
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import milligrad as mg
from milligrad import Value

torch.set_num_threads(1)

RTOL = 1e-9


def tensors(numbers):
    return [torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in numbers]


# ── Random graphs ────────────────────────────────────────────────────────────────────────────────────────────────

# Each operation twice: of Values and numbers, and of tensors. All are bounded or smooth enough to stay finite.
BINARY = [
    (operator.add, torch.add),
    (operator.sub, torch.sub),
    (operator.mul, torch.mul),
    (lambda x, y: x / (1 + y * y), lambda x, y: x / (1 + y * y)),
    (mg.maximum, torch.maximum),
    (mg.minimum, torch.minimum),
    (lambda x, y: (x * x + 1) ** mg.tanh(y), lambda x, y: (x * x + 1) ** torch.tanh(y)),
    (lambda x, y: mg.where(x > y, x * 2, y - 1), lambda x, y: torch.where(x > y, x * 2, y - 1)),
]
UNARY = [
    (operator.neg, torch.neg),
    (mg.tanh, torch.tanh),
    (mg.sin, torch.sin),
    (mg.sigmoid, torch.sigmoid),
    (mg.softplus, lambda x: torch.nn.functional.softplus(x, threshold=40)),
    (mg.erf, torch.erf),
    (mg.relu, torch.relu),
    (lambda x: mg.exp(mg.sin(x)), lambda x: torch.exp(torch.sin(x))),
    (lambda x: mg.log(1 + x * x), lambda x: torch.log(1 + x * x)),
    (lambda x: 0.5 * mg.tanh(x) ** 3 - 1, lambda x: 0.5 * torch.tanh(x) ** 3 - 1),
    (lambda x: 2 ** mg.tanh(x), lambda x: 2 ** torch.tanh(x)),
    (lambda x: mg.clamp(x, -1, 1), lambda x: torch.clamp(x, -1, 1)),
]
NARY = [
    (mg.sum, lambda xs: torch.stack(xs).sum()),
    (mg.mean, lambda xs: torch.stack(xs).mean()),
    (mg.logsumexp, lambda xs: torch.logsumexp(torch.stack(xs), 0)),
    (mg.max, lambda xs: torch.amax(torch.stack(xs), 0)),
    (lambda xs: mg.prod(mg.tanh(x) for x in xs), lambda xs: torch.prod(torch.tanh(torch.stack(xs)))),
    (lambda xs: mg.dot(xs, xs[::-1]), lambda xs: torch.dot(torch.stack(xs), torch.stack(xs[::-1]))),
]
picks = st.lists(st.integers(0, 10**6), min_size=4, max_size=4)
steps = st.lists(
    st.tuples(st.sampled_from([(i, n) for i, fs in enumerate((UNARY, BINARY, NARY)) for n in range(len(fs))]), picks)
)
points = st.lists(st.floats(-2, 2).filter(lambda x: abs(x) > 1e-3), min_size=3, max_size=3, unique=True)


def build(steps, xs, ours, constant):
    """A graph of diamonds and repeated inputs: each step combines some of the numbers that were made before it."""
    made = [*xs, constant]
    for (arity, n), chosen in steps:
        f = (UNARY, BINARY, NARY)[arity][n][0 if ours else 1]
        inputs = [made[i % len(made)] for i in chosen]
        made.append(f(inputs) if arity == 2 else f(*inputs[: arity + 1]))
    tanh = mg.tanh if ours else torch.tanh
    total = tanh(made[-1])
    for x in made[:-1]:
        total = total * 0.5 + tanh(x) * tanh(made[-1])
    return total


def close(ours, theirs):
    """To 1e-9 relative; what cancels is compared with the 1 that all parts are of."""
    return ours == pytest.approx(theirs, rel=RTOL, abs=1e-12)


@given(steps.filter(lambda steps: len(steps) <= 12), points)
@settings(max_examples=100, deadline=None)
def test_random_graphs_agree_in_value_gradient_and_second_derivatives(steps, numbers):
    xs, ts = [Value(x) for x in numbers], tensors(numbers)
    z = build(steps, xs, True, 0.7)
    t = build(steps, ts, False, torch.tensor(0.7, dtype=torch.float64))
    assert close(z.data, t.item())

    gradient = mg.grad(z, xs)
    expected = torch.autograd.grad(t, ts, create_graph=True, materialize_grads=True)
    assert close([g.data for g in gradient], [g.item() for g in expected])
    for _ in range(2):
        z.backward()
    assert close([x.grad for x in xs], [2 * g.item() for g in expected])

    for g, e in zip(gradient, expected):
        row = mg.grad(g, xs) if g.requires_grad else [Value(0.0)] * 3
        row_of_torch = (
            torch.autograd.grad(e, ts, retain_graph=True, materialize_grads=True) if e.requires_grad else torch.zeros(3)
        )
        scale = max(1.0, *(abs(d.item()) for d in row_of_torch))
        for d, other in zip(row, row_of_torch):
            assert d.data == pytest.approx(other.item(), rel=RTOL, abs=1e-12 * scale)


# ── Backward, again ──────────────────────────────────────────────────────────────────────────────────────────────

GRAPHS = {
    "x * x": lambda x, y: [x * x],
    "x + x": lambda x, y: [x + x],
    "a diamond": lambda x, y: [(x * y + x) * (x * y - y)],
    "two outputs of one part": lambda x, y: (lambda s: [s * s, s.exp()])(x * y),
    "an output that is part of another": lambda x, y: (lambda s: [s, s * x, s])(x / y),
    "outputs apart": lambda x, y: [x.tanh(), y.sin()],
    "an input as output": lambda x, y: [x, x * y],
}


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("times", [1, 2, 3])
def test_backward_over_and_over_adds_up_as_with_retain_graph(name, times):
    xs, ts = [Value(0.7), Value(-1.3)], tensors([0.7, -1.3])
    outputs, others = GRAPHS[name](*xs), GRAPHS[name](*ts)
    for t in others:
        t.retain_grad()
    for _ in range(times):
        for i, (z, t) in enumerate(zip(outputs, others)):
            z.backward(1 + 0.5 * i)
            t.backward(torch.tensor(1 + 0.5 * i), retain_graph=True)
            expected = [0.0 if v.grad is None else v.grad.item() for v in (*ts, *others)]
            assert [v.grad for v in (*xs, *outputs)] == pytest.approx(expected, rel=RTOL)


def test_a_gradient_of_an_intermediate_value_counts_all_its_uses():
    x, t = Value(0.7), tensors([0.7])[0]
    h, u = x.tanh(), t.tanh()
    u.retain_grad()
    (h * h + h.exp() * x).backward()
    (u * u + u.exp() * t).backward()
    assert [h.grad, x.grad] == pytest.approx([u.grad.item(), t.grad.item()], rel=RTOL)


def test_a_constant_and_a_detached_part_get_nothing():
    (x, c), (t, k) = [Value(0.7), Value(2.0, requires_grad=False)], tensors([0.7, 2.0])
    k.requires_grad_(False)
    z, r = (x * c).exp() * x.sin().detach(), (t * k).exp() * t.sin().detach()
    z.backward()
    r.backward()
    assert x.grad == pytest.approx(t.grad.item(), rel=RTOL) and c.grad == 0.0 and k.grad is None


def test_no_grad_cuts_the_graph_where_pytorch_cuts_it():
    x, t = Value(0.7), tensors([0.7])[0]
    with mg.no_grad():
        h = x * x
    with torch.no_grad():
        u = t * t
    (h * x).backward()
    (u * t).backward()
    assert h.requires_grad is u.requires_grad is False and h.is_leaf and u.is_leaf
    assert x.grad == pytest.approx(t.grad.item(), rel=RTOL)


def test_derivatives_to_the_fourth():
    x, t = Value(0.7), tensors([0.7])[0]
    z = mg.exp(mg.sin(x * x)) / (1 + x**4)
    r = torch.exp(torch.sin(t * t)) / (1 + t**4)
    for _ in range(4):
        z, r = mg.grad(z, x), torch.autograd.grad(r, t, create_graph=True)[0]
        assert z.data == pytest.approx(r.item(), rel=RTOL)


# ── NumPy ────────────────────────────────────────────────────────────────────────────────────────────────────────

SCALARS = [np.float64, np.float32, np.float16, np.longdouble, np.int64, np.int8, np.uint8, np.bool_]
OPERATORS = [operator.add, operator.sub, operator.mul, operator.truediv, operator.pow]


@pytest.mark.parametrize("kind", SCALARS)
def test_numpy_scalars_are_numbers_on_either_side_of_every_operator(kind):
    x, v = kind(1), Value(3.0)
    for f in OPERATORS:
        for z, expected in [(f(x, v), f(1.0, 3.0)), (f(v, x), f(3.0, 1.0))]:
            assert type(z) is Value and z.data == expected and z.requires_grad
            assert all(type(i) in (Value, float) for i in z.inputs)
    assert (x < v) and (v > x) and (v >= x) and (x <= v) and not (v < x)
    assert type(Value(x).data) is float and type(mg.exp(x)) is float and mg.dot([x], [v]).data == 3.0
    v.backward(x)
    assert type(v.grad) is float and v.grad == 1.0


@pytest.mark.parametrize("x", [np.complex128(1), np.complex64(1 + 0j), np.complex128(1 + 1j)], ids=repr)
def test_numpys_complex_numbers_are_none_even_without_an_imaginary_part(x):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what counts is the TypeError
        for f in (Value, mg.exp, lambda x: mg.sum([x]), Value(1.0).backward):
            with pytest.raises(TypeError, match="expected a real number or a Value, got complex"):
                f(x)
        for f in [*OPERATORS, operator.lt]:
            for pair in [(x, Value(3.0)), (Value(3.0), x)]:
                with pytest.raises(TypeError):
                    f(*pair)


@pytest.mark.parametrize(
    "x", [np.array([1.0, 2.0]), np.array([1.0]), np.array(3.0), np.array([]), np.str_("1")], ids=repr
)
def test_numpys_arrays_and_strings_are_no_numbers(x):
    for f in (Value, mg.exp, lambda x: mg.sum([x]), Value(1.0).backward):
        with pytest.raises(TypeError, match=r"expected a real number or a Value, got (ndarray|str_)"):
            f(x)


@pytest.mark.parametrize("x", [np.array([1.0, 2.0]), np.array([1.0]), np.array(3.0)], ids=repr)
def test_operators_refuse_numpys_arrays_on_either_side(x):
    for f in [*OPERATORS, operator.lt]:
        for pair in [(Value(3.0), x), (x, Value(3.0))]:
            with pytest.raises(TypeError):
                f(*pair)


def test_an_array_of_numbers_is_a_list_of_them():
    x = np.array([1.0, 2.0])
    assert mg.sum(x) == 3.0 and mg.dot(x, [Value(3.0), 4.0]).data == 11.0
    assert mg.transforms.grad(lambda v: v[0] * v[1])(x) == [2.0, 1.0]
    assert mg.hessian(lambda m: m[0][0] * m[1][1])(np.eye(2))[0][0] == [[0.0, 0.0], [0.0, 1.0]]


@pytest.mark.parametrize("x", [torch.tensor(1.0), torch.tensor([1.0])], ids=repr)
def test_tensors_are_no_numbers(x):
    for f in (Value, lambda x: Value(1.0) + x, lambda x: x * Value(1.0), mg.exp):
        with pytest.raises(TypeError):
            f(x)


def test_a_value_is_a_number_to_numpy_and_to_pytorch():
    x = Value(1.5, requires_grad=False)
    assert np.float64(x) == 1.5 and torch.tensor(float(x)).item() == 1.5 and np.array([x], dtype=float)[0] == 1.5
    assert math.isclose(np.sin(float(x)), mg.sin(1.5))
    for convert in (np.float64, lambda v: np.array([v], dtype=float), lambda v: torch.tensor(float(v))):
        with pytest.warns(mg.GradientWarning) as caught:
            convert(Value(1.5))
        assert caught[0].filename == __file__
