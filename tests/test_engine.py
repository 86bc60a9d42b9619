"""Value and the walk that differentiates it: the interface, the graph, and what it costs in memory."""

import copy
import gc
import math
import operator
import pickle
import subprocess
import sys
import threading
from decimal import Decimal
from enum import IntEnum
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import milligrad as mg
from milligrad import Value
from milligrad.engine import is_current, number, place, record_lines, topological_order

# ── The example of the documentation ─────────────────────────────────────────────────────────────────────────────


def test_the_first_example_prints_its_five_lines(capsys):
    a, b = Value(1), Value(-2)
    c = (2 * a + 2 * b) * a - b
    d = a * b - c**2 + c.relu()
    z = d.exp() - (c**2).log() + (a * b).sigmoid() + (c * d).tanh()
    z.backward()
    print(f"Result of the forward pass: {z.data:.4f}")
    for name, value in zip("abcd", (a, b, c, d)):
        print(f"Gradient of {name}: {value.grad:.4f}")
    assert capsys.readouterr().out.splitlines() == [
        "Result of the forward pass: 18.6752",
        "Gradient of a: -0.4807",
        "Gradient of b: -1.7597",
        "Gradient of c: -2.0000",
        "Gradient of d: 0.1353",
    ]


# ── What a Value is ──────────────────────────────────────────────────────────────────────────────────────────────


def test_a_new_value_is_a_leaf():
    x = Value(3)
    assert type(x.data) is float and x.data == 3.0
    assert x.grad == 0.0 and type(x.grad) is float
    assert x.name is None and x.requires_grad is True and x.is_leaf
    assert x.op is None and x.inputs == ()


def test_a_computed_value_knows_its_operation_and_inputs():
    x = Value(3)
    z = x * 2
    assert not z.is_leaf and z.requires_grad and z.op.name == "mul" and z.inputs == (x, 2.0)
    assert z.name is None and z.grad == 0.0


REAL_NUMBERS = [3, 3.0, True, Fraction(1, 3), Decimal("0.1"), 2**70, -0.0, math.inf, IntEnum("Level", "LOW").LOW]


@pytest.mark.parametrize("x", [*REAL_NUMBERS, Value(3).detach()])
def test_any_real_number_enters_as_a_float(x):
    v = Value(x)
    assert type(v.data) is float and v.data == number(x)
    assert type(mg.exp(0.0 if x == math.inf else min(number(x), 5.0))) is float


def test_arrays_and_strings_of_numpy_are_no_numbers():
    np = pytest.importorskip("numpy")
    for bad in (np.str_("3"), np.array([3.0]), np.array(3.0), np.array(1j)):
        with pytest.raises(TypeError, match="expected a real number or a Value, got"):
            Value(bad)


def test_a_value_of_a_value_is_a_leaf_of_the_same_number_and_says_that_no_gradient_passes():
    x = Value(3, "x")
    for v in (x, 2 * x):
        with pytest.warns(mg.GradientWarning, match=r"v itself, or v.detach\(\)"):
            y = Value(v)
        assert y is not v and y.data == v.data and y.is_leaf and y.name is None
    with mg.no_grad():
        assert Value(x).data == 3.0 == Value(x.detach()).data


NO_NUMBERS = ["3", "", b"3", None, 1j, complex(1, 0), [1.0], (1.0,), {}, {1.0}, range(1), object(), float, len]


@pytest.mark.parametrize("bad", NO_NUMBERS, ids=repr)
def test_what_is_no_real_number_raises_and_says_what_was_expected(bad):
    with pytest.raises(TypeError, match=f"^data: expected a real number or a Value, got {type(bad).__name__} "):
        Value(bad)
    with pytest.raises(TypeError, match=r"expected a real number or a Value, got"):
        mg.exp(bad)
    with pytest.raises(TypeError, match=r"expected a real number or a Value, got"):
        mg.maximum(Value(1.0), bad)
    with pytest.raises(TypeError, match=r"^gradient: expected a real number or a Value, got"):
        Value(1.0).backward(bad)


OPERATORS = [operator.add, operator.sub, operator.mul, operator.truediv, operator.pow]
RELATIONS = [operator.lt, operator.le, operator.gt, operator.ge]


@pytest.mark.parametrize("bad", NO_NUMBERS, ids=repr)
@pytest.mark.parametrize("f", OPERATORS + RELATIONS)
def test_operators_refuse_what_is_no_real_number_on_either_side(f, bad):
    for pair in [(Value(1.0), bad), (bad, Value(1.0))]:
        with pytest.raises(TypeError):
            f(*pair)


