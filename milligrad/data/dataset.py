"""Dataset: samples that have a number; columns of data as one, and parts of one.

A data set is anything with `len(dataset)` and `dataset[i]`, a plain list included. A sample may be anything, and is
most often a tuple (x, y) of an input and its target. The names and their meanings are those of torch.utils.data.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from milligrad.engine import number
from milligrad.nested import Nested, is_list
from milligrad.random import generator
from milligrad.typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from random import Random


class Dataset(ABC):
    """Samples with an index. A data set of your own says what `dataset[i]` and `len(dataset)` are."""

    @abstractmethod
    def __getitem__(self, i: Any) -> Any: ...

    @abstractmethod
    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Any]:
        return map(self.__getitem__, range(len(self)))


class TensorDataset(Dataset):
    """Columns of one length, side by side: sample i is the tuple of their elements i, a slice a tuple of slices.

    `TensorDataset(xs, ys)[i]` is `(xs[i], ys[i])`, and `inputs, targets = dataset[:]` takes it apart again. The columns
    are kept as they are (`.tensors`), not copied. Raises TypeError for what is no list, ValueError for no column at
    all or for lengths that differ.
    """

    def __init__(self, *columns: Sequence[Any]) -> None:
        for i, column in enumerate(columns):
            if not is_list(column):
                raise TypeError(f"columns[{i}]: expected a list, got {type(column).__name__} {column!r:.60}")
        if len({*map(len, columns)}) != 1:
            lengths = ", ".join(str(len(column)) for column in columns) or "none at all"
            raise ValueError(f"columns: expected one or more lists of one length, got {lengths}")
        self.tensors = columns

    def __getitem__(self, i: Any) -> tuple[Any, ...]:
        return tuple(column[i] for column in self.tensors)

    def __len__(self) -> int:
        return len(self.tensors[0])


class Subset(Dataset):
    """The samples of `dataset` that have these `indices`, in their order; a slice is one batch of them (see collate).

    An index that the data set does not have raises IndexError, one that is no whole number TypeError.
    """

    def __init__(self, dataset: Any, indices: Iterable[int]) -> None:
        n = length(dataset)
        self.dataset = dataset
        self.indices = [whole(i, f"indices[{k}]") for k, i in enumerate(indices)]
        for k, i in enumerate(self.indices):
            if not -n <= i < n:
                raise IndexError(f"indices[{k}]: expected an index of a data set of {n} samples, got {i}")

    def __getitem__(self, i: Any) -> Any:
        if isinstance(i, slice):
            # An empty batch shows no columns: there, the data set itself has to say how many it has.
            return collate([self.dataset[j] for j in self.indices[i]]) or self.dataset[:0]
        return self.dataset[self.indices[i]]

    def __len__(self) -> int:
        return len(self.indices)


def collate(samples: list[Any]) -> Nested:
    """A batch: samples that are tuples become a tuple of columns, `([x, …], [y, …])`; others stay a list of samples.

    Tuples of different lengths, or tuples among other samples, raise ValueError.
    """
    widths = {len(sample) if isinstance(sample, tuple) else None for sample in samples}
    if len(widths) > 1:
        shown = ", ".join(sorted("no tuple" if n is None else f"a tuple of {n}" for n in widths))
        raise ValueError(f"samples of one batch: expected all to be alike, got {shown}")
    return tuple(map(list, zip(*samples))) if samples and isinstance(samples[0], tuple) else samples


def random_split(dataset: Any, lengths: Sequence[float], seed: int | None = None) -> list[Subset]:
    """`dataset` dealt out at random to one Subset for each of `lengths`, no sample to two of them.

    The lengths are whole numbers that sum to the number of samples, or fractions that sum to 1. By PyTorch's rule a
    fraction of n samples is rounded down, and what is left goes one by one to the first, second … part. The same
    `seed` deals the same way; None uses milligrad's generator. Raises ValueError for lengths that do neither.
    """
    counts = split_lengths(length(dataset), lengths)
    indices = list(range(sum(counts)))
    source(seed).shuffle(indices)
    dealer = iter(indices)
    return [Subset(dataset, islice(dealer, count)) for count in counts]


def split_lengths(n: int, lengths: Sequence[float]) -> list[int]:
    """How many of `n` samples each part gets: see `random_split`."""
    if not is_list(lengths):
        raise TypeError(f"lengths: expected a list of numbers, got {type(lengths).__name__} {lengths!r:.60}")
    sizes = [number(size, f"lengths[{k}]") for k, size in enumerate(lengths)]
    if not all(0 <= size < math.inf for size in sizes):
        raise ValueError(f"lengths: expected numbers of 0 or more, got {lengths}")
    if math.isclose(sum(sizes), 1):
        counts = [math.floor(n * size) for size in sizes]
        rest = n - sum(counts)
        return [count + rest // len(counts) + (k < rest % len(counts)) for k, count in enumerate(counts)]
    if sum(sizes) != n or not all(map(float.is_integer, sizes)):
        raise ValueError(
            f"lengths: expected whole numbers that sum to {n}, or fractions that sum to 1, got {lengths}, "
            f"which sums to {sum(sizes):g}"
        )
    return list(map(int, sizes))


# What the other files of this folder ask of their arguments.


def length(dataset: Any) -> int:
    """`len(dataset)`; TypeError for what cannot be indexed."""
    if not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__"):
        kind = type(dataset).__name__
        raise TypeError(f"dataset: expected something with a length and an index (len(…), …[i]), got {kind}")
    return len(dataset)


def whole(x: Any, name: str, least: float = -math.inf) -> int:
    """`x` as an int; TypeError for what is no whole number, ValueError for one below `least`."""
    if isinstance(x, bool) or not hasattr(x, "__index__"):
        raise TypeError(f"{name}: expected a whole number, got {type(x).__name__} {x!r:.60}")
    if x < least:
        raise ValueError(f"{name}: expected {least} or more, got {x}")
    return int(x)


def source(seed: int | None) -> Random:
    """A source of random numbers: one of its own for a `seed`; for None the one `milligrad.manual_seed` seeds."""
    if seed is None:
        return generator()
    from random import Random

    return Random(whole(seed, "seed"))
