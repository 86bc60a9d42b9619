"""Files that are written in one step, in the format that their name ends in."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping


def save(path: str | os.PathLike[str], formats: Mapping[str, Callable[[], str | bytes]]) -> None:
    """Write to the file what the format of its name makes: `formats` are {".svg": …}. Another name is a ValueError."""
    target = os.fspath(path)
    suffix = os.path.splitext(target)[1].lower()
    if suffix not in formats:
        raise ValueError(f"path: expected a name that ends in {', '.join(formats)}, got {target!r:.200}")
    replace(target, formats[suffix]())


def replace(path: str | os.PathLike[str], content: str | bytes) -> None:
    """Write the file in one step: at any time there is the old one, whole, or the new one, whole. Text is UTF-8."""
    target = os.fspath(path)
    part = f"{target}.{os.getpid()}.part"
    try:
        with open(part, "wb") as file:
            file.write(content if isinstance(content, bytes) else content.encode())
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, target)
    except BaseException:
        if os.path.exists(part):
            os.unlink(part)
        raise
