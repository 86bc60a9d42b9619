"""An explanation as a document: a title and blocks, each of which can be written as text, Markdown and HTML.

Users' names arrive in its strings, and are shown as text in all three, on one line, whatever they contain.

    block    a paragraph, a list, a table or a finding: `lines()` of text, `markdown()`, `html()`
"""

from __future__ import annotations

import os
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field

from milligrad import markup
from milligrad.engine import Value
from milligrad.files import save
from milligrad.markup import element, printable, width
from milligrad.typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from milligrad.explain.paths import Path

LINE = 100  # cells of a line of text, unless a table is wider
LONGEST = 2_000  # cells of one string; names are elided long before


@dataclass(frozen=True)
class Paragraph:
    """Sentences."""

    text: str

    def lines(self) -> list[str]:
        return _wrapped(self.text)

    def markdown(self) -> str:
        return _escaped(self.text)

    def html(self) -> str:
        return element("p", _text(self.text))


@dataclass(frozen=True)
class Items:
    """A list of things that belong together."""

    items: Sequence[str]

    def lines(self) -> list[str]:
        return [line for item in self.items for line in _wrapped(item, "  - ", "    ")]

    def markdown(self) -> str:
        return "\n".join(f"- {_escaped(item)}" for item in self.items)

    def html(self) -> str:
        return element("ul", *[element("li", _text(item)) for item in self.items])


@dataclass(frozen=True)
class Table:
    """Rows of cells under a head.

    label:  what it is, for those who hear the page
    right:  the columns whose cells end, not begin, below one another: numbers
    """

    label: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    right: Sequence[int] = ()

    def lines(self) -> list[str]:
        rows = [[_line(cell) for cell in row] for row in [self.head, *self.rows]]
        wide = [max(width(row[i]) for row in rows) for i in range(len(self.head))]

        def padded(i: int, cell: str) -> str:
            space = " " * (wide[i] - width(cell))
            return space + cell if i in self.right else cell + space

        return ["  " + "   ".join(padded(i, cell) for i, cell in enumerate(row)).rstrip() for row in rows]

    def markdown(self) -> str:
        rule = ["---:" if i in self.right else "---" for i in range(len(self.head))]
        rows = [[_escaped(cell) for cell in row] for row in [self.head, *self.rows]]
        return "\n".join(f"| {' | '.join(row)} |" for row in [rows[0], rule, *rows[1:]])

    def html(self) -> str:
        head = element("thead", self._row("th", self.head, scope="col"))
        body = element("tbody", *[self._row("td", row) for row in self.rows])
        table = element("table", head, body)
        return element("div", table, role="region", tabindex=0, aria_label=_line(self.label), style="overflow-x: auto")

    def _row(self, tag: str, cells: Sequence[str], **attributes: str) -> str:
        sides = ["right" if i in self.right else "left" for i in range(len(self.head))]
        return element(
            "tr",
            *[
                element(tag, _text(cell), style=f"text-align: {side}", **attributes)
                for cell, side in zip(cells, sides, strict=True)
            ],
        )


@dataclass(frozen=True)
class Finding:
    """Something that was noticed.

    kind:     of numbers: "nan", "inf" (forward), "nan gradient", "inf gradient" (backward), "no derivative", "error"
              (raised by the function), "changed" (since the loss was computed), "log of 0"; of units: "dead relu",
              "off" (which may be chance), "saturated"; of parameters: "vanished", "exploded", "zero gradient",
              "unreached", "frozen", "not in the model", "constant" (the loss itself); of .grad: "accumulated",
              "scaled", "zeroed", "no backward"
    text:     what it is, in a sentence
    where:    the Values, their numbers and the lines of the user's code
    advice:   why it is so, and what to do about it
    values:   the Values concerned
    trouble:  False for what is worth knowing, but need not be wrong
    """

    kind: str
    text: str
    where: Sequence[str] = ()
    advice: str = ""
    values: Sequence[Value] = ()
    trouble: bool = True

    def _headline(self) -> str:
        return f"{'✗' if self.trouble else '•'} {self.text}"

    def _below(self) -> list[Block]:
        return [*[Items(self.where)] * bool(self.where), *[Paragraph(self.advice)] * bool(self.advice)]

    def lines(self) -> list[str]:
        below = [f"  {line}" for block in self._below() for line in block.lines()]
        return [*_wrapped(self._headline(), "", "  "), *below]

    def markdown(self) -> str:
        return "\n\n".join([f"### {_escaped(self._headline())}", *[block.markdown() for block in self._below()]])

    def html(self) -> str:
        heading = element("h2", _text(self._headline()))
        kind = "trouble" if self.trouble else "note"
        return element("section", heading, *[block.html() for block in self._below()], class_=kind)


