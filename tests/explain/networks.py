"""Networks that are healthy unless a test breaks them, and where a line of a test stands. Not a test itself."""

from __future__ import annotations

import inspect
import math
import random

from milligrad import (
    BCELoss,
    CrossEntropyLoss,
    LayerNorm,
    Linear,
    Module,
    MSELoss,
    ReLU,
    Sequential,
    Sigmoid,
    Tanh,
    manual_seed,
)
from milligrad.data import load_digits
from milligrad.explain import explain


def batch(samples=16, features=4, seed=0):
    """Inputs of a normal distribution."""
    draw = random.Random(seed)
    return [[draw.gauss(0, 1) for _ in range(features)] for _ in range(samples)]


def digits(samples=16, seed=0):
    data = load_digits()
    pairs = [data[i] for i in random.Random(seed).sample(range(len(data)), samples)]
    return [x for x, _ in pairs], [y for _, y in pairs]


def digit_classifier(seed=0, samples=16):
    """A 64-32-10 network, and a function that computes its loss."""
    manual_seed(seed)
    model = Sequential(Linear(64, 32), ReLU(), Linear(32, 10))
    inputs, targets = digits(samples, seed)
    return model, lambda: CrossEntropyLoss()(model(inputs), targets)


def small_network(*activations, seed=0, width=8):
    """Layers 4-8-…-1 with these activations after them, a mean squared error, and a function that computes it."""
    manual_seed(seed)
    sizes = [4, *[width] * (len(activations) - 1), 1]
    layers = [m for n, k, f in zip(sizes, sizes[1:], activations) for m in (Linear(n, k), f)]
    model = Sequential(*layers)
    inputs = batch(seed=seed)
    targets = [[0.5 + 0.4 * math.sin(sum(x))] for x in inputs]
    return model, lambda: MSELoss()(model(inputs), targets)


class Xor(Module):
    """The network of the README."""

    def __init__(self):
        super().__init__()
        self.hidden = Linear(2, 4)
        self.output = Linear(4, 1)

    def forward(self, x):
        h = ReLU()(self.hidden(x))
        return Sigmoid()(self.output(h))[0]


def xor(seed):
    manual_seed(seed)
    model = Xor()
    inputs, targets = [[0, 0], [1, 1], [1, 0], [0, 1]], [0, 0, 1, 1]
    return model, lambda: BCELoss()([model(x) for x in inputs], targets)


def normalised(seed=0):
    manual_seed(seed)
    model = Sequential(Linear(4, 8), LayerNorm(8), ReLU(), Linear(8, 8), Tanh(), Linear(8, 3))
    inputs = batch(seed=seed)
    return model, lambda: CrossEntropyLoss()(model(inputs), [i % 3 for i in range(16)])


def trouble(*args, **options):
    """The kinds of what is wrong."""
    return [f.kind for f in explain(*args, **options).findings if f.trouble]


def found(kind, *args, **options):
    """The one finding of a kind."""
    [finding] = [f for f in explain(*args, **options).findings if f.kind == kind]
    return finding


def line_of(function, mark):
    """The number of the line of a function that contains a mark."""
    lines, first = inspect.getsourcelines(function)
    [number] = [first + i for i, line in enumerate(lines) if mark in line]
    return number
