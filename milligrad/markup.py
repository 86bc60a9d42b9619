"""SVG and HTML as text: elements, escaping, one page that all our HTML files share, and how numbers are shown.

It knows strings and numbers only: nothing of Values, of pictures or of what they mean. Whatever a user named comes in
through `text` or as an attribute, and so is shown as text, whatever it contains.
"""

from __future__ import annotations

import re
import unicodedata
from base64 import b64encode
from functools import lru_cache
from hashlib import sha256
from html import escape

from milligrad.typing import Any

FONT = "ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace"
"""Of every picture: in a monospaced font the width of a text is known without measuring it."""
CELL = 0.62
"""The width of a letter of FONT in units of its size; DejaVu's is 0.602, the widest of them."""

# fmt: off
LIGHT = {"paper": "#ffffff", "panel": "#f5f6f8", "ink": "#1c2330", "muted": "#667085", "line": "#808b9b",
         "blue":  "#2166ac", "orange": "#c2570c", "red": "#c4161c", "mark": "#8a4fd3", "green": "#1a7f52",
         "olive": "#7d7400", "pink":   "#b5307f"}
DARK  = {"paper": "#14181f", "panel": "#1e2530", "ink": "#e6e9ef", "muted": "#98a2b3", "line": "#68748a",
         "blue":  "#6db3f2", "orange": "#f59e4c", "red": "#ff6b6b", "mark": "#c39bff", "green": "#5ccb96",
         "olive": "#d3c94f", "pink":   "#f48ac6"}
# fmt: on
ON_DARK = "@media screen and (prefers-color-scheme: dark)"  # paper is always light


def colours(selector: str = ":root") -> str:
    """CSS that makes the colours custom properties of what is selected: light, or dark on the screen of who prefers it.

    Blue is positive and orange negative, and nothing else ever is; red is no finite number, or trouble.
    """
    light, dark = (" ".join(f"--{name}: {colour};" for name, colour in c.items()) for c in (LIGHT, DARK))
    return f"{selector} {{ color-scheme: light dark; {light} }}\n{ON_DARK} {{ {selector} {{ {dark} }} }}\n"


UNSEEN = r"\u00ad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
"""For a regular expression: characters that show nothing, or turn around the text that they stand in.

Not the joiners, U+200C and U+200D: emoji and Persian words are made with them.
"""
NO_TEXT = re.compile(rf"[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff{UNSEEN}]")
NO_PRINT = re.compile(rf"[\x00-\x1f\x7f-\x9f\ud800-\udfff{UNSEEN}]")


def visible(s: str) -> str:
    """`s` with � for each character that is UNSEEN, or that XML has no place for: control characters, surrogates."""
    return NO_TEXT.sub("\ufffd", s)


RIGHT_TO_LEFT = r"\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefe\U00010800-\U00010fff\U0001e800-\U0001efff"
"""For a regular expression: the letters of Hebrew, Arabic and all others that are written from right to left."""
WITHIN = r"\u0300-\u036f\u200c\u200d\ufe00-\ufe0f"  # what a letter may bring with it: accents, joiners, selectors
WORDS = re.compile(rf"""[{RIGHT_TO_LEFT}](?:[ _'"-]?[{RIGHT_TO_LEFT}{WITHIN}])*""")


def left_to_right(s: str) -> str:
    """`s` so marked (with U+200E) that it is shown from left to right, but for words that are written the other way.

    Without that two such names with only "-" or "=" between them, or a name and a number, change places in what shows
    text by Unicode's rules (UAX #9), as browsers do. Most terminals turn nothing around.
    """
    return s if s.isascii() else WORDS.sub("\u200e\\g<0>\u200e", s)


def text(s: object) -> str:
    """`s` as text inside an element, where all of it is `visible` and in its place."""
    return escape(left_to_right(visible(str(s))), quote=False)


def element(tag: str, *children: str, **attributes: Any) -> str:
    """`<tag attributes>children</tag>`. The children are markup already: `text` makes some of a string.

    An attribute is called as in Python: class_ is class, stroke_width is stroke-width.
    """
    pairs = "".join(
        f' {name.strip("_").replace("_", "-")}="{text(_value(x)).replace(chr(34), "&quot;")}"'
        for name, x in attributes.items()
    )
    content = "".join(children)
    return f"<{tag}{pairs}>{content}</{tag}>" if content or tag not in EMPTY else f"<{tag}{pairs}/>"