SHOWN = 5  # examples of one finding; the rest is counted


def few(lines: Sequence[str], n: int) -> list[str]:
    """The first lines, and how many more there are of n."""
    first = lines[:SHOWN]
    return [*first, *[f"and {n - len(first):,} more like this"] * (n > len(first))]


Block: TypeAlias = Paragraph | Items | Table | Finding


@dataclass(frozen=True)
class Explanation:
    """A title and blocks that show themselves; and what they say, for code to read.

    paths:     from `wrt` to the loss, the largest |product| first
    total:     ∂loss/∂wrt; NaN where it does not exist; None if no `wrt` was asked for
    findings:  what is wrong, the first cause first, and then what is only worth knowing
    """

    title: str
    blocks: Sequence[Block]
    paths: Sequence[Path] = field(default=(), kw_only=True)
    total: float | None = field(default=None, kw_only=True)
    findings: Sequence[Finding] = field(default=(), kw_only=True)

    def __str__(self) -> str:
        parts = [_wrapped(self.title), *[block.lines() for block in self.blocks]]
        return "\n\n".join("\n".join(lines) for lines in parts)

    def __repr__(self) -> str:
        return f"<Explanation {_line(self.title)}>"

    def markdown(self) -> str:
        """The text as Markdown, with tables as GitHub reads them."""
        return "\n\n".join([f"## {_escaped(self.title)}", *[block.markdown() for block in self.blocks]]) + "\n"

    def html(self) -> str:
        """One page that needs no other file."""
        title = _line(self.title)
        return markup.page(title, element("h1", _text(title)), *[b.html() for b in self.blocks], style=STYLE)

    _repr_markdown_ = markdown

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return element("div", element("h2", _text(self.title)), *[block.html() for block in self.blocks])

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it in the format that the name ends in: .txt, .md or .html. There is never half of the file.

        Another name raises ValueError.
        """
        save(path, {".txt": lambda: f"{self}\n", ".md": self.markdown, ".html": self.html})


def _line(s: str) -> str:
    return printable(s, LONGEST)


def _text(s: str) -> str:
    return markup.text(_line(s))


def _wrapped(s: str, first: str = "", further: str = "") -> list[str]:
    """Lines of at most LINE letters, broken at spaces."""
    return textwrap.wrap(
        _line(s), LINE, initial_indent=first, subsequent_indent=further, break_long_words=False, break_on_hyphens=False
    )


SPECIAL = frozenset("\\`*_{}[]<>#|~&!$@^")
"""Letters that mean something to a reader of Markdown wherever they stand; a backslash takes that away."""


def _escaped(s: str) -> str:
    """`s` as text in Markdown: no `www.` becomes a link, no sign or number at the beginning a rule or a list."""
    s = "".join(f"\\{c}" if c in SPECIAL else c for c in _line(s).strip())
    s = s.replace("://", "\\://").replace("www.", "www\\.")
    digits = len(s) - len(s.lstrip("0123456789"))
    if s[digits : digits + 1] in (".", ")") if digits else s[:1] in ("+", "-", "="):
        s = f"{s[:digits]}\\{s[digits:]}"
    return s


STYLE = """\
h1 { font-size: 1.25rem; overflow-wrap: anywhere; }
h2 { font-size: 1.05rem; overflow-wrap: anywhere; }
p, li { overflow-wrap: anywhere; }
section { border-left: 3px solid var(--line); padding-left: 1rem; margin: 1.5rem 0; }
.trouble { border-color: var(--red); }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: 0.25rem 0.75rem 0.25rem 0; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { color: var(--muted); font-weight: normal; }
"""
