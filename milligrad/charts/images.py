"""Images: small pictures of numbers beside each other. The pixels are a PNG within the SVG: a byte for each, packed."""

from __future__ import annotations

import math
import struct
import zlib
from base64 import b64encode
from collections.abc import Sequence

from milligrad.charts.chart import TOP, Chart, heading, label, room_for, with_tooltip
from milligrad.expected import items, number, numbers, strings, whole
from milligrad.markup import CELL, count, element, elided, shown, width
from milligrad.typing import TypeAlias

SIDE = 56  # of a picture, about
SPACE = 6.0
LETTERS, LINE = 11.0, 14.0  # of captions: the size, and from line to line
LONGEST = 16  # cells of a line
LEVELS = 32  # of blue, and of orange: with red and nothing few enough for a byte
Colour: TypeAlias = "tuple[int, int, int, int]"  # red, green, blue, opacity

# Between the blues, oranges and reds of light and dark: what is nearly 0 is transparent, and so is paper in both.
BLUE, ORANGE, RED = (58, 134, 204), (222, 112, 28), (220, 40, 46)


def images(
    pictures: Sequence[Sequence[float]],
    shape: tuple[int, int],
    captions: Sequence[Sequence[str]],
    *,
    title: str,
    vmax: float | None = None,
    across: int = 8,
) -> Chart:
    """Pictures of rows × columns = `shape` numbers, row by row; under each its caption, some lines of text.

    A pixel is grey from 0 (paper) to 1 (ink). With `vmax`, a number > 0, it is blue above 0 and orange below, the
    deeper the farther from 0, up to that number. NaN and infinite ones are red. Raises ValueError if a picture has
    another number of pixels, there is not one caption for each, `vmax` is not above 0, or there is no picture `across`;
    and TypeError for what is no number and no text.
    """
    _check(pictures, shape, captions, vmax, across)
    rows, columns = shape
    scale = max(1, round(SIDE / max(shape)))
    lines = [elided(line, LONGEST) for caption in captions for line in caption]
    cell = max(columns * scale, *(width(line) * CELL * LETTERS for line in lines), 0) + SPACE
    below = rows * scale + max(map(len, captions), default=0) * LINE + SPACE
    parts = []
    for i, (picture, caption) in enumerate(zip(pictures, captions)):
        colours = [_grey(v) if vmax is None else _signed(v, vmax) for v in picture]
        place = f"translate({SPACE + cell * (i % across + 0.5):.6g} {TOP + below * (i // across):.6g})"
        parts.append(element("g", _picture(colours, shape, scale, caption), transform=place))
    told = f"{count(len(pictures), 'picture')} of {rows} × {columns} pixels."
    if vmax is not None:
        told += f" Blue is positive, orange negative, and deepest from {shown(vmax)} on."
    room = max(2 * SPACE + cell * min(across, len(pictures)), room_for(title))
    high = TOP + below * math.ceil(len(pictures) / across)
    return Chart(title, told, room, high, [heading(title, room), *parts])


def _check(
    pictures: Sequence[Sequence[float]],
    shape: tuple[int, int],
    captions: Sequence[Sequence[str]],
    vmax: float | None,
    across: int,
) -> None:
    if len(items(shape, "shape", "two whole numbers")) != 2:
        raise ValueError(f"shape: expected rows and columns, got {shape!r:.60}")
    rows, columns = (whole(n, f"shape[{k}]") for k, n in enumerate(shape))
    if not len(items(pictures, "pictures", "pictures")) or min(rows, columns) < 1:
        raise ValueError(f"pictures: expected at least one, of at least one pixel, got {len(pictures)} of {shape}")
    for i, picture in enumerate(pictures):
        if len(numbers(picture, f"pictures[{i}]")) != rows * columns:
            raise ValueError(f"pictures[{i}]: expected {rows} × {columns} numbers, got {len(picture)}")
    lines = [strings(caption, f"captions[{i}]") for i, caption in enumerate(items(captions, "captions", "captions"))]
    if len(lines) != len(pictures):
        raise ValueError(f"captions: expected {len(pictures)}, one for each picture, got {len(lines)}")
    if vmax is not None and not number(vmax, "vmax") > 0:
        raise ValueError(f"vmax: expected a number > 0, got {vmax!r:.60}")
    if whole(across, "across") < 1:
        raise ValueError(f"across: expected a whole number >= 1, got {across!r:.60}")


def _picture(colours: list[Colour], shape: tuple[int, int], scale: int, caption: Sequence[str]) -> str:
    """One picture and the lines under it, about the middle of its upper edge."""
    high, wide = (n * scale for n in shape)
    box = {"x": -wide / 2, "y": 0, "width": wide, "height": high}
    rows = [colours[k : k + shape[1]] for k in range(0, len(colours), shape[1])]
    kind = "picture grey" if all(r == g == b for r, g, b, _ in colours) else "picture"
    return with_tooltip(
        elided(", ".join(caption), 200),
        element("image", class_=kind, href=uri(png(rows)), **box),
        element("rect", class_="under", **box),
        *[label(line, 0, high + 12 + k * LINE, "tick middle", LONGEST) for k, line in enumerate(caption)],
        class_="image",
    )


def _grey(v: float) -> Colour:
    if not math.isfinite(v):
        return (*RED, 255)
    level = 255 - round(255 * min(max(v, 0.0), 1.0))
    return level, level, level, 255


def _signed(v: float, vmax: float) -> Colour:
    if not math.isfinite(v):
        return (*RED, 255)
    level = round(LEVELS * min(abs(v) / vmax, 1.0))
    return (*(BLUE if v > 0 else ORANGE), 255 * level // LEVELS) if level else (0, 0, 0, 0)


def uri(data: bytes) -> str:
    return "data:image/png;base64," + b64encode(data).decode("ascii")


def png(rows: Sequence[Sequence[Colour]]) -> bytes:
    """Pixels as a PNG file with a palette: of at most 256 colours. W3C 2003, Portable Network Graphics, 5 and 11."""
    palette = {colour: i for i, colour in enumerate(dict.fromkeys(colour for row in rows for colour in row))}
    if len(palette) > 256:
        raise ValueError(f"rows: expected at most 256 colours, got {len(palette)}")
    pixels = b"".join(b"\0" + bytes(palette[colour] for colour in row) for row in rows)  # 0: the row as it is
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            _chunk(b"IHDR", struct.pack(">IIBBBBB", len(rows[0]), len(rows), 8, 3, 0, 0, 0)),
            _chunk(b"PLTE", bytes(c for colour in palette for c in colour[:3])),
            _chunk(b"tRNS", bytes(colour[3] for colour in palette)),
            _chunk(b"IDAT", zlib.compress(pixels, 9)),
            _chunk(b"IEND", b""),
        ]
    )


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