@pytest.mark.parametrize("y", [2, 2.0, True, Fraction(1, 4), Decimal("0.5"), Value(2)], ids=repr)
@pytest.mark.parametrize("f", OPERATORS)
def test_operators_take_any_real_number_on_either_side(f, y):
    for x, z in [(f(3.0, number(y)), f(Value(3), y)), (f(number(y), 3.0), f(y, Value(3)))]:
        assert type(z) is Value and z.data == x and z.requires_grad and type(z.data) is float
        assert all(type(operand) in (float, Value) for operand in z.inputs)


@given(x=st.floats(-50, 50), y=st.floats(0.5, 3))
@settings(max_examples=50, deadline=None)
def test_operators_give_the_numbers_of_floats(x, y):
    a, b = Value(x), Value(y)
    for f in OPERATORS[:4] + RELATIONS:
        expected = f(x, y)
        assert [number(f(a, b)), number(f(a, y)), number(f(x, b))] == [expected] * 3
    assert [(b**a).data, (b**x).data, (y**a).data] == [y**x] * 3
    assert (-a).data == -x and (+a).data == x and abs(a).data == abs(x)


def test_unary_operators_are_nodes():
    x = Value(-2.0)
    for f, derivative in [(operator.neg, -1.0), (operator.pos, 1.0), (abs, -1.0)]:
        z = f(x)
        assert z is not x and z.inputs == (x,) and mg.grad(z, x).data == derivative


@pytest.mark.parametrize("f", [operator.floordiv, operator.mod, operator.matmul, operator.and_, divmod])
def test_other_operators_are_not_defined(f):
    with pytest.raises(TypeError):
        f(Value(3.0), 2)


def test_augmented_assignment_makes_a_new_value():
    x = y = Value(2.0)
    y += 1
    y *= x
    assert x.data == 2.0 and y.data == 6.0
    y.backward()
    assert x.grad == 5.0


def test_pythons_own_sum_and_max_work():
    xs = [Value(x) for x in (1.0, 3.0, 2.0)]
    assert sum(xs).data == 6.0 and max(xs) is xs[1] and min(xs) is xs[0]
    assert [x.data for x in sorted(xs)] == [1.0, 2.0, 3.0]


def test_comparisons_are_by_number():
    x, y = Value(1.0), Value(2.0)
    assert x < y and x <= y and y > x and y >= x and x <= Value(1.0) and x >= 1 and 1 <= x < 1.5 < y
    assert not (x > y or x >= y or x < 1 or y < x)
    assert isinstance(x < y, int) and (x < y) == 1 and (x > y) == 0 and repr([x < y, x > y]) == "[True, False]"
    nan = Value(math.nan)
    assert not (nan < 1 or nan > 1 or nan <= nan or nan >= nan)


def test_equality_is_by_number_and_hash_by_identity():
    x, y = Value(1.0), Value(1.0)
    assert (x == y) is not (x is y) and x in (1.0, 1, True) and x in [y]
    names = {x: "x", y: "y"}
    assert names[x] == "x" and names[y] == "y" and len({x, y, x}) == 2
    x.data = 5.0
    assert names[x] == "x"
    assert x in [x] and x not in [y] and hash(x) != hash(y) and x not in {5.0, y}


def test_conversions():
    x = Value(-2.567, "x", requires_grad=False)
    assert float(x) == -2.567 and int(x) == -2 and complex(x) == -2.567 and x.item() == -2.567
    assert round(x) == -3 and type(round(x)) is int and round(x, 1) == -2.6
    assert bool(x) and bool(Value(math.nan)) and not Value(0.0) and not Value(-0.0)
    assert math.floor(x) == -3 and math.ceil(x) == -2 and math.sqrt(Value(4.0, requires_grad=False)) == 2.0
    with pytest.raises(TypeError):
        [1, 2, 3][Value(1.0)]


def test_format_is_that_of_the_number():
    x = Value(2.567)
    assert format(x, ".1f") == f"{x:.1f}" == "2.6" and f"{x:>8.2e}" == "2.57e+00" and f"{x:+}" == "+2.567"
    assert f"{x}" == str(x) == repr(x)
    with pytest.raises(ValueError):
        format(x, "d")


def test_the_repr_shows_data_grad_and_name():
    assert repr(Value(3)) == "Value(data=3.0, grad=0.0)"
    x = Value(1.5, "price")
    x.backward()
    assert repr(x) == "Value(data=1.5, grad=1.0, name='price')"
    assert repr(Value(1, requires_grad=False)) == "Value(data=1.0, grad=0.0, requires_grad=False)"
    assert repr(Value(1, "") * 2) == "Value(data=2.0, grad=0.0)"


