"""Chart: a finished drawing that shows itself in a notebook and is saved to a file; and what all charts are drawn with.

Colours are custom properties, so that a chart follows the reader's light or dark; every rule holds within charts alone.
Nothing in a chart has an id: any number of them can stand on one page. What numbers mean is the business of lines.py,
confusion.py, images.py and regions.py.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from milligrad.expected import string
from milligrad.files import save
from milligrad.markup import CELL, FONT, ON_DARK, colours, element, elided, page, text, width

SIZE = 12.0  # of the letters
LEADING = 16.0  # from line to line
WIDTH, NARROWEST = 356.0, 200.0  # of most charts, which a phone shows, and of those with little in them
GAP = 16.0  # between two charts
TOP = 26.0  # what the heading takes

BOLD = 1.08 * CELL * SIZE  # the width of a letter of the heading: bold is wider in some fonts

PALETTE = "green", "mark", "olive", "pink", "muted"  # of series and classes: blue and orange are signs, as everywhere
HUES = len(PALETTE)  # 6 marks, 4 dashes and 4 hatchings have other periods, so that 20 series or classes look different
SELECTOR = ".milligrad-chart"  # every rule begins with it: the rules of an SVG hold for the whole page it stands in
RULES = {
    "": f"background: var(--paper); font: {SIZE}px {FONT}; fill: var(--ink); --hue: var(--muted)",
    **{f" .hue{i}": f"--hue: var(--{name})" for i, name in enumerate(PALETTE)},
    " .nan": "--hue: var(--red)",
    " .heading": "font-weight: bold",
    " .label": "fill: var(--muted)",
    " .note": "fill: var(--red)",
    " .tick": "fill: var(--muted); font-size: 11px",
    " .grid": "fill: none; stroke: var(--line); stroke-opacity: 0.3",
    " .curve": "fill: none; stroke: var(--hue); stroke-width: 1.8; stroke-linejoin: round",
    " .dot": "fill: var(--hue); stroke: var(--paper)",
    " .unseen": "opacity: 0; pointer-events: all",
    " .region": "fill: var(--hue)",
    " .hatch": "fill: none; stroke: var(--hue); stroke-width: 0.3; stroke-opacity: 0.7",
    " .cell": "fill: var(--hue); stroke: var(--paper)",
    " .middle": "text-anchor: middle",
    " .end": "text-anchor: end",
    " .picture": "image-rendering: pixelated",
    " .under": "fill: none; stroke: var(--line); pointer-events: all",
}
STYLE = colours(SELECTOR) + "".join(f"{SELECTOR}{what} {{ {how}; }}\n" for what, how in RULES.items())
STYLE += f"{ON_DARK} {{ {SELECTOR} .grey {{ filter: invert(0.9); }} }}\n"  # light ink

PRINT = """\
@media print {
  figure { overflow: visible; }
  figure, h2 + p { break-inside: avoid; }
  figure svg { max-width: 100%; max-height: 85vh; height: auto; }
  h1, h2, h2 + p { break-after: avoid; }
}
"""  # paper does not scroll: a chart that is too large for a page is made smaller
PAGE = f"""\
h1 {{ font-size: 1.25rem; overflow-wrap: anywhere; }}
figure {{ margin: 1rem 0; overflow-x: auto; }}
{PRINT}"""


class Chart:
    """A drawing of width × height, the elements in it, its title, and in words what is to be seen.

    A title or an `about` may be as long as it likes: where there is too little room, it ends in ….
    """

    def __init__(self, title: str, about: str, width: float, height: float, body: Sequence[str]) -> None:
        self.title, self.about, self.width, self.height, self.body = title, about, width, height, list(body)

    def __repr__(self) -> str:
        return f"<Chart {elided(f'{self.title}: {self.about}', 200)}>"

    def svg(self) -> str:
        """The chart as SVG."""
        return element(
            "svg",
            element("title", text(self.title)),
            element("desc", text(self.about)),
            element("style", text(STYLE)),
            *self.body,
            xmlns="http://www.w3.org/2000/svg",
            class_="milligrad-chart",
            role="img",
            viewBox=f"0 0 {self.width:.6g} {self.height:.6g}",
            width=self.width,
            height=self.height,
        )

    _repr_svg_ = svg

    def html(self) -> str:
        """A page with the chart, and below it in words what is to be seen."""
        title = elided(self.title, 120)
        about = element("p", text(self.about))
        return page(title, element("h1", text(title)), figure(self), about, style=PAGE)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the chart to a file whose name ends in .svg or .html, in one step: there is never half of it."""
        save(path, {".svg": self.svg, ".html": self.html})


