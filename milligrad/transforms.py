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

import math
import operator
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import update_wrapper
from types import MethodType

from milligrad.engine import (
    Value,
    adjoints,
    check_derivatives,
    derived,
    enable_grad,
    number,
    operand,
    partials_as_numbers,
    partials_as_values,
    topological_order,
)
from milligrad.nested import Nested, elementwise, flatten, is_list, leaves, shape
from milligrad.ops import chain
from milligrad.typing import Any

Function = Callable[..., Any]
Partials = Callable[[Value], Any]  # ∂z/∂x for each input x of z: `partials_as_numbers` or `partials_as_values`


def value_and_grad(f: Function, argnums: int | Sequence[int] = 0) -> Function:
    """The function that returns (f(*args), the gradient by the argument number `argnums`).

    With several argnums the gradient is a tuple. Raises TypeError if f returns anything but one number.
    """

    def wrapped(*args: Any, **kwargs: Any) -> tuple[Any, Any]:
        with _lifted(args, argnums) as (lifted, chosen):
            y = _checked(_uncompiled(f)(*lifted, **kwargs), f)
            if is_list(y):
                raise TypeError(f"{_name(f)}: expected a function that returns one number, got a list (see jacobian)")
            partials = _partials_for(y, chosen)
            gradients = _at(_adjoints_of(y, chosen, partials), chosen)
            return _plain(y, partials), _one_or_all(gradients, argnums)

    return Transformed(wrapped, value_and_grad, f, argnums)


def grad(f: Function, argnums: int | Sequence[int] = 0) -> Function:
    """The function that returns the gradient of f by the argument number `argnums`; see `value_and_grad`."""
    both = value_and_grad(f, argnums)

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        return both(*args, **kwargs)[1]

    return Transformed(wrapped, grad, f, argnums)


def jacobian(f: Function, argnums: int | Sequence[int] = 0) -> Function:
    """The function that returns ∂f/∂x: for each number that f returns, nested as f nests it, the gradient by x."""

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        with _lifted(args, argnums) as (lifted, chosen):
            y = _checked(_uncompiled(f)(*lifted, **kwargs), f)
            partials = _partials_for(y, chosen)
            adjoints_of_outputs = elementwise(lambda z: _adjoints_of(z, chosen, partials), y)

        def by(x: Nested) -> Nested:
            return elementwise(lambda adjoint: _at(adjoint, x), adjoints_of_outputs)

        return _one_or_all(list(map(by, chosen)), argnums)

    return Transformed(wrapped, jacobian, f, argnums)


def hessian(f: Function, argnums: int | Sequence[int] = 0) -> Function:
    """The function that returns the second derivatives of f: the jacobian of its gradient.

    With several argnums it is a tuple of tuples: in row i and column j the derivatives by argument i, then by j.
    """
    columns = jacobian(grad(f, argnums), argnums)
    if isinstance(argnums, int):
        return columns

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        return tuple(zip(*columns(*args, **kwargs)))

    return Transformed(wrapped, hessian, f, argnums)


def jvp(f: Function, primals: Sequence[Any], tangents: Sequence[Any]) -> tuple[Any, Any]:
    """(f(*primals), its derivative in the direction `tangents`): the jacobian times a vector.

    `tangents` are nested like `primals`. It takes one walk forwards through the graph, whatever the number of outputs.
    A tangent of 0 stays 0, so that √(x - x) has a derivative here; backwards that is inf - inf, an error.
    """
    _check_alike(primals, tangents)
    directions = [operand(v) for v in flatten(list(tangents))]
    with _lifted(primals, range(len(primals))) as (lifted, chosen):
        y = _checked(_uncompiled(f)(*lifted), f)
        tangents_are_values = any(isinstance(v, Value) for v in directions)
        partials = partials_as_values if tangents_are_values else _partials_for(y, chosen)
        tangent = _tangents(y, dict(zip(flatten(chosen), directions)), partials)
        return _plain(y, partials), _at(tangent, y)


def hvp(f: Function, x: Nested, v: Nested) -> Nested:
    """The hessian of f at x times v, both nested alike: the derivative of the gradient in the direction v.

    Pearlmutter 1994. f takes one argument and returns one number.
    """
    return jvp(grad(f), (x,), (v,))[1]


# The steps. Each transform lifts its arguments to Values, calls f, and reads the graph that it left.


@contextmanager
def _lifted(args: Sequence[Any], argnums: int | Sequence[int]) -> Iterator[tuple[list[Any], list[Nested]]]:
    """All arguments, with new Values in place of the chosen ones; and the chosen ones alone.

    Within it computations are remembered, even if they are not around it.
    """
    positions = _positions(argnums, len(args))
    with enable_grad():
        lifted = list(args)
        for i in positions:
            lifted[i] = elementwise(_fresh, args[i])
        chosen = [elementwise(operand, lifted[i]) for i in positions]  # lists of our own: f may change those it gets
        try:
            yield lifted, chosen
        finally:
            _make_constant(chosen)


def _positions(argnums: int | Sequence[int], n: int) -> list[int]:
    positions = [argnums] if isinstance(argnums, int) else list(argnums)
    for i in positions:
        if not -n <= i < n:
            raise ValueError(f"argnums: expected positions among the {n} arguments, got {i}")
    return positions


def _fresh(x: Any) -> Value:
    """A new Value for x. It is computed from x if that is a Value, so that the result can be differentiated by both."""
    if not isinstance(x, Value):
        return Value(x)
    z = +x
    z.requires_grad = True
    return z