@pytest.mark.parametrize("bad", [3, 1.5, b"x", ["x"], Value(1)])
def test_a_name_that_is_no_string_raises(bad):
    with pytest.raises(TypeError, match=r"^name: expected a string or None, got"):
        Value(1.0, bad)


def test_a_value_has_no_room_for_other_attributes():
    with pytest.raises(AttributeError):
        Value(1.0).nmae = "typo"
    assert not hasattr(Value(1.0), "__dict__")


# ── Copies ───────────────────────────────────────────────────────────────────────────────────────────────────────

COPIES = [copy.copy, copy.deepcopy, *[lambda x, p=p: pickle.loads(pickle.dumps(x, p)) for p in range(6)]]


@pytest.mark.parametrize("duplicate", COPIES)
def test_leaves_are_copied_with_all_they_hold(duplicate):
    x = Value(1.5, "x", requires_grad=False)
    y = Value(-0.0)
    y.grad = 2.5
    for v in (x, y):
        c = duplicate(v)
        assert c is not v and c.is_leaf
        assert (c.data, c.grad, c.name, c.requires_grad) == (v.data, v.grad, v.name, v.requires_grad)
    assert math.copysign(1, duplicate(y).data) == -1.0


def test_a_leaf_in_two_places_is_one_leaf_in_the_copy():
    x = Value(1.0)
    for duplicate in COPIES[1:]:
        a, b = duplicate([x, x])
        assert a is b


@pytest.mark.parametrize("duplicate", COPIES)
def test_a_computed_value_cannot_be_copied_and_the_error_says_what_to_do(duplicate):
    z = Value(2.0) * 3
    with pytest.raises(TypeError, match=r"computed from others .*mul.* detach\(\)"):
        duplicate(z)
    assert duplicate(z.detach()).data == 6.0


# ── requires_grad, detach, no_grad ───────────────────────────────────────────────────────────────────────────────


def test_nothing_computed_from_constants_alone_is_remembered():
    c = Value(2.0, requires_grad=False)
    for z in (c * 3, 3 * c, c + c, mg.exp(c), c**2, 2**c, mg.sum([c, 1.0]), -c, mg.maximum(c, 1)):
        assert type(z) is Value and z.is_leaf and not z.requires_grad and z.op is None and z.inputs == ()
        with pytest.raises(RuntimeError, match=r"^no gradient of Value.*constant"):
            z.backward()


def test_a_constant_gets_no_gradient():
    c, x = Value(2.0, requires_grad=False), Value(3.0)
    for z in (c * x, x * c, mg.dot([c], [x]), mg.prod([x, c])):
        x.zero_grad()
        z.backward()
        assert z.requires_grad and x.grad == 2.0 and c.grad == 0.0


def test_detach_is_a_constant_of_the_same_number_and_name():
    x = Value(3.0, "x")
    d = x.detach()
    assert d is not x and d.data == 3.0 and d.name == "x" and d.is_leaf and not d.requires_grad
    z = x * x.detach()
    z.backward()
    assert x.grad == 3.0
    d.data = 7.0
    assert x.data == 3.0


def test_zero_grad_forgets_the_gradient_of_one_value():
    x, y = Value(2.0), Value(3.0)
    (x * y).backward()
    assert x.zero_grad() is None
    assert x.grad == 0.0 and y.grad == 2.0


def is_recorded():
    return (Value(1.0) * 2).requires_grad


def test_within_no_grad_nothing_is_remembered():
    x = Value(2.0)
    with mg.no_grad():
        for z in (x * 2, 2 * x, x + x, x.exp(), mg.sum([x, x]), x**2, 2**x, x**x, -x):
            assert z.is_leaf and not z.requires_grad
        assert Value(1.0).requires_grad, "a leaf is no result"
    assert is_recorded()


def test_a_leaf_made_within_no_grad_has_a_gradient_outside():
    with mg.no_grad():
        x = Value(2.0)
    (x * x).backward()
    assert x.grad == 4.0


def test_no_grad_is_a_decorator_too_and_can_be_called_again_and_again():
    @mg.no_grad()
    def inference(depth):
        """A docstring."""
        return (is_recorded(), *(inference(depth - 1) if depth else ()))

    assert inference(2) == (False, False, False)
    assert inference(0) == (False,) and is_recorded()
    assert inference.__name__ == "inference" and inference.__doc__ == "A docstring."


