"""Arguments taken apart into numbers and a structure, and put together again."""

from array import array
from collections import namedtuple
from dataclasses import dataclass
from enum import Enum, IntEnum

import pytest

from milligrad import Value
from milligrad.compiler.structure import NUMBER, flat, nested, of_key, size, structure


def there_and_back(x):
    numbers = []
    return nested(structure(x, numbers), iter(numbers))


def key(x):
    return structure(x, []).key


class Unhashable:
    __hash__ = None


class Half:
    """A number of a kind of its own, as NumPy's are."""

    def __float__(self):
        return 0.5


Point = namedtuple("Point", "x y")


@dataclass
class Body:
    at: Point
    mass: float

    def __post_init__(self):
        self.mass *= 2


@dataclass(slots=True)
class Slotted:
    x: float


@dataclass(frozen=True)
class Setting:
    steps: int


@pytest.mark.parametrize(
    "x",
    [
        Point(1.0, [2.0]),
        Body(Point(1.0, 2.0), 3.0),
        [Slotted(1.0), {"a": Slotted(2.0)}],
        Setting(3),
        {1, 2},
        1.5,
        [1.0, 2.0],
        [],
        (),
        {},
        [[1.0, 2.0], [3.0]],
        (1.0, (2.0, [3.0]), []),
        {"b": 1.0, "a": [2.0, {"c": (3.0,)}]},
        [True, None, "text", 1.0, b"bytes", ...],
        {1: 2.0, (1, 2): [3.0]},
    ],
)
def test_what_was_taken_apart_is_put_together_again(x):
    assert there_and_back(x) == x


def test_the_class_of_a_record_is_part_of_its_structure():
    other = namedtuple("Other", "x y")
    assert len({key((1.0, 2.0)), key(Point(1.0, 2.0)), key(other(1.0, 2.0)), key([1.0, 2.0])}) == 4
    assert (
        key(Body(Point(1.0, 2.0), 3.0))
        == key(Body(Point(4.0, 5.0), 6.0))
        == of_key(key(Body(Point(0.0, 0.0), 0.0))).key
    )
    assert flat(Body(Point(1.0, 2.0), 3.0)) == [1.0, 2.0, 6.0] and flat(Setting(3)) == []
    assert key(Setting(3)) == key(Setting(3)) != key(Setting(4))


def test_a_member_of_an_enum_is_what_its_class_says():
    color, level = Enum("Color", "RED BLUE"), IntEnum("Level", "LOW HIGH")
    assert flat([color.RED, level.HIGH]) == [2.0] and there_and_back(color.RED) is color.RED
    assert structure(color.RED, [], outputs=True).kind == "fixed"
    assert key(color.RED) == key(color.RED) != key(color.BLUE) and key(level.LOW) == key(level.HIGH)


def test_a_string_of_numpy_is_a_string():
    np = pytest.importorskip("numpy")
    assert there_and_back([np.str_("1.5"), 2.0]) == ["1.5", 2.0] and flat(np.str_("1.5")) == []


def test_a_set_is_kept_as_it_was():
    x = {1, 2}
    before = key(x)
    x.add(3)
    assert key(x) != before and key({1, 2}) == before and of_key(before).parts == {1, 2}


@pytest.mark.parametrize("x", [(i for i in range(3)), iter([1.0]), map(float, "1"), zip([1.0])])
def test_what_can_be_read_once_only_is_refused(x):
    with pytest.raises(TypeError, match=r"argument: expected numbers, or lists, .* got \w+: write list\(…\) of it"):
        key([x])
    with pytest.raises(TypeError, match=r"result: expected numbers, or lists, "):
        structure(x, [], outputs=True)


def test_an_object_that_holds_a_value_is_no_result():
    class Holder:
        def __init__(self, x):
            self.x = x

    for x in (Holder(Value(1.0)), {1: Value(1.0)}.values()):
        with pytest.raises(TypeError, match=r"result: expected numbers, or lists, tuples, dicts and dataclasses"):
            structure([x], [], outputs=True)
    assert structure(Holder(1.0), [], outputs=True).kind == "fixed"


