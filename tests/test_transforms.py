"""Transforms of plain functions: closed forms, finite differences, nesting, and what functions may be given."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import milligrad as mg
from milligrad import Value, transforms
from milligrad.engine import number
from milligrad.transforms import grad, hessian, hvp, jacobian, jvp, value_and_grad


def cube(x):
    """x³"""
    return x * x * x


def quadratic(v):
    """x²y + sin(y), of [x, y]"""
    x, y = v
    return x**2 * y + mg.sin(y)


# ── Closed forms ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_grad_of_a_number_is_a_float():
    g = grad(cube)(2)
    assert g == 12.0 and type(g) is float
    assert grad(grad(cube))(2.0) == 12.0 and grad(grad(grad(cube)))(2.0) == 6.0


def test_a_derivative_of_a_constant_is_0():
    assert grad(grad(grad(grad(cube))))(2.0) == 0.0
    assert grad(lambda x: 3.0)(1.0) == grad(lambda x: 3)(1.0) == 0.0
    assert grad(lambda x: x)(5) == 1.0
    assert value_and_grad(lambda xs: 7)([1.0, 2.0]) == (7.0, [0.0, 0.0])
    assert jacobian(lambda x: [x, 1.0, [2]])(3.0) == [1.0, 0.0, [0.0]]
    assert hessian(lambda v: v[0] + v[1])([1.0, 2.0]) == [[0.0, 0.0], [0.0, 0.0]]
    assert jvp(lambda x: 4.0, (1.0,), (1.0,)) == (4.0, 0.0)
    assert hvp(lambda v: v[0] * 3.0, [1.0, 2.0], [1.0, 1.0]) == [0.0, 0.0]


@pytest.mark.parametrize("derivatives", range(1, 5))
def test_grad_of_grad_of_grad_agrees_with_the_closed_form(derivatives):
    f = mg.sin
    for _ in range(derivatives):
        f = grad(f)
    assert f(0.7) == pytest.approx(math.sin(0.7 + derivatives * math.pi / 2), rel=1e-13)


def test_value_and_grad_gives_both_from_one_call():
    calls = []

    def f(v):
        calls.append(v)
        return quadratic(v)

    value, gradient = value_and_grad(f)([3.0, 2.0])
    assert type(value) is float and value == pytest.approx(18 + math.sin(2), rel=1e-15)
    assert gradient == pytest.approx([12.0, 9 + math.cos(2)], rel=1e-15) and len(calls) == 1


def test_the_gradient_is_nested_like_the_argument():
    def f(p):
        (a, b), (c,) = p
        return a * b + c * c

    assert grad(f)([[2.0, 3.0], [4.0]]) == [[3.0, 2.0], [8.0]]
    assert grad(lambda p: p[0] * p[1][0] * p[1][1])([2.0, [3.0, 4.0]]) == [12.0, [8.0, 6.0]]
    assert grad(lambda p: p[0] * mg.sum(p[1]))((2.0, range(3))) == [3.0, [2.0, 2.0, 2.0]]


def test_the_jacobian_has_the_nesting_of_the_output_and_then_of_the_input():
    def f(v):
        x, y = v
        return [[x * y, x + y], [y * y, mg.exp(x)], [1.0, x]]

    assert jacobian(f)([2.0, 3.0]) == [
        [[3.0, 2.0], [1.0, 1.0]],
        [[0.0, 6.0], [math.exp(2), 0.0]],
        [[0.0, 0.0], [1.0, 0.0]],
    ]
    assert jacobian(quadratic)([3.0, 2.0]) == grad(quadratic)([3.0, 2.0])
    assert jacobian(lambda x: (x, x * x))(3.0) == [1.0, 6.0]


def test_the_hessian_has_all_second_derivatives():
    x, y = 3.0, 2.0
    expected = [[2 * y, 2 * x], [2 * x, -math.sin(y)]]
    for row, other in zip(hessian(quadratic)([x, y]), expected):
        assert row == pytest.approx(other, rel=1e-15)
    assert hessian(cube)(2.0) == 12.0


def test_jvp_is_the_derivative_in_one_direction():
    value, tangent = jvp(lambda x, v: [x * v[0], mg.sin(v[1]), 5.0], (2.0, [3.0, 0.5]), (1.0, [0.0, 2.0]))
    assert value == [6.0, math.sin(0.5), 5.0] and tangent == [3.0, 2 * math.cos(0.5), 0.0]
    assert jvp(cube, [2.0], [1]) == (8.0, 12.0)
    assert jvp(lambda x: x, [2.0], [7.0]) == (2.0, 7.0)


@pytest.mark.parametrize("f", [mg.sqrt, lambda x: x**0.5, lambda x: mg.maximum(0.0, mg.sqrt(x))])
def test_what_does_not_move_has_a_tangent_of_0_though_no_derivative_is_finite(f):
    """Backwards, x gets inf - inf, of which nobody can say that it is 0."""

    def constant(x):
        return f(x - x) + 3 * x

    assert jvp(constant, (1.3,), (1.0,))[1] == 3.0
    with pytest.raises(ArithmeticError, match="no finite derivative"):
        grad(constant)(1.3)


def test_hvp_is_the_hessian_times_a_vector():
    x, v = [3.0, 2.0], [0.5, -1.5]
    expected = [mg.dot(row, v) for row in hessian(quadratic)(x)]
    assert hvp(quadratic, x, v) == pytest.approx(expected, rel=1e-14)
    assert hvp(cube, 2.0, 3.0) == 36.0
    nested = hvp(lambda p: p[0][0] ** 2 * p[1][0], [[1.0], [2.0]], [[1.0], [0.0]])
    assert nested == [[4.0], [2.0]]


def f_of_many(v):
    x, y, z = v
    return mg.tanh(x * y) + mg.logsumexp([x, y, z]) * mg.exp(-z * z) + mg.softplus(x - z) ** 2


numbers = st.floats(-2, 2)


@given(st.lists(numbers, min_size=3, max_size=3), st.lists(numbers, min_size=3, max_size=3))
@settings(max_examples=25, deadline=None)
def test_all_transforms_agree_with_each_other_and_with_finite_differences(x, v):
    value, gradient = value_and_grad(f_of_many)(x)
    rows = hessian(f_of_many)(x)
    assert value == f_of_many(x)
    assert jvp(f_of_many, [x], [v])[1] == pytest.approx(mg.dot(gradient, v), rel=1e-10, abs=1e-12)
    assert hvp(f_of_many, x, v) == pytest.approx([mg.dot(row, v) for row in rows], rel=1e-10, abs=1e-12)
    for i in range(3):
        up, down = ([*x[:i], x[i] + s, *x[i + 1 :]] for s in (1e-5, -1e-5))
        assert gradient[i] == pytest.approx((f_of_many(up) - f_of_many(down)) / 2e-5, rel=1e-6, abs=1e-8)
        slope = [(a - b) / 2e-5 for a, b in zip(grad(f_of_many)(up), grad(f_of_many)(down))]
        assert rows[i] == pytest.approx(slope, rel=1e-6, abs=1e-8)
        assert rows[i] == pytest.approx([row[i] for row in rows], rel=1e-12, abs=1e-14), "symmetric"


# ── Arguments ────────────────────────────────────────────────────────────────────────────────────────────────────


def area(width, height, scale=1.0):
    return width * height**2 * scale


def test_argnums_chooses_the_arguments():
    assert grad(area)(2.0, 3.0) == 9.0 and grad(area, 1)(2.0, 3.0) == 12.0
    assert grad(area, -1)(2.0, 3.0) == 12.0 and grad(area, -2)(2.0, 3.0) == 9.0
    assert grad(area, (0, 1))(2.0, 3.0) == (9.0, 12.0)
    assert grad(area, [1, 0])(2.0, 3.0) == (12.0, 9.0)
    assert grad(area, (-1,))(2.0, 3.0) == (12.0,) and grad(area, ())(2.0, 3.0) == ()
    assert grad(area, range(3))(2.0, 3.0, 5.0) == (45.0, 60.0, 18.0)
    assert value_and_grad(area, (1,))(2.0, 3.0) == (18.0, (12.0,))


def test_the_jacobian_and_the_hessian_of_several_arguments_are_tuples():
    def f(xs, y):
        return [xs[0] * y, xs[1] * y * y]

    assert jacobian(f, (0, 1))([1.0, 2.0], 3.0) == ([[3.0, 0.0], [0.0, 9.0]], [1.0, 12.0])
    assert jacobian(f, (1,))([1.0, 2.0], 3.0) == ([1.0, 12.0],)
    assert jacobian(f, 1)([1.0, 2.0], 3.0) == [1.0, 12.0]

    def g(xs, ys):
        return xs[0] ** 2 * ys[2] + xs[1] * ys[0] * ys[1]

    (xx, xy), (yx, yy) = hessian(g, (0, 1))([1.0, 2.0], [3.0, 4.0, 5.0])
    assert xx == [[10.0, 0.0], [0.0, 0.0]]
    assert xy == [[0.0, 0.0, 2.0], [4.0, 3.0, 0.0]]
    assert yx == [[0.0, 4.0], [0.0, 3.0], [2.0, 0.0]]
    assert yy == [[0.0, 2.0, 0.0], [2.0, 0.0, 0.0], [0.0, 0.0, 0.0]]


def test_keyword_arguments_are_passed_on():
    assert grad(area)(2.0, 3.0, scale=2.0) == 18.0
    assert grad(area)(2.0, height=3.0) == 9.0
    assert jacobian(area, 1)(2.0, 3.0, scale=2.0) == 24.0
    assert hessian(area, 1)(2.0, 3.0, scale=2.0) == 8.0
    assert hessian(area, (0, 1))(2.0, 3.0, scale=2.0) == ((0.0, 12.0), (12.0, 8.0))


def test_other_arguments_may_be_anything():
    seen = []

    def f(x, mode, table):
        seen.extend((mode, table))
        return x * table[mode]

    table = {"double": 2.0}
    assert grad(f)(3.0, "double", table) == 2.0
    assert seen == ["double", table] and seen[1] is table


@pytest.mark.parametrize("argnums", [2, -3, (0, 2), [5]])
def test_an_argument_that_is_not_there_raises(argnums):
    for transform in (grad, value_and_grad, jacobian, hessian):
        with pytest.raises(ValueError, match=r"^argnums: expected positions among the 2 arguments, got (2|-3|5)$"):
            transform(area, argnums)(1.0, 2.0)


def test_the_arguments_are_left_as_they_were():
    x, p = [1.0, 2.0], [Value(1.0, "p"), Value(2.0)]
    p[0].grad = 0.5
    for argument in (x, p):
        before = list(argument)
        for transform in (grad, value_and_grad, jacobian, hessian):
            transform(quadratic)(argument)
        jvp(quadratic, [argument], [[1.0, 0.0]])
        hvp(quadratic, argument, [1.0, 0.0])
        assert all(a is b for a, b in zip(argument, before))
    assert (p[0].data, p[0].grad, p[0].op, p[1].grad) == (1.0, 0.5, None, 0.0)


def test_a_function_may_change_the_lists_it_gets():
    def f(v):
        v[0] = v[0] * 3
        v.append(1.0)
        return v[0] * v[1]

    x = [2.0, 5.0]
    assert value_and_grad(f)(x) == (30.0, [15.0, 6.0])
    assert jacobian(f)(x) == [15.0, 6.0] and hessian(f)(x) == [[0.0, 3.0], [3.0, 0.0]]
    assert jvp(f, (x,), ([1.0, 0.0],)) == (30.0, 15.0)
    assert x == [2.0, 5.0]


def test_the_jacobian_takes_one_walk_backwards_for_each_output(monkeypatch):
    walks = []

    def counted(outputs, partials, wanted):
        walks.append(outputs)
        return mg.engine.adjoints(outputs, partials, wanted=wanted)

    monkeypatch.setattr(transforms, "adjoints", counted)
    by_x, by_y, by_scale = jacobian(lambda x, y, scale: [x * y * scale, [y]], range(3))(2.0, 3.0, 5.0)
    assert (by_x, by_y, by_scale) == ([15.0, [0.0]], [10.0, [1.0]], [6.0, [0.0]])
    assert len(walks) == 2


def test_the_jacobian_of_no_outputs_is_empty():
    assert jacobian(lambda x: [])(1.0) == [] and jacobian(lambda x, y: [[], []], (0, 1))(1.0, 2.0) == ([[], []],) * 2


def test_the_transformed_function_keeps_name_and_docstring():
    for transform in (grad, value_and_grad, jacobian, hessian):
        for argnums in (0, (0,)):
            assert transform(cube, argnums).__name__ == "cube" and transform(cube, argnums).__doc__ == "x³"
    assert grad(mg.tanh)(0.0) == 1.0, "an operation is a function, too"


def test_the_public_names_are_those_of_the_module():
    for name in ("value_and_grad", "jacobian", "hessian", "jvp", "hvp"):
        assert getattr(mg, name) is getattr(transforms, name)
    assert mg.transforms.grad is grad and mg.grad is not grad, "milligrad.grad is that of Values"


# ── One in another ───────────────────────────────────────────────────────────────────────────────────────────────


def test_an_inner_derivative_is_not_confused_with_an_outer_one():
    """Siskind and Pearlmutter 2005: d/dx (x · d/dy (x + y)) is 1; to confuse the two perturbations gives 2."""
    assert grad(lambda x: x * grad(lambda y: x + y)(x))(5.0) == 1.0
    assert grad(lambda x: x * grad(lambda y: x + y)(1.0))(5.0) == 1.0
    assert grad(lambda x: x * grad(lambda y: x * y)(2.0))(5.0) == 10.0
    assert grad(lambda x: grad(lambda y: x * y)(3.0))(2.0) == 1.0
    assert grad(lambda x: grad(lambda y: x * x * y * y)(x))(2.0) == 6 * 2.0**2
    assert grad(lambda x: grad(lambda y: y * y)(3.0))(2.0) == 0.0
    assert grad(lambda x: x * grad(lambda y: y * y)(3.0))(2.0) == 6.0


def test_jvp_in_jvp_and_in_grad_and_the_other_way_round():
    def direction(f, x):
        return jvp(f, (x,), (1.0,))[1]

    assert direction(lambda x: x * direction(lambda y: x + y, x), 5.0) == 1.0
    assert direction(lambda x: x * direction(lambda y: x * y, 1.0), 5.0) == 10.0
    assert grad(lambda x: x * direction(lambda y: x * y, 2.0))(5.0) == 10.0
    assert direction(lambda x: x * grad(lambda y: x * y)(2.0), 5.0) == 10.0
    assert direction(lambda x: direction(cube, x), 2.0) == grad(lambda x: direction(cube, x))(2.0) == 12.0
    assert grad(lambda t: jvp(cube, (2.0,), (t,))[1])(1.0) == 12.0, "by the tangent"


def test_a_loop_with_an_inner_derivative_can_be_differentiated():
    """Newton's method for √a by the derivative of x² - a: the derivative of its result is 1 / (2√a)."""

    def root(a):
        x = 1.5
        for _ in range(6):
            x = x - (x * x - a) / grad(lambda y: y * y - a)(x)
        return x

    assert root(2.0) == pytest.approx(math.sqrt(2), rel=1e-15)
    value, derivative = value_and_grad(root)(2.0)
    assert value == pytest.approx(math.sqrt(2), rel=1e-15)
    assert derivative == pytest.approx(0.5 / math.sqrt(2), rel=1e-12)