EMPTY = {"rect", "path", "polygon", "image", "input"}  # the tags that are closed where they are opened


def _value(x: Any) -> str:
    return f"{x:.6g}" if isinstance(x, float) else str(x)


LONGEST = 767  # significant digits of a float: no number has more, and Python refuses to write very many


def shown(x: float | None, precision: int = 4) -> str:
    """A number with `precision` significant digits, as all pictures show it; "" for None."""
    if x is None:
        return ""
    return f"{x:.{min(precision, LONGEST)}g}".replace("-", "−")


def count(n: int, what: str) -> str:
    """Such as "1 node" and "1,000 nodes"."""
    return f"{n:,} {what}{'s' * (n != 1)}"


def width(s: str) -> int:
    """How many cells of a monospaced font a text takes: emoji and Chinese letters two, combining marks none.

    What is not `visible` takes one, for its �.
    """
    if s.isascii():
        return len(s)
    return len(s) + sum([_cells(c) - 1 for c in NO_ASCII.findall(s)])


NO_ASCII = re.compile(r"[^\x00-\x7f]")


@lru_cache(1_000)
def _cells(c: str) -> int:
    c = visible(c)
    if unicodedata.combining(c) or unicodedata.category(c) in ("Cf", "Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(c) in "WF" else 1


OTHER_BLANK = re.compile(r"[^\S ]")  # line ends, tabs and the like


def elided(s: str, cells: int) -> str:
    """`s` on one line, with … for its end if it takes more than so many cells. For prose; `short_name` is for names."""
    if len(s) <= cells and s.isascii() and s.isprintable():
        return s
    s = s[: 8 * cells + 8]  # a name of 10,000 letters is not measured to its end
    s = " ".join(s.split()) if OTHER_BLANK.search(s) else s
    if width(s) <= cells:
        return s
    while width(s) > cells - 1:
        s = s[:-1]
    return s + "…"


def printable(s: str, cells: int) -> str:
    """`s` on one line, not too long, with � for what is UNSEEN or would move a terminal's cursor."""
    if len(s) <= cells and s.isascii() and s.isprintable():
        return s
    return NO_PRINT.sub("\ufffd", elided(s, cells))


LONG_WORD = re.compile(r"(?:[^\W\d]|[ …]){3,}")  # with its underscores, or several with the blanks between them


@lru_cache(10_000)  # a name is shown where it is used, too: that of a weight a hundred times
def short_name(s: str, cells: int) -> str:
    """A name as `printable` shows text, but with … for the middles of its longest words. Other signs and numbers stay.

    They are what tells one name from another, together with how words begin and end: in 24 cells
    "encoder_feed_forward.weight[0][1]" is "encod…rward.weight[0][1]". Where that is not short enough, the name loses
    its own middle. So names are shown alike if they differ in the middle of a long word alone, or are very long.
    """
    if len(s) <= cells and s.isascii() and s.isprintable():
        return s
    s = printable(_without_middle(s, 8 * cells + 8), 8 * cells + 8)  # one of 10,000 letters is not measured to its end
    if width(s) <= cells:
        return s
    for shorten in (_without_middles, _without_middle):
        for most in range(cells, 1, -1):
            if width(name := shorten(s, most)) <= cells:
                return name
    return "…"


def _without_middles(s: str, most: int) -> str:
    return LONG_WORD.sub(lambda word: _without_middle(word[0], most), s)


def _without_middle(s: str, most: int) -> str:
    """`s` with … for what is more than so many letters, in its middle."""
    end = (most - 1) // 2
    return s if len(s) <= most else f"{s[: most - 1 - end]}…{s[len(s) - end :]}"


def page(title: str, *body: str, style: str = "", script: str = "") -> str:
    """One HTML file that needs no other: no network, no server; its policy forbids any request, and other scripts."""
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    if script:
        body = (*body, f"<script>{script}</script>")
        policy += f"; script-src 'sha256-{b64encode(sha256(script.encode()).digest()).decode()}'"
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<link rel="icon" href="data:,">',
            f"<title>{text(title)}</title>",
            f"<style>\n{colours()}{BASE}{style}</style>\n</head>\n<body>\n<main>",
            *body,
            "</main>\n</body>\n</html>\n",
        ]
    )


BASE = f"""\
* {{ box-sizing: border-box; }}
body {{ margin: 0 auto; padding: 1rem; max-width: 75rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; overflow-wrap: break-word; }}
pre {{ font-family: {FONT}; }}
"""
