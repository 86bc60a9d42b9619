"""Data sets that are small enough to come along, and some that are drawn when asked for.

Each, but for the names, is a TensorDataset of samples (x, y): x a list of floats, y the number of its class, an int.
The samples of a generated set stand class by class; a DataLoader with `shuffle=True` mixes them.

digits.csv.gz is the work of E. Alpaydin and C. Kaynak (UCI Machine Learning Repository, CC BY 4.0), names.txt.gz that
of G. Ward (public domain): README.md beside them has the credit in full.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

from milligrad.data.dataset import TensorDataset, source, whole
from milligrad.engine import number


def load_digits(normalize: bool = True) -> TensorDataset:
    """1,797 handwritten digits of 8×8 pixels: x is 64 pixels row by row, from 0 (paper) to 1 (ink), y the digit.

    A pixel counts the inked points in a square of 4×4, so it is one of 17 levels; `normalize=False` leaves the counts
    as they are, from 0.0 to 16.0. Every call returns lists of its own.

    Source: E. Alpaydin and C. Kaynak (1998), Optical Recognition of Handwritten Digits, UCI Machine Learning
    Repository, https://doi.org/10.24432/C50P49, licensed under CC BY 4.0. These are its test samples, by 13 people who
    wrote none of its training samples, in the file that scikit-learn carries, unchanged.
    """
    # 17 floats that all pixels share, in place of 115,008: read in 2/3 of the time, and 1 MB in place of 4.
    level = {str(count): count / 16 if normalize else float(count) for count in range(17)}
    rows = [line.split(",") for line in _bundled("digits.csv.gz").splitlines()]
    return TensorDataset([[level[count] for count in row[:64]] for row in rows], [int(row[64]) for row in rows])


def load_names() -> list[str]:
    """8,403 first names common in English-speaking countries, of 2 to 13 letters a to z, in alphabetical order.

    Source: G. Ward (2002), Moby Word II, by way of the lists of female and of male names in stdlib; public domain.
    Both are merged here, in small letters, without the 19 names that have a hyphen.
    """
    return _bundled("names.txt.gz").split()


def _bundled(name: str) -> str:
    """The text of a compressed file that stands beside this one."""
    import gzip
    from pathlib import Path

    return gzip.decompress(Path(__file__).with_name(name).read_bytes()).decode("ascii")


def xor() -> TensorDataset:
    """The four points of exclusive or: y is 1 where just one of the two numbers of x is."""
    return TensorDataset([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]], [0, 1, 1, 0])


def make_moons(n_samples: int = 100, noise: float = 0.0, seed: int | None = None) -> TensorDataset:
    """Two half circles of radius 1 that reach into each other, as scikit-learn's `make_moons` lays them.

    Class 0 is the upper half about (0, 0), class 1 the lower half about (1, 0.5); each begins and ends on the tips.
    An odd sample goes to class 1. `noise` is the standard deviation of a normal distribution, added to both numbers
    of x and drawn with `seed` (None: milligrad's generator). Raises ValueError for n_samples < 1 or noise < 0.
    """

    def point(label: int, i: int, n: int) -> tuple[float, float]:
        angle = math.pi * i / max(n - 1, 1)
        x = math.cos(angle), math.sin(angle)
        return x if label == 0 else (1 - x[0], 0.5 - x[1])

    return _scatter(point, whole(n_samples, "n_samples", least=1), 2, noise, seed)


def make_circles(
    n_samples: int = 100, noise: float = 0.0, factor: float = 0.8, seed: int | None = None
) -> TensorDataset:
    """A circle in a circle about (0, 0), as scikit-learn's `make_circles` lays them.

    Class 0 has radius 1, class 1 the radius `factor`, in [0, 1); both in equal steps from the x axis on. An odd sample
    goes to class 1. `noise` and `seed` are those of `make_moons`. Raises ValueError for n_samples < 1, noise < 0 or
    another factor.
    """
    if not 0 <= number(factor, "factor") < 1:
        raise ValueError(f"factor: expected a number from 0 to below 1, got {factor}")

    def point(label: int, i: int, n: int) -> tuple[float, float]:
        angle, radius = 2 * math.pi * i / n, (1.0, factor)[label]
        return radius * math.cos(angle), radius * math.sin(angle)

    return _scatter(point, whole(n_samples, "n_samples", least=1), 2, noise, seed)


def make_spiral(
    n_samples: int = 300, classes: int = 3, turns: float = 0.75, noise: float = 0.0, seed: int | None = None
) -> TensorDataset:
    """As many spiral arms as `classes`, wound about (0, 0) and ending on the circle of radius 1, spaced equally on it.

    At radius r an arm has turned by r·`turns` full circles (Archimedes' spiral), clockwise for a negative number. Its
    n points stand at r = 1/n, 2/n, …, 1: the centre, where all arms meet, is left out. If the samples do not divide,
    some classes have one more than others. `noise` and `seed` are those of `make_moons`. Raises ValueError for
    classes < 1, fewer samples than classes, noise < 0 or turns that are not finite.
    """
    classes = whole(classes, "classes", least=1)
    if not math.isfinite(number(turns, "turns")):
        raise ValueError(f"turns: expected a finite number, got {turns}")

    def point(label: int, i: int, n: int) -> tuple[float, float]:
        radius = (i + 1) / n
        angle = 2 * math.pi * (turns * radius + label / classes)
        return radius * math.cos(angle), radius * math.sin(angle)

    return _scatter(point, whole(n_samples, "n_samples", least=classes), classes, noise, seed)


def _scatter(
    point: Callable[[int, int, int], tuple[float, float]], n_samples: int, classes: int, noise: float, seed: int | None
) -> TensorDataset:
    """The points `point(label, i, n)`, i of the n that a class gets, with noise. No class gets 2 more than another."""
    if not 0 <= number(noise, "noise") < math.inf:
        raise ValueError(f"noise: expected a finite standard deviation, 0 or more, got {noise}")
    ends = [n_samples * label // classes for label in range(classes + 1)]
    counts = [end - start for start, end in pairwise(ends)]
    xs = [list(point(label, i, n)) for label, n in enumerate(counts) for i in range(n)]
    if noise:
        gauss = source(seed).gauss
        xs = [[x + gauss(0, noise) for x in point] for point in xs]
    return TensorDataset(xs, [label for label, n in enumerate(counts) for _ in range(n)])
