"""Files that are written in one step, in the format that their name ends in."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from stat import S_IMODE

from milligrad.typing import BinaryIO

try:
    import fcntl
except ImportError:  # on Windows
    fcntl = None  # type: ignore[assignment]

_BEGIN, _END = ".milligrad-", ".part"  # between them the name of a file that is not whole yet has a random number


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
    such as a pipe, is written to. A process that is killed leaves a hidden .part file, which the next one to write in
    that folder takes away. Raises OSError, with this path, if that can not be done.
    """
    data = content if isinstance(content, bytes) else content.encode()
    if os.path.exists(path) and not os.path.isfile(path):
        with open(path, "wb") as stream:
            stream.write(data)
        return
    target = os.fsdecode(os.path.realpath(path) if os.path.islink(path) else path)
    try:
        with _part(os.path.dirname(target)) as (part, file):
            if os.path.exists(target):
                os.chmod(part, S_IMODE(os.stat(target).st_mode))
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            if fcntl is None:
                file.close()  # Windows moves no file that is open
            os.replace(part, target)
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), os.fspath(path)) from None


@contextmanager
def _part(folder: str) -> Iterator[tuple[str, BinaryIO]]:
    """A new file in the folder, for what is not whole yet; gone afterwards, if it was not moved.

    It is locked while it is written, and what was left by a process that was killed is not: that is taken away.
    """
    _remove_left(folder)
    while True:
        path = os.path.join(folder, f"{_BEGIN}{os.urandom(8).hex()}{_END}")
        try:
            with open(path, "xb") as file:
                if _is_ours(file, path):
                    yield path, file
                    return
        finally:
            with suppress(OSError):  # where all went well it has gone already
                os.unlink(path)


def _is_ours(file: BinaryIO, path: str) -> bool:
    """Whether the new file is there still, once it is locked: another process may have come first."""
    return _locked(file) is not False and os.path.exists(path)


def _remove_left(folder: str) -> None:
    with suppress(OSError):
        for name in os.listdir(folder or "."):
            if name.startswith(_BEGIN) and name.endswith(_END):
                path = os.path.join(folder, name)
                with suppress(OSError), open(path, "rb") as file:
                    if _locked(file):
                        os.unlink(path)


def _locked(file: BinaryIO) -> bool | None:
    """Lock the file until it is closed: False if another process or thread has, None if there are no locks here."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True
