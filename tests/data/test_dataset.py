import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from milligrad.data import Dataset, Subset, TensorDataset, random_split
from milligrad.data.dataset import collate, split_lengths
from milligrad.random import generator, manual_seed


class Squares(Dataset):
    """A data set of one's own: samples that are no tuples, and no slices."""

    def __init__(self, n):
        self.n = n

    def __getitem__(self, i):
        return i * i

    def __len__(self):
        return self.n


def pairs(n):
    return TensorDataset([[float(i), -float(i)] for i in range(n)], list(range(n)))


def test_a_dataset_must_say_what_its_samples_are_and_how_many():
    with pytest.raises(TypeError, match="abstract"):
        Dataset()


def test_a_dataset_of_ones_own_is_iterated_up_to_its_length():
    assert list(Squares(4)) == [0, 1, 4, 9]


def test_a_sample_is_a_tuple_and_a_slice_a_tuple_of_slices():
    dataset = TensorDataset([[0.0], [1.0], [2.0]], ["a", "b", "c"], range(3))
    assert len(dataset) == 3
    assert dataset[1] == ([1.0], "b", 1)
    assert dataset[-1] == ([2.0], "c", 2)
    assert dataset[1:] == ([[1.0], [2.0]], ["b", "c"], range(1, 3))
    assert dataset[:0] == ([], [], range(0))
    assert list(dataset) == [([0.0], "a", 0), ([1.0], "b", 1), ([2.0], "c", 2)]
    with pytest.raises(IndexError):
        dataset[3]


def test_tensors_are_the_columns_themselves():
    xs, ys = [1.0, 2.0], [0, 1]
    dataset = TensorDataset(xs, ys)
    assert dataset.tensors[0] is xs and dataset.tensors[1] is ys


@pytest.mark.parametrize("columns, shown", [((), "none at all"), (([1, 2], [1]), "2, 1"), (([], [1], []), "0, 1, 0")])
def test_columns_must_be_of_one_length(columns, shown):
    with pytest.raises(ValueError, match=f"columns: expected .* one length, got {shown}"):
        TensorDataset(*columns)


@pytest.mark.parametrize("column", [3, "abc", {0: 1}, None, iter([1])])
def test_columns_must_be_lists(column):
    with pytest.raises(TypeError, match=r"columns\[1\]: expected a list"):
        TensorDataset([1, 2, 3], column)


def test_a_subset_has_the_samples_of_its_indices_in_their_order():
    subset = Subset(pairs(5), [4, 0, -2, 4])
    assert len(subset) == 4
    assert [y for _, y in subset] == [4, 0, 3, 4]
    assert subset[1] == ([0.0, -0.0], 0)
    assert subset[-1] == ([4.0, -4.0], 4)
    with pytest.raises(IndexError):
        subset[4]


def test_a_slice_of_a_subset_is_what_a_slice_of_the_dataset_is():
    dataset, subset = pairs(5), Subset(pairs(5), range(5))
    for part in (slice(1, 4), slice(None), slice(None, None, -2), slice(3, 3)):
        assert subset[part] == dataset[part]
    assert Subset(subset, [2, 1])[:] == ([[2.0, -2.0], [1.0, -1.0]], [2, 1])
    assert Subset(subset, [])[:] == ([], [])
    assert Subset(Squares(5), [4, 2])[:] == [16, 4]
    assert Subset([5, 6, 7], [2, 0])[0:0] == []


def test_a_subset_keeps_its_own_list_of_indices():
    indices = [0, 1]
    subset = Subset(pairs(3), indices)
    indices.append(2)
    assert subset.indices == [0, 1]


@pytest.mark.parametrize("index", [3, -4])
def test_a_subset_refuses_an_index_the_dataset_does_not_have(index):
    with pytest.raises(IndexError, match=rf"indices\[1\]: expected an index of a data set of 3 samples, got {index}"):
        Subset(pairs(3), [0, index])


@pytest.mark.parametrize("index", [1.0, "1", True, None])
def test_a_subset_refuses_what_is_no_index(index):
    with pytest.raises(TypeError, match=r"indices\[0\]: expected a whole number"):
        Subset(pairs(3), [index])


@pytest.mark.parametrize("dataset", [3, None, iter([1, 2]), {1, 2}])
def test_what_has_no_length_and_index_is_no_dataset(dataset):
    with pytest.raises(TypeError, match="dataset: expected something with a length and an index"):
        Subset(dataset, [])
    with pytest.raises(TypeError, match="dataset: expected something with a length and an index"):
        random_split(dataset, [1.0])


