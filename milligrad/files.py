"""Files that are written in one step, in the format that their name ends in."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from stat import S_IMODE


def save(path: str | os.PathLike[str], formats: Mapping[str, Callable[[], str | bytes]]) -> None:
    """Write to the file what the format of its name makes: `formats` are {".svg": …}. Another name is a ValueError."""
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"path: expected the name of a file, got {type(path).__name__} {path!r:.60}")
    target = os.fspath(path)
    suffix = os.path.splitext(target)[1].lower()
    if suffix not in formats:
        raise ValueError(f"path: expected a name that ends in {', '.join(formats)}, got {target!r:.200}")
    replace(target, formats[suffix]())


def replace(path: str | os.PathLike[str], content: str | bytes) -> None:
    """Write the file in one step: at any time there is the old one, whole, or the new one, whole. Text is UTF-8.

    The new one has the permissions of the old one; of a link, the file that it leads to is replaced. What is no file,
    such as a pipe, is written to. Raises OSError, with this path, if that can not be done.
    """
    data = content if isinstance(content, bytes) else content.encode()
    if os.path.exists(path) and not os.path.isfile(path):
        with open(path, "wb") as stream:
            stream.write(data)
        return
    target = os.fsdecode(os.path.realpath(path) if os.path.islink(path) else path)
    part = os.path.join(os.path.dirname(target), f".{os.urandom(8).hex()}.part")
    try:
        with open(part, "xb") as file:
            if os.path.exists(target):
                os.chmod(part, S_IMODE(os.stat(target).st_mode))
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, target)
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), os.fspath(path)) from None
    finally:
        with suppress(OSError):  # where all went well it has gone already
            os.unlink(part)
