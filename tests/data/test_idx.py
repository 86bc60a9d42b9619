import gzip
import math
import struct
import tracemalloc
from array import array
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from milligrad.data import DataLoader, IDXArray, Rows, TensorDataset, load_mnist, read_idx

# type byte → letter of struct, smallest and largest number
TYPES = {
    0x08: ("B", 0, 2**8 - 1),
    0x09: ("b", -(2**7), 2**7 - 1),
    0x0B: ("h", -(2**15), 2**15 - 1),
    0x0C: ("i", -(2**31), 2**31 - 1),
    0x0D: ("f", -(2.0**127), 2.0**-149),
    0x0E: ("d", -1e308, 5e-324),
}


def idx(kind, shape, numbers):
    """The bytes of an IDX file."""
    header = bytes([0, 0, kind, len(shape)]) + b"".join(struct.pack(">I", n) for n in shape)
    return header + b"".join(struct.pack(">" + TYPES[kind][0], x) for x in numbers)


def nest(numbers, shape):
    """Consecutive runs of the last length, then runs of those, and so on outwards."""
    for n in reversed(shape[1:]):
        numbers = [numbers[i : i + n] for i in range(0, len(numbers), n)]
    return numbers


@pytest.fixture
def write(tmp_path):
    def write(content, name="file"):
        path = tmp_path / name
        path.write_bytes(content)
        return path

    return write


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
@pytest.mark.parametrize("shape", [(6,), (2, 3), (3, 1, 2), (1, 2, 1, 3)])
@pytest.mark.parametrize("kind", TYPES)
def test_numbers_of_every_type_and_shape_come_back(write, kind, shape, pack):
    letter, smallest, largest = TYPES[kind]
    numbers = [smallest, 0, 1, 2, 3, largest]
    array = read_idx(write(pack(idx(kind, shape, numbers))))
    assert array.shape == shape and array.typecode == letter
    assert list(array) == nest(numbers, shape)


@settings(max_examples=50, deadline=None)
@given(st.sampled_from([0x08, 0x0C, 0x0E]), st.lists(st.integers(1, 4), min_size=1, max_size=4), st.randoms())
def test_an_array_is_the_sequence_of_its_items(tmp_path_factory, kind, shape, random):
    numbers = [random.randrange(256) for _ in range(math.prod(shape))]
    path = tmp_path_factory.mktemp("idx") / "file"
    path.write_bytes(idx(kind, shape, numbers))
    array, items = read_idx(str(path)), nest(numbers, shape)
    assert isinstance(array, IDXArray) and isinstance(array, Sequence)
    assert len(array) == len(items) and list(array) == items
    assert [array[i] for i in range(-len(items), len(items))] == items * 2
    for part in (slice(None), slice(1, 3), slice(None, None, -1), slice(-2, None), slice(5, 9)):
        assert array[part] == items[part]
    for i in (len(items), -len(items) - 1):
        with pytest.raises(IndexError):
            array[i]


def test_items_of_one_dimension_are_numbers(write):
    array = read_idx(write(idx(0x08, (3,), [7, 8, 9])))
    assert [type(x) for x in array] == [int, int, int]
    assert array[-1] == 9 and array[1:] == [8, 9] and 8 in array and array.index(9) == 2
    assert type(read_idx(write(idx(0x0D, (1,), [0.5])))[0]) is float


def test_floats_are_decoded_to_the_last_bit(write):
    numbers = [math.inf, -math.inf, -0.0, math.pi, 5e-324]
    assert struct.pack("5d", *read_idx(write(idx(0x0E, (5,), numbers)))) == struct.pack("5d", *numbers)
    assert math.isnan(read_idx(write(idx(0x0D, (1,), [math.nan])))[0])


def test_gzip_is_told_by_its_bytes_and_not_by_the_name(write):
    content = idx(0x08, (2,), [1, 2])
    assert list(read_idx(write(content, "plain.gz"))) == [1, 2]
    assert list(read_idx(write(gzip.compress(content), "packed.idx"))) == [1, 2]