def test_the_jacobian_of_a_gradient_and_the_gradient_of_a_jacobian():
    assert jacobian(grad(quadratic))([3.0, 2.0]) == hessian(quadratic)([3.0, 2.0])
    third = jacobian(hessian(lambda v: v[0] ** 2 * v[1]))([1.0, 2.0])
    assert third == [[[0.0, 2.0], [2.0, 0.0]], [[2.0, 0.0], [0.0, 0.0]]]
    assert grad(lambda x: mg.sum(jacobian(lambda y: [y * x, y * y * x])(3.0)))(2.0) == 7.0
    assert grad(lambda x: value_and_grad(cube)(x)[0] + value_and_grad(cube)(x)[1])(2.0) == 24.0


def test_hvp_can_be_differentiated():
    g = grad(lambda x: hvp(lambda y: y**4, x, 1.0))(2.0)  # (12x²)′
    assert g == 48.0


# ── Values among what a function uses ────────────────────────────────────────────────────────────────────────────


def test_of_a_value_the_results_are_values_that_can_be_differentiated():
    x = Value(2.0)
    value, gradient = value_and_grad(cube)(x)
    assert isinstance(value, Value) and isinstance(gradient, Value)
    assert (value.data, gradient.data) == (8.0, 12.0)
    gradient.backward()
    assert x.grad == 12.0
    assert mg.grad(value, x).data == 12.0


