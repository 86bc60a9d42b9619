"""`agree`: the judge of these tests. PyTorch in float64 must give the same values and the same gradients."""

import math

import pytest
import torch

from milligrad import Value, ops
from milligrad.engine import number
from milligrad.nested import elementwise, flatten, shape

torch.set_num_threads(1)


def close(ours, theirs, rtol=1e-9, atol=1e-12):
    """Nested numbers or Values equal a tensor, in shape and in every number (NaN equals NaN)."""
    assert shape(ours) == tuple(theirs.shape)
    numbers = torch.tensor([number(x) for x in flatten(ours)], dtype=torch.float64)
    torch.testing.assert_close(numbers, theirs.detach().flatten(), rtol=rtol, atol=atol, equal_nan=True)


def weights(n):
    """Different numbers for each output, so that a gradient in the wrong place is seen."""
    return [math.cos(3 * i) + 1.5 for i in range(n)]


def check(f, g, *inputs, rtol=1e-9, atol=1e-12):
    """f of Values agrees with g of tensors: the results, and the gradients of a weighted sum of them by all inputs."""
    values = [elementwise(Value, x) for x in inputs]
    tensors = [torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in inputs]
    z, t = f(*values), g(*tensors)
    close(z, t, rtol, atol)
    w = weights(t.numel())
    ops.dot(w, flatten(z)).backward()
    torch.dot(torch.tensor(w, dtype=torch.float64), t.flatten()).backward()
    for v, u in zip(values, tensors):
        close(elementwise(lambda x: x.grad, v), torch.zeros_like(u) if u.grad is None else u.grad, rtol, atol)


@pytest.fixture(scope="session")
def agree():
    return check
