"""`explain`: why a gradient is what it is, and what is wrong with a graph. Imported when it is first called."""

from __future__ import annotations

from collections.abc import Callable

from milligrad.engine import Value
from milligrad.typing import TYPE_CHECKING, Any, overload

if TYPE_CHECKING:
    from milligrad.explain.paths import Explanation
    from milligrad.explain.trouble import Diagnosis
    from milligrad.nn.module import Module

__all__ = ["explain"]
