import math
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import Subset as TorchSubset
from torch.utils.data import TensorDataset as TorchTensorDataset
from torch.utils.data import random_split as torch_random_split

from milligrad.data import Subset, TensorDataset
from milligrad.data.dataset import split_lengths

torch.set_num_threads(1)

bounds = st.none() | st.integers(-8, 8)
slices = st.builds(slice, bounds, bounds)


def torch_lengths(n, lengths):
    with warnings.catch_warnings():  # PyTorch warns of parts without a sample
        warnings.simplefilter("ignore", UserWarning)
        return [len(part) for part in torch_random_split(range(n), lengths)]


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2000), st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_fractions_give_parts_of_the_same_lengths(n, weights):
    total = sum(weights) or 1.0
    fractions = [w / total for w in weights] if any(weights) else [1.0, *weights]
    while sum(fractions) > 1:  # PyTorch takes no sum above 1, by however little
        fractions[fractions.index(max(fractions))] = math.nextafter(max(fractions), 0)
    assert split_lengths(n, fractions) == torch_lengths(n, fractions)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 30), min_size=1, max_size=6))
def test_counts_give_parts_of_the_same_lengths(counts):
    assert split_lengths(sum(counts), counts) == torch_lengths(sum(counts), counts)


@pytest.mark.parametrize("n", [1, 2, 7])
@pytest.mark.parametrize("lengths", [[1], [1, 0], [0, 1], [1.0, 0.0]])
def test_ones_and_zeros_that_sum_to_1_are_fractions_in_both(n, lengths):
    assert split_lengths(n, lengths) == torch_lengths(n, lengths)


@pytest.mark.parametrize("lengths", [[5, 4], [5, 6], [0.5, 0.4], [1.5, -0.5]])
def test_lengths_refused_by_one_are_refused_by_both(lengths):
    with pytest.raises(ValueError):
        torch_lengths(10, lengths)
    with pytest.raises(ValueError):
        split_lengths(10, lengths)


@settings(max_examples=50, deadline=None)
@given(st.integers(-6, 5), slices, st.lists(st.integers(-6, 5), max_size=8))
def test_indices_and_slices_take_the_same_samples(i, part, indices):
    xs, ys = [[float(k), k / 7] for k in range(6)], list(range(6))
    ours = TensorDataset(xs, ys)
    theirs = TorchTensorDataset(torch.tensor(xs, dtype=torch.float64), torch.tensor(ys))
    assert len(ours) == len(theirs)
    assert ours[i] == tuple(column.tolist() for column in theirs[i])
    assert ours[part] == tuple(column.tolist() for column in theirs[part])
    assert list(Subset(ours, indices)) == [
        tuple(column.tolist() for column in sample)
        for sample in (TorchSubset(theirs, indices)[k] for k in range(len(indices)))
    ]
    if indices:
        assert Subset(ours, indices)[part] == tuple(
            column.tolist() for column in theirs[torch.tensor(indices[part], dtype=torch.long)]
        )
