"""milligrad: automatic differentiation of single numbers, and neural networks made of them.

from milligrad import Value

x = Value(2.0)
y = x * x
y.backward()
print(x.grad)  # 4.0
"""

from milligrad import data, functional, nn, optim, transforms
from milligrad.draw import draw, step_through
from milligrad.engine import GradientWarning, TraceError, Value, enable_grad, grad, no_grad, record_lines
from milligrad.explain import explain
from milligrad.gradcheck import gradcheck, gradgradcheck
from milligrad.nn import *  # noqa: F403
from milligrad.nn import __all__ as _nn
from milligrad.ops import *  # noqa: F403
from milligrad.ops import __all__ as _ops
from milligrad.ops import abs as abs
from milligrad.ops import max as max
from milligrad.ops import min as min
from milligrad.ops import sum as sum
from milligrad.optim import *  # noqa: F403
from milligrad.optim import __all__ as _optim
from milligrad.random import manual_seed
from milligrad.scan import scan
from milligrad.transforms import hessian, hvp, jacobian, jvp, value_and_grad
from milligrad.typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from milligrad.compiler import compile as compile
    from milligrad.trainer import Callback, Checkpoint, EarlyStopping, History, Trainer

__version__ = "0.1.0"

_PYTHONS = {"abs", "compile", "max", "min", "sum"}  # public, but `import *` leaves Python's own as they are

__all__ = [
    "Callback",
    "Checkpoint",
    "EarlyStopping",
    "GradientWarning",
    "History",
    "TraceError",
    "Trainer",
    "Value",
    "data",
    "draw",
    "enable_grad",
    "explain",
    "functional",
    "grad",
    "gradcheck",
    "gradgradcheck",
    "hessian",
    "hvp",
    "jacobian",
    "jvp",
    "manual_seed",
    "nn",
    "no_grad",
    "optim",
    "record_lines",
    "scan",
    "step_through",
    "transforms",
    "value_and_grad",
    *[name for name in _ops if name not in _PYTHONS],
    *_nn,
    *_optim,
]

# Imported when they are first asked for: the compiler and the trainer take longer than all the rest.
_LATER = {
    "compile": "milligrad.compiler",
    **dict.fromkeys(["Callback", "Checkpoint", "EarlyStopping", "History", "Trainer"], "milligrad.trainer"),
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    globals()[name] = getattr(import_module(_LATER[name]), name)
    return globals()[name]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_PYTHONS})
