"""Data to learn from, and its way into a training loop in batches.

    datasets.py   data sets that come with milligrad, or are generated: digits, names, xor, moons, circles, spirals
    dataset.py    Dataset: samples with an index; parts of one
    rows.py       Rows: many numbers in one array
    loader.py     DataLoader: samples in batches, shuffled
    idx.py        the files MNIST is published in

Everything here is plain numbers in plain lists, or reads as if: a sample is a tuple such as (x, y), a batch a tuple of
lists. Nothing here knows what a Value is.
"""

from milligrad.data.dataset import Dataset, Subset, TensorDataset, random_split
from milligrad.data.datasets import load_digits, load_names, make_circles, make_moons, make_spiral, xor
from milligrad.data.idx import IDXArray, load_mnist, read_idx
from milligrad.data.loader import DataLoader
from milligrad.data.rows import Rows

__all__ = [
    "DataLoader",
    "Dataset",
    "IDXArray",
    "Rows",
    "Subset",
    "TensorDataset",
    "load_digits",
    "load_mnist",
    "load_names",
    "make_circles",
    "make_moons",
    "make_spiral",
    "random_split",
    "read_idx",
    "xor",
]
