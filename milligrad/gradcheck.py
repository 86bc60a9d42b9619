"""Finite differences: whether derivatives are right, asked of the function itself. Used by milligrad's own tests.

(f(x + eps) - f(x - eps)) / (2·eps)  =  f'(x) + O(eps²)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from milligrad.engine import number
from milligrad.nested import Nested, elementwise, flatten, is_list, leaves, shape, unflatten
from milligrad.transforms import grad, jacobian
from milligrad.typing import Any


def numerical_jacobian(f: Callable[..., Any], inputs: Sequence[Nested], eps: float = 1e-6) -> list[list[float]]:
    """∂output/∂input by central differences: a row for each number f returns, a column for each number of `inputs`."""
    if not eps > 0:
        raise ValueError(f"eps: expected a number > 0, got {eps}")
    shapes = [shape(x, f"inputs[{i}]") for i, x in enumerate(inputs)]
    flat = [number(x, "inputs") for x in flatten(list(map(flatten, inputs)))]

    def at(i: int, step: float) -> list[float]:
        moved = iter([*flat[:i], flat[i] + step, *flat[i + 1 :]])
        y = f(*[unflatten(moved, size) for size in shapes])
        return list(map(number, flatten(y)))

    columns = [[(a - b) / (2 * eps) for a, b in zip(at(i, eps), at(i, -eps))] for i in range(len(flat))]
    return [list(row) for row in zip(*columns)]


def analytical_jacobian(f: Callable[..., Any], inputs: Sequence[Nested]) -> list[list[float]]:
    """The same by the derivatives of the operations that f consists of: what is to be checked."""
    by_input = jacobian(lambda *args: flatten(f(*args)), range(len(inputs)))(*inputs)
    return [list(map(number, flatten(row))) for row in zip(*by_input)]


def _arguments(inputs: Sequence[Nested]) -> Sequence[Nested]:
    if not is_list(inputs):
        raise TypeError(f"inputs: expected a list of the arguments of f, got {type(inputs).__name__} {inputs!r:.60}")
    return inputs


def gradcheck(
    f: Callable[..., Any],
    inputs: Sequence[Nested],
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    raise_exception: bool = True,
) -> bool:
    """Whether the derivatives of f at `inputs` agree with central differences: |a - n| ≤ atol + rtol·|n| for each.

    `inputs` is the list of f's arguments: numbers or nested lists. A disagreement raises AssertionError that names
    the output, the input and both numbers, or returns False without `raise_exception`.
    """
    inputs = [elementwise(lambda x: number(x, "inputs"), x) for x in _arguments(inputs)]
    numerical, analytical = numerical_jacobian(f, inputs, eps), analytical_jacobian(f, inputs)
    columns = [f"inputs[{i}]{path}" for i, x in enumerate(inputs) for path, _ in leaves(x)]
    outputs = [path for path, _ in leaves(f(*inputs))]
    for output, row, other in zip(outputs, analytical, numerical):
        for column, a, n in zip(columns, row, other):
            if not abs(a - n) <= atol + rtol * abs(n):
                if raise_exception:
                    raise AssertionError(f"∂output{output}/∂{column} is {a}, but by finite differences {n}")
                return False
    return True


def gradgradcheck(
    f: Callable[..., Any],
    inputs: Sequence[Nested],
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    raise_exception: bool = True,
) -> bool:
    """The same for the second derivatives: the gradient of f (of a sum of its outputs, each weighted differently)."""

    def mixed(*args: Any) -> Any:
        return sum(y * (1 + 0.3 * i) for i, y in enumerate(flatten(f(*args))))

    gradients = grad(mixed, range(len(_arguments(inputs))))
    return gradcheck(lambda *args: flatten(gradients(*args)), inputs, eps, atol, rtol, raise_exception)
