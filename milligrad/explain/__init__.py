"""Why a gradient is what it is, and what is wrong with a loss: as text, Markdown and HTML.

The function stands here, so that `import milligrad` is quick; the rest is imported when it is first called.
"""

from __future__ import annotations

from collections.abc import Callable

from milligrad.engine import Value
from milligrad.typing import TYPE_CHECKING

if TYPE_CHECKING:
    from milligrad.explain.document import Explanation
    from milligrad.nn.module import Module

__all__ = ["explain"]


def explain(
    loss: Value | Callable[[], Value],
    *,
    wrt: Value | None = None,
    model: Module | None = None,
    max_paths: int = 20,
    precision: int = 4,
) -> Explanation:
    """With `wrt`, all paths from it to the loss, whose products add up to ∂loss/∂wrt. Else what is wrong, and where.

    `print` shows it, and so does a notebook; `.save("x.html")` writes a file, also .md and .txt. Code reads `.paths`
    (each with `.nodes`, `.derivatives`, `.product` and `.places`), `.total`, and `.findings` (each with `.kind`,
    `.text`, `.where`, `.advice`, `.values`, and `.trouble`: whether it is surely wrong). It changes nothing.

    loss:       a Value, or a function without arguments that computes it: `explain(lambda: loss_fn(model(x), y))`. Then
                the lines of your code are known, and an error that an operation raises in it is explained, too.
    wrt:        the Value whose paths to show, the largest |product| first.
    model:      a Module: its parameters are called by their paths, and judged; those that the loss does not
                reach are found.
    max_paths:  at most that many paths are shown; there can be exponentially many. All are counted and added up.
    precision:  significant digits of the numbers; an equation has more where it would not be true with so few.

    Raises TypeError for what is no Value, ValueError for a constant `wrt` or a bad option, and RuntimeError if `wrt`
    is given and the loss is a constant.
    """
    from milligrad.explain.explained import explained

    return explained(loss, wrt=wrt, model=model, max_paths=max_paths, precision=precision)