def test_a_batch_of_tuples_is_a_tuple_of_lists_and_other_samples_stay_a_list():
    assert collate([([1.0], 0), ([2.0], 1)]) == ([[1.0], [2.0]], [0, 1])
    assert collate([(1,), (2,)]) == ([1, 2],)
    assert collate([1, 2]) == [1, 2]
    assert collate([[1, 2], [3, 4]]) == [[1, 2], [3, 4]]
    assert collate([]) == []


@pytest.mark.parametrize("samples", [[(1, 2), (1, 2, 3)], [(1, 2), [1, 2]], [5, (1,)]])
def test_samples_of_one_batch_must_be_alike(samples):
    with pytest.raises(ValueError, match=r"samples of one batch: expected all to be alike, got .*a tuple of"):
        collate(samples)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 20), max_size=6), st.integers(0, 2**32))
def test_a_split_by_counts_deals_every_sample_once(lengths, seed):
    dataset = Squares(sum(lengths))
    parts = random_split(dataset, lengths, seed)
    if sum(lengths) != 1:  # the one sum that means fractions
        assert [len(part) for part in parts] == lengths
    assert sorted(i for part in parts for i in part.indices) == list(range(len(dataset)))
    assert all(part.dataset is dataset for part in parts)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 500), st.lists(st.integers(1, 9), min_size=1, max_size=6))
def test_a_split_by_fractions_is_within_one_sample_of_them(n, weights):
    fractions = [w / sum(weights) for w in weights]
    counts = split_lengths(n, fractions)
    assert sum(counts) == n
    assert all(abs(count - n * fraction) < 1 + 1e-9 for count, fraction in zip(counts, fractions))


@pytest.mark.parametrize(
    "n, fractions, counts",
    [
        (10, [0.8, 0.2], [8, 2]),
        (1797, [0.8, 0.2], [1438, 359]),
        (11, [0.25] * 4, [3, 3, 3, 2]),
        (7, [0.5, 0.5], [4, 3]),
        (5, [0.1] * 10, [1] * 5 + [0] * 5),
        (10, [0.7, 0.2, 0.1], [7, 2, 1]),
        (4, [1.0], [4]),
        (4, [1, 0], [4, 0]),
        (0, [0.5, 0.5], [0, 0]),
    ],
)
def test_fractions_are_rounded_down_and_the_rest_is_dealt_from_the_first_part_on(n, fractions, counts):
    assert split_lengths(n, fractions) == counts


@pytest.mark.parametrize("lengths", [[5, 4], [5, 6], [0.5, 0.4], [0.5, 0.6], [5, 4.5, 0.5], []])
def test_lengths_that_do_not_sum_up_are_refused(lengths):
    with pytest.raises(ValueError, match=r"lengths: expected whole numbers that sum to 10, or fractions .* got \["):
        random_split(Squares(10), lengths)


@pytest.mark.parametrize("lengths", [[11, -1], [1.5, -0.5], [float("nan")], [float("inf"), 0]])
def test_lengths_below_zero_or_not_finite_are_refused(lengths):
    with pytest.raises(ValueError, match="lengths: expected numbers of 0 or more, got"):
        random_split(Squares(10), lengths)


@pytest.mark.parametrize("lengths, name", [(0.8, "lengths"), (["8", 2], r"lengths\[0\]"), ([8, None], r"lengths\[1\]")])
def test_lengths_that_are_no_numbers_are_refused(lengths, name):
    with pytest.raises(TypeError, match=name):
        random_split(Squares(10), lengths)


def test_a_split_is_settled_by_its_seed():
    def deal(seed):
        return [part.indices for part in random_split(Squares(50), [0.5, 0.5], seed)]

    assert deal(7) == deal(7)
    assert deal(7) != deal(8)
    assert deal(7)[0] != list(range(25))


def test_without_a_seed_a_split_draws_from_the_generator_of_milligrad():
    def deal():
        return [part.indices for part in random_split(Squares(50), [20, 30])]

    manual_seed(3)
    first, second = deal(), deal()
    manual_seed(3)
    assert [deal(), deal()] == [first, second]
    assert first != second


def test_a_split_with_a_seed_leaves_the_generator_of_milligrad_alone():
    state = generator().getstate()
    random_split(Squares(50), [20, 30], seed=1)
    assert generator().getstate() == state


@pytest.mark.parametrize("seed", [1.5, "one", True, [1]])
def test_a_seed_is_a_whole_number(seed):
    with pytest.raises(TypeError, match="seed: expected a whole number"):
        random_split(Squares(2), [1, 1], seed)
