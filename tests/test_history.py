"""What a History shows of what it recorded: as a table and as curves."""

import math
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from milligrad import History
from tests.charts.reading import S, centre, hover, inverse, number, of_class, parsed, ticks, words


def test_the_history_is_shown_as_a_table():
    history = History(["epoch", "loss", "accuracy", "lr", "seconds"])
    assert repr(history) == "epoch  loss  accuracy  lr  seconds"
    history.epochs = [
        {"epoch": i, "loss": 1 / i, "accuracy": 0.5, "lr": [0.1, 0.25], "seconds": 1.234} for i in range(1, 4)
    ]
    assert repr(history).splitlines() == [
        "epoch    loss  accuracy        lr  seconds",
        "    1       1    50.00%  0.1/0.25     1.23",
        "    2     0.5    50.00%  0.1/0.25     1.23",
        "    3  0.3333    50.00%  0.1/0.25     1.23",
    ]
    assert history.line() == "epoch 3   loss 0.3333   accuracy 50.00%   lr 0.1/0.25   seconds 1.23"
    history.epochs *= 100
    history.interrupted = True
    lines = repr(history).splitlines()
    assert len(lines) == 1 + 10 + 1 + 10 + 1
    assert lines[11].split() == ["…"] * 5 and lines[-1] == "interrupted"


def recorded(epochs=3, **columns):
    """A history with these columns, each a function of the epoch."""
    history = History(["epoch", *columns])
    history.epochs = [{"epoch": i, **{k: f(i) for k, f in columns.items()}} for i in range(1, epochs + 1)]
    return history


def classified(epochs=3):
    return recorded(
        epochs,
        loss=lambda i: 2.0 / i,
        accuracy=lambda i: 1 - 0.5 / i,
        val_loss=lambda i: 3.0 / i,
        val_accuracy=lambda i: 0.9 - 0.5 / i,
        lr=lambda i: [0.1 / i, 0.2],
        seconds=lambda i: 1.5,
    )


def shown(chart):
    """Every point by the name of its series: {"loss": {1: 2.0, 2: 1.0 …}}, read from what the points tell."""
    points = {}
    for group in of_class(parsed(chart), "series"):
        for about in (hover(g) for g in group if g.tag == f"{S}g"):
            name, epoch, y = re.fullmatch(r"(.*), epoch (\d+): (\S+)", about).groups()
            points.setdefault(name, {})[int(epoch)] = number(y)
    return points


def test_a_plot_has_a_panel_for_the_loss_and_one_for_the_accuracy():
    history = classified()
    chart = history.plot()
    found = shown(chart)
    assert [*found] == ["loss", "val_loss", "accuracy", "val_accuracy"]
    for name, points in found.items():
        assert [points[i] for i in (1, 2, 3)] == pytest.approx(history[name], rel=1e-4, abs=5e-5)
    assert chart.title == "loss and accuracy" and words(parsed(chart), "heading") == ["loss", "accuracy"]
    root = parsed(chart)
    [first, second] = [g for g in root if g.tag == f"{S}g"]
    for panel, name in ((first, "loss"), (second, "accuracy")):
        y_of = inverse(ticks(panel, "y"))
        marks = [centre(g[1])[1] for g in of_class(panel, "series")[0] if g.tag == f"{S}g"]
        assert [y_of(y) for y in marks] == pytest.approx(history[name], abs=0.01)
        assert words(panel, "tick", "y")[0].endswith("%") == (name == "accuracy")


@pytest.mark.parametrize(
    ("columns", "names"),
    [
        (["loss"], ["loss", "val_loss"]),
        (["val_loss"], ["val_loss"]),
        (["lr"], ["lr of group 0", "lr of group 1"]),
        (["seconds", "loss"], ["seconds", "loss", "val_loss"]),
    ],
)
def test_a_column_brings_its_validation_along_and_a_group_is_a_line(columns, names):
    assert [*shown(classified().plot(*columns))] == names


def test_a_group_that_was_added_later_is_a_line_with_a_gap():
    history = recorded(4, lr=lambda i: [0.5, [0.25], [0.125, 0.75], [0.0625, 0.5, 1.0]][i - 1])
    assert shown(history.plot("lr")) == {
        "lr of group 0": {1: 0.5, 2: 0.25, 3: 0.125, 4: 0.0625},
        "lr of group 1": {3: 0.75, 4: 0.5},
        "lr of group 2": {4: 1.0},
    }


