"""A report of a training run as one page of HTML: figures, options, and sections of charts.

It is made from plain data and knows nothing of models, files and the command line. The page needs no other file, no
network and no script. Whatever comes in is shown as text.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from milligrad.charts import Chart, confusion_matrix, images
from milligrad.charts.chart import PRINT, figure
from milligrad.markup import element, elided, page, text

MOST, HALF = 40, 20  # pictures of a kind: more of them are not looked at; and in one chart


class Section(NamedTuple):
    """A heading, a sentence or two, and charts."""

    heading: str
    about: str
    charts: Sequence[Chart]


def report(
    title: str, figures: Mapping[str, object], options: Mapping[str, object], sections: Sequence[Section]
) -> str:
    """The page: `figures` are what the reader wants to know first, `options` what it takes to run it again."""
    terms = [element("div", element("dt", text(k)), element("dd", text(v))) for k, v in figures.items()]
    rows = [
        element("tr", element("th", text(k), scope="row"), element("td", text("none" if v is None else v)))
        for k, v in options.items()
    ]
    return page(
        elided(title, 120),
        element("h1", text(title)),
        element("dl", *terms),
        *[_section(section) for section in sections],
        element("section", element("h2", "Options"), element("table", element("tbody", *rows))),
        style=STYLE,
    )


def _section(section: Section) -> str:
    charts = element("div", *map(figure, section.charts), class_="charts")
    return element("section", element("h2", text(section.heading)), element("p", text(section.about)), charts)


def confusion_of(targets: Sequence[int], probabilities: Sequence[Sequence[float]]) -> list[list[int]]:
    """How often each class (row) was taken for each (column). What has a NaN for an answer was taken for none."""
    classes = range(len(probabilities[0]))
    confusion = [[0 for _ in classes] for _ in classes]
    for target, row in zip(targets, probabilities, strict=True):
        if (best := _best(row)) is not None:
            confusion[target][best] += 1
    return confusion


def mistakes(
    pictures: Sequence[Sequence[float]],
    shape: tuple[int, int],
    targets: Sequence[int],
    probabilities: Sequence[Sequence[float]],
) -> Section:
    """What was read as what, and the pictures that were misread: those that the model was surest of come first.

    One whose answer is no number, a NaN, was misread, too, and comes last.
    """
    confusion, best = confusion_of(targets, probabilities), [_best(row) for row in probabilities]
    wrong = [i for i, target in enumerate(targets) if best[i] != target]
    wrong.sort(key=lambda i: 0.0 if best[i] is None else -max(probabilities[i]))
    shown = wrong[:MOST]
    captions = [[f"is {targets[i]}", *_answer(best[i], probabilities[i])] for i in shown]
    about = f"{len(wrong):,} of {len(targets):,} were misread."
    if unknown := best.count(None):
        about += f" Of {unknown:,} the answer was no number."
    if len(wrong) > MOST:
        about += f" These are the {MOST} that the model was surest of; {len(wrong) - MOST:,} are left out."
    elif wrong:
        about += " Those that the model was surest of come first."
    charts = [confusion_matrix(confusion, title="Confusion matrix")]
    if shown:
        charts.append(images([pictures[i] for i in shown], shape, captions, title="Misread", across=5))
    return Section("Where it is wrong", about, charts)


def _answer(best: int | None, row: Sequence[float]) -> list[str]:
    """What was read, and how sure it was: nothing that is wrong was quite certain."""
    if best is None:
        return ["no number"]
    sure = max(row)
    return [f"read as {best}", "over 99% sure" if 0.99 < sure < 1 else f"{sure:.0%} sure"]


def weights(rows: Sequence[Sequence[float]], shape: tuple[int, int]) -> Section:
    """The weights of each unit of a first layer as a picture of the shape of its input.

    The colours are deepest from the size on that one weight in a hundred exceeds: a few large ones pale no others.
    """
    sizes = sorted(abs(w) for row in rows for w in row if math.isfinite(w)) or [0.0]
    vmax = sizes[99 * (len(sizes) - 1) // 100] or 1.0
    about = "Each picture shows the weights of one hidden unit: ink on blue raises it, ink on orange lowers it."
    if len(rows) > MOST:
        about += f" These are the first {MOST} of {len(rows):,}; {len(rows) - MOST:,} are left out."
    charts = []
    for first in range(0, len(rows[:MOST]), HALF):
        some = rows[first : first + HALF]
        captions = [[str(first + i)] for i in range(len(some))]
        several = f"units {first} to {first + len(some) - 1}"
        title = f"Weights of hidden {several if len(some) > 1 else f'unit {first}'}"
        charts.append(images(some, shape, captions, title=title, vmax=vmax, across=5))
    return Section("What it has learned", about, charts)


def _best(row: Sequence[float]) -> int | None:
    return None if any(map(math.isnan, row)) else max(range(len(row)), key=row.__getitem__)


STYLE = """\
h1 { font-size: 1.5rem; line-height: 1.2; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2rem 0 0; overflow-wrap: anywhere; }
p { margin: 0.3rem 0; max-width: 45rem; overflow-wrap: anywhere; }
dl { display: flex; flex-wrap: wrap; gap: 0.75rem; }
dl div { padding: 0.5rem 1rem; background: var(--panel); border-radius: 0.4rem; overflow-wrap: anywhere; }
dt { color: var(--muted); }
dd { margin: 0; font-size: 1.4rem; }
table { border-collapse: collapse; margin: 0.5rem 0; }
th, td { padding: 0.15rem 1.5rem 0.15rem 0; border-bottom: 1px solid var(--line); text-align: left;
  vertical-align: top; overflow-wrap: anywhere; }
th { color: var(--muted); font-weight: normal; }
.charts { display: flex; flex-wrap: wrap; gap: 0 1.5rem; }
figure { margin: 0.75rem 0; max-width: 100%; overflow-x: auto; }
figure svg { display: block; }
@media print {
  dl div, tr { break-inside: avoid; }
  .charts { display: block; }
  .charts figure { display: inline-block; margin-right: 1.5rem; vertical-align: top; }
}
"""  # what flexes may begin on a new page, and leave its heading behind
STYLE += PRINT