def test_of_a_constant_value_the_results_are_floats():
    assert value_and_grad(cube)(Value(2.0, requires_grad=False)) == (8.0, 12.0)


def test_a_value_that_the_function_closes_over_stays_differentiable():
    w = Value(3.0)
    value, gradient = value_and_grad(lambda x: w * w * x)(2.0)
    assert isinstance(value, Value) and isinstance(gradient, Value)
    gradient.backward()
    assert w.grad == 6.0
    w.zero_grad()
    value.backward()
    assert w.grad == 12.0
    for row in jacobian(lambda x: [w * x, x * x])(2.0):
        assert number(row) in (3.0, 4.0)
    assert number(hessian(lambda x: w * x * x)(2.0)) == 6.0


@pytest.mark.parametrize("f", [lambda w, x: w, lambda w, x: w * 1.0])
def test_a_function_that_returns_what_it_closes_over_gives_that_value(f):
    w = Value(3.0)
    value, gradient = value_and_grad(lambda x: f(w, x))(2.0)
    assert isinstance(value, Value) and mg.grad(value, w).data == 1.0 and float(gradient) == 0.0


def test_a_value_on_the_way_from_another_is_one_the_results_depend_on():
    a = Value(2.0)
    w = a * 3
    gradient = grad(lambda x: x * w)(5.0)
    assert mg.grad(gradient, a).data == 3.0
    assert mg.grad(grad(cube)(w), a).data == 6 * 6.0 * 3


