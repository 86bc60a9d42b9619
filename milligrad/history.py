"""What was recorded of a training run: History, a table with a row for each epoch, and Evaluation, one test's figures.

Plain data that knows nothing of models and of how they are trained; the Trainer fills it, and so may any other loop.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Iterator, Sequence
from itertools import zip_longest

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

    def plot(self, *columns: str, ax: Any = None) -> Any:
        """The curves of the columns over the epochs: a Chart with a panel for each, or drawn on axes of matplotlib.

        columns:  a column brings its validation along, "loss" val_loss; none stands for loss, and accuracy or metric.
        ax:       an Axes to draw on, or a sequence of as many as there are panels, and what is returned. On a single
                  one, two panels share the epochs: the second has its numbers on the right, as the legend says. On
                  axes that have lines already, such as those of another run, the next colours are taken.

        Before anything is drawn, raises KeyError for a column that is not there, TypeError for one that is not of
        numbers, and ValueError if there are no epochs or another number of axes.
        """
        from milligrad.charts import beside, lines
        from milligrad.charts.lines import legend_on, lines_on

        panels = self._panels(columns)
        if ax is None:
            charts = [lines(**panel) for panel in panels]
            return charts[0] if len(charts) == 1 else beside(charts, " and ".join(chart.title for chart in charts))
        for own, panel in zip(_axes(ax, len(panels)), panels):
            together = _twins(own)
            lines_on(own, **panel, first=sum(len(each.lines) for each in together))
            legend_on(together)
        return ax

    def _panels(self, columns: Sequence[str]) -> list[dict[str, Any]]:
        """What `charts.lines` is to draw: for each column itself and its validation."""
        from milligrad.charts.lines import checked

        names = columns or [name for name in ("loss", "accuracy", "metric") if name in self.columns]
        if not self.epochs:
            raise ValueError("history: expected at least one epoch to plot, got none")
        for name in names or ["loss"]:
            self[name]  # a KeyError that says which columns there are
        x = self["epoch"] if "epoch" in self.columns else range(1, len(self) + 1)
        panels = []
        for name in names:
            series = {k: ys for own in (name, f"val_{name}") for k, ys in self._series(own)}
            xs, series = checked(series, x)
            panels.append({"series": series, "x": xs, "title": name, "percent": name in ("accuracy", "val_accuracy")})
        return panels

    def _series(self, name: str) -> list[tuple[str, list[Any]]]:
        """A column as one series, or as one for each group of parameters; none if there is no such column.

        An epoch that had fewer groups leaves a gap in the others.
        """
        column = self[name] if name in self.columns else []
        if not any(isinstance(cell, list) for cell in column):
            return [(name, column)] * bool(column)
        rows = [cell if isinstance(cell, list) else [cell] for cell in column]
        return [(f"{name} of group {i}", list(ys)) for i, ys in enumerate(zip_longest(*rows))]

    def __repr__(self) -> str:
        """A table; of more than 20 epochs the first and the last 10."""
        cells = [[_cell(name, row[name]) for name in self.columns] for row in self.epochs]
        if len(cells) > 20:
            cells[10:-10] = [["…"] * len(self.columns)]
        widths = [max(map(len, column)) for column in zip(self.columns, *cells)]
        lines = ["  ".join(f"{x:>{n}}" for x, n in zip(line, widths)) for line in [self.columns, *cells]]
        return "\n".join(lines + ["interrupted"] * self.interrupted)


def _axes(ax: Any, panels: int) -> list[Any]:
    """An Axes of matplotlib for each panel: those given, or one and its twin, which is made if there is none."""
    if _is_axes(ax) and panels == 2:
        others = [own for own in _twins(ax) if own is not ax]
        return [ax, others[0] if others else ax.twinx()]
    axes = list(getattr(ax, "flat", ax if isinstance(ax, Sequence) else [ax]))
    if len(axes) != panels or not all(map(_is_axes, axes)):
        raise ValueError(f"ax: expected {panels} Axes of matplotlib, one for each panel, got {ax!r:.60}")
    return axes


def _twins(ax: Any) -> list[Any]:
    """An Axes and those that stand at its place and share its epochs, in the order in which they were made."""
    shared, place = ax.get_shared_x_axes(), ax.get_position(original=True).bounds
    twins = [own for own in ax.figure.axes if own is ax or shared.joined(own, ax)]
    return [own for own in twins if own.get_position(original=True).bounds == place]


def _is_axes(ax: Any) -> bool:
    """Whether it is an Axes: pyplot, which has a plot, too, has no set_xlabel."""
    return hasattr(ax, "plot") and hasattr(ax, "set_xlabel")


def _cell(name: str, x: Any) -> str:
    if isinstance(x, list):
        return "/".join(_cell(name, item) for item in x)
    if name in ("accuracy", "val_accuracy"):
        return f"{x:.2%}"
    return f"{x:.2f}" if name == "seconds" else f"{x:.4g}" if isinstance(x, float) else str(x)