def test_the_repr_says_what_is_in_the_file(write):
    assert repr(read_idx(write(idx(0x0B, (1, 2), [3, 4])))) == "IDXArray(shape=(1, 2), typecode='h')"


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_numbers_stay_bytes_until_they_are_asked_for(write, pack):
    size = 2000 * 28 * 28
    path = write(pack(idx(0x08, (2000, 28, 28), []) + bytes(size)))
    read_idx(path)  # the imports are not what is measured
    tracemalloc.start()
    try:
        array = read_idx(path)
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(array) == 2000
    assert size <= kept < 1.2 * size and peak < 1.2 * size + 4 * 2**20


WHOLE = idx(0x08, (2, 3), range(6))


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
@pytest.mark.parametrize("length", range(len(WHOLE)))
def test_a_file_cut_short_anywhere_is_refused(write, length, pack):
    path = write(pack(WHOLE[:length]))
    with pytest.raises(ValueError, match=r"expected \d+ bytes: .*; found \d+ before the end of the file") as error:
        read_idx(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    "content, complaint",
    [
        (b"", "expected 4 bytes: the 4 bytes that an IDX file begins with; found 0"),
        (WHOLE[:-1], r"expected 6 bytes: the numbers of shape \(2, 3\); found 5"),
        (WHOLE[:9], "expected 8 bytes: the lengths of 2 dimensions; found 5"),
        (WHOLE + b"\0", r"expected the file to end after 6 bytes of numbers of shape \(2, 3\), found more"),
        (b"\1" + WHOLE[1:], "expected an IDX file, which begins with the bytes 00 00, found 0x0100"),
        (b"PK\3\4" + WHOLE, "begins with the bytes 00 00, found 0x504b"),
        (b"\0\0\x0a" + WHOLE[3:], "one of the types 0x08, 0x09, 0x0b, 0x0c, 0x0d, 0x0e, found 0x0a"),
        (b"\0\0\x08\0", r"one dimension or more, each of length 1 or more, found shape \(\)"),
        (idx(0x08, (0, 28, 28), []), r"each of length 1 or more, found shape \(0, 28, 28\)"),
        (idx(0x08, (2**32 - 1,) * 3, [1]), "expected 79228162458924105385300197375 bytes: .*; found 1"),
    ],
)
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_what_is_no_idx_file_is_refused_with_what_was_expected_and_found(write, content, complaint, pack):
    path = write(pack(content))
    with pytest.raises(ValueError, match=complaint) as error:
        read_idx(path)
    assert str(error.value).startswith(f"{path}: ")


def test_a_damaged_gzip_file_is_refused(write):
    packed = gzip.compress(WHOLE)
    wrong_sum = packed[:-8] + bytes([packed[-8] ^ 1]) + packed[-7:]
    wrong_data = packed[:10] + b"\xff" * 8 + packed[18:]
    for content in (packed[:2], packed[:-9], packed[:-1], wrong_sum, wrong_data, packed + b"garbage"):
        path = write(content)
        with pytest.raises(ValueError, match=r"expected a whole gzip file, found a damaged one: .") as error:
            read_idx(path)
        assert str(error.value).startswith(f"{path}: ")


def test_a_missing_file_is_reported_as_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing-here"):
        read_idx(tmp_path / "nothing-here")


PIXELS = [0, 51, 102, 153, 204, 255, 255, 0, 0, 0, 0, 51]
IMAGES, LABELS = idx(0x08, (2, 2, 3), PIXELS), idx(0x08, (2,), [7, 3])


@pytest.mark.parametrize("mark", "-.")
@pytest.mark.parametrize("ending, pack", [("", bytes), (".gz", gzip.compress)])
def test_mnist_is_found_by_any_of_its_names(write, tmp_path, mark, ending, pack):
    for part, train in (("train", True), ("t10k", False)):
        write(pack(IMAGES), f"{part}-images{mark}idx3-ubyte{ending}")
        write(pack(LABELS if train else idx(0x08, (2,), [1, 2])), f"{part}-labels{mark}idx1-ubyte{ending}")
    dataset = load_mnist(tmp_path)
    assert isinstance(dataset, TensorDataset) and len(dataset) == 2
    assert dataset[0] == ([0.0, 0.2, 0.4, 0.6, 0.8, 1.0], 7)
    assert dataset[-1] == ([1.0, 0.0, 0.0, 0.0, 0.0, 0.2], 3)
    assert dataset[:] == ([dataset[0][0], dataset[1][0]], [7, 3])
    assert [y for _, y in load_mnist(str(tmp_path), train=False)] == [1, 2]


