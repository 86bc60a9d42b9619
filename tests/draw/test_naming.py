"""Names: the user's, a model's, or v1, v2, …; no two alike."""

import pytest

from milligrad import Linear, Value
from milligrad.draw.naming import inputs_first, names_of


def test_inputs_come_first_each_once_and_constants_with_them():
    x, c = Value(2.0), Value(3.0, requires_grad=False)
    y = x * c
    z = y + x
    assert inputs_first(z) == [x, c, y, z]
    assert inputs_first(x) == [x]


def test_names_are_the_users_the_models_or_numbers_in_order():
    model = Linear(2, 1)
    (z,) = model([1.0, Value(2.0, name="x")])
    names = names_of(inputs_first(z), model)
    assert {*names.values()} == {"weight[0][0]", "weight[0][1]", "x", "bias[0]", "v1", "v2"}
    assert names[z] == "v2" and names[z.inputs[0]] == "v1"
    assert names[model.weight[0][1]] == "weight[0][1]"


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