def test_a_metric_and_a_loss_alone_are_plotted_too():
    assert [*shown(recorded(loss=float, metric=float, val_metric=float).plot())] == ["loss", "metric", "val_metric"]
    assert shown(recorded(loss=float).plot("loss")) == {"loss": {1: 1.0, 2: 2.0, 3: 3.0}}


def test_the_epochs_are_those_of_the_history_or_counted():
    history = classified()
    for row in history.epochs:
        row["epoch"] += 6
    assert [*shown(history.plot("loss"))["loss"]] == [7, 8, 9]
    history = History(["loss"])
    history.epochs = [{"loss": 1.0}, {"loss": math.nan}, {"loss": 0.5}]
    assert shown(history.plot()) == {"loss": {1: 1.0, 3: 0.5}}


def test_what_can_not_be_plotted_is_explained():
    with pytest.raises(KeyError, match="los: expected one of epoch, loss, accuracy"):
        classified().plot("los")
    with pytest.raises(KeyError, match="loss: expected one of epoch, cost"):
        recorded(cost=float).plot()
    with pytest.raises(ValueError, match="history: expected at least one epoch to plot, got none"):
        History(["epoch", "loss"]).plot()


@pytest.fixture
def pyplot():
    pytest.importorskip("matplotlib").use("Agg")
    from matplotlib import pyplot

    yield pyplot
    pyplot.close("all")


def drawn(ax):
    return {line.get_label(): ([*line.get_xdata()], [*line.get_ydata()]) for line in ax.lines}


