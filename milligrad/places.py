"""Where in the user's code something happens: the innermost line that is not milligrad's own."""

from __future__ import annotations

import os
import sys

from milligrad.typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import FrameType

_LIBRARY = os.path.dirname(os.path.abspath(__file__)) + os.sep
_ours: dict[str, bool] = {}  # file → whether it is milligrad's: to ask the file system for each operation takes long


def users_line() -> tuple[str, int] | None:
    """The file and the number of the line that is running, or None if no code but milligrad's is."""
    frame = _users_frame()
    return None if frame is None else (frame.f_code.co_filename, frame.f_lineno)


def _users_frame() -> FrameType | None:
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and is_ours(frame.f_code.co_filename):
        frame = frame.f_back
    return frame


def warn(message: str, category: type[Warning]) -> None:
    """Warn of something in the line that is running; Python's filter shows it once for each line."""
    import warnings

    frame = _users_frame()
    if frame is None:
        warnings.warn(message, category, stacklevel=2)
        return
    module, registry = frame.f_globals.get("__name__"), frame.f_globals.setdefault("__warningregistry__", {})
    warnings.warn_explicit(message, category, frame.f_code.co_filename, frame.f_lineno, module, registry)


def users_line_of(error: BaseException) -> tuple[str, int] | None:
    """The file and the number of the line in which an error was raised, or None if no code but milligrad's is in it."""
    line = None
    at = error.__traceback__
    while at is not None:
        if not is_ours(at.tb_frame.f_code.co_filename):
            line = at.tb_frame.f_code.co_filename, at.tb_lineno
        at = at.tb_next
    return line


def is_ours(file: str) -> bool:
    """Whether a file is milligrad's."""
    if file not in _ours:
        _ours[file] = os.path.abspath(file).startswith(_LIBRARY)
    return _ours[file]


def text(line: tuple[str, int]) -> str:
    """What stands in that line, without the spaces around; "" if the file is not there."""
    import linecache

    return linecache.getline(*line).strip()


def shown(line: tuple[str, int]) -> str:
    """The line and what stands in it: `model.py:12: y = x * w`."""
    file = line[0].replace("\\", "/").rpartition("/")[2]
    code = text(line)
    return f"{file}:{line[1]}{f': {code}' * bool(code)}"