def test_numbers_stand_in_order_and_whatever_is_one_becomes_one():
    v = Value(7.0)
    numbers = flat(({"b": [1, 2.5], "a": (v, Half())}, array("d", [4.0, 5.0]), range(2), True, "no", None))
    assert numbers == [1.0, 2.5, v, 0.5, 4.0, 5.0, 0.0, 1.0]
    assert all(type(x) is float for x in numbers if x is not v)


def test_lists_of_any_kind_are_lists_and_tuples_stay_tuples():
    assert there_and_back((array("d", [1.0]), range(2), (3,))) == ([1.0], [0.0, 1.0], (3.0,))
    assert type(there_and_back([(1.0,)])[0]) is tuple


def test_the_key_is_the_same_for_the_same_shape_whatever_the_numbers_are():
    same = [1.0, 2.0], [3, Value(4.0)], array("d", [5.0, 6.0]), [Half(), 7]
    assert len({key(x) for x in same}) == 1
    assert key((1.0, {"a": [2]})) == key((Value(3.0), {"a": array("f", [4])}))


def test_the_key_differs_where_the_shape_or_something_fixed_does():
    different = [
        1.0, [1.0], (1.0,), [[1.0]], [1.0, 1.0], [], (), {}, {"a": 1.0}, {"b": 1.0}, {"a": [1.0]}, [1.0, [1.0]],
        True, False, None, "a", "b", b"a", [True], [1.0, True], [True, 1.0],
    ]  # fmt: skip
    assert len({key(x) for x in different}) == len(different)


def test_the_order_of_a_dict_counts_since_a_function_can_see_it():
    assert key({"a": 1.0, "b": 2.0}) != key({"b": 2.0, "a": 1.0})


def test_what_is_fixed_is_told_apart_by_type_and_by_identity_where_it_has_no_hash():
    assert key(True) != key("True") and key(frozenset([1])) == key(frozenset([1]))
    x, y = Unhashable(), Unhashable()
    assert key([x]) == key([x]) != key([y])


def test_an_object_without_a_hash_is_kept_so_that_no_other_one_is_taken_for_it():
    keys = {key(Unhashable()) for _ in range(100)}  # else a new one would lie where an old one was, and have its id
    assert len(keys) == 100


def test_outputs_are_floats_or_values():
    v, numbers = Value(1.0), []
    made = structure({"a": [1, 2.5, v], "b": (3,), "c": True, "d": None}, numbers, outputs=True)
    assert numbers == [1.0, 2.5, v, 3.0] and [type(x) for x in numbers] == [float, float, Value, float]
    assert nested(made, iter([1.0, 2.0, 3.0, 4.0])) == {"a": [1.0, 2.0, 3.0], "b": (4.0,), "c": True, "d": None}


def test_a_number_is_the_one_structure_of_a_number():
    assert structure(Value(1.0), []) is structure(1, []) is structure(2.5, []) is structure(Half(), []) is NUMBER


def test_what_looks_like_a_number_and_is_none_is_refused():
    with pytest.raises(TypeError, match=r"argument: expected a real number or a Value, got complex 1j"):
        structure([1.0, 1j], [])
    with pytest.raises(OverflowError, match="argument: expected a number that a float can hold"):
        structure(10**400, [])
    with pytest.raises(TypeError, match="output: expected a real number"):
        structure(1j, [], outputs=True)


def test_a_structure_is_made_again_of_its_key():
    thing = object()
    for x in (1.0, [], [1.0, 2], [[1.0], 2.0], (1.0, [2.0, 3.0]), {"a": 1.0, "b": [None, True, "c", (), thing, int]}):
        s = structure(x, [])
        again = of_key(s.key)
        assert again.key == s.key and size(again) == size(s) == len(flat(x))
        assert nested(again, iter(flat(x))) == x


@pytest.mark.parametrize("hashable", [True, False])
def test_a_key_keeps_nothing_alive(hashable):
    class Thing:
        if not hashable:
            __hash__ = None

    thing = Thing()
    key = structure([1.0, thing], []).key
    assert of_key(key).parts[1].parts is thing
    del thing
    with pytest.raises(ReferenceError, match=f"a {'Thing' if hashable else 'thing'} among the arguments does not live"):
        of_key(key)