def test_no_grad_and_enable_grad_nest():
    with mg.no_grad():
        with mg.no_grad():
            assert not is_recorded()
        assert not is_recorded()
        with mg.enable_grad():
            assert is_recorded()
            with mg.no_grad():
                assert not is_recorded()
            assert is_recorded()
        assert not is_recorded()
    with mg.enable_grad():
        assert is_recorded()
    assert is_recorded()


def test_one_no_grad_can_be_entered_again_and_within_itself():
    quiet = mg.no_grad()
    for _ in range(2):
        with quiet, quiet:
            assert (Value(1.0) * 2).is_leaf
        assert not (Value(1.0) * 2).is_leaf


def test_no_grad_ends_with_an_exception():
    @mg.no_grad()
    def fails():
        raise KeyError("inside")

    with pytest.raises(KeyError), mg.no_grad():
        raise KeyError("inside")
    assert is_recorded()
    with pytest.raises(KeyError):
        fails()
    assert is_recorded()


def test_no_grad_is_of_one_thread():
    inside, checked = threading.Event(), threading.Event()
    seen = []

    def other():
        with mg.no_grad():
            seen.append(is_recorded())
            inside.set()
            checked.wait(10)
        seen.append(is_recorded())

    thread = threading.Thread(target=other)
    thread.start()
    assert inside.wait(10)
    seen.append(is_recorded())
    with mg.no_grad():
        fresh = threading.Thread(target=lambda: seen.append(is_recorded()))
        fresh.start()
        fresh.join()
    checked.set()
    thread.join()
    assert seen == [False, True, True, True]


def test_threads_build_and_differentiate_graphs_of_their_own():
    results = [0.0] * 4

    def work(i):
        w = Value(float(i))
        for _ in range(200):
            with mg.no_grad():
                assert not (w * 2).requires_grad
            w.zero_grad()
            mg.sum([w * w, 3 * w]).backward()
        results[i] = w.grad

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [3.0, 5.0, 7.0, 9.0]


def test_a_generator_can_hold_no_grad_open_between_its_steps():
    def steps():
        with mg.no_grad():
            yield is_recorded()
            yield is_recorded()

    running = steps()
    assert next(running) is False
    running.close()
    assert is_recorded()


# ── backward ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_gradients_are_kept_on_every_value_on_the_way():
    x = Value(2.0)
    y = x * 3
    z = y**2
    z.backward()
    assert (x.grad, y.grad, z.grad) == (36.0, 12.0, 1.0)


def test_backward_scales_with_its_gradient():
    for gradient in (0.5, 2, True, Fraction(1, 4), Value(3.0)):
        x = Value(2.0)
        (x * x).backward(gradient)
        assert x.grad == 4.0 * number(gradient)


def test_backward_of_a_leaf_is_its_gradient():
    x = Value(2.0)
    assert x.backward() is None
    x.backward(3.0)
    assert x.grad == 4.0


@pytest.mark.parametrize("f, expected", [(lambda x: x * x, 6.0), (lambda x: x + x, 2.0), (lambda x: x - x, 0.0)])
def test_an_input_used_twice_gets_both_parts(f, expected):
    x = Value(3.0)
    f(x).backward()
    assert x.grad == expected
    assert mg.grad(f(x), x).data == expected


def test_inputs_repeated_in_one_node_get_every_part():
    x = Value(3.0)
    for z, expected in [
        (mg.sum([x, x, x]), 3.0),
        (mg.dot([x, x], [x, 2.0]), 8.0),
        (mg.prod([x, x]), 6.0),
        (mg.max([x, x, 1]), 1.0),
        (mg.logsumexp([x, x]), 1.0),
        (x**x, 27 * (1 + math.log(3))),
        (x / x, 0.0),
        (mg.clamp(x, x, x), 1.0),
    ]:
        x.zero_grad()
        z.backward()
        assert x.grad == pytest.approx(expected, rel=1e-15), z.op


def test_a_second_backward_over_the_same_graph_adds_the_same_again():
    x = Value(2.0)
    y = x * x
    z = y * y + y
    for i in range(1, 4):
        z.backward()
        assert (x.grad, y.grad, z.grad) == (36.0 * i, 9.0 * i, 1.0 * i)


def test_outputs_that_share_a_part_add_up():
    x = Value(2.0)
    shared = x * x
    a, b = shared * 3, shared.exp()
    a.backward()
    assert x.grad == 12.0
    b.backward()
    assert x.grad == pytest.approx(12 + 4 * math.exp(4), rel=1e-15)
    assert shared.grad == pytest.approx(3 + math.exp(4), rel=1e-15)


def test_a_ladder_of_diamonds_is_walked_once_per_node():
    x = Value(1.0)
    z = x
    for _ in range(200):  # 2²⁰⁰ paths
        z = z * 0.5 + z * 0.5
    assert len(topological_order([z])) == 600
    z.backward()
    assert z.data == 1.0 and x.grad == 1.0


