"""What annotations take from the standard library's `typing`, without importing it when a program runs.

It takes as long to import as all of milligrad, and only type checkers ask for what is in it.
"""

from __future__ import annotations

TYPE_CHECKING = False

if TYPE_CHECKING:
    from typing import Any as Any
    from typing import BinaryIO as BinaryIO
    from typing import ClassVar as ClassVar
    from typing import ParamSpec as ParamSpec
    from typing import Self as Self
    from typing import TextIO as TextIO
    from typing import TypeAlias as TypeAlias
    from typing import TypeVar as TypeVar
    from typing import overload as overload
else:
    Any = BinaryIO = ClassVar = Self = TextIO = TypeAlias = object

    def TypeVar(name):
        return object

    ParamSpec = TypeVar

    def overload(f):
        return f
