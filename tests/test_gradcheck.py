import math

import pytest

import milligrad as mg
from milligrad.engine import Op, number
from milligrad.gradcheck import analytical_jacobian, numerical_jacobian


def off_by(factor):
    """tanh with a derivative that is wrong by a factor."""
    return Op("tanh", math.tanh, lambda z, x: (factor * (1 - z * z),), "tanh({})", "Wrong.")


# Its partial is a number, and no function of x.
CUBE = Op("cube", lambda x: x**3, lambda z, x: (3 * number(x) ** 2,), "cube({})", "Wrong.")


def test_right_derivatives_pass():
    assert mg.gradcheck(lambda x, y: [x * y, mg.sin(x)], [1.0, 2.0])
    assert mg.gradgradcheck(lambda x, y: [x * y, mg.sin(x)], [1.0, 2.0])


def test_inputs_may_be_nested_and_outputs_too():
    def f(x, rows):
        return [[mg.dot(row, rows[0]) * x for row in rows], [x, 2.0]]

    inputs = [0.5, [[1.0, 2.0], [3.0, -1.0]]]
    assert mg.gradcheck(f, inputs) and mg.gradgradcheck(f, inputs)


def test_whole_numbers_are_inputs_too():
    assert mg.gradcheck(lambda x, xs: x * xs[0] ** 3, [2, [3]])


@pytest.mark.parametrize("factor", [1.01, 0.99, -1.0, 0.0])
def test_a_wrong_derivative_is_told_with_both_numbers(factor):
    wrong = off_by(factor)
    with pytest.raises(AssertionError, match=r"^∂output/∂inputs\[0\] is \S+, but by finite differences \S+$"):
        mg.gradcheck(wrong, [0.3])
    assert mg.gradcheck(wrong, [0.3], raise_exception=False) is False


def test_the_disagreement_names_the_output_and_the_input():
    wrong = off_by(2.0)
    with pytest.raises(AssertionError, match=r"^∂output\[1\]\[0\]/∂inputs\[1\]\[2\] is "):
        mg.gradcheck(lambda x, ys: [[x], [wrong(ys[2])]], [1.0, [0.1, 0.2, 0.3]])


def test_the_tolerances_are_those_of_the_caller():
    wrong = off_by(1.01)
    assert mg.gradcheck(wrong, [0.3], rtol=0.02)
    assert mg.gradcheck(wrong, [0.3], atol=0.02)
    assert not mg.gradcheck(off_by(1 + 1e-6), [0.3], atol=0, rtol=1e-7, raise_exception=False)


def test_a_derivative_that_is_no_number_is_a_disagreement():
    nan = Op("nan", lambda x: x, lambda z, x: (math.nan,), "nan({})", "Wrong.")
    assert not mg.gradcheck(nan, [1.0], raise_exception=False)
    assert not mg.gradcheck(lambda x: x * math.nan, [1.0], raise_exception=False)


def test_a_wrong_second_derivative_is_found_though_the_first_is_right():
    assert mg.gradcheck(CUBE, [1.5])
    with pytest.raises(AssertionError):
        mg.gradgradcheck(CUBE, [1.5])


def test_every_output_counts_for_the_second_derivatives():
    assert mg.gradgradcheck(lambda x: [x**2, x**3], [1.5])
    assert not mg.gradgradcheck(lambda x: [x**2, x**3, CUBE(x)], [1.5], raise_exception=False)
    assert not mg.gradgradcheck(lambda x: [CUBE(x), -CUBE(x)], [1.5], raise_exception=False), "outputs don't cancel"


@pytest.mark.parametrize("bad", [["a"], [None], [1j], [[1.0, "b"]], [{}]])
def test_inputs_that_are_no_numbers_raise(bad):
    for check in (mg.gradcheck, mg.gradgradcheck):
        with pytest.raises(TypeError, match=r"inputs.*: expected a real number"):
            check(lambda x: x, bad)


@pytest.mark.parametrize("bad", [1.0, None, mg.Value(1.0)])
def test_inputs_that_are_no_list_of_arguments_raise(bad):
    for check in (mg.gradcheck, mg.gradgradcheck):
        with pytest.raises(TypeError, match=r"inputs: expected a list of the arguments"):
            check(lambda x: x, bad)


def test_the_numerical_jacobian_has_a_row_for_each_output_and_a_column_for_each_input():
    rows = numerical_jacobian(lambda x, ys: [x * ys[0], ys[1] ** 2, 1.0], [2.0, [3.0, 4.0]], 1e-4)
    assert [len(row) for row in rows] == [3, 3, 3]
    expected = [[3.0, 2.0, 0.0], [0.0, 0.0, 8.0], [0.0, 0.0, 0.0]]
    for row, other in zip(rows, expected):
        assert row == pytest.approx(other, abs=1e-8)


def test_the_analytical_jacobian_has_the_same_rows_and_columns():
    rows = analytical_jacobian(lambda x, ys: [[x * ys[0]], [ys[1] ** 2, 1.0]], [2.0, [3.0, 4.0]])
    assert rows == [[3.0, 2.0, 0.0], [0.0, 0.0, 8.0], [0.0, 0.0, 0.0]]


def test_the_caller_s_inputs_are_left_as_they_were():
    inputs = [1.0, [2.0, 3.0]]
    mg.gradcheck(lambda x, ys: x * ys[0] * ys[1], inputs)
    mg.gradgradcheck(lambda x, ys: x * ys[0] * ys[1], inputs)
    assert inputs == [1.0, [2.0, 3.0]]


def test_an_eps_of_nothing_raises():
    for eps in (0.0, -1e-6, math.nan):
        with pytest.raises(ValueError, match=r"eps: expected a number > 0"):
            mg.gradcheck(lambda x: x, [1.0], eps=eps)
