"""milligrad: automatic differentiation of single numbers, and neural networks made of them.

from milligrad import Value

x = Value(2.0)
y = x * x
y.backward()
print(x.grad)  # 4.0
"""

from milligrad import data, functional, nn, optim, transforms
from milligrad.engine import Value, grad, no_grad, set_grad_enabled
from milligrad.gradcheck import gradcheck, gradgradcheck
from milligrad.nn import *  # noqa: F403
from milligrad.nn import __all__ as _nn
from milligrad.ops import (
    LOG_EPSILON,
    abs,
    acos,
    asin,
    atan,
    clamp,
    cos,
    cosh,
    dot,
    erf,
    exp,
    expm1,
    log,
    log1p,
    logsumexp,
    max,
    maximum,
    mean,
    min,
    minimum,
    prod,
    relu,
    sigmoid,
    sin,
    sinh,
    softplus,
    sqrt,
    sum,
    tan,
    tanh,
    where,
)
from milligrad.optim import *  # noqa: F403
from milligrad.optim import __all__ as _optim
from milligrad.random import manual_seed
from milligrad.transforms import hessian, hvp, jacobian, jvp, value_and_grad

__version__ = "0.1.0"

__all__ = [
    "LOG_EPSILON",
    "Value",
    "abs",
    "acos",
    "asin",
    "atan",
    "clamp",
    "cos",
    "cosh",
    "data",
    "dot",
    "erf",
    "exp",
    "expm1",
    "functional",
    "grad",
    "gradcheck",
    "gradgradcheck",
    "hessian",
    "hvp",
    "jacobian",
    "jvp",
    "log",
    "log1p",
    "logsumexp",
    "manual_seed",
    "max",
    "maximum",
    "mean",
    "min",
    "minimum",
    "nn",
    "no_grad",
    "optim",
    "prod",
    "relu",
    "set_grad_enabled",
    "sigmoid",
    "sin",
    "sinh",
    "softplus",
    "sqrt",
    "sum",
    "tan",
    "tanh",
    "transforms",
    "value_and_grad",
    "where",
    *_nn,
    *_optim,
]