def figure(chart: Chart) -> str:
    """The chart in a page of HTML. Where it is wider than the screen it scrolls, by the keyboard, too."""
    return element("figure", chart.svg(), tabindex=0, role="group", aria_label=elided(chart.title, 120))


def beside(charts: Sequence[Chart], title: str) -> Chart:
    """Several charts in a row, as one."""
    if not charts:
        raise ValueError("charts: expected at least one Chart, got none")
    parts, x = [], 0.0
    for chart in charts:
        parts.append(element("g", *chart.body, transform=f"translate({x:.6g} 0)"))
        x += chart.width + GAP
    about = " ".join(f"{chart.title}: {chart.about}" for chart in charts)
    return Chart(title, about, x - GAP, max(chart.height for chart in charts), parts)


# ── What charts are drawn with ───────────────────────────────────────────────────────────────────────────────────


def label(s: str, x: float, y: float, kind: str, cells: int = 10_000) -> str:
    """A text of a class in the rules above, elided to so many cells."""
    return element("text", text(elided(s, cells)), class_=kind, x=x, y=y)


def heading(title: str, room: float) -> str:
    return label(string(title, "title"), 8, 16, "heading", int((room - 16) / BOLD))


def room_for(title: str) -> float:
    """As wide as a chart is to be, so that its title has room: up to the width of most charts."""
    return min(max(16 + (width(string(title, "title")[:100]) + 0.5) * BOLD, NARROWEST), WIDTH)


def with_tooltip(what: str, *parts: str, **attributes: str) -> str:
    """A group that a browser tells about when it is pointed at."""
    return element("g", element("title", text(what)), *parts, **attributes)


# fmt: off
CORNERS = (  # of marks of the radius 1, from the centre; a mark without corners is a circle
    (),
    ((-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)),
    ((0, -1.25), (1.15, 0.85), (-1.15, 0.85)),
    ((0, -1.35), (1.35, 0), (0, 1.35), (-1.35, 0)),
    ((0, 1.25), (1.15, -0.85), (-1.15, -0.85)),
    ((-0.45, -1.3), (0.45, -1.3), (0.45, -0.45), (1.3, -0.45), (1.3, 0.45), (0.45, 0.45),
     (0.45, 1.3), (-0.45, 1.3), (-0.45, 0.45), (-1.3, 0.45), (-1.3, -0.45), (-0.45, -0.45)),
)
# fmt: on


def mark(kind: int, x: float, y: float, r: float) -> str:
    """The path of a small figure about (x, y): each kind has a shape of its own, up to the sixth."""
    corners = CORNERS[kind % len(CORNERS)]
    if not corners:
        return f"M{x - r:.5g} {y:.5g}a{r:g} {r:g} 0 1 0 {2 * r:g} 0a{r:g} {r:g} 0 1 0 {-2 * r:g} 0z"
    return "M" + "L".join(f"{x + r * a:.5g} {y + r * b:.5g}" for a, b in corners) + "z"


def hue(kind: int) -> str:
    return f"hue{kind % HUES}"


def legend(samples: Sequence[tuple[str, str]], room: float, y: float) -> tuple[list[str], float]:
    """Rows of (an element of 24 × 12 about (12, 0), what it stands for), and where the rows end."""
    parts, x = [], 8.0
    for sample, name in samples:
        name = elided(name, 24)
        wide = 30 + width(name) * CELL * SIZE
        if x + wide > room and x > 8:
            x, y = 8.0, y + LEADING
        shown = label(name, 30, 4, "label")
        parts.append(element("g", sample, shown, class_="key", transform=f"translate({x:.6g} {y:.6g})"))
        x += wide + 14
    return parts, y + LEADING
