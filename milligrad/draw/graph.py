"""Graph: a picture that shows itself in a notebook, prints as a tree of text, and is saved to a file."""

from __future__ import annotations

import os
from collections.abc import Sequence

from milligrad import markup
from milligrad.draw.dot import dot
from milligrad.draw.mermaid import mermaid
from milligrad.draw.model import Picture, picture_of_module, picture_of_value
from milligrad.draw.text import text
from milligrad.engine import Value
from milligrad.nn.layers import size
from milligrad.nn.module import Module
from milligrad.typing import Any

DIRECTIONS = ("LR", "TB", "RL", "BT")
SUFFIXES = (".svg", ".html", ".dot", ".gv", ".mmd", ".png")


def drawn(x: Value | Module, *, direction: str, precision: int, **options: Any) -> Graph:
    """The Graph of a Value or of a Module; `milligrad.draw` says what the options mean."""
