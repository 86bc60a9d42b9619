import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader as TorchDataLoader
from torch.utils.data import TensorDataset as TorchTensorDataset

from milligrad.data import DataLoader, TensorDataset

torch.set_num_threads(1)

sizes = st.integers(1, 40)
batch_sizes = st.integers(1, 45)


@settings(max_examples=50, deadline=None)
@given(sizes, batch_sizes, st.booleans())
def test_batches_in_order_are_the_same(n, batch_size, drop_last):
    xs, ys = [[float(i), i / 7] for i in range(n)], list(range(n))
    ours = DataLoader(TensorDataset(xs, ys), batch_size, drop_last=drop_last)
    tensors = torch.tensor(xs, dtype=torch.float64), torch.tensor(ys)
    theirs = TorchDataLoader(TorchTensorDataset(*tensors), batch_size, drop_last=drop_last)
    assert len(ours) == len(theirs)
    assert list(ours) == [(inputs.tolist(), targets.tolist()) for inputs, targets in theirs]


@settings(max_examples=50, deadline=None)
@given(sizes, batch_sizes, st.booleans())
def test_shuffled_batches_have_the_same_sizes(n, batch_size, drop_last):
    ours = DataLoader(range(n), batch_size, shuffle=True, drop_last=drop_last, seed=0)
    theirs = TorchDataLoader(range(n), batch_size, shuffle=True, drop_last=drop_last)
    assert [len(batch) for batch in ours] == [len(batch) for batch in theirs]


def test_batches_of_single_numbers_are_not_pairs():
    assert list(DataLoader([1, 2, 3], 2)) == [batch.tolist() for batch in TorchDataLoader([1, 2, 3], 2)]
