"""The cache: what was compiled, in files for the processes that come after this one. It knows bytes and files alone.

Machine code is run, so a file counts only if this user alone can have written it:

    folder   no link, of this user, and nobody else may write to it; else it is not used
    file     no link, of this user, and nobody else may write to it; else it is not there
    header   a digest of the file's name and of its content: what is torn, changed or renamed is not there

Both are looked at through descriptors, so that nothing can be put in their place between the look and the use. (Windows
keeps the folder private by itself, and has no such descriptors.) The digest is no signature: whoever may write this
user's files can run code in this user's name anyway. Nothing here raises an error: a folder that can't be used, or
written to, is as good as none.

A file is written under another name and renamed, so that processes may read and write at once. Above LIMIT the files
that were used the longest time ago go first.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import blake2b

from milligrad.markup import count

LIMIT = 256 << 20  # bytes that the files may take together
LARGEST = LIMIT // 8  # what is larger is not kept: it would drive out all else
LOOKS = 64  # files written by this process between two looks at how large the folder is
_NAME = "milligrad-"  # how the names of all files begin: others in the folder are somebody else's
_MAGIC = b"milligrad cache 1\n"
_DIGEST = 32  # bytes
_OWNED = hasattr(os, "geteuid") and os.open in os.supports_dir_fd  # whether files have owners, and folders descriptors
_READ = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
_written = 0  # files, by this process


def folder() -> str:
    """Where the files are; "" if there is no cache.

    MILLIGRAD_CACHE names the folder, or says "off" (or 0). Without it, it is where the system has such files:

        Linux    $XDG_CACHE_HOME/milligrad, or ~/.cache/milligrad
        macOS    ~/Library/Caches/milligrad
        Windows  %LOCALAPPDATA%\\milligrad\\Cache
    """
    named = os.environ.get("MILLIGRAD_CACHE", "")
    if named.lower() in ("off", "0"):
        return ""
    if named:
        return os.path.abspath(os.path.expanduser(named))
    home = os.path.expanduser("~")
    if sys.platform == "win32":
        path = os.path.join(os.environ.get("LOCALAPPDATA") or f"{home}\\AppData\\Local", "milligrad", "Cache")
    elif sys.platform == "darwin":
        path = f"{home}/Library/Caches/milligrad"
    else:
        path = os.path.join(os.environ.get("XDG_CACHE_HOME") or f"{home}/.cache", "milligrad")
    return path if os.path.isabs(path) else ""


def load(key: str) -> bytes | None:
    """The content of the file for that key; None if there is none that counts."""
    with suppress(OSError), _opened() as at:
        descriptor = os.open(at.path(key), _READ, dir_fd=at.descriptor)
        with open(descriptor, "rb") as file:
            if _is_ours(os.fstat(descriptor)):
                whole = file.read()
                start = len(_MAGIC) + _DIGEST
                if whole[:start] == _MAGIC + _digest(key, whole[start:]):
                    with suppress(OSError):
                        os.utime(at.path(key), dir_fd=at.descriptor)  # it was used
                    return whole[start:]
    return None


def store(key: str, content: bytes) -> None:
    """Keep the content for that key, if there is a folder to keep it in."""
    global _written
    if len(content) > LARGEST or not folder():
        return
    with suppress(OSError):
        os.makedirs(folder(), mode=0o700, exist_ok=True)
        with _opened() as at:
            part = f"{os.urandom(8).hex()}.part"  # of a process that is killed it stays, until its turn comes to go
            descriptor = os.open(at.path(part), _WRITE, 0o600, dir_fd=at.descriptor)
            try:
                with open(descriptor, "wb") as file:
                    file.write(_MAGIC + _digest(key, content) + content)
                os.replace(at.path(part), at.path(key), src_dir_fd=at.descriptor, dst_dir_fd=at.descriptor)
            except OSError:
                at.remove(part)
            if _written % LOOKS == 0:
                _shrink(at)
            _written += 1


def clear() -> None:
    """Remove all files."""
    with suppress(OSError), _opened() as at:
        for _, key, _ in at.files():
            at.remove(key)


def told() -> str:
    """A line on the folder: where it is, and how much is in it, or why it is not used."""
    path = folder()
    try:
        with _opened() as at:
            sizes = [n for _, _, n in at.files()]
        return f"{path}: {count(len(sizes), 'file')}, {sum(sizes) / 1e6:.1f} MB"
    except FileNotFoundError:
        return f"{path}: nothing yet" if path else "there is no cache"
    except OSError as error:
        return f"{path}: not used: {error.strerror or error}"


class _Folder:
    """The folder, by its descriptor; where there are none, by its path."""

    def __init__(self, path: str, descriptor: int | None) -> None:
        self._path, self.descriptor = path, descriptor

    def path(self, key: str) -> str:
        """The file of that key, for the functions that take the descriptor, too."""
        return _NAME + key if self.descriptor is not None else os.path.join(self._path, _NAME + key)

    def files(self) -> list[tuple[float, str, int]]:
        """(When it was used last, key, size) of each file, the one first that was used the longest time ago."""
        found = []
        for name in os.listdir(self._path if self.descriptor is None else self.descriptor):
            if name.startswith(_NAME):
                key = name.removeprefix(_NAME)
                with suppress(OSError):
                    known = os.stat(self.path(key), dir_fd=self.descriptor, follow_symlinks=False)
                    found.append((known.st_mtime, key, known.st_size))
        return sorted(found)

    def remove(self, key: str) -> None:
        """Remove the file, if that can be done."""
        with suppress(OSError):
            os.unlink(self.path(key), dir_fd=self.descriptor)


@contextmanager
def _opened() -> Iterator[_Folder]:
    """The folder. Raises OSError if there is none that can be trusted."""
    path = folder()
    if not path:
        raise FileNotFoundError("no cache")
    if not _OWNED:
        yield _Folder(path, None)
        return
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        if not _is_ours(os.fstat(descriptor)):
            raise PermissionError("it belongs to somebody else, or others may write to it")
        yield _Folder(path, descriptor)
    finally:
        os.close(descriptor)


def _is_ours(known: os.stat_result) -> bool:
    """Whether it belongs to this user, and nobody else may write to it."""
    return not _OWNED or (known.st_uid == os.geteuid() and not known.st_mode & 0o022)


def _digest(key: str, content: bytes) -> bytes:
    digest = blake2b(key.encode(), digest_size=_DIGEST)
    digest.update(content)
    return digest.digest()


def _shrink(at: _Folder) -> None:
    """Remove files until they are well below LIMIT, if they are above it."""
    files = at.files()
    total = sum([n for _, _, n in files])
    if total > LIMIT:
        for _, key, n in files:
            if total <= LIMIT * 3 // 4:
                break
            at.remove(key)
            total -= n
