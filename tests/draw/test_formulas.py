"""Formulas: those that a user would have written, and short ones for long lists."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from milligrad import Value, clamp, compile, dot, no_grad, ops, prod, where
from milligrad import sum as total
from milligrad.draw.formulas import derivatives, formula, ordinals, partial, with_numbers
from milligrad.draw.naming import inputs_first, names_of
from milligrad.engine import Op, apply
from milligrad.markup import shown


def written(z):
    return formula(z, names_of(inputs_first(z)))


def test_a_formula_is_what_a_user_would_have_written():
    x, w = Value(2.0, name="x"), Value(3.0, name="w")
    assert written(x) == ""
    assert written(x * w) == "x * w"
    assert written(2.5 * x) == "2.5 * x"
    assert written(x - -1.0) == "x - (−1)"
    assert written(x**2) == "x ** 2"
    assert written((x + w).tanh()) == "tanh(v1)"
    assert written(clamp(x, max=1.0)) == "clamp(x, (−inf), 1)"
    assert written(where(True, x, 0.0)) == "where(1, x, 0)"


def test_evaluated_with_the_numbers_it_gives_the_value():
    x, w = Value(0.7, name="x"), Value(1.3, name="w")
    numbers = {**vars(ops), "x": 0.7, "w": 1.3, "inf": math.inf}
    for z in (
        x / w,
        x**w,
        0.5**x,
        -x,
        x.softplus(),
        dot([x, w], [w, 2.0]),
        ops.tanh(x),
        x < 2.0 and x.erf(),
    ):
        assert math.isclose(eval(written(z), numbers), z.data, rel_tol=1e-12)


@pytest.mark.parametrize("c", [1 / 3, math.pi, 0.5, 1e-12, 784.0])
def test_a_constant_has_the_digits_that_are_asked_for_and_at_least_six(c):
    x = Value(2.0, name="x")
    names = {x: "x"}
    for digits in range(1, 18):
        shown = float(formula(x * c, names, digits).removeprefix("x * ").replace("−", "-"))
        assert shown == float(f"{c:.{max(digits, 6) - 1}e}")
    assert formula(dot([x], [-c]), names, 17) == f"dot([x], [(−{c:.17g})])".replace("e-", "e−")


def test_of_a_long_list_the_first_are_shown_and_how_many_there_are():
    xs = [Value(1.0, name=f"x{i}") for i in range(1_234)]
    assert written(total(xs)) == "sum(x0, x1, x2, … 1,234 in all)"
    assert written(dot(xs[:2], [1.0, 2.0])) == "dot([x0, x1], [1, 2])"
    assert written(dot(xs[:5], [2.0] * 5)) == "dot([x0, x1, x2, … 5 in all], [2, 2, 2, … 5 in all])"


def test_of_a_compiled_function_all_inputs_are_shown():
    xs = [Value(float(i), name=f"x{i}") for i in range(1, 13)]

    def f(*args):
        return total(args)

    f = compile(f, backend="python")
    assert written(f.value(xs[0])) == "f(x1)"
    assert written(f.value(*xs[:3])) == "f(x1, x2, x3)"
    assert with_numbers(f.value(*xs[:3])) == "f(1, 2, 3)"
    assert written(f.value(*xs)) == "f(x1, x2, x3, … 12 in all)"


def test_a_long_name_is_elided():
    assert written(Value(1.0, name="n" * 10_000).exp()) == f"exp({'n' * 12}…{'n' * 11})"


def calculated(text, **numbers):
    """What Python makes of a formula, with the table's functions; of lists, those with a list for each argument."""
    functions = {name: row for name, row in ops.TABLE.items() if not hasattr(row, "lists")}
    functions |= {row.name: lambda *xs, row=row: row(xs) for row in ops.TABLE.values() if getattr(row, "lists", 0) == 1}
    return eval(text.replace("−", "-"), {**functions, "dot": ops.dot, "chain": ops.chain, "nan": math.nan, **numbers})


POINTS = [(0.3, 0.6, 0.9), (0.9, 0.3, 0.6), (-0.3, 2.0, -1.5), (1.5, -2.0, 3.0)]


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("row", ops.TABLE.values(), ids=ops.TABLE)
def test_the_derivatives_of_the_whole_table_are_formulas_that_give_their_numbers(row, point):
    n = row.form.count("{}") if not hasattr(row, "lists") else 2 if row.lists == 2 else 3
    inputs = [Value(x, name) for x, name in zip(point, "abc")][:n]
    if row is ops.select:
        inputs[0] = 1.0
    if row is ops.power:
        inputs[1] = point[1]
    if row is ops.exponential:
        inputs[0] = point[0]
    try:
        z = apply(row, tuple(inputs))
    except (ValueError, ArithmeticError):
        assert row.domain
        return
    z.name = "z"
    z.backward()
    numbers = dict(zip("abc", point), z=z.data)
    assert calculated(with_numbers(z, 15)) == pytest.approx(z.data, rel=1e-12)
    for x, d in zip(inputs, derivatives(z, names_of(inputs_first(z)), 15), strict=True):
        if type(x) is not float:
            assert d.value == pytest.approx(x.grad, rel=0, abs=0, nan_ok=True)  # each is an input once
        for text in (d.formula, d.numbers):
            assert calculated(text, **numbers) == pytest.approx(d.value, rel=1e-12, nan_ok=True)


NEAR = [1e-9, 1 - 1e-9, 3.00004, 8.6, -8.6, 17.0, 0.123456789, 1e5 + 1 / 3]


