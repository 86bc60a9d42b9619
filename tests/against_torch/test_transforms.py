"""Transforms against torch.func and torch.autograd.functional, in float64."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd.functional import hvp as torch_hvp

import milligrad as mg
from milligrad.nested import flatten, shape
from milligrad.transforms import grad, hessian, hvp, jacobian, jvp, value_and_grad

torch.set_num_threads(1)
# The first use of its forward mode makes PyTorch compile derivatives in a way that it has itself deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")


def tensor(x):
    return torch.tensor(x, dtype=torch.float64)


def close(ours, theirs):
    """Nested floats equal a tensor (or a tuple of tensors), in shape and numbers."""
    if isinstance(theirs, tuple):
        assert len(ours) == len(theirs)
        for x, y in zip(ours, theirs):
            close(x, y)
        return
    assert shape(ours) == tuple(theirs.shape)
    assert all(type(x) is float for x in flatten(ours))
    torch.testing.assert_close(tensor(ours), theirs, rtol=1e-9, atol=1e-12)


# A function of a vector and a matrix to one number, and one to a matrix, each written twice.


def f(x, m):
    h = [mg.tanh(mg.dot(row, x)) for row in m]
    return mg.logsumexp(h) * mg.exp(-mg.dot(x, x) / 4) + mg.prod(h) + m[0][1] ** 3


def torch_f(x, m):
    h = torch.tanh(m @ x)
    return torch.logsumexp(h, 0) * torch.exp(-(x @ x) / 4) + h[0] * h[1] + m[0, 1] ** 3


def g(x, m):
    return [[mg.sin(a * row[0]) + b * a for a in x] for row, b in zip(m, x)]


def torch_g(x, m):
    return torch.sin(torch.outer(m[:, 0], x)) + torch.outer(x[:2], x)


numbers = st.floats(-2, 2)
vectors = st.lists(numbers, min_size=3, max_size=3)
matrices = st.lists(vectors, min_size=2, max_size=2)
few = settings(max_examples=25, deadline=None)
ARGNUMS = [0, 1, (0,), (0, 1), (1, 0), -1]


@pytest.mark.parametrize("argnums", ARGNUMS)
@given(x=vectors, m=matrices)
@few
def test_gradients(argnums, x, m):
    value, gradient = value_and_grad(f, argnums)(x, m)
    expected, other = torch.func.grad_and_value(torch_f, argnums)(tensor(x), tensor(m))
    close(value, other)
    close(gradient, expected)
    assert grad(f, argnums)(x, m) == gradient


@pytest.mark.parametrize("argnums", ARGNUMS)
@given(x=vectors, m=matrices)
@few
def test_jacobians(argnums, x, m):
    close(jacobian(g, argnums)(x, m), torch.func.jacrev(torch_g, argnums)(tensor(x), tensor(m)))


@pytest.mark.parametrize("argnums", ARGNUMS)
@given(x=vectors, m=matrices)
@settings(max_examples=10, deadline=None)
def test_hessians(argnums, x, m):
    backwards_twice = torch.func.jacrev(torch.func.jacrev(torch_f, argnums), argnums)
    close(hessian(f, argnums)(x, m), backwards_twice(tensor(x), tensor(m)))  # torch.func.hessian is 0 for argnums=-1


@given(x=vectors, m=matrices, v=vectors, w=matrices)
@few
def test_derivatives_in_one_direction(x, m, v, w):
    for function, other in ((f, torch_f), (g, torch_g)):
        value, tangent = jvp(function, (x, m), (v, w))
        expected = torch.func.jvp(other, (tensor(x), tensor(m)), (tensor(v), tensor(w)))
        close(value, expected[0])
        close(tangent, expected[1])


@given(x=vectors, v=vectors)
@few
def test_hessians_times_a_vector(x, v):
    m = [[0.5, -1.0, 2.0], [1.5, 0.25, -0.5]]
    close(hvp(lambda x: f(x, m), x, v), torch_hvp(lambda x: torch_f(x, tensor(m)), tensor(x), tensor(v))[1])


@given(m=matrices, v=matrices)
@few
def test_hessians_of_a_matrix_times_a_matrix(m, v):
    x = [0.5, -1.0, 2.0]
    close(hvp(lambda m: f(x, m), m, v), torch_hvp(lambda m: torch_f(tensor(x), m), tensor(m), tensor(v))[1])


NESTED = [
    lambda d: lambda x: x * d(lambda y: x + y)(x),
    lambda d: lambda x: x * d(lambda y: x * y * y)(x),
    lambda d: lambda x: d(lambda y: (x * y).sin() * y)(x * x),
    lambda d: lambda x: d(lambda y: y * d(lambda z: (x * y * z).exp())(x))(x + 1),
    lambda d: d(d(lambda x: (x * x).tanh())),
    lambda d: lambda x: d(lambda y: x * x)(x) + x,
]


@pytest.mark.parametrize("nested", NESTED)
@given(x=st.floats(-1.2, 1.2))
@few
def test_transforms_inside_transforms(nested, x):
    close(grad(nested(grad))(x), torch.func.grad(nested(torch.func.grad))(tensor(x)))


@given(x=st.floats(-1.2, 1.2), v=st.floats(-2, 2))
@few
def test_forwards_inside_backwards_and_the_other_way_round(x, v):
    def ours(x):
        return jvp(lambda y: (x * y).sin() * y, (x * x,), (x + v,))[1]

    def theirs(x):
        return torch.func.jvp(lambda y: (x * y).sin() * y, (x * x,), (x + v,))[1]

    close(grad(ours)(x), torch.func.grad(theirs)(tensor(x)))
    close(jvp(grad(ours), (x,), (v,))[1], torch.func.jvp(torch.func.grad(theirs), (tensor(x),), (tensor(v),))[1])


@given(m=matrices)
@settings(max_examples=10, deadline=None)
def test_third_derivatives(m):
    x = [0.5, -1.0, 2.0]
    ours = jacobian(hessian(lambda x: f(x, m)))(x)
    close(ours, torch.func.jacrev(torch.func.hessian(lambda x: torch_f(x, tensor(m))))(tensor(x)))