def test_unequal_paths_meet_in_the_right_order():
    x = Value(1.5)
    a = x * 2
    b = a + x
    c = b * a
    z = c + a * x + b
    z.backward()  # (3x)(2x) + 2x² + 3x
    assert x.grad == 16 * 1.5 + 3
    assert mg.grad(mg.grad(z, x), x).data == 16.0


def test_the_topological_order_has_every_node_before_its_inputs():
    x = Value(1.0)
    a = x * 2
    b = a + x
    z = b * a + 1
    order = topological_order([z, a, 3.0])
    assert set(order) == {z, z.inputs[0], b, a} and len(order) == 4
    place = {node: i for i, node in enumerate(order)}
    assert all(place[node] < place[i] for node in order for i in node.inputs if isinstance(i, Value) and i.op)
    assert topological_order([x, 1.0]) == [] and topological_order([]) == []


def test_grad_can_be_assigned_and_is_added_to():
    x = Value(2.0)
    x.grad = 10.0
    (x * 3).backward()
    assert x.grad == 13.0


def test_a_bad_gradient_changes_nothing():
    x = Value(2.0)
    z = x * x
    for bad in ("1", None, [1.0]):
        with pytest.raises(TypeError, match=r"gradient"):
            z.backward(bad)
    assert x.grad == z.grad == 0.0


# ── milligrad.grad ───────────────────────────────────────────────────────────────────────────────────────────────


def data(x):
    return [data(item) for item in x] if isinstance(x, list) else x.data


def test_grad_is_nested_like_its_inputs():
    x, y, w = Value(2.0), Value(3.0), Value(5.0)
    z = x * x * y + w
    assert mg.grad(z, x).data == 12.0
    assert data(mg.grad(z, [x, y])) == [12.0, 4.0]
    assert data(mg.grad(z, ([x, w], [y, x]))) == [[12.0, 1.0], [4.0, 12.0]]
    assert data(mg.grad(z, [x, [y, w], [[x]]])) == [12.0, [4.0, 1.0], [[12.0]]]
    assert mg.grad(z, []) == []


def test_no_grad_attribute_changes_by_grad():
    x = Value(2.0)
    y = x * 3
    z = y * y
    x.grad, y.grad, z.grad = 0.25, 0.5, 0.75
    second = mg.grad(mg.grad(z, x), x)
    mg.grad(z, [x, y, z], create_graph=False)
    assert second.data == 18.0 and (x.grad, y.grad, z.grad) == (0.25, 0.5, 0.75)


def test_an_input_that_the_output_does_not_depend_on_has_gradient_0():
    x, other = Value(2.0), Value(3.0)
    for create_graph in (True, False):
        g = mg.grad(x * x, [x, other], create_graph=create_graph)
        assert data(g) == [4.0, 0.0] and g[1].is_leaf and g[1].requires_grad is create_graph


def test_a_gradient_that_depends_on_nothing_has_the_derivative_0():
    for f in (Value.relu, abs, lambda x: 3 * x):
        x = Value(2.0)
        assert mg.grad(mg.grad(f(x), x), x).data == 0.0


@pytest.mark.parametrize("other", ["a", None, 1j, [1.0], (1.0,), {}, b"1"], ids=repr)
def test_operators_say_what_they_expected(other):
    for f in (lambda v: v + other, lambda v: other - v, lambda v: v * other, lambda v: v**other, lambda v: other / v):
        with pytest.raises(TypeError, match=r"^operand: expected a real number or a Value, got"):
            f(Value(1.0))


def test_operators_give_way_to_a_class_that_knows_values():
    class Matrix:
        def __rmul__(self, v):
            return ("scaled", v)

    v = Value(2.0)
    assert v * Matrix() == ("scaled", v)
    with pytest.raises(TypeError, match="unsupported operand"):
        v + Matrix()


def test_a_number_that_no_float_can_hold_is_named():
    with pytest.raises(OverflowError, match=r"^data: expected a number that a float can hold, got int"):
        Value(10**400)


def test_the_gradient_by_itself_and_by_a_value_on_the_way():
    x = Value(2.0)
    y = x * 3
    z = y * y
    assert mg.grad(z, z).data == 1.0 and mg.grad(z, y).data == 12.0 and mg.grad(x, x).data == 1.0


def test_grad_scales_with_its_gradient_and_differentiates_by_it():
    x, v = Value(3.0), Value(2.0)
    g = mg.grad(x * x, x, gradient=v)
    assert g.data == 12.0
    assert data(mg.grad(g, [x, v])) == [4.0, 6.0]
    assert mg.grad(x * x, x, gradient=v, create_graph=False).data == 12.0


