import array
from enum import Enum, IntEnum

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from milligrad.nested import along, broadcast, elementwise, flatten, full, is_list, leaves, shape, transpose, unflatten

shapes = st.lists(st.integers(1, 4), max_size=3).map(tuple)


def counted(size):
    """0, 1, 2, … in nested lists of a shape."""
    n = 1
    for m in size:
        n *= m
    return unflatten(range(n), size)


def at(x, *index):
    for i in index:
        x = x[i]
    return x


@pytest.mark.parametrize("x", [[], [1], (1, 2), range(3), array.array("d", [1.0]), [[]], bytearray(b"ab")])
def test_whatever_holds_elements_in_order_is_a_list(x):
    assert is_list(x)


@pytest.mark.parametrize("x", [1, 2.5, True, None, "abc", b"abc", {}, {"a": 1}, {1, 2}, 1j, object(), iter([1])])
def test_numbers_strings_dictionaries_and_sets_are_no_lists(x):
    assert not is_list(x)


def test_a_member_of_an_enum_is_no_list_though_its_class_has_a_length():
    assert not is_list(Enum("Color", "RED").RED) and not is_list(IntEnum("Level", "LOW").LOW)


@pytest.mark.parametrize(
    "x, expected",
    [
        (3.0, ()),
        ([], (0,)),
        ([[]], (1, 0)),
        ([[], []], (2, 0)),
        ([1, 2, 3], (3,)),
        ([(1, 2), [3, 4], range(2)], (3, 2)),
        ([[[1], [2]], [[3], [4]], [[5], [6]]], (3, 2, 1)),
    ],
)
def test_the_shape_is_the_lengths_at_each_depth(x, expected):
    assert shape(x) == expected


@pytest.mark.parametrize(
    "x", [[1, [2]], [[1], 2], [[1], [2, 3]], [[], [1]], [[[1]], [[1, 2]]], [[[1]], [1]], [[[1, 2]], [[1], [2]]]]
)
def test_a_ragged_nesting_has_no_shape_and_the_error_names_the_argument(x):
    with pytest.raises(ValueError, match=r"^weights is ragged: "):
        shape(x, "weights")


@given(shapes)
def test_flatten_and_unflatten_are_inverses(size):
    x = counted(size)
    assert shape(x) == size
    assert flatten(x) == list(range(len(flatten(x))))
    assert unflatten(flatten(x), size) == x


@pytest.mark.parametrize("x", [[1, [2, 3]], [[1, 2], 3], [1, [[2], 3]], [1, (2, range(3, 4))]])
def test_lists_beside_numbers_are_walked_too_wherever_they_stand(x):
    assert flatten(x) == [1, 2, 3]
    assert flatten(elementwise(lambda item: item * 10, x)) == [10, 20, 30]
    assert [item for _, item in leaves(x)] == [1, 2, 3]


def test_flatten_returns_a_list_of_its_own():
    x = [1, 2]
    assert flatten(x) == x and flatten(x) is not x
    assert flatten(5) == [5] and flatten([]) == [] and flatten([[], []]) == []


def test_unflatten_takes_only_as_much_as_the_shape_holds():
    items = iter([1, 2, 3])
    assert unflatten(items, (2,)) == [1, 2]
    assert unflatten(items, ()) == 3
    with pytest.raises((StopIteration, RuntimeError)):
        unflatten(items, (1,))


@given(shapes)
def test_full_has_the_shape_and_one_value_in_lists_of_their_own(size):
    x = full(size, 0.5)
    assert shape(x) == size and set(flatten(x)) == {0.5}
    if len(size) > 1 and size[0] > 1:
        assert x[0] is not x[1]


@given(shapes)
def test_elementwise_keeps_the_nesting(size):
    x = counted(size)
    assert elementwise(lambda a: a + 1, x) == unflatten([a + 1 for a in flatten(x)], size)
    assert elementwise(lambda a, b, c: (a, b, c), x, x, x) == unflatten([(a, a, a) for a in flatten(x)], size)