def test_a_constant_that_the_function_closes_over_changes_nothing():
    c = Value(3.0, requires_grad=False)
    assert grad(lambda x: c * x * x)(2.0) == 12.0 and type(grad(lambda x: c * x)(2.0)) is float


def test_tangents_that_are_values_can_be_differentiated():
    v = Value(3.0)
    _, tangent = jvp(cube, (2.0,), (v,))
    assert tangent.data == 36.0 and mg.grad(tangent, v).data == 12.0


def test_no_grad_outside_does_not_reach_into_a_transform():
    with mg.no_grad():
        assert grad(cube)(2.0) == 12.0 and grad(grad(cube))(2.0) == 12.0
        assert jacobian(quadratic)([3.0, 2.0]) == grad(quadratic)([3.0, 2.0])
        assert hessian(cube)(2.0) == 12.0 and hvp(cube, 2.0, 1.0) == 12.0
        assert jvp(cube, (2.0,), (1.0,)) == (8.0, 12.0)
        assert not (Value(1.0) * 2).requires_grad, "and goes on after it"
    assert (Value(1.0) * 2).requires_grad


def test_no_grad_inside_makes_a_constant():
    def f(x):
        with mg.no_grad():
            scale = x * 3
        return scale * x

    assert grad(f)(2.0) == 6.0


