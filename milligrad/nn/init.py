"""Initial values of parameters, under PyTorch's names. Each function fills a Parameter in place and returns it.

The numbers are drawn from the generator that `milligrad.manual_seed` seeds. PyTorch's own numbers for a seed are
others; the distributions are the same.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable

from milligrad.engine import number
from milligrad.nested import unflatten
from milligrad.nn.module import Parameter
from milligrad.ops import added
from milligrad.random import generator, source
from milligrad.typing import Any


def _fill(parameter: Parameter, draw: Callable[[], float]) -> Parameter:
    if not isinstance(parameter, Parameter):
        raise TypeError(f"parameter: expected a Parameter, got {type(parameter).__name__} {parameter!r:.60}")
    numbers = [draw() for _ in parameter.values()]  # all of them before any is written
    return parameter.copy_(unflatten(numbers, parameter.shape))


def _matrix(parameter: Parameter) -> tuple[int, int]:
    if len(parameter.shape) != 2:
        raise ValueError(f"parameter: expected a matrix (2 dimensions), got the shape {parameter.shape}")
    return parameter.shape[0], parameter.shape[1]


def uniform_(parameter: Parameter, a: float = 0.0, b: float = 1.0) -> Parameter:
    """Uniform on [a, b]."""
    if not number(a, "a") <= number(b, "b"):
        raise ValueError(f"b: expected at least a = {a}, got {b}")
    random = source()
    return _fill(parameter, lambda: a + (b - a) * random())


def normal_(parameter: Parameter, mean: float = 0.0, std: float = 1.0) -> Parameter:
    """Normal, of the given mean and standard deviation."""
    if not number(std, "std") >= 0:
        raise ValueError(f"std: expected a number >= 0, got {std}")
    return _fill(parameter, lambda: generator().gauss(mean, std))


def trunc_normal_(
    parameter: Parameter, mean: float = 0.0, std: float = 1.0, a: float = -2.0, b: float = 2.0
) -> Parameter:
    """Normal, but redrawn until it lies in [a, b]. Raises ValueError where less than one draw in 10,000 would."""
    if not number(std, "std") > 0:
        raise ValueError(f"std: expected a number > 0, got {std}")
    if not number(a, "a") < number(b, "b"):
        raise ValueError(f"b: expected more than a = {a}, got {b}")
    inside = (math.erf((b - mean) / (std * math.sqrt(2))) - math.erf((a - mean) / (std * math.sqrt(2)))) / 2
    if inside < 1e-4:
        raise ValueError(f"a, b: expected bounds within reach of mean {mean} and std {std}, got {a} and {b}")

    def draw() -> float:
        while True:
            x = generator().gauss(mean, std)
            if a <= x <= b:
                return x

    return _fill(parameter, draw)


def constant_(parameter: Parameter, value: float) -> Parameter:
    """`value` everywhere."""
    x = number(value, "value")
    return _fill(parameter, lambda: x)


def ones_(parameter: Parameter) -> Parameter:
    """1 everywhere."""
    return constant_(parameter, 1.0)


def zeros_(parameter: Parameter) -> Parameter:
    """0 everywhere."""
    return constant_(parameter, 0.0)


def eye_(parameter: Parameter) -> Parameter:
    """The identity matrix."""
    rows, columns = _matrix(parameter)
    return parameter.copy_([[float(i == j) for j in range(columns)] for i in range(rows)])


def dirac_(parameter: Parameter, groups: int = 1) -> Parameter:
    """Kernels that pass each channel on as it is: 1 at the middle of the i-th channel of the i-th kernel, else 0."""
    if len(parameter.shape) not in (3, 4, 5):
        raise ValueError(f"parameter: expected 3, 4 or 5 dimensions, got the shape {parameter.shape}")
    out, channels, *kernel = parameter.shape
    if groups < 1 or out % groups:
        raise ValueError(f"groups: expected a divisor of {out}, got {groups}")
    zeros_(parameter)
    per_group = out // groups
    for i in range(out):
        channel = i % per_group
        if channel < min(per_group, channels):
            cell: Any = parameter[i][channel]
            for n in kernel[:-1]:
                cell = cell[n // 2]
            cell[kernel[-1] // 2].data = 1.0
    return parameter


def fans(parameter: Parameter) -> tuple[int, int]:
    """(fan in, fan out): how many numbers go into each output, and how many outputs each input goes to."""
    if len(parameter.shape) < 2:
        raise ValueError(f"parameter: expected at least 2 dimensions, got the shape {parameter.shape}")
    out, channels, *kernel = parameter.shape
    return channels * math.prod(kernel), out * math.prod(kernel)


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """By how much weights must be larger to keep the variance through a nonlinearity; `param` is leaky_relu's slope."""
    slope = 0.01 if param is None else param
    gains = {
        **dict.fromkeys(("linear", "conv1d", "conv2d", "conv3d", "sigmoid"), 1.0),
        "tanh": 5 / 3,
        "relu": math.sqrt(2),
        "leaky_relu": math.sqrt(2 / (1 + slope**2)),
        "selu": 3 / 4,
    }
    if nonlinearity not in gains:
        raise ValueError(f"nonlinearity: expected one of {', '.join(gains)}, got {nonlinearity!r}")
    return gains[nonlinearity]