def test_elementwise_of_lists_of_different_lengths_raises():
    with pytest.raises(ValueError):
        elementwise(max, [1, 2], [1])
    with pytest.raises(ValueError):
        elementwise(max, [[1, 2], [3, 4]], [[1, 2], [3]])


@given(st.data(), shapes)
@settings(max_examples=60, deadline=None)
def test_broadcast_repeats_lengths_of_1_and_missing_ones(data, to):
    cut = data.draw(st.integers(0, len(to)))
    own = tuple(data.draw(st.sampled_from([1, n])) for n in to[cut:])
    x, y = counted(own), broadcast(counted(own), to)
    assert shape(y) == to
    for index in [tuple(data.draw(st.integers(0, n - 1)) for n in to) for _ in range(4)]:
        source = [0 if m == 1 else i for i, m in zip(index[len(to) - len(own) :], own)]
        assert at(y, *index) == at(x, *source)


@pytest.mark.parametrize("x, to", [([1, 2], (3,)), ([[1, 2]], (2,)), ([1, 2], ()), ([[1], [2]], (3, 2)), ([], (2,))])
def test_what_does_not_broadcast_raises_and_names_the_argument_and_both_shapes(x, to):
    with pytest.raises(ValueError, match=r"^weight of shape \(.*\) does not broadcast to the shape \(.*\)$"):
        broadcast(x, to, "weight")


def test_broadcast_of_a_ragged_nesting_raises():
    with pytest.raises(ValueError, match=r"weight is ragged"):
        broadcast([[1], [2, 3]], (2, 2), "weight")


def test_along_runs_over_every_list_of_one_dimension():
    x = counted((2, 3, 4))
    for dim in range(3):
        for spelled in (dim, dim - 3):
            y = along(lambda xs: [sum(xs)] * len(xs), x, spelled)
            assert shape(y) == (2, 3, 4)
            for i, j, k in ((0, 0, 0), (1, 2, 3), (1, 0, 2)):
                line = [at(x, *[m if d == dim else (i, j, k)[d] for d in range(3)]) for m in range((2, 3, 4)[dim])]
                assert at(y, i, j, k) == sum(line)


def test_along_the_last_dimension_is_the_default():
    assert along(list.copy, [[1, 2], [3, 4]]) == [[1, 2], [3, 4]]
    assert along(lambda xs: xs[::-1], [[1, 2], [3, 4]]) == [[2, 1], [4, 3]]
    assert along(lambda xs: xs[::-1], [[1, 2], [3, 4]], 0) == [[3, 4], [1, 2]]


@pytest.mark.parametrize(
    "x, dim, message", [([1, 2], 1, "1 dimension"), ([[1]], -3, "2 dimensions"), (1.0, 0, "0 dim")]
)
def test_a_dimension_that_is_not_there_raises(x, dim, message):
    with pytest.raises(IndexError, match=f"dim is {dim}, but x has {message}"):
        along(list, x, dim)


def test_transpose_swaps_the_first_two_dimensions():
    assert transpose([[1, 2, 3], [4, 5, 6]]) == [[1, 4], [2, 5], [3, 6]]
    assert transpose([[[1], [2]], [[3], [4]]]) == [[[1], [3]], [[2], [4]]]
    assert transpose([]) == []
    with pytest.raises(ValueError):
        transpose([[1, 2], [3]])


def test_leaves_come_with_the_index_that_leads_to_them():
    assert list(leaves([[1, 2], [3]], "x")) == [("x[0][0]", 1), ("x[0][1]", 2), ("x[1][0]", 3)]
    assert list(leaves(7, "x")) == [("x", 7)] and list(leaves(7)) == [("", 7)] and list(leaves([])) == []


def test_what_a_list_of_yours_calls_its_own_is_not_called():
    class Column(list):
        def like(self, pattern):
            raise AssertionError("a method of the user's own")

    assert elementwise(abs, Column([-1.0, 2.0])) == [1.0, 2.0]
