"""IDX: the file format in which MNIST and its relatives are published.

    0  0  type  dimensions | length of each dimension, 4 bytes each | the numbers, last index fastest

All of it is big-endian (Y. LeCun, C. Cortes and C. Burges, The MNIST database of handwritten digits, "FILE FORMATS").
The numbers stay the bytes they are until they are asked for: MNIST's 60,000 pictures take 47 MB, not 400.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Sequence

from milligrad.data.dataset import TensorDataset
from milligrad.data.rows import Rows, from_bytes
from milligrad.nested import Nested, Shape, unflatten
from milligrad.typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias, overload

if TYPE_CHECKING:
    from pathlib import Path

PathLike: TypeAlias = "str | os.PathLike[str]"

TYPES = {0x08: "B", 0x09: "b", 0x0B: "h", 0x0C: "i", 0x0D: "f", 0x0E: "d"}
"""The type byte of an IDX file → the letter that `struct` and `array` have for that type."""

CHUNK = 1 << 20

LEVELS = [byte / 255 for byte in range(256)]
"""Byte of a picture → pixel from 0 to 1."""

TYPECODES = {"float64": "d", "float32": "f"}


class IDXArray(Sequence[Nested]):
    """The contents of an IDX file: a sequence of numbers (one dimension) or of nested lists of numbers.

    shape:      the lengths of its dimensions: (60000, 28, 28)
    typecode:   the type of its numbers, by the letter of `struct`: B b h i f d

    Only the items asked for are decoded, each time anew; a slice is a list of items.
    """

    def __init__(self, raw: bytes | bytearray, typecode: str, shape: Shape) -> None:
        self.typecode, self.shape = typecode, shape
        self._raw = raw
        self._item = struct.Struct(f">{math.prod(shape[1:])}{typecode}")  # one item, as it stands in the file

    def __len__(self) -> int:
        return self.shape[0]

    def flat(self, i: int) -> list[Any]:
        """The numbers of item `i` in one flat list."""
        return list(self._item.unpack_from(self._raw, range(len(self))[i] * self._item.size))

    @overload
    def __getitem__(self, i: int) -> Nested: ...
    @overload
    def __getitem__(self, i: slice) -> list[Nested]: ...
    def __getitem__(self, i: int | slice) -> Nested:
        if isinstance(i, slice):
            return [self[j] for j in range(len(self))[i]]
        return unflatten(self.flat(i), self.shape[1:])

    def __repr__(self) -> str:
        return f"IDXArray(shape={self.shape}, typecode={self.typecode!r})"


def read_idx(path: PathLike) -> IDXArray:
    """The IDX file at `path`, plain or compressed by gzip, whatever its name ends in.

    Raises FileNotFoundError if there is none, and ValueError, with the path, what was expected and what was found, if
    it is no IDX file, is cut short, goes on after its last number, or its compression is damaged.
    """
    import gzip
    import zlib

    with open(path, "rb") as file:
        compressed = file.peek(2)[:2] == b"\x1f\x8b"
        try:
            return _parse(gzip.GzipFile(fileobj=file) if compressed else file)  # type: ignore[arg-type]
        except (gzip.BadGzipFile, zlib.error, EOFError) as error:
            raise ValueError(f"{os.fspath(path)}: expected a whole gzip file, found a damaged one: {error}") from None
        except ValueError as error:
            raise ValueError(f"{os.fspath(path)}: {error}") from None


def _parse(file: BinaryIO) -> IDXArray:
    zeros, kind, ndim = struct.unpack(">HBB", _read(file, 4, "the 4 bytes that an IDX file begins with"))
    if zeros != 0:
        raise ValueError(f"expected an IDX file, which begins with the bytes 00 00, found {zeros:#06x}")
    if kind not in TYPES:
        raise ValueError(f"expected one of the types {', '.join(f'{t:#04x}' for t in TYPES)}, found {kind:#04x}")
    shape = struct.unpack(f">{ndim}I", _read(file, 4 * ndim, f"the lengths of {ndim} dimensions"))
    if not shape or 0 in shape:
        raise ValueError(f"expected one dimension or more, each of length 1 or more, found shape {shape}")
    size = math.prod(shape) * struct.calcsize(f">{TYPES[kind]}")
    raw = _read(file, size, f"the numbers of shape {shape}")
    if file.read(1):
        raise ValueError(f"expected the file to end after {size} bytes of numbers of shape {shape}, found more")
    return IDXArray(raw, TYPES[kind], shape)


def _read(file: BinaryIO, n: int, what: str) -> bytearray:
    """The next `n` bytes; taken as they come, so that a header which promises too much costs no memory."""
    raw = bytearray()
    while len(raw) < n and (chunk := file.read(min(CHUNK, n - len(raw)))):
        raw += chunk
    if len(raw) < n:
        raise ValueError(f"expected {n} bytes: {what}; found {len(raw)} before the end of the file")
    return raw


def load_mnist(directory: PathLike, train: bool = True, dtype: str | None = None) -> TensorDataset:
    """MNIST, or another set published in its files, from `directory`: the training samples, or else the test samples.

    A sample is (x, y): x the pixels row by row (784), from 0 (paper) to 1 (ink), y the label, an int. They are decoded
    when they are asked for; with a `dtype`, "float64" or "float32", all at once into Rows, one array that compiled code
    reads as it is (0.7 or 0.4 s for 60,000 pictures, 376 or 188 MB). The files are `train-images-idx3-ubyte` and
    `train-labels-idx1-ubyte` or those of `t10k`, with or without `.gz`, a dot before `idx` or a dash. Raises
    FileNotFoundError if one is missing, ValueError if one is damaged, is not of bytes in 3 dimensions (labels: 1), or
    has another number of samples than the other.
    """
    if dtype not in (None, *TYPECODES):
        raise ValueError(f"dtype: expected {' or '.join(map(repr, TYPECODES))} or None, got {dtype!r:.60}")
    part = "train" if train else "t10k"
    image_file, label_file = _find(directory, f"{part}-images", 3), _find(directory, f"{part}-labels", 1)
    images, labels = _read_bytes(image_file, 3), _read_bytes(label_file, 1)
    if len(images) != len(labels):
        raise ValueError(
            f"expected as many labels as images, found {len(images)} images in {image_file} "
            f"and {len(labels)} labels in {label_file}"
        )
    if dtype is None:
        return TensorDataset(_Pixels(images), labels)
    buffer = from_bytes(images._raw, LEVELS, TYPECODES[dtype])
    return TensorDataset(Rows(buffer, math.prod(images.shape[1:])), list(labels._raw))


def _find(directory: PathLike, name: str, ndim: int) -> Path:
    from pathlib import Path

    names = [f"{name}{mark}idx{ndim}-ubyte{ending}" for mark in "-." for ending in ("", ".gz")]
    for path in (Path(directory, name) for name in names):
        if path.is_file():
            return path
    raise FileNotFoundError(f"{os.fspath(directory)}: expected one of the files {', '.join(names)}, found none")


def _read_bytes(path: Path, ndim: int) -> IDXArray:
    array = read_idx(path)
    if array.typecode != "B" or len(array.shape) != ndim:
        raise ValueError(f"{path}: expected bytes (typecode 'B') in {ndim} dimensions, found {array!r}")
    return array


class _Pixels(Sequence[list[float]]):
    """Images as flat lists of floats from 0 to 1."""

    def __init__(self, images: IDXArray) -> None:
        self._images = images

    def __len__(self) -> int:
        return len(self._images)

    @overload
    def __getitem__(self, i: int) -> list[float]: ...
    @overload
    def __getitem__(self, i: slice) -> list[list[float]]: ...
    def __getitem__(self, i: int | slice) -> Any:
        if isinstance(i, slice):
            return [self[j] for j in range(len(self))[i]]
        return [LEVELS[byte] for byte in self._images.flat(i)]
