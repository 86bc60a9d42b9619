"""What was recorded of a training run: History, a table with a row for each epoch, and Evaluation, one test's figures.

Plain data that knows nothing of models and of how they are trained; the Trainer fills it, and so may any other loop.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Iterator, Sequence

from milligrad.typing import Any

Evaluation = namedtuple("Evaluation", "loss accuracy metric", defaults=(None, None))
Evaluation.__doc__ = """What `Trainer.evaluate` returns.

loss:      the mean of the batches' losses, weighted by their lengths.
accuracy:  the share of samples that were predicted right; None if that makes no sense.
metric:    the mean of the Trainer's own metric over the samples; None if it has none.
"""


class History:
    """What was recorded of each epoch: `history["loss"]` or `history.loss` is a column, `history[-1]` the last row.

    epochs:        the rows: a dict for each epoch, with the names in `columns`.
    interrupted:   whether the run was ended by Ctrl-C.
    batch_losses:  the loss of each step, where the batches were ready-made; else empty.

    The columns: epoch (from 1), loss, accuracy (of a classification; or "metric", if the Trainer has one of its own),
    val_loss and val_accuracy (with validation data), lr (during the epoch; a list if there are several groups) and
    seconds. Loss and accuracy are means over the steps of the epoch, while the parameters moved; those of the
    validation data were taken after it.
    """

    def __init__(self, columns: Sequence[str] = ()) -> None:
        self.columns = tuple(columns)
        self.epochs: list[dict[str, Any]] = []
        self.batch_losses: list[float] = []
        self.interrupted = False

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, str):
            if key not in self.columns:
                raise KeyError(f"{key}: expected one of {', '.join(self.columns)}")
            return [row[key] for row in self.epochs]
        return self.epochs[key]

    def __getattr__(self, name: str) -> Any:
        if name in self.__dict__.get("columns", ()):
            return self[name]
        raise AttributeError(f"{type(self).__name__!r} object has no attribute or column {name!r}")

    def __len__(self) -> int:
        return len(self.epochs)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.epochs)

    def line(self, i: int = -1) -> str:
        """The row number i as one line of text: "epoch 3   loss 0.1234   val_loss 0.2   …"."""
        return "   ".join(f"{name} {_cell(name, x)}" for name, x in self.epochs[i].items())

    def __repr__(self) -> str:
        """A table; of more than 20 epochs the first and the last 10."""
        cells = [[_cell(name, row[name]) for name in self.columns] for row in self.epochs]
        if len(cells) > 20:
            cells[10:-10] = [["…"] * len(self.columns)]
        widths = [max(map(len, column)) for column in zip(self.columns, *cells)]
        lines = ["  ".join(f"{x:>{n}}" for x, n in zip(line, widths)) for line in [self.columns, *cells]]
        return "\n".join(lines + ["interrupted"] * self.interrupted)


def _cell(name: str, x: Any) -> str:
    if isinstance(x, list):
        return "/".join(_cell(name, item) for item in x)
    if name in ("accuracy", "val_accuracy"):
        return f"{x:.2%}"
    return f"{x:.2f}" if name == "seconds" else f"{x:.4g}" if isinstance(x, float) else str(x)
