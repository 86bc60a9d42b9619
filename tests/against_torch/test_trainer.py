"""Whole runs against the same loop in PyTorch: the same weights and the same order lead to the same parameters."""

import random
from importlib.util import find_spec

import pytest
import torch

from milligrad import functional as F
from milligrad import manual_seed, nn, ops, optim
from milligrad.optim import lr_scheduler
from milligrad.trainer import Trainer

torch.set_num_threads(1)

NATIVE = pytest.mark.skipif(find_spec("llvmlite") is None, reason="llvmlite is not installed")
BACKENDS = ["eager", "python", pytest.param("llvm", marks=NATIVE)]

rng = random.Random(2)
X = [[rng.gauss(0, 1) for _ in range(5)] for _ in range(21)]
XT = [[rng.gauss(0, 1) for _ in range(5)] for _ in range(8)]


def classes(xs):
    return [max(range(3), key=lambda i: x[i] * x[i + 1]) for x in xs]


def binary(xs):
    return [[float(x[0] * x[1] > 0)] for x in xs]


def sums(xs):
    return [[sum(x), x[0] - x[4]] for x in xs]


RUNS = {
    "cross entropy, SGD, cosine": (
        3, classes, nn.CrossEntropyLoss, torch.nn.CrossEntropyLoss,
        (optim.SGD, torch.optim.SGD, {"lr": 0.2, "momentum": 0.9, "nesterov": True, "weight_decay": 1e-3}),
        ("CosineAnnealingLR", {"T_max": 6}), {},
    ),
    "logits, Adam, clipped norm": (
        1, binary, nn.BCEWithLogitsLoss, torch.nn.BCEWithLogitsLoss,
        (optim.Adam, torch.optim.Adam, {"lr": 0.02}),
        ("StepLR", {"step_size": 2, "gamma": 0.5}), {"clip_grad_norm": 0.1},
    ),
    "squares, RMSprop, clipped values, plateau": (
        2, sums, nn.MSELoss, torch.nn.MSELoss,
        (optim.RMSprop, torch.optim.RMSprop, {"lr": 0.01, "momentum": 0.5}),
        ("ReduceLROnPlateau", {"patience": 0, "threshold": 0.05, "factor": 0.5}), {"clip_grad_value": 0.03},
    ),
    "sums of Huber losses, AdamW": (
        2, sums, lambda: nn.HuberLoss("sum"), lambda: torch.nn.HuberLoss("sum"),
        (optim.AdamW, torch.optim.AdamW, {"lr": 0.02, "weight_decay": 0.1}), ("ExponentialLR", {"gamma": 0.9}), {},
    ),
}  # fmt: skip


def networks(out):
    manual_seed(0)
    ours = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, out))
    theirs = torch.nn.Sequential(torch.nn.Linear(5, 6), torch.nn.Tanh(), torch.nn.Linear(6, out)).double()
    theirs.load_state_dict({name: torch.tensor(x, dtype=torch.float64) for name, x in ours.state_dict().items()})
    return ours, theirs


def tensors(xs):
    return torch.tensor(xs, dtype=torch.long if isinstance(xs[0], int) else torch.float64)


def accuracy(output, y):
    if y.dtype == torch.long:
        return (output.argmax(1) == y).double().mean().item()
    return ((output > 0) == (y > 0.5)).double().mean().item()


