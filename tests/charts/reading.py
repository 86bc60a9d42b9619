"""Reads charts back: from SVG, parsed, to the numbers that they show. Not a test itself."""

import base64
import math
import re
import struct
import xml.etree.ElementTree as ET
import zlib

from milligrad.markup import CELL, width

S = "{http://www.w3.org/2000/svg}"
TAGS = {"svg", "title", "desc", "style", "g", "rect", "path", "text", "image"}


def parsed(chart):
    root = ET.fromstring(chart.svg())
    assert {e.tag.removeprefix(S) for e in root.iter()} <= TAGS
    return root


def of_class(root, *classes):
    return [e for e in root.iter() if {*classes} <= {*(e.get("class") or "").split()}]


def words(root, *classes):
    return [e.text for e in of_class(root, *classes) if e.tag == f"{S}text"]


def hover(element):
    return element.find(f"{S}title").text


def centre(path):
    """The middle of a mark: of all of its corners, or of its circle."""
    d = path.get("d")
    numbers = [float(x) for x in re.findall(r"-?\d+\.?\d*(?:e-?\d+)?", d)]
    if "a" in d:
        return numbers[0] + numbers[2], numbers[1]
    xs, ys = numbers[::2], numbers[1::2]
    return (min(xs) + max(xs)) / 2, (min(ys) + max(ys)) / 2


def shape(path):
    """The corners of a mark from its middle, in pixels: the same wherever the mark stands."""
    if "a" in path.get("d"):
        return "circle"
    (x, y), corners = centre(path), path.get("d").strip("Mz").split("L")
    return tuple((round(float(a) - x), round(float(b) - y)) for a, b in map(str.split, corners))


def number(label):
    """What a label says, as a number."""
    s = label.replace("−", "-")
    return float(s[:-1]) / 100 if s.endswith("%") else float(s)


def ticks(root, axis):
    """(number, place) of each tick of "x" or "y"; the place of a label of y is that of its middle."""
    found = of_class(root, "tick", axis)
    return [(number(t.text), float(t.get(axis)) - 4 * (axis == "y")) for t in found]


def inverse(ticks, log=False):
    """From a place to the number there, by the first and the last of the ticks."""
    (a, p), (b, q) = ticks[0], ticks[-1]
    if log:
        return lambda place: math.exp(math.log(a) + (place - p) / (q - p) * (math.log(b) - math.log(a)))
    return lambda place: a + (place - p) / (q - p) * (b - a)


def pixels(data):
    """(r, g, b, a) of each pixel, row by row, of a PNG with a palette; every checksum is checked."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    at, chunks = 8, {}
    while at < len(data):
        (size,), kind = struct.unpack(">I", data[at : at + 4]), data[at + 4 : at + 8]
        body = data[at + 8 : at + 8 + size]
        assert struct.unpack(">I", data[at + 8 + size : at + 12 + size])[0] == zlib.crc32(kind + body)
        chunks[kind], at = body, at + 12 + size
    assert [*chunks] == [b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"]
    wide, high, depth, colour, *rest = struct.unpack(">IIBBBBB", chunks[b"IHDR"])
    assert (depth, colour, rest) == (8, 3, [0, 0, 0])
    raw = zlib.decompress(chunks[b"IDAT"])
    lines = [raw[k : k + wide + 1] for k in range(0, len(raw), wide + 1)]
    assert len(lines) == high and all(line[0] == 0 for line in lines)
    palette, opacity = chunks[b"PLTE"], chunks[b"tRNS"]
    return [[(*palette[3 * i : 3 * i + 3], opacity[i]) for i in line[1:]] for line in lines]


def pixels_of(image):
    kind, data = image.get("href").split(",")
    assert kind == "data:image/png;base64"
    return pixels(base64.b64decode(data, validate=True))


def box(text, size=12.0):
    """Left, top, right, bottom of a text, by the width that every letter has in the font of the charts."""
    size = 11.0 if "tick" in text.get("class").split() else size
    wide = width(text.text or "") * CELL * size
    x, y = float(text.get("x")), float(text.get("y"))
    kinds = text.get("class").split()
    left = x - wide / 2 if "middle" in kinds else x - wide if "end" in kinds else x
    return left, y - 0.8 * size, left + wide, y + 0.2 * size


def texts_within(root):
    """Every text with its box in the whole picture: those of groups are moved, and turned to the left, with them."""
    found = []

    def quarter(box):
        left, top, right, bottom = box
        return top, -right, bottom, -left

    def walk(e, dx, dy, turn):
        move = re.match(r"translate\((\S+) (\S+)\)", e.get("transform", ""))
        dx, dy = (dx + float(move[1]), dy + float(move[2])) if move else (dx, dy)
        if e.tag == f"{S}text":
            a, b, c, d = turn(box(e))
            found.append((e.text, (a + dx, b + dy, c + dx, d + dy)))
        for child in e:
            walk(child, dx, dy, quarter if e.get("transform", "").endswith(" rotate(-90)") else turn)

    walk(root, 0.0, 0.0, lambda box: box)
    return found


def overlap(a, b):
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def assert_legible(chart):
    """No text lies on another, and all stand within the frame."""
    root = parsed(chart)
    texts = texts_within(root)
    for i, (s, own) in enumerate(texts):
        assert own[0] >= -0.5 and own[1] >= 0 and own[2] <= chart.width + 0.5 and own[3] <= chart.height, s
        for t, other in texts[:i]:
            assert not overlap(own, other), (s, t)


def ground(root):
    """(class, opacity) of every cell of a decision picture by (row from above, column); each has just one.

    The class is None where there is no answer.
    """
    cells = {}
    for path in of_class(root, "region"):
        if not path.get("d"):
            continue  # a sample in the key
        kind = path.get("class").split()[1]
        tone = None if kind == "nan" else int(kind.removeprefix("hue")), float(path.get("fill-opacity"))
        runs = re.findall(r"M(\d+) (\d+)h(\d+)v1h-(\d+)z", path.get("d"))
        assert "".join(f"M{x} {y}h{n}v1h-{m}z" for x, y, n, m in runs) == path.get("d")
        for x, y, n, m in runs:
            assert n == m
            for k in range(int(n)):
                assert (int(y), int(x) + k) not in cells
                cells[int(y), int(x) + k] = tone
    assert cells.keys() == {(i, j) for i in range(64) for j in range(64)}
    return cells


def hatching(root):
    """The strokes of every cell of a decision picture by (row from above, column): {"l1-1"} rise, {"l1 1"} fall."""
    strokes = {(i, j): set() for i in range(64) for j in range(64)}
    [cells] = [g for g in root if "scale" in (g.get("transform") or "")]
    for path in of_class(cells, "hatch"):
        for x, y, stroke in re.findall(r"M(\d+) (\d+)(l1-?\s?1)", path.get("d")):
            strokes[int(y) - ("-" in stroke), int(x)].add((stroke, path.get("class").split()[1]))
    return strokes


def frame_of(root):
    """Left, top, width and height of the cell in the upper left corner."""
    [cells] = [g for g in root if "scale" in (g.get("transform") or "")]
    return [float(x) for x in re.findall(r"[\d.]+", cells.get("transform"))]


def dots(root):
    """Class, place, and what it tells, of each point of a decision picture."""
    groups = [g for g in of_class(root, "dot") if g.tag == f"{S}g"]
    return [(int(g.get("class")[-1]), centre(point[1]), hover(point)) for g in groups for point in g]