def test_without_create_graph_gradients_are_constants():
    x = Value(3.0)
    g = mg.grad(x**3, x, create_graph=False)
    assert g.data == 27.0 and not g.requires_grad and g.is_leaf
    with pytest.raises(RuntimeError, match=r"no gradient of Value.*constant"):
        mg.grad(g, x)


def test_grad_builds_its_graph_within_no_grad_too():
    x = Value(3.0)
    z = x**3
    with mg.no_grad():
        g = mg.grad(z, x)
        assert g.requires_grad and not is_recorded()
    assert mg.grad(g, x).data == 18.0 and is_recorded()


@pytest.mark.parametrize(
    "f, derivatives",
    [
        (lambda x: x**5, lambda x: [5 * x**4, 20 * x**3, 60 * x**2, 120 * x]),
        (mg.exp, lambda x: [math.exp(x)] * 4),
        (mg.sin, lambda x: [math.cos(x), -math.sin(x), -math.cos(x), math.sin(x)]),
        (mg.log, lambda x: [1 / x, -1 / x**2, 2 / x**3, -6 / x**4]),
        (lambda x: 1 / x, lambda x: [-1 / x**2, 2 / x**3, -6 / x**4, 24 / x**5]),
        (mg.sqrt, lambda x: [x**-0.5 / 2, -(x**-1.5) / 4, 3 * x**-2.5 / 8, -15 * x**-3.5 / 16]),
        (lambda x: 2**x, lambda x: [2**x * math.log(2) ** n for n in (1, 2, 3, 4)]),
        (lambda x: mg.exp(-x * x / 2), lambda x: [h * math.exp(-x * x / 2) for h in hermite(x)]),
        (mg.tanh, lambda x: tanh_derivatives(math.tanh(x))),
        (lambda x: mg.prod([x, x, x, x]), lambda x: [4 * x**3, 12 * x**2, 24 * x, 24.0]),
        (lambda x: mg.dot([x, x * x], [x, x * x]), lambda x: [2 * x + 4 * x**3, 2 + 12 * x**2, 24 * x, 24.0]),
        (lambda x: mg.logsumexp([x, 0.0]), lambda x: softplus_derivatives(1 / (1 + math.exp(-x)))),
    ],
)
@pytest.mark.parametrize("x", [0.3, 1.0, 1.7])
def test_derivatives_to_the_fourth_agree_with_the_closed_forms(f, derivatives, x):
    v = Value(x)
    g = f(v)
    for expected in derivatives(x):
        g = mg.grad(g, v)
        assert g.data == pytest.approx(expected, rel=1e-12, abs=1e-14)


def hermite(x):
    return -x, x**2 - 1, -(x**3) + 3 * x, x**4 - 6 * x**2 + 3


def tanh_derivatives(t):
    s = 1 - t * t
    return s, -2 * t * s, s * (6 * t * t - 2), s * (16 * t - 24 * t**3)


def softplus_derivatives(s):
    d = s * (1 - s)
    return s, d, d * (1 - 2 * s), d * (1 - 6 * s + 6 * s * s)


def test_bad_arguments_of_grad_raise_and_are_named():
    x, c = Value(2.0, "x"), Value(1.0, requires_grad=False)
    z = x * x
    with pytest.raises(TypeError, match=r"^output: expected a Value, got float 3.0"):
        mg.grad(3.0, x)
    with pytest.raises(TypeError, match=r"^output: expected a Value, got list"):
        mg.grad([z], x)
    with pytest.raises(RuntimeError, match=r"^no gradient of Value.*constant"):
        mg.grad(c, x)
    with pytest.raises(TypeError, match=r"^inputs: expected a Value, got float 2.0"):
        mg.grad(z, 2.0)
    with pytest.raises(TypeError, match=r"^inputs\[1\]\[0\]: expected a Value, got str 'x'"):
        mg.grad(z, [x, ["x"]])
    with pytest.raises(ValueError, match=r"^inputs\[1\]: expected a Value that requires a gradient, got Value"):
        mg.grad(z, [x, c])
    with pytest.raises(TypeError, match=r"gradient|real number"):
        mg.grad(z, x, gradient="1")
    assert x.grad == z.grad == 0.0


# ── Random graphs: two ways to the same gradient ─────────────────────────────────────────────────────────────────