def train(model, loss_fn, optimizer, scheduler, data, validation, clips, order):
    """The loop as PyTorch's tutorials write it; rows of (loss, validation loss, validation accuracy, rate)."""
    x, y = map(tensors, data)
    xt, yt = map(tensors, validation)
    rows = []
    for _ in range(6):
        shuffled = list(range(len(x)))
        order.shuffle(shuffled)
        total = 0.0
        for k in range(0, len(x), 4):
            batch = shuffled[k : k + 4]
            loss = loss_fn(model(x[batch]), y[batch])
            optimizer.zero_grad()
            loss.backward()
            if "clip_grad_norm" in clips:
                torch.nn.utils.clip_grad_norm_(model.parameters(), clips["clip_grad_norm"])
            if "clip_grad_value" in clips:
                torch.nn.utils.clip_grad_value_(model.parameters(), clips["clip_grad_value"])
            optimizer.step()
            total += loss.item() * len(batch)
        with torch.no_grad():
            output = model(xt)
            val_loss = loss_fn(output, yt).item()
        rows.append((total / len(x), val_loss, accuracy(output, yt), optimizer.param_groups[0]["lr"]))
        scheduler.step(*[val_loss] * isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau))
    return rows


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("run_name", RUNS)
def test_a_whole_run_is_pytorchs(backend, run_name):
    out, target, loss_fn, their_loss_fn, (kind, their_kind, options), (schedule, settings), clips = RUNS[run_name]
    model, theirs = networks(out)
    optimizer, their_optimizer = kind(model.parameters(), **options), their_kind(theirs.parameters(), **options)
    scheduler = getattr(lr_scheduler, schedule)(optimizer, **settings)
    their_scheduler = getattr(torch.optim.lr_scheduler, schedule)(their_optimizer, **settings)
    data, validation = (X, target(X)), (XT, target(XT))
    rows = train(theirs, their_loss_fn(), their_optimizer, their_scheduler, data, validation, clips, random.Random(3))
    trainer = Trainer(model, loss_fn(), optimizer, backend=backend, **clips)
    history = trainer.fit(
        *data, epochs=6, batch_size=4, seed=3, validation_data=validation, scheduler=scheduler, progress=False
    )
    for name, theirs_now in theirs.state_dict().items():
        ours = torch.tensor(model.state_dict()[name], dtype=torch.float64)
        torch.testing.assert_close(ours, theirs_now, rtol=1e-10, atol=1e-12)
    assert history.loss == pytest.approx([row[0] for row in rows], rel=1e-10)
    assert history.lr == pytest.approx([row[3] for row in rows], rel=1e-12)
    assert len({*history.lr}) > 1
    if target is not sums:
        assert history.val_accuracy == pytest.approx([row[2] for row in rows])
    batches = 2 if "sums of" in run_name else 1  # of a loss that sums, the 8 samples make two batches' sums
    assert history.val_loss == pytest.approx([row[1] / batches for row in rows], rel=1e-10)
    with torch.no_grad():
        expected = theirs(tensors(XT))
    torch.testing.assert_close(tensors(trainer.predict(XT)), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
def test_steps_on_sequences_of_many_lengths_are_pytorchs(backend):
    sequences = [[1, 2, 3, 0], [4, 5], [2, 2, 1, 5, 3], [3, 4], [0, 1, 2, 4]] * 3

    class Ours(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding, self.linear = nn.Embedding(6, 4), nn.Linear(4, 6)

        def forward(self, tokens):
            return self.linear(F.tanh(self.embedding(tokens)))

    model = Ours()
    embedding, linear = torch.nn.Embedding(6, 4), torch.nn.Linear(4, 6)
    theirs = torch.nn.ModuleDict({"embedding": embedding, "linear": linear}).double()
    theirs.load_state_dict({name: torch.tensor(x, dtype=torch.float64) for name, x in model.state_dict().items()})
    optimizer = torch.optim.Adam(theirs.parameters(), lr=0.05)
    losses = []
    for word in sequences:
        logits = linear(torch.tanh(embedding(torch.tensor(word[:-1]))))
        loss = torch.nn.functional.cross_entropy(logits, torch.tensor(word[1:]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    trainer = Trainer(model, nn.CrossEntropyLoss(), optim.Adam(model.parameters(), lr=0.05), backend=backend)
    history = trainer.fit([(word[:-1], word[1:]) for word in sequences], shuffle=False, progress=False)
    assert history.batch_losses == pytest.approx(losses, rel=1e-10)
    for name, now in theirs.state_dict().items():
        torch.testing.assert_close(tensors(model.state_dict()[name]), now, rtol=1e-10, atol=1e-12)


LOSSES = {  # of the mean of squares, that of the absolute errors, three parameters of the loss and the outputs
    "a square": lambda f, mse, mae, w, p: (w[0] + mse) ** 2,
    "learned uncertainties": lambda f, mse, mae, w, p: mse * f.exp(-w[0]) + w[0] + mae * f.exp(-w[1]) + w[1],
    "a function of both": lambda f, mse, mae, w, p: f.exp(mse * 0.1 + w[0]) / (w[1] + mae) + w[2] * w[0],
    "detached": lambda f, mse, mae, w, p: mse / (1 + mse.detach()) + w[0] * (mae * w[0]).detach(),
    "a function of the length": lambda f, mse, mae, w, p: mse * w[0] * (len(p) // 2 + 1) + f.tanh(mae) ** len(p),
    "some of the samples": lambda f, mse, mae, w, p: mse * w[0] + p[-1][0] * w[1] + p[:3][0][1] * min(len(p), 3),
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", LOSSES)
def test_losses_with_parameters_beside_the_mean_are_pytorchs(backend, name):
    class Loss(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter([0.5, 0.9, 0.7])

        def forward(self, p, t):
            differences = [a - b for row, target in zip(p, t) for a, b in zip(row, target)]
            mse, mae = ops.mean([d * d for d in differences]), ops.mean([abs(d) for d in differences])
            return LOSSES[name](ops, mse, mae, self.w, p)

    model, theirs = networks(2)
    loss_fn, w = Loss(), torch.tensor([0.5, 0.9, 0.7], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.SGD([*theirs.parameters(), w], lr=0.002, momentum=0.5)
    trainer = Trainer(
        model, loss_fn, optim.SGD([*model.parameters(), loss_fn.w], lr=0.002, momentum=0.5), backend=backend
    )
    for batch_size in (1, 4):
        losses = []
        for k in range(0, len(X), batch_size):
            x, y = tensors(X[k : k + batch_size]), tensors(sums(X[k : k + batch_size]))
            p = theirs(x)
            loss = LOSSES[name](torch, ((p - y) ** 2).mean(), (p - y).abs().mean(), w, p)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item() * len(x))
        history = trainer.fit(X, sums(X), batch_size=batch_size, shuffle=False, progress=False)
        assert history.loss == pytest.approx([sum(losses) / len(X)], rel=1e-9)
    for key, now in theirs.state_dict().items():
        torch.testing.assert_close(tensors(model.state_dict()[key]), now, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(tensors([v.data for v in loss_fn.w]), w.detach(), rtol=1e-9, atol=1e-11)
