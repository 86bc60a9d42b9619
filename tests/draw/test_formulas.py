"""Formulas: those that a user would have written, and short ones for long lists."""

import math

from milligrad import Value, clamp, dot, ops, where
from milligrad import sum as total
from milligrad.draw.formulas import formula
from milligrad.draw.naming import inputs_first, names_of


def written(z):
    return formula(z, names_of(inputs_first(z)))


def test_a_formula_is_what_a_user_would_have_written():
    x, w = Value(2.0, name="x"), Value(3.0, name="w")
    assert written(x) == ""
    assert written(x * w) == "x * w"
    assert written(2.5 * x) == "2.5 * x"
    assert written(x - -1.0) == "x - (-1)"
    assert written(x**2) == "x ** 2"
    assert written((x + w).tanh()) == "tanh(v1)"
    assert written(clamp(x, max=1.0)) == "clamp(x, (-inf), 1)"
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


def test_of_a_long_list_the_first_are_shown_and_how_many_there_are():
    xs = [Value(1.0, name=f"x{i}") for i in range(1_234)]
    assert written(total(xs)) == "sum(x0, x1, x2, … 1,234 in all)"
    assert written(dot(xs[:2], [1.0, 2.0])) == "dot([x0, x1], [1, 2])"
    assert written(dot(xs[:5], [2.0] * 5)) == "dot([x0, x1, x2, … 5 in all], [2, 2, 2, … 5 in all])"


def test_a_long_name_is_elided():
    assert written(Value(1.0, name="n" * 10_000).exp()) == f"exp({'n' * 15}…)"