@given(st.sampled_from(sorted(ops.TABLE)), st.lists(st.sampled_from(NEAR) | st.floats(-9, 9), min_size=4, max_size=4))
def test_what_is_written_is_true_to_the_digits_shown(name, point):
    row = ops.TABLE[name]
    n = row.form.count("{}") if not hasattr(row, "lists") else 2 * row.lists
    constant = {ops.select: 0, ops.power: 1, ops.exponential: 0}.get(row)
    try:
        z = apply(row, tuple(x if i == constant else Value(x) for i, x in enumerate(point[:n])))
        derivatives_of_z = derivatives(z, names_of(inputs_first(z)))
    except (ValueError, ArithmeticError):
        return
    texts = [(with_numbers(z), z.data), *[(d.numbers, d.value) for d in derivatives_of_z]]
    for text, value in texts:
        if value == value and "…" not in text:
            assert shown(0.0 + calculated(text)) == shown(0.0 + value)  # of -0.0, 0.0


def test_numbers_have_no_more_digits_than_it_takes():
    w = Value(8.6)
    assert with_numbers(w * (1 / 3)) == "8.6 * 0.33333"  # 2.867, and not 2.866
    assert with_numbers(w * (1 / 7)) == "8.6 * 0.1429"
    assert with_numbers(w - 8.5999) == "8.6 - 8.5999"
    z = w.tanh()
    [d] = derivatives(z, names_of(inputs_first(z)))
    assert d.numbers == "1 - 0.9999999322 * 0.9999999322" and shown(d.value) == "1.356e−07"
    w.data = 3.0  # z is not what its formula says any more
    assert with_numbers(z) == "tanh(3)"


def test_inputs_that_go_in_more_than_once_are_counted():
    x, y = Value(1.0), Value(1.0)
    assert ordinals([x, y, 1.0, 1.0]) == ["", "", "", ""]
    assert ordinals([x, y, x, 1.0]) == ["1st", "", "2nd", ""]
    assert ordinals([y] * 113)[:4] == ["1st", "2nd", "3rd", "4th"]
    assert ordinals([y] * 113)[10:13] == ["11th", "12th", "13th"] and ordinals([y] * 113)[20] == "21st"
    assert ordinals([y] * 113)[-3:] == ["111th", "112th", "113th"]
    assert partial("z", "x") == "∂z/∂x" and partial("z", "x", "2nd") == "∂z/∂x through the 2nd x"


def told(z):
    return [(d.formula, d.numbers) for d in derivatives(z, names_of(inputs_first(z)))]


def test_derivatives_read_as_in_a_textbook():
    x, y = Value(2.0, "x"), Value(-0.5, "y")
    assert told(x * y) == [("y", "−0.5"), ("x", "2")]
    z = (x / y).tanh()
    z.name = "z"
    assert told(z) == [("1 - z * z", "1 - (−0.9993293) * (−0.9993293)")]
    assert told(z.inputs[0]) == [("1 / y", "1 / (−0.5)"), ("-v1 / y", "-(−4) / (−0.5)")]
    assert told(x.log()) == [("1 / x", "1 / 2")]  # the part of the row's choice that holds
    assert told(x**3) == [("3 * x ** 2", "3 * 2 ** 2"), ("0", "0")]
    assert told(y.relu()) == [("0", "0")]


def test_constants_and_no_grad_are_no_hindrance():
    x, c = Value(2.0, "x"), Value(3.0, "c", requires_grad=False)
    z = x / c
    with no_grad():
        assert told(z) == [("1 / c", "1 / 3"), ("-v1 / c", "-0.6667 / 3")]
    assert (x.grad, z.grad, c.grad) == (0, 0, 0)


def test_what_is_very_long_is_cut():
    [(names, numbers), *_] = told(prod([Value(2.0, "n" * 10_000)] + [Value(2.0, "x")] * 500))
    assert len(names) <= 100 and len(numbers) <= 100
    assert names.startswith("1 * 1 * x * x * ")
    assert told(Value(1.0, "n" * 10_000) * Value(2.0, "y"))[1][0] == "n" * 12 + "…" + "n" * 11


def test_a_derivative_that_does_not_exist_raises():
    with pytest.raises(ZeroDivisionError, match=r"sqrt of x = 0\.0: no finite derivative"):
        told(Value(0.0, "x").sqrt())


NESTED = [
    lambda x, y: (x**y) ** x,
    lambda x, y: x ** (y**x),
    lambda x, y: (-x) ** 2.0 - (-(x**2.0)),
    lambda x, y: -(-x),  # noqa: B002
    lambda x, y: -(x - y) * -(x * y),
    lambda x, y: x - (y - x) - (x + y) + (x - y),
    lambda x, y: x / (y / x) / (x * y) * (x / y),
    lambda x, y: (x + y) * (x - y) / (x * y),
    lambda x, y: 2.0 * (x * y) ** -1.0,
]


@pytest.mark.parametrize("nested", NESTED)
def test_parentheses_stand_where_python_needs_them(nested):
    row = Op("row", lambda x, y: x, lambda z, x, y: (nested(x, y), -2.0), "row({}, {})", "A row for this test.")
    x, y = Value(2.0, "x"), Value(3.0, "y")
    z = apply(row, (x, y))
    d, constant = derivatives(z, {x: "x", y: "y", z: "z"}, 15)
    assert calculated(d.formula, x=2.0, y=3.0) == calculated(d.numbers) == pytest.approx(nested(2.0, 3.0))
    assert constant.formula == "−2"