def test_an_exception_on_the_way_back_leaves_no_parameters_behind():
    """A transform that fails inside another: the Values that it lifted are constants all the same."""
    kept = []

    def fails(y):
        kept.append(y)
        return mg.sqrt(y)

    def f(x):
        with pytest.raises(ZeroDivisionError):
            grad(fails)(0.0)
        return x * kept[-1]

    assert type(grad(f)(2.0)) is float and not kept[0].requires_grad


def test_an_exception_in_the_function_passes_through_and_leaves_recording_as_it_was():
    def fails(x):
        raise KeyError("inside")

    for transform in (grad, value_and_grad, jacobian, hessian):
        with mg.no_grad():
            with pytest.raises(KeyError):
                transform(fails)(1.0)
            assert not (Value(1.0) * 2).requires_grad
        assert (Value(1.0) * 2).requires_grad
    with pytest.raises(ValueError, match=r"log of -1.0"):
        grad(mg.log)(-1.0)
    with pytest.raises(ZeroDivisionError, match=r"sqrt of 0.0: no finite derivative"):
        grad(mg.sqrt)(0.0)


# ── Wrong inputs ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_gradient_of_many_outputs_raises_and_points_to_the_jacobian():
    def pair(x):
        return [x, x]

    for f in (grad(pair), value_and_grad(pair), hessian(pair)):
        with pytest.raises(TypeError, match=r"^pair: expected a function that returns one number, got a list"):
            f(1.0)
    with pytest.raises(TypeError, match=r"^pair: "):
        hvp(pair, 1.0, 1.0)


