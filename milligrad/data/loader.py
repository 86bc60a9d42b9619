"""DataLoader: the samples of a data set in batches, in order or shuffled.

One `for` over it is one epoch. It loads nothing ahead and runs in the thread of whoever iterates.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from milligrad.data.dataset import collate, length, source, whole
from milligrad.nested import Nested
from milligrad.typing import Any


class DataLoader:
    """Batches of `batch_size` samples; the last one is smaller if they do not divide, or left out by `drop_last`.

    dataset:    anything with `len(dataset)` and `dataset[i]`: a Dataset, a list.
    shuffle:    a new order for every epoch.
    seed:       makes the sequence of all epochs' orders the same each time; None uses milligrad's generator, which
                `milligrad.manual_seed` seeds.

    A batch of (x, y) samples is `([x, …], [y, …])`; samples that are not tuples come as a list. An epoch's order is
    settled when its iteration begins, so that several may run side by side. Raises TypeError for a dataset without
    length or index and for options of the wrong type, ValueError for a batch_size below 1.
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int = 1,
        shuffle: bool = False,
        drop_last: bool = False,
        seed: int | None = None,
    ) -> None:
        length(dataset)
        for name, option in (("shuffle", shuffle), ("drop_last", drop_last)):
            if not isinstance(option, bool):
                raise TypeError(f"{name}: expected True or False, got {type(option).__name__} {option!r:.60}")
        self.dataset = dataset
        self.batch_size = whole(batch_size, "batch_size", least=1)
        self.shuffle, self.drop_last = shuffle, drop_last
        self._own = None if seed is None else source(seed)

    def __len__(self) -> int:
        """The number of batches in an epoch."""
        n = len(self.dataset)
        return n // self.batch_size if self.drop_last else -(-n // self.batch_size)

    def __iter__(self) -> Iterator[Nested]:
        order: Sequence[int] = range(len(self.dataset))
        if self.shuffle:
            order = list(order)
            (self._own or source(None)).shuffle(order)
        starts = range(0, len(self) * self.batch_size, self.batch_size)
        return (collate([self.dataset[i] for i in order[k : k + self.batch_size]]) for k in starts)
