"""milligrad: automatic differentiation of single numbers, and neural networks made of them.

from milligrad import Value

x = Value(2.0)
y = x * x
y.backward()
print(x.grad)  # 4.0
"""

from milligrad import data, functional, nn, optim, transforms
from milligrad.engine import Value, enable_grad, grad, no_grad
from milligrad.gradcheck import gradcheck, gradgradcheck
from milligrad.nn import *  # noqa: F403
from milligrad.nn import __all__ as _nn
from milligrad.ops import *  # noqa: F403
from milligrad.ops import __all__ as _ops
from milligrad.optim import *  # noqa: F403
from milligrad.optim import __all__ as _optim
from milligrad.random import manual_seed
from milligrad.transforms import hessian, hvp, jacobian, jvp, value_and_grad

__version__ = "0.1.0"

__all__ = [
    "Value",
    "data",
    "enable_grad",
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
    "transforms",
    "value_and_grad",
    *_ops,
    *_nn,
    *_optim,
]
