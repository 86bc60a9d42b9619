"""Names: the user's, a model's, or v1, v2, …; no two alike."""

import pytest

from milligrad import Linear, Value, dot
from milligrad import sum as total
from milligrad.draw.naming import inputs_first, names_of


def test_inputs_come_first_each_once_and_constants_with_them():
    x, c = Value(2.0), Value(3.0, requires_grad=False)
    y = x * c
    z = y + x
    assert [id(v) for v in inputs_first(z)] == [*map(id, (x, c, y, z))]
    assert [id(v) for v in inputs_first(x)] == [id(x)]


def test_names_are_the_users_the_models_or_numbers_in_order():
    model = Linear(2, 1)
    (z,) = model([1.0, Value(2.0, name="x")])
    names = names_of(inputs_first(z), model)
    assert {*names.values()} == {"weight[0][0]", "weight[0][1]", "x", "bias[0]", "v1", "v2"}
    assert names[z] == "v2" and names[z.inputs[0]] == "v1"
    assert names[model.weight[0][1]] == "weight[0][1]"


def made_in_two_lines():
    x = Value(2.0)
    p = x * 2
    q = x * 3
    return [x, p, q, p + q]


def made_by_a_formula():
    a, b, c = Value(1.0), Value(2.0), Value(3.0)
    z = (a + b) * c - (b / c).exp()
    difference, quotient = z.x, z.y.inputs[0]
    return [a, b, c, difference.x, difference, quotient, z.y, z]


def made_in_a_loop():
    ws = [Value(float(i)) for i in range(1, 4)]
    made, z = [], 0.0
    for w in ws:
        made.append(w * 2)
        z = z + made[-1]
        made.append(z)
    return [*ws, *made]


def made_by_a_helper():
    def squared(x):
        return x * x

    a, b = Value(1.0), Value(2.0)
    first = squared(a)
    second = squared(b)
    return [a, b, first, second, total([first, second])]


def made_layer_by_layer():
    x, ws, vs = Value(2.0), [Value(0.5), Value(0.25)], [Value(3.0), Value(4.0)]
    hs = [dot([w], [x]) for w in ws]
    ys = [dot(vs, hs) for _ in range(2)]
    return [x, *ws, *vs, *hs, *ys, total(ys)]


def used_in_another_order():
    x = Value(2.0)
    p = x * 2
    q = x * 3
    return [x, p, q, q + p]


def all_hidden_units_before_their_sums():
    x, ws = Value(2.0), [Value(float(i)) for i in range(3)]
    hs = [w * x for w in ws]
    squares = [h * h for h in reversed(hs)]
    z = squares[2] + squares[1]
    return [x, *ws, *hs, *squares, z, z + squares[0]]


@pytest.mark.parametrize(
    "make",
    [
        made_in_two_lines,
        made_by_a_formula,
        made_in_a_loop,
        made_by_a_helper,
        made_layer_by_layer,
        used_in_another_order,
        all_hidden_units_before_their_sums,
    ],
)
def test_numbers_are_in_the_order_in_which_values_were_made(make):
    made = make()
    names = names_of(inputs_first(made[-1]))
    assert [names[z] for z in made] == [f"v{i}" for i in range(1, len(made) + 1)]


@pytest.mark.parametrize("blank", ["", " ", "\t\n", "\u3000"])
def test_a_blank_name_is_none(blank):
    model = Linear(1, 1)
    model.weight[0][0].name = blank
    (z,) = model([Value(2.0, name=blank)])
    z.name = blank
    names = names_of(inputs_first(z), model)
    assert {*names.values()} == {"weight[0][0]", "bias[0]", "v1", "v2", "v3"}
    assert names[z] == "v3"


def test_no_two_have_one_name():
    a, b, c = Value(1.0, name="x"), Value(2.0, name="x"), Value(3.0, name="x #2")
    d = Value(1.0, name="v1")
    z = a * b + c * d
    names = names_of(inputs_first(z))
    assert len({*names.values()}) == len(names) == 7
    assert (names[a], names[d]) == ("x", "v1") and names[b] != names[c]


def test_a_chain_of_100000_is_named_without_recursion():
    z = Value(1.0)
    for _ in range(100_000):
        z = z + 1.0
    assert names_of(inputs_first(z))[z] == "v100001"
