"""Nothing that milligrad computes holds a reference cycle: what is dropped is freed at once, without a collector."""

import gc
import json

import pytest

import milligrad as mg
from milligrad import Value, nn, optim
from milligrad import functional as F
from milligrad.nested import full

VECTOR = [0.3, -1.2, 0.7, 2.0]
IMAGE = full((2, 5, 5), 0.5)
SEQUENCE = [VECTOR, VECTOR[::-1], VECTOR]

MODULES = {
    "Linear": (lambda: nn.Linear(4, 3), [VECTOR, VECTOR]),
    "Embedding": (lambda: nn.Embedding(5, 3, padding_idx=1), [[0, 1], [2, 4]]),
    "Dropout": (lambda: nn.Dropout(0.5), [Value(1.0), 2.0]),
    "LayerNorm": (lambda: nn.LayerNorm(4), SEQUENCE),
    "RMSNorm": (lambda: nn.RMSNorm((3, 4)), [SEQUENCE]),
    "Conv2d": (lambda: nn.Conv2d(2, 2, 3, padding="same", groups=2), IMAGE),
    "MaxPool2d": (lambda: nn.Sequential(nn.Conv2d(2, 1, 1), nn.MaxPool2d(2, padding=1)), IMAGE),
    "AvgPool2d": (lambda: nn.Sequential(nn.Conv2d(2, 1, 1), nn.AvgPool2d(2, ceil_mode=True), nn.Flatten()), IMAGE),
    "RNN": (lambda: nn.RNN(4, 3), SEQUENCE),
    "LSTM": (lambda: nn.LSTM(4, 3), [SEQUENCE]),
    "GRU": (lambda: nn.GRU(4, 3, batch_first=True), [SEQUENCE]),
    **{
        f.__name__: (lambda f=f: nn.Sequential(nn.Linear(4, 3), f()), VECTOR)
        for f in (nn.ReLU, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Sigmoid, nn.Tanh, nn.Softplus, nn.Softmax)
    },
    "LogSoftmax": (lambda: nn.Sequential(nn.Linear(4, 3), nn.LogSoftmax(0)), VECTOR),
}
LOSSES = {
    **{
        f"{loss.__name__} {reduction}": lambda x, loss=loss, r=reduction: loss(x, [0.2, 0.4, 0.1, 0.3], reduction=r)
        for loss in (F.mse_loss, F.l1_loss, F.huber_loss, F.smooth_l1_loss, F.kl_div, F.cross_entropy)
        for reduction in ("mean", "sum", "none")
    },
    "bce": lambda x: F.binary_cross_entropy(F.sigmoid(x), [0, 1, 0, 1], weight=[1, 2, 3, 4]),
    "bce with logits": lambda x: F.binary_cross_entropy_with_logits(x, [0, 1, 0, 1], pos_weight=[2.0], weight=[3.0]),
    "class indices": lambda x: F.cross_entropy([x, x], [1, 3], weight=[1, 2, 3, 4], label_smoothing=0.1),
    "class indices, none": lambda x: F.cross_entropy([x, x], [1, 3], reduction="none"),
    "nll, sum": lambda x: F.nll_loss([x, x], [1, -100], reduction="sum"),
}


@pytest.fixture
def cyclic_garbage():
    """How many objects only the collector would free, since the last time it was asked."""
    gc.collect()
    gc.disable()
    yield gc.collect
    gc.enable()


def backward(outputs) -> None:
    """Through everything in `outputs`, however it is nested."""
    flat = []

    while outputs:
        x = outputs.pop()
        (outputs.extend if isinstance(x, list | tuple) else flat.append)(x)
    mg.sum(flat).backward()


@pytest.mark.parametrize("name", MODULES)
def test_modules_leave_no_cycles(name, cyclic_garbage):
    make, input = MODULES[name]
    module = make()
    cyclic_garbage()
    backward([module(input)])
    module.zero_grad()
    module.load_state_dict(module.state_dict())
    assert cyclic_garbage() == 0


def test_attention_leaves_no_cycles(cyclic_garbage):
    attention = nn.MultiheadAttention(4, 2)
    cyclic_garbage()
    mask = [[False, True, True], [False, False, True], [False, False, False]]
    backward([attention(SEQUENCE, SEQUENCE, SEQUENCE, attn_mask=mask, key_padding_mask=[False, False, True])])
    assert cyclic_garbage() == 0


@pytest.mark.parametrize("name", LOSSES)
def test_losses_leave_no_cycles(name, cyclic_garbage):
    xs = [Value(x) for x in VECTOR]
    backward([LOSSES[name](xs)])
    assert cyclic_garbage() == 0


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW", "RMSprop", "Adagrad"])
def test_optimizers_leave_no_cycles(name, cyclic_garbage):
    x = [[Value(1.0), Value(2.0)], [Value(3.0), Value(4.0)]]
    optimizer = getattr(optim, name)([x])
    cyclic_garbage()
    for _ in range(3):
        optimizer.step()
    optimizer.load_state_dict(json.loads(json.dumps(optimizer.state_dict())))
    assert cyclic_garbage() == 0


def test_transforms_and_checks_leave_no_cycles(cyclic_garbage):
    def f(x):
        return x[0] * mg.exp(x[1]) + x[0] ** 2

    mg.value_and_grad(f)([1.0, 2.0])
    mg.hessian(f)([1.0, 2.0])
    mg.jvp(f, ([1.0, 2.0],), ([1.0, 0.0],))
    mg.hvp(f, [1.0, 2.0], [1.0, 0.0])
    assert mg.gradcheck(f, [[1.0, 2.0]]) and mg.gradgradcheck(f, [[1.0, 2.0]])
    assert cyclic_garbage() == 0
