"""How far a long loop has come: a tqdm bar where tqdm is installed, else a plain line every second."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sized

from milligrad.typing import Any, TextIO, TypeVar

Item = TypeVar("Item")


def progress(items: Iterable[Item], label: str, file: TextIO | None = None, every: float = 1.0) -> Iterator[Item]:
    """The `items`, while their count is shown on `file` (standard error), under `label`; `every` is in seconds."""
    file = file or sys.stderr
    total = len(items) if isinstance(items, Sized) else None
    try:
        from tqdm import tqdm  # type: ignore[import-untyped,unused-ignore]
    except ImportError:
        return _plain(items, label, total, file, every)
    bar: Any = tqdm(items, desc=label, total=total, file=file, leave=False)
    return iter(bar)


def _plain(items: Iterable[Item], label: str, total: int | None, file: TextIO, every: float) -> Iterator[Item]:
    shown = time.monotonic()
    for done, item in enumerate(items):
        if time.monotonic() - shown >= every:
            shown = time.monotonic()
            print(f"{label}: {done}{f' of {total}' if total else ''}", file=file, flush=True)
        yield item