BINARY = [operator.add, operator.sub, operator.mul, mg.maximum, mg.minimum, lambda x, y: x / (1 + y * y)]
UNARY = [operator.neg, mg.tanh, mg.sin, mg.sigmoid, mg.softplus, mg.atan, lambda x: x**2, lambda x: 0.5 * x + 1.5]
NARY = [mg.sum, mg.mean, mg.logsumexp, lambda xs: mg.dot(xs, xs[::-1])]
steps = st.lists(st.tuples(st.integers(0, 10**6), st.lists(st.integers(0, 10**6), min_size=4, max_size=4)), max_size=14)


def build(steps, xs):
    """A graph of many diamonds: each step combines some of the numbers made before it."""
    made = list(xs)
    for which, picks in steps:
        chosen = [made[i % len(made)] for i in picks]
        f = (BINARY + UNARY + NARY)[which % (len(BINARY) + len(UNARY) + len(NARY))]
        made.append(f(*chosen[:2]) if f in BINARY else f(chosen[0]) if f in UNARY else f(chosen))
    return mg.sum(mg.tanh(x) for x in made)


@given(steps, st.lists(st.floats(-2, 2), min_size=3, max_size=3))
@settings(max_examples=60, deadline=None)
def test_random_graphs_agree_with_a_derivative_taken_forwards(steps, numbers):
    """jvp walks the graph from the inputs to the output, backward the other way: the sums are the same."""
    xs = [Value(x) for x in numbers]
    z = build(steps, xs)
    z.backward()
    for i, x in enumerate(xs):
        value, tangent = mg.jvp(lambda *xs: build(steps, xs), numbers, [float(i == j) for j in range(3)])
        assert value == z.data
        assert x.grad == pytest.approx(tangent, rel=1e-10, abs=1e-12)


# ── Deep graphs, and memory ──────────────────────────────────────────────────────────────────────────────────────