def xavier_uniform_(parameter: Parameter, gain: float = 1.0) -> Parameter:
    """Uniform in ±gain·√(6 / (fan in + fan out)). Glorot and Bengio 2010, eq. 16."""
    bound = gain * math.sqrt(6 / sum(fans(parameter)))
    return uniform_(parameter, -bound, bound)


def xavier_normal_(parameter: Parameter, gain: float = 1.0) -> Parameter:
    """Normal with the standard deviation gain·√(2 / (fan in + fan out)). Glorot and Bengio 2010, eq. 12."""
    return normal_(parameter, 0.0, gain * math.sqrt(2 / sum(fans(parameter))))


def kaiming_uniform_(
    parameter: Parameter, a: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu"
) -> Parameter:
    """Uniform in ±gain·√(3 / fan). He et al. 2015, section 2.2; `a` is the slope of leaky_relu."""
    bound = math.sqrt(3) * _kaiming_std(parameter, a, mode, nonlinearity)
    return uniform_(parameter, -bound, bound)


def kaiming_normal_(
    parameter: Parameter, a: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu"
) -> Parameter:
    """Normal with the standard deviation gain / √fan. He et al. 2015, eq. 10 and 14."""
    return normal_(parameter, 0.0, _kaiming_std(parameter, a, mode, nonlinearity))


def _kaiming_std(parameter: Parameter, a: float, mode: str, nonlinearity: str) -> float:
    if mode not in ("fan_in", "fan_out"):
        raise ValueError(f"mode: expected 'fan_in' or 'fan_out', got {mode!r}")
    fan = fans(parameter)[mode == "fan_out"]
    return calculate_gain(nonlinearity, a) / math.sqrt(fan)


def orthogonal_(parameter: Parameter, gain: float = 1.0) -> Parameter:
    """gain times a random matrix with orthonormal rows or columns, whichever are fewer. Saxe et al. 2013.

    Further dimensions are flattened into the columns. Gram-Schmidt on normal vectors, each made orthogonal twice.
    """
    if len(parameter.shape) < 2:
        raise ValueError(f"parameter: expected at least 2 dimensions, got the shape {parameter.shape}")
    rows = parameter.shape[0]
    columns = math.prod(parameter.shape[1:])
    basis: list[list[float]] = []
    for _ in range(min(rows, columns)):
        v = [generator().gauss(0.0, 1.0) for _ in range(max(rows, columns))]
        for u in basis * 2:
            overlap = added(map(operator.mul, u, v))
            v = [a - overlap * b for a, b in zip(v, u)]
        length = math.hypot(*v)
        basis.append([x / length for x in v])
    matrix = basis if rows <= columns else [list(row) for row in zip(*basis)]
    return parameter.copy_(unflatten([gain * x for row in matrix for x in row], parameter.shape))


def sparse_(parameter: Parameter, sparsity: float, std: float = 0.01) -> Parameter:
    """Normal, but in each column a fraction `sparsity` (rounded up) of the numbers is 0. Martens 2010."""
    rows, columns = _matrix(parameter)
    if not 0 <= sparsity <= 1:
        raise ValueError(f"sparsity: expected a number between 0 and 1, got {sparsity}")
    normal_(parameter, 0.0, std)
    for j in range(columns):
        for i in generator().sample(range(rows), math.ceil(sparsity * rows)):
            parameter[i][j].data = 0.0
    return parameter
