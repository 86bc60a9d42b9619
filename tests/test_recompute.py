"""Parts that are run again where a derivative asks for them, against the same graph remembered."""

import pytest

import milligrad as mg
from milligrad import Value, exp, sin
from milligrad.engine import number, topological_order
from milligrad.recompute import recomputed


def derivatives(how):
    """Of first and second order, by what goes in, what is captured, and what that was computed from."""
    w, x, y = Value(0.7), Value(0.3), Value(-0.4)
    captured = exp(w * x)

    def part(numbers):
        a, b, c = numbers
        return [a * captured + sin(b * w), a, c, captured, 2.0, b * c]

    outputs = how(part, [x * y, y, 3.0])
    loss = mg.dot(outputs, [1.0, 0.5, 2.0, -1.0, 1.0, 0.1])
    first = mg.grad(loss, [w, x, y, captured])
    second = mg.grad(mg.dot(first, first), [w, x, y, captured])
    loss.backward()
    return [number(z) for z in (loss, *outputs, *first, *second)] + [v.grad for v in (w, x, y)]


def test_they_have_the_numbers_and_derivatives_of_what_is_remembered():
    expected = derivatives(lambda part, inputs: part(inputs))
    assert derivatives(recomputed) == pytest.approx(expected, rel=1e-12)
    recent = []
    assert derivatives(lambda part, inputs: recomputed(part, inputs, recent)) == pytest.approx(expected, rel=1e-12)


def test_nothing_between_is_remembered_and_one_run_serves_all_outputs():
    runs = []

    def part(numbers):
        runs.append(1)
        z = numbers[0]
        for _ in range(100):
            z = sin(z)
        return [z, z * z, 1.0]

    x = Value(0.5)
    a, b, c = recomputed(part, [x], [])
    assert topological_order([a, b]) == [b, a] and a.inputs == (x,) and c == 1.0
    (a + b).backward()
    assert len(runs) == 2


def test_an_error_of_a_derivative_is_that_of_the_part():
    x = Value(0.0)
    [z] = recomputed(lambda numbers: [mg.sqrt(numbers[0])], [x])
    with pytest.raises(ZeroDivisionError, match="sqrt of 0"):
        z.backward()
