import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from milligrad.data import DataLoader, Subset, TensorDataset
from milligrad.random import manual_seed

sizes = st.integers(0, 40)
batch_sizes = st.integers(1, 45)


def flat(batches):
    return [sample for batch in batches for sample in batch]


@settings(max_examples=100, deadline=None)
@given(sizes, batch_sizes, st.booleans(), st.integers(0, 2**32))
def test_every_sample_comes_once_an_epoch(n, batch_size, shuffle, seed):
    loader = DataLoader(range(n), batch_size, shuffle, seed=seed)
    for _ in range(3):
        batches = list(loader)
        assert len(batches) == len(loader) == math.ceil(n / batch_size)
        assert all(len(batch) == batch_size for batch in batches[:-1])
        assert sorted(flat(batches)) == list(range(n))


@settings(max_examples=100, deadline=None)
@given(sizes, batch_sizes, st.booleans(), st.integers(0, 2**32))
def test_drop_last_leaves_whole_batches_only(n, batch_size, shuffle, seed):
    loader = DataLoader(range(n), batch_size, shuffle, drop_last=True, seed=seed)
    batches = list(loader)
    assert len(batches) == len(loader) == n // batch_size
    assert all(len(batch) == batch_size for batch in batches)
    assert len(set(flat(batches))) == n // batch_size * batch_size


@settings(max_examples=25, deadline=None)
@given(sizes, batch_sizes)
def test_without_shuffle_the_order_is_that_of_the_dataset(n, batch_size):
    loader = DataLoader(range(n), batch_size)
    assert flat(loader) == flat(loader) == list(range(n))


def test_a_batch_of_pairs_is_a_pair_of_lists():
    dataset = TensorDataset([[0.0], [1.0], [2.0]], [0, 1, 0])
    assert list(DataLoader(dataset, batch_size=2)) == [([[0.0], [1.0]], [0, 1]), ([[2.0]], [0])]
    assert list(DataLoader(dataset)) == [([[0.0]], [0]), ([[1.0]], [1]), ([[2.0]], [0])]


def test_input_and_target_stay_together_when_shuffled():
    dataset = TensorDataset([[float(i)] for i in range(30)], list(range(30)))
    for inputs, targets in DataLoader(dataset, 7, shuffle=True, seed=0):
        assert [x for (x,) in inputs] == targets


def test_a_plain_list_or_a_subset_is_loaded_like_a_dataset():
    pairs = [(0, "a"), (1, "b"), (2, "c")]
    assert list(DataLoader(pairs, 2)) == [([0, 1], ["a", "b"]), ([2], ["c"])]
    assert list(DataLoader(Subset(pairs, [2, 0]), 2)) == [([2, 0], ["c", "a"])]
    assert list(DataLoader([[1, 2], [3, 4]], 2)) == [[[1, 2], [3, 4]]]


def test_an_empty_dataset_has_no_batches():
    loader = DataLoader([], batch_size=4, shuffle=True, seed=0)
    assert len(loader) == 0 and list(loader) == []


def epochs(loader, n=3):
    return [flat(loader) for _ in range(n)]


def test_the_seed_settles_all_epochs_and_each_has_its_own_order():
    def run(seed):
        return epochs(DataLoader(range(50), 8, shuffle=True, seed=seed))

    assert run(1) == run(1)
    assert run(1) != run(2)
    first, second, third = run(1)
    assert first != second != third != first
    assert list(range(50)) not in (first, second, third)


def test_the_batch_size_does_not_change_the_order():
    orders = [epochs(DataLoader(range(50), size, shuffle=True, seed=1)) for size in (1, 8, 50)]
    assert orders[0] == orders[1] == orders[2]


def test_two_iterations_at_a_time_do_not_disturb_each_other():
    one_by_one = epochs(DataLoader(range(20), 3, shuffle=True, seed=5), 2)
    loader = DataLoader(range(20), 3, shuffle=True, seed=5)
    first, second = iter(loader), iter(loader)
    rounds = list(zip(second, first))
    assert flat(b for _, b in rounds) == one_by_one[0]
    assert flat(a for a, _ in rounds) == one_by_one[1]


def test_two_loaders_of_one_seed_are_independent():
    a, b = (DataLoader(range(20), 3, shuffle=True, seed=5) for _ in range(2))
    first = flat(a)
    flat(a)
    assert flat(b) == first


def test_without_a_seed_the_order_comes_from_the_generator_of_milligrad():
    loader = DataLoader(range(50), 8, shuffle=True)
    manual_seed(9)
    first = epochs(loader)
    manual_seed(9)
    assert epochs(loader) == first
    assert epochs(loader) != first


def test_a_loader_with_a_seed_does_not_follow_the_generator_of_milligrad():
    loader = DataLoader(range(50), 8, shuffle=True, seed=0)
    manual_seed(9)
    first = flat(loader)
    manual_seed(9)
    assert flat(loader) != first


@pytest.mark.parametrize("batch_size", [0, -1])
def test_a_batch_has_one_sample_or_more(batch_size):
    with pytest.raises(ValueError, match=f"batch_size: expected 1 or more, got {batch_size}"):
        DataLoader([1], batch_size)


@pytest.mark.parametrize("batch_size", [2.0, "2", None, True])
def test_a_batch_size_is_a_whole_number(batch_size):
    with pytest.raises(TypeError, match="batch_size: expected a whole number"):
        DataLoader([1], batch_size)


@pytest.mark.parametrize("dataset", [5, None, iter([1]), {1, 2}])
def test_what_has_no_length_and_index_is_not_loaded(dataset):
    with pytest.raises(TypeError, match="dataset: expected something with a length and an index"):
        DataLoader(dataset)


@pytest.mark.parametrize("option", ["shuffle", "drop_last"])
def test_options_are_true_or_false(option):
    with pytest.raises(TypeError, match=f"{option}: expected True or False, got int 7"):
        DataLoader([1], **{option: 7})


def test_a_seed_is_a_whole_number():
    with pytest.raises(TypeError, match="seed: expected a whole number, got float"):
        DataLoader([1], seed=0.5)


def test_samples_that_do_not_match_are_named():
    with pytest.raises(ValueError, match="expected all to be alike, got a tuple of 1, a tuple of 2"):
        list(DataLoader([(1, 2), (1,)], batch_size=2))
