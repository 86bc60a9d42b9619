"""Files that are written in one step."""

from __future__ import annotations

import os


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
