"""From a plain function of numbers and nested lists to the function of its derivatives.

    grad(f)            the gradient of f, a function that returns one number
    value_and_grad(f)  both, for the price of one
    jacobian(f)        all derivatives of all outputs
    hessian(f)         all second derivatives
    jvp(f, x, v)       the derivative of f at x in the direction v
    hvp(f, x, v)       the hessian of f at x times the vector v, without the hessian

f is written with milligrad's functions (or plain arithmetic); its arguments may be numbers or nested lists of them,
and the results are nested like the arguments. They are floats, unless they depend on a Value: one among the
arguments, or one that f uses besides them, such as a parameter. Then they are Values, which can be differentiated
again; this is also how the transforms nest, `grad(grad(f))`. (`milligrad.grad` works on Values, not on functions.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from milligrad.engine import (
    Value,
    adjoints,
    number,
    numeric_partials,
    operand,
    set_grad_enabled,
    symbolic_partials,
    topological_order,
)
from milligrad.nested import Nested, elementwise, flatten, is_list, leaves, shape

Function = Callable[..., Any]


def value_and_grad(f: Function, argnums: int | Sequence[int] = 0) -> Function:
    """The function that returns (f(*args), the gradient by the argument number `argnums`).

    With several argnums the gradient is a tuple. Raises TypeError if f returns anything but one number.
    """

    def wrapped(*args: Any, **kwargs: Any) -> tuple[Any, Any]:
        with _trace(f, args, kwargs, argnums) as (y, chosen, partials):
            if is_list(y):
                raise TypeError(f"{_name(f)}: expected a function that returns one number, got a list (see jacobian)")
            return _plain(y, partials), _row(y, chosen, partials, argnums)

    return _like(wrapped, f)


def grad(f: Function, argnums: int | Sequence[int] = 0) -> Function:
    """The function that returns the gradient of f by the argument number `argnums`; see `value_and_grad`."""
    both = value_and_grad(f, argnums)

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        return both(*args, **kwargs)[1]

    return _like(wrapped, f)


def jacobian(f: Function, argnums: int | Sequence[int] = 0) -> Function:
    """The function that returns ∂f/∂x: for each number that f returns, nested as f nests it, the gradient by x."""

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        with _trace(f, args, kwargs, argnums) as (y, chosen, partials):

            def by(x: Nested) -> Nested:
                return elementwise(lambda z: _row(z, [x], partials, 0), y)

            return by(chosen[0]) if isinstance(argnums, int) else tuple(map(by, chosen))

    return _like(wrapped, f)


def hessian(f: Function, argnums: int | Sequence[int] = 0) -> Function:
    """The function that returns the second derivatives of f: the jacobian of its gradient.

    With several argnums it is a tuple of tuples: in row i and column j the derivatives by argument i, then by j.
    """
    columns = jacobian(grad(f, argnums), argnums)
    if isinstance(argnums, int):
        return columns

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        return tuple(zip(*columns(*args, **kwargs)))

    return _like(wrapped, f)


def jvp(f: Function, primals: Sequence[Any], tangents: Sequence[Any]) -> tuple[Any, Any]:
    """(f(*primals), its derivative in the direction `tangents`): the jacobian times a vector.

    `tangents` are nested like `primals`. It takes one walk forwards through the graph, whatever the number of
    outputs: the tangent of z is the sum of ∂z/∂x times the tangent of x.
    """
    _check_alike(primals, tangents)
    directions = [operand(v) for v in flatten(list(tangents))]
    traced = _trace(f, tuple(primals), {}, range(len(primals)), also=directions)
    with traced as (y, chosen, partials), set_grad_enabled(True):
        tangent: dict[Value, Any] = dict(zip(flatten(chosen), directions))
        for z in reversed(topological_order(flatten(y))):
            if z not in tangent:
                parts = [d * tangent[x] for x, d in zip(z.inputs, partials(z)) if isinstance(x, Value) and x in tangent]
                if parts:
                    tangent[z] = sum(parts)
        return _plain(y, partials), elementwise(lambda z: tangent.get(z, 0.0) if isinstance(z, Value) else 0.0, y)


def hvp(f: Function, x: Nested, v: Nested) -> Nested:
    """The hessian of f at x times v, both nested alike: the derivative of the gradient in the direction v.

    Pearlmutter 1994. f takes one argument and returns one number.
    """
    return jvp(grad(f), (x,), (v,))[1]


@contextmanager
def _trace(
    f: Function, args: tuple[Any, ...], kwargs: dict[str, Any], argnums: int | Sequence[int], also: Sequence[Any] = ()
) -> Iterator[tuple[Any, list[Nested], Callable[[Value], Any]]]:
    """f's output, the new Values that stood for the chosen arguments, and the partials to differentiate with.

    These are numbers if nothing but the chosen arguments could ever be differentiated; else Values. Afterwards the
    new Values are constants, so that a transform around this one does not take them for somebody's parameters.
    """
    positions = [argnums] if isinstance(argnums, int) else list(argnums)
    for i in positions:
        if not -len(args) <= i < len(args):
            raise ValueError(f"argnums: expected positions among the {len(args)} arguments, got {i}")
    lifted = list(args)
    with set_grad_enabled(True):
        for i in positions:
            lifted[i] = elementwise(_fresh, args[i])
        y = f(*lifted, **kwargs)
    chosen = [lifted[i] for i in positions]
    for path, z in leaves(y, f"output{'s' * is_list(y)} of {_name(f)}"):
        number(z, path)
    own = set(flatten(chosen))
    used = [x for z in topological_order(flatten(y)) for x in z.inputs]
    nested_in_another = any(isinstance(x, Value) for x in also) or any(
        isinstance(x, Value) and x.op is None and x.requires_grad and x not in own for x in flatten(y) + used
    )
    yield y, chosen, symbolic_partials if nested_in_another else numeric_partials
    for x in own:
        x.requires_grad = x.op is not None


def _fresh(x: Any) -> Value:
    """A new Value for x. It is computed from x if that is a Value, so that the result can be differentiated by both."""
    return +x if isinstance(x, Value) and x.requires_grad else Value(x)


def _row(y: Any, chosen: list[Nested], partials: Callable[[Value], Any], argnums: int | Sequence[int]) -> Any:
    """The gradient of one output y by the chosen arguments."""
    adjoint: dict[Value, Any] = {}
    if isinstance(y, Value) and y.requires_grad:
        with set_grad_enabled(True):
            adjoint = adjoints({y: 1.0}, partials)
    gradients = tuple(elementwise(lambda x: adjoint.get(x, 0.0), x) for x in chosen)
    return gradients[0] if isinstance(argnums, int) else gradients


def _plain(y: Nested, partials: Callable[[Value], Any]) -> Nested:
    """y as floats where the derivatives are floats, and as it is where they are Values."""
    return elementwise(float, y) if partials is numeric_partials else y


def _check_alike(primals: Sequence[Any], tangents: Sequence[Any]) -> None:
    if len(primals) != len(tangents):
        raise ValueError(f"tangents: expected one for each of the {len(primals)} primals, got {len(tangents)}")
    for i, (x, v) in enumerate(zip(primals, tangents)):
        if [path for path, _ in leaves(x)] != [path for path, _ in leaves(v)]:
            raise ValueError(f"tangents[{i}]: expected the shape of primals[{i}], {shape(x)}, got {shape(v)}")


def _name(f: Function) -> str:
    return getattr(f, "__name__", repr(f))


def _like(wrapped: Function, f: Function) -> Function:
    """`wrapped` under the name and docstring of f."""
    wrapped.__name__, wrapped.__doc__ = _name(f), f.__doc__
    return wrapped
