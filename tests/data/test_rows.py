import math
import random
import struct
from array import array
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from milligrad.data import DataLoader, Rows, TensorDataset
from milligrad.data.rows import CHUNK, from_bytes

finite = st.floats(allow_nan=False, allow_infinity=False)


@given(st.integers(1, 5), st.lists(finite, max_size=40), st.slices(8))
def test_rows_are_the_sequence_of_their_rows(width, numbers, part):
    numbers = numbers[: len(numbers) // width * width]
    lists = [numbers[i : i + width] for i in range(0, len(numbers), width)]
    rows = Rows(array("d", numbers), width)
    assert isinstance(rows, Sequence) and len(rows) == len(lists)
    assert list(rows) == lists and [rows[i] for i in range(-len(lists), 0)] == lists
    assert isinstance(rows[part], Rows) and list(rows[part]) == lists[part]
    assert rows[part].buffer.typecode == "d" and rows[part].width == width
    rows.check()


def test_a_row_is_a_list_of_floats_of_its_own():
    rows = Rows(array("f", [0.5, 1.5, 0.1, 2.0]), 2)
    assert type(rows[0]) is list and rows[0] == [0.5, 1.5]
    assert rows[1] == [struct.unpack("f", struct.pack("f", 0.1))[0], 2.0]
    rows[0][0] = 9.0
    assert rows[0] == [0.5, 1.5]
    for i in (2, -3):
        with pytest.raises(IndexError):
            rows[i]


def test_the_buffer_is_kept_and_that_of_a_slice_is_another():
    buffer = array("d", [1.0, 2.0, 3.0, 4.0])
    rows = Rows(buffer, 2)
    part = rows[1:]
    buffer[2] = 7.0
    assert rows.buffer is buffer and rows[1] == [7.0, 4.0] and part[0] == [3.0, 4.0]


def test_rows_go_through_a_loader():
    data = TensorDataset(Rows(array("d", range(6)), 2), [0, 1, 2])
    assert list(DataLoader(data, batch_size=2)) == [([[0.0, 1.0], [2.0, 3.0]], [0, 1]), ([[4.0, 5.0]], [2])]


def test_rows_show_their_size_and_not_their_numbers():
    assert repr(Rows(array("f", range(6)), 2)) == "<Rows: 3 rows of 2 numbers, typecode 'f'>"


@pytest.mark.parametrize(
    ("buffer", "width", "error", "complaint"),
    [
        ([1.0, 2.0], 2, TypeError, r"buffer: expected an array\('d'\) or array\('f'\), got list"),
        (array("i", [1, 2]), 2, TypeError, r"buffer: expected an array\('d'\) or array\('f'\), got array\('i'\)"),
        (array("d", [1, 2, 3]), 2, ValueError, "buffer: expected a multiple of width = 2 numbers, got 3"),
        (array("d"), 0, ValueError, "width: expected 1 or more, got 0"),
        (array("d"), 2.0, TypeError, "width: expected a whole number, got float 2.0"),
    ],
)
def test_what_makes_no_rows_is_refused(buffer, width, error, complaint):
    with pytest.raises(error, match=complaint):
        Rows(buffer, width)


LARGEST = {"d": [1.7e308, -1.7e308, 2.0**1009, -(2.0**1008)], "f": [3.4e38, -3.4e38, 2.0**127, -(2.0**126)]}


@pytest.mark.parametrize("typecode", "df")
@pytest.mark.parametrize("bad", [math.nan, -math.nan, math.inf, -math.inf])
def test_check_finds_the_one_number_that_is_not_finite_wherever_it_is(typecode, bad):
    width, n = 7, 7 * (2 * CHUNK // 7 + 3)
    buffer = array(typecode, [0.0]) * n
    buffer[3 : 3 + len(LARGEST[typecode])] = array(typecode, LARGEST[typecode])
    rows = Rows(buffer, width)
    rows.check("X")
    for place in (0, 1, CHUNK - 1, CHUNK, 2 * CHUNK, n - 1, random.Random(0).randrange(n)):
        good, buffer[place] = buffer[place], bad
        with pytest.raises(ValueError) as error:
            rows.check("X")
        shown = "nan" if math.isnan(bad) else str(bad)
        assert str(error.value) == f"X[{place // 7}][{place % 7}]: expected a finite number, got {shown}"
        buffer[place] = good
    rows.check("X")


@pytest.mark.parametrize("typecode", "df")
@pytest.mark.parametrize("n", [0, 1, 255, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 17])
@pytest.mark.parametrize("kind", [bytes, bytearray])
def test_from_bytes_looks_every_byte_up(typecode, n, kind):
    random_ = random.Random(n)
    numbers = [random_.gauss(0, 1e3) for _ in range(250)] + [0.0, -0.0, 1e-40, math.inf, 1.0, 255.0]
    raw = kind(random_.randbytes(n))
    assert from_bytes(raw, numbers, typecode).tobytes() == array(typecode, [numbers[b] for b in raw]).tobytes()