def in_a_new_process(program):
    """What a program prints, and the most memory it held at once, in bytes."""
    measure = "\nimport resource, sys\nprint(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, sys.platform)"
    run = subprocess.run([sys.executable, "-c", program + measure], capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    *lines, last = run.stdout.splitlines()
    peak, platform = last.split()
    return lines, int(peak) * (1 if platform == "darwin" else 1024)


CHAIN = """
from milligrad import Value
x = Value(0.5)
z = x
for _ in range(1_000_000):
    z = {step}
z.backward()
print(z.data, x.grad)
del z
import gc
print(sum(type(o) is Value for o in gc.get_objects()))
"""


@pytest.mark.parametrize(
    "step, value, gradient",
    [("z + 1e-6", 1.5, 1.0), ("z.sin()", None, None)],
)
def test_a_chain_of_a_million_nodes_goes_forward_backward_and_away_within_1_gb(step, value, gradient):
    lines, peak = in_a_new_process(CHAIN.format(step=step))
    z, g = map(float, lines[0].split())
    if value is None:  # sin iterated n times tends to √(3/n)
        assert z == pytest.approx(math.sqrt(3e-6), rel=1e-3) and 0 < g < 1e-3
    else:
        assert z == pytest.approx(value, rel=1e-9) and g == pytest.approx(gradient, rel=1e-9)
    assert int(lines[1]) == 1, "x alone is left"
    assert peak < 1e9


def test_second_derivatives_of_a_chain_of_100_000_nodes():
    program = """
import milligrad as mg
x = mg.Value(0.5)
z = x
for _ in range(100_000):
    z = z * 0.99999
g = mg.grad(z * z, x)
print(z.data, g.data, mg.grad(g, x).data)
"""
    lines, peak = in_a_new_process(program)
    factor = 0.99999**100_000
    assert list(map(float, lines[0].split())) == pytest.approx([0.5 * factor, factor**2, 2 * factor**2], rel=1e-9)
    assert peak < 1e9


def blocks_over(step, times=10_000):
    """How many more memory blocks are held after many steps than before, without the cyclic garbage collector."""
    gc.disable()
    try:
        for _ in range(3_000):  # CPython keeps up to 2,000 dropped tuples of each length for later use
            step()
        before = sys.getallocatedblocks()
        for _ in range(times):
            step()
        return sys.getallocatedblocks() - before
    finally:
        gc.enable()


W = [Value(0.1 * i) for i in range(1, 6)]


def train():
    for w in W:
        w.zero_grad()
    h = [mg.tanh(w * 0.5 + 0.25) for w in W]
    loss = (mg.dot(h, W) - 1.0) ** 2 + mg.logsumexp(h) + sum(h)
    loss.backward()


def fails_backwards():
    x = Value(0.0)
    try:
        (x.sqrt() + x * W[0]).backward()
    except ZeroDivisionError:
        return
    raise AssertionError


def fails_forwards():
    try:
        (W[0] * 1000).exp().log().exp().exp()
        mg.log(W[0] - 10)
    except (ValueError, OverflowError):
        return
    raise AssertionError


def differentiates_twice():
    z = W[0].tanh() * W[1].exp()
    for g in mg.grad(z, W[:2]):
        mg.grad(g, W[:2])


@pytest.mark.parametrize("step", [train, fails_backwards, fails_forwards, differentiates_twice])
def test_a_dropped_graph_is_freed_at_once_by_reference_counting(step):
    assert blocks_over(step) < 100


def test_the_measure_of_memory_sees_a_leak():
    kept = []
    assert blocks_over(lambda: kept.append(Value(1.5)), 1_000) >= 1_000


def test_a_dropped_graph_leaves_no_value_behind():
    def count():
        return sum(type(o) is Value for o in gc.get_objects())

    gc.collect()
    gc.disable()
    try:
        before = count()
        z = mg.sum([Value(float(i)).exp() for i in range(50)])
        z.backward()
        assert count() == before + 101
        del z
        assert count() == before
    finally:
        gc.enable()


# ── Lines ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_value_is_current_until_one_of_its_inputs_changes():
    x, y = Value(2.0), Value(math.nan)
    z, w, n = x * 3.0, mg.sum([x, 1.0, x]), y.exp()
    assert all(map(is_current, [z, w, n]))
    x.data = 4.0
    assert not is_current(z) and not is_current(w) and is_current(n)
    assert is_current(z + w)  # of what these are, not of what they would be
    y.data = 1e6  # of which exp is no float
    assert not is_current(n)


def test_record_lines_remembers_the_users_line_of_what_is_computed_within():
    x, y = Value(2.0), Value(3.0)
    before = x * y
    with record_lines():
        here = sys._getframe().f_lineno
        z = x * y
        (many,) = mg.Linear(1, 1)([z])  # computed by lines of milligrad, called from this one
        sum_of_them = mg.sum([x, y, z])
    after = x * y
    assert z.line == (__file__, here + 1)
    assert many.line == (__file__, here + 2) and sum_of_them.line == (__file__, here + 3)
    assert place(z) == f"test_engine.py:{here + 1}: z = x * y"
    assert place(x) == place(before) == place(after) == ""
    assert (z.data, z.op, z.inputs) == (6.0, before.op, before.inputs)


def test_record_lines_can_be_nested_ends_with_an_error_and_leaves_other_modes_alone():
    x = Value(2.0)
    with pytest.raises(ValueError, match="on purpose"), record_lines():
        with record_lines():
            pass
        assert place(x * x)
        with mg.no_grad():
            assert (x * x).op is None
        raise ValueError("on purpose")
    assert not place(x * x) and mg.engine._modes == set()


def test_record_lines_decorates_a_function():
    @record_lines()
    def square(x):
        return x * x

    x = Value(3.0)
    assert place(square(x)).endswith("return x * x") and not place(x * x)


def test_record_lines_holds_in_one_thread():
    x, made = Value(2.0), []
    with record_lines():
        thread = threading.Thread(target=lambda: made.append(x * x))
        thread.start()
        thread.join()
    assert place(made[0]) == ""


def test_the_place_of_code_without_a_file_is_its_number():
    names = {"x": Value(2.0)}
    with record_lines():
        exec(compile("\ny = x * x", "<typed in>", "exec"), names)
    assert place(names["y"]) == "<typed in>:2"


@pytest.mark.parametrize("f", [lambda x: x, max, mg.sin, mg.Linear(1, 1), Value])
@pytest.mark.parametrize("inputs", [(), (Value(1.0),)])
def test_grad_of_a_function_says_what_to_write(f, inputs):
    with pytest.raises(
        TypeError, match=r"^output: expected a Value.*milligrad\.transforms\.grad\(f\).* grad\(output, inputs\)"
    ):
        mg.grad(f, *inputs)


def test_grad_without_inputs_says_what_to_write():
    with pytest.raises(TypeError, match=r"^inputs: expected Values: write grad\(output, inputs\)"):
        mg.grad(Value(1.0) * 2)


def test_a_row_and_the_method_that_it_is_are_shown_by_name():
    assert repr(Value(1.0).exp) == "<bound method exp of Value(data=1.0, grad=0.0)>"
    for name in ("sin", "relu", "maximum", "clamp"):
        method = getattr(Value(1.0), name)
        assert method.__name__ == name and repr(method).startswith("<bound method ")
    assert mg.exp.__name__ == "exp" and repr(mg.exp) == "<op exp>"