@pytest.mark.parametrize("output", [None, "3", 1j, {"a": 1.0}])
def test_an_output_that_is_no_number_raises(output):
    def f(x):
        return output

    for transform in (grad, value_and_grad, jacobian):
        with pytest.raises(TypeError, match=r"^output of f: expected a real number or a Value, got"):
            transform(f)(1.0)
    with pytest.raises(TypeError, match=r"output of f: expected a real number"):
        jvp(f, (1.0,), (1.0,))
    with pytest.raises(TypeError, match=r"^outputs of <lambda>\[1\]: expected a real number"):
        jacobian(lambda x: [x, output])(1.0)


@pytest.mark.parametrize("bad", ["1", None, 1j, {}, [1.0, "b"], [[None]]])
def test_an_argument_that_is_no_number_raises(bad):
    for transform in (grad, value_and_grad, jacobian, hessian):
        with pytest.raises(TypeError, match=r"expected a real number or a Value"):
            transform(lambda x: 1.0)(bad)


def test_tangents_must_be_like_the_primals():
    with pytest.raises(ValueError, match=r"^tangents: expected one for each of the 2 primals, got 1"):
        jvp(area, (1.0, 2.0), (1.0,))
    with pytest.raises(ValueError, match=r"^tangents\[1\]: expected the shape of primals\[1\], \(2,\), got \(3,\)"):
        jvp(lambda x, ys: x * ys[0], (1.0, [1.0, 2.0]), (1.0, [1.0, 2.0, 3.0]))
    with pytest.raises(ValueError, match=r"tangents\[0\]"):
        hvp(quadratic, [1.0, 2.0], 1.0)
    with pytest.raises(ValueError, match=r"tangents\[0\]"):
        hvp(quadratic, [1.0, 2.0], [[1.0, 2.0]])
    with pytest.raises(TypeError, match=r"expected a real number or a Value"):
        jvp(cube, (1.0,), ("1",))


def test_a_tangent_is_added_up_from_left_to_right():
    assert jvp(lambda a, b, c: mg.sum([a, b, c]), (1.0, 1.0, 1.0), (1e16, 1.0, -1e16))[1] == 0.0