def labels(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_one_axes_of_matplotlib_takes_both_panels(pyplot):
    history, (figure, ax) = classified(), pyplot.subplots()
    assert history.plot(ax=ax) is ax
    figure.canvas.draw()
    _, twin = figure.axes
    assert drawn(ax) == {name: ([1, 2, 3], history[name]) for name in ("loss", "val_loss")}
    assert drawn(twin) == {name: ([1, 2, 3], history[name]) for name in ("accuracy", "val_accuracy")}
    assert (ax.get_ylabel(), twin.get_ylabel(), ax.get_xlabel()) == ("loss", "", "epoch")
    assert labels(twin) == ["loss", "val_loss", "accuracy (right)", "val_accuracy (right)"] and ax.get_legend() is None
    assert len({line.get_color() for line in (*ax.lines, *twin.lines)}) == 4


def test_the_legend_of_both_panels_lies_on_no_line_and_no_text(pyplot):
    history, (figure, ax) = classified(30), pyplot.subplots()
    history.plot(ax=ax)
    ax.set_title("A title that was set afterwards")
    figure.canvas.draw()
    _, twin = figure.axes
    box = twin.get_legend().get_window_extent()
    texts = [ax.title, ax.xaxis.label, ax.yaxis.label, twin.yaxis.label]
    texts += [*ax.get_xticklabels(), *ax.get_yticklabels(), *twin.get_yticklabels()]
    assert not [text.get_text() for text in texts if box.overlaps(text.get_window_extent())]
    for line in (*ax.lines, *twin.lines):
        corners = line.axes.transData.transform(line.get_xydata())
        points = [a + (b - a) * i / 100 for a, b in pairwise(corners) for i in range(101)]
        assert not [p for p in points if box.contains(*p)], line.get_label()
    inside = ax.get_window_extent()
    assert inside.contains(*box.min) and inside.contains(*box.max)


def test_in_a_default_figure_nothing_is_cut_off(pyplot):
    history, (figure, ax) = classified(30), pyplot.subplots()
    history.plot(ax=ax)
    figure.canvas.draw()
    box = figure.get_tightbbox().transformed(figure.dpi_scale_trans)
    assert figure.bbox.contains(*box.min) and figure.bbox.contains(*box.max)


def test_one_epoch_is_one_whole_number_and_equal_accuracies_have_ticks_that_are_told_apart(pyplot):
    figure, ax = pyplot.subplots()
    recorded(1, loss=float, accuracy=lambda i: 0.1, val_accuracy=lambda i: 0.1).plot(ax=ax)
    figure.canvas.draw()
    _, twin = figure.axes
    low, high = ax.get_xlim()
    assert [x for x in ax.get_xticks() if low <= x <= high] == [1.0]
    shares = [label.get_text() for label in twin.get_yticklabels()]
    assert len({*shares}) == len(shares) > 3
    assert [number(share) for share in shares] == pytest.approx([*twin.get_yticks()], abs=1e-9)


def colours(ax):
    return [line.get_color() for line in ax.lines]


def test_a_second_run_takes_the_twin_that_is_there_and_the_next_colours(pyplot):
    figure, ax = pyplot.subplots()
    classified().plot(ax=ax)
    classified(5).plot(ax=ax)
    recorded(loss=float).plot(ax=ax)
    [_, twin] = figure.axes
    assert colours(ax) == ["C0", "C1", "C4", "C5", "C8"] and colours(twin) == ["C2", "C3", "C6", "C7"]
    names = ["loss", "val_loss", "loss", "val_loss", "loss", *["accuracy (right)", "val_accuracy (right)"] * 2]
    assert labels(twin) == names and ax.get_legend() is None


def test_lines_that_were_there_keep_their_colour_and_a_legend_has_those_with_a_name(pyplot):
    figure, ax = pyplot.subplots()
    ax.plot([1, 2], [1, 2])
    ax.plot([1, 2], [1, 2], label="goal")
    recorded(loss=float).plot(ax=ax)
    assert colours(ax)[2] == "C2" and labels(ax) == ["goal", "loss"]
    classified().plot(ax=ax)
    assert ax.get_legend() is None and labels(figure.axes[1])[:4] == ["goal", "loss", "loss", "val_loss"]


def test_axes_below_each_other_that_share_their_epochs_are_no_twins(pyplot):
    figure, axes = pyplot.subplots(2, 1, sharex=True)
    for _ in range(2):
        classified().plot(ax=axes)
    assert colours(axes[0]) == colours(axes[1]) == ["C0", "C1", "C2", "C3"] and len(figure.axes) == 2
    assert [ax.get_ylabel() for ax in axes] == ["loss", "accuracy"]


@pytest.mark.parametrize("as_list", [False, True])
def test_several_axes_take_a_panel_each(pyplot, as_list):
    history, (figure, axes) = classified(), pyplot.subplots(1, 2)
    given = list(axes) if as_list else axes
    assert history.plot(ax=given) is given
    figure.canvas.draw()
    assert [[*drawn(ax)] for ax in axes] == [["loss", "val_loss"], ["accuracy", "val_accuracy"]]
    assert [labels(ax) for ax in axes] == [[*drawn(ax)] for ax in axes] and len(figure.axes) == 2
    assert axes[0].lines[0].get_color() == axes[1].lines[0].get_color()


def test_a_single_panel_takes_one_axes(pyplot):
    history, (figure, ax) = classified(), pyplot.subplots()
    assert history.plot("lr", ax=ax) is ax and history.plot("lr", ax=[ax]) == [ax]
    assert drawn(ax)["lr of group 0"] == ([1, 2, 3], [row["lr"][0] for row in history])
    assert figure.axes == [ax]


@pytest.mark.parametrize("columns", [(), ("loss", "lr", "seconds")])
def test_another_number_of_axes_is_refused_before_anything_is_drawn(pyplot, columns):
    figure, axes = pyplot.subplots(1, 4)
    wrong = [axes, list(axes), "ax", [axes[0], 3], 3, pyplot, [pyplot, pyplot]] + [axes[0]] * (len(columns) > 2)
    for ax in wrong:
        with pytest.raises(ValueError, match=r"ax: expected \d Axes of matplotlib, one for each panel, got"):
            classified().plot(*columns, ax=ax)
    assert not any(ax.lines for ax in axes) and len(figure.axes) == 4


def test_a_column_that_is_no_numbers_is_refused_before_anything_is_drawn(pyplot):
    history, (figure, ax) = recorded(loss=float, note=lambda i: "text"), pyplot.subplots()
    for given in (None, ax):
        with pytest.raises(TypeError, match=r"note\[0\]: expected a number or None, got str 'text'"):
            history.plot("loss", "note", ax=given)
    assert not ax.lines and figure.axes == [ax]


def test_matplotlib_is_never_imported():
    code = (
        "import sys; from milligrad import History; h = History(['loss']); h.epochs = [{'loss': 1.0}]; h.plot().svg()"
    )
    code += "; print('matplotlib' in sys.modules)"
    root = Path(__file__).parent.parent
    printed = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=root).stdout
    assert printed == "False\n"