def test_mnist_goes_through_a_loader(write, tmp_path):
    write(idx(0x08, (5, 28, 28), [i // 784 for i in range(5 * 784)]), "train-images-idx3-ubyte")
    write(idx(0x08, (5,), range(5)), "train-labels-idx1-ubyte")
    for inputs, targets in DataLoader(load_mnist(tmp_path), batch_size=2, shuffle=True, seed=0):
        assert inputs == [[y / 255] * 784 for y in targets]
        assert all(type(pixel) is float for x in inputs for pixel in x) and all(type(y) is int for y in targets)


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
@pytest.mark.parametrize(("dtype", "letter"), [("float64", "d"), ("float32", "f")])
def test_mnist_with_a_dtype_is_the_same_in_one_array(write, tmp_path, dtype, letter, pack):
    write(pack(IMAGES), "train-images-idx3-ubyte")
    write(pack(LABELS), "train-labels-idx1-ubyte")
    rows, labels = load_mnist(tmp_path, dtype=dtype).tensors
    assert isinstance(rows, Rows) and rows.buffer.typecode == letter and rows.width == 6
    assert rows.buffer == array(letter, [byte / 255 for byte in PIXELS])
    assert labels == [7, 3] and {*map(type, labels)} == {int}
    if dtype == "float64":
        assert list(load_mnist(tmp_path, dtype=dtype)) == list(load_mnist(tmp_path))


@pytest.mark.parametrize("dtype", ["float16", "d", 64])
def test_mnist_of_another_dtype_is_refused_before_any_file_is_looked_for(dtype):
    with pytest.raises(ValueError, match=f"dtype: expected 'float64' or 'float32' or None, got {dtype!r}"):
        load_mnist("nowhere", dtype=dtype)


def test_a_missing_mnist_file_is_reported_with_the_names_looked_for(write, tmp_path):
    names = "train-labels-idx1-ubyte, train-labels-idx1-ubyte.gz, train-labels.idx1-ubyte, train-labels.idx1-ubyte.gz"
    write(IMAGES, "train-images-idx3-ubyte")
    with pytest.raises(FileNotFoundError) as error:
        load_mnist(tmp_path)
    assert str(error.value) == f"{tmp_path}: expected one of the files {names}, found none"
    with pytest.raises(FileNotFoundError, match="expected one of the files t10k-images-idx3-ubyte"):
        load_mnist(tmp_path, train=False)
    with pytest.raises(FileNotFoundError, match="nowhere: expected one of the files train-images"):
        load_mnist(tmp_path / "nowhere")


@pytest.mark.parametrize(
    "images, labels, complaint",
    [
        (IMAGES, idx(0x08, (3,), [1, 2, 3]), "found 2 images in .*images-idx3-ubyte and 3 labels in .*labels-idx1"),
        (LABELS, LABELS, r"train-images-idx3-ubyte: expected bytes \(typecode 'B'\) in 3 dimensions, found .*\(2,\)"),
        (IMAGES, IMAGES, r"train-labels-idx1-ubyte: expected bytes .* in 1 dimensions, found .*shape=\(2, 2, 3\)"),
        (idx(0x09, (1, 1, 1), [0]), LABELS, "train-images-idx3-ubyte: expected bytes .* found .*typecode='b'"),
        (IMAGES[:-1], LABELS, "train-images-idx3-ubyte: expected 12 bytes: .*; found 11"),
    ],
)
def test_mnist_files_that_do_not_fit_are_refused(write, tmp_path, images, labels, complaint):
    write(images, "train-images-idx3-ubyte")
    write(labels, "train-labels-idx1-ubyte")
    with pytest.raises(ValueError, match=complaint):
        load_mnist(tmp_path)