def _make_constant(chosen: list[Nested]) -> None:
    """The end of the Values that stood for numbers.

    The results may be computed from them still, and a transform around this one, which looks for Values besides its
    own (`_depends_on_other_values`), would take them for somebody's parameters.
    """
    for x in flatten(chosen):
        if x.is_leaf:
            x.requires_grad = False


def _checked(y: Nested, f: Function) -> Nested:
    """y, what f returned. Anything but numbers raises TypeError."""
    for path, z in leaves(y, f"output{'s' * is_list(y)} of {_name(f)}"):
        if not isinstance(z, Value):
            number(z, path)
    return y


def _partials_for(y: Nested, chosen: list[Nested]) -> Partials:
    """The partials to differentiate y with: numbers if nobody can ask for derivatives of the result, else Values."""
    return partials_as_values if _depends_on_other_values(y, chosen) else partials_as_numbers


def _depends_on_other_values(y: Nested, chosen: list[Nested]) -> bool:
    """Whether y is, or was computed from, a leaf that requires a gradient and is not one of the chosen."""
    outputs = flatten(y)
    if any(isinstance(z, Value) and z.symbolic for z in outputs):
        return True
    inputs, own = [x for z in topological_order(outputs) for x in z.inputs], set(flatten(chosen))
    return any(isinstance(x, Value) and x.is_leaf and x.requires_grad and x not in own for x in outputs + inputs)


def _adjoints_of(y: Any, chosen: list[Nested], partials: Partials) -> dict[Value, Any]:
    """∂y/∂x for each of the chosen x that the number y depends on: one walk backwards through the graph."""
    if not (isinstance(y, Value) and y.requires_grad):
        return {}
    return adjoints([(y, 1.0)], partials, wanted=flatten(chosen))


def _tangents(y: Nested, seeds: dict[Value, Any], partials: Partials) -> dict[Value, Any]:
    """The chain rule forwards: the tangent of z is the sum of ∂z/∂x times the tangent of x, for each input x of z.

    It starts from the `seeds` (arguments → their tangents); what does not depend on them is left out.
    """
    tangent = dict(seeds)
    missing: Value | None = None
    for z in reversed(topological_order(flatten(y))):
        moving = [x in tangent for x in z.inputs]
        if any(moving):
            try:
                ds = partials(z)
            except (ValueError, ArithmeticError):
                missing, ds = z if missing is None else missing, [math.nan] * len(moving)
            terms = [(tangent[x], d) for x, d, moves in zip(z.inputs, ds, moving) if moves]
            tangent[z] = chain(*zip(*terms))
    derived(tangent.items())
    if any(_is_nan(tangent.get(z, 0.0)) for z in flatten(y)):
        check_derivatives(flatten(y), missing)
    return tangent


def _is_nan(x: Any) -> bool:
    """Whether it is known to be NaN: a Value without a number is not."""
    return not (isinstance(x, Value) and x.symbolic) and math.isnan(number(x))


def _at(derivative: dict[Value, Any], x: Nested) -> Nested:
    """The adjoint, or tangent, of each number of x: 0 where there is none."""
    return elementwise(lambda x: derivative.get(x, 0.0), x)


def _one_or_all(results: list[Any], argnums: int | Sequence[int]) -> Any:
    """The one result if `argnums` is one position, else a tuple of all."""
    return results[0] if isinstance(argnums, int) else tuple(results)


def _plain(y: Nested, partials: Partials) -> Nested:
    """y as floats where the derivatives are floats, and as it is where they are Values."""
    return elementwise(number, y) if partials is partials_as_numbers else y


def _check_alike(primals: Sequence[Any], tangents: Sequence[Any]) -> None:
    if len(primals) != len(tangents):
        raise ValueError(f"tangents: expected one for each of the {len(primals)} primals, got {len(tangents)}")
    for i, (x, v) in enumerate(zip(primals, tangents)):
        if [path for path, _ in leaves(x)] != [path for path, _ in leaves(v)]:
            raise ValueError(f"tangents[{i}]: expected the shape of primals[{i}], {shape(x)}, got {shape(v)}")


def _uncompiled(f: Function) -> Function:
    """f; of a compiled function, whose results are floats that nothing is known of, the one that was compiled."""
    if isinstance(f, MethodType):
        inner = getattr(f.__func__, "uncompiled", None)
        return f if inner is None else MethodType(inner, f.__self__)
    return getattr(f, "uncompiled", f)


def _name(f: Function) -> str:
    return getattr(f, "__name__", repr(f))


class Transformed:
    """What a transform made of f: a function with its name, docstring and arguments.

    It is copied and pickled as the transform and f; one that decorates a function, by that function's name.
    """

    def __init__(self, run: Function, transform: Callable[..., Any], f: Function, argnums: int | Sequence[int]) -> None:
        self._run, self._made = run, (transform, (f, argnums))
        update_wrapper(self, f, updated=())
        self.__name__: str = _name(f)
        self.__doc__ = f.__doc__

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._run(*args, **kwargs)

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        """In a class it is a method."""
        return self if instance is None else MethodType(self, instance)

    def __reduce__(self) -> Any:
        return global_name(self) or self._made

    def __repr__(self) -> str:
        return f"<{self._made[0].__name__} of {self.__name__}>"


def global_name(f: Any) -> str:
    """The name under which the very object f is found in its module, as "f" or "Class.f"; "" if there is none."""
    name = getattr(f, "__qualname__", "")
    try:
        found = operator.attrgetter(name)(sys.modules.get(f.__module__))
    except AttributeError:
        return ""
    return name if found is f else ""
