"""Whatever is changed between two steps or in a callback counts on each backend: eager code is asked what is right.

A random program makes steps, fits, evaluates and predicts, and changes something in between: options of the optimizer,
attributes of modules, the trainer, what is frozen, Parameters, the data in place. The same program runs eagerly and
compiled, and all numbers that it sees are compared after each move.
"""

import random
from functools import cache
from importlib.util import find_spec
from types import SimpleNamespace

import pytest

from milligrad import functional as F
from milligrad import manual_seed, nn, ops, optim
from milligrad.compiler.llvm import native
from milligrad.nested import flatten
from milligrad.random import generator
from milligrad.trainer import Trainer

NATIVE = pytest.mark.skipif(find_spec("llvmlite") is None, reason="llvmlite is not installed")
BACKENDS = ["python", pytest.param("llvm", marks=NATIVE)]
PROGRAMS = 8  # of each backend; by hand, thousands


@pytest.fixture(autouse=True, scope="module")
def translated_once():
    """Programs of one text share their machine code, whose making takes most of the time of these tests."""
    if not find_spec("llvmlite"):
        yield
        return
    translated, known = native.translated, {}

    def once(source, *options):
        if source not in known:
            known[source] = translated(source, *options)
        return known[source]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "translated", once)
        yield


class Scaled(nn.Module):
    """Has options where they are hard to see: in an object, in lists and dicts, in modules in a list."""

    def __init__(self):
        super().__init__()
        self.config = SimpleNamespace(scale=1.0, shifts=[0.0, {"by": 0.5}])
        self.linear, self.drop = nn.Linear(2, 2), nn.Dropout(0.25)
        self.slopes = [0.1]
        self.calls = 0

    def forward(self, xb):
        self.calls += 1
        config = self.config
        shift = config.shifts[0] + config.shifts[1]["by"]
        rows = self.drop(self.linear(xb))
        return [[F.leaky_relu(config.scale * h + shift, self.slopes[0]) for h in row] for row in rows]


def made(backend, kind):
    manual_seed(1)
    model = nn.Sequential(Scaled(), nn.Tanh(), nn.Dropout(0.5), nn.Linear(2, 2))
    groups = [{"params": list(model[0].parameters())}, {"params": list(model[3].parameters()), "lr": 0.02}]
    makers = {
        "sgd": lambda: optim.SGD(groups, lr=0.05, momentum=0.5),
        "adam": lambda: optim.Adam(groups, lr=0.01, weight_decay=0.1),
    }
    return Trainer(model, nn.HuberLoss(), makers[kind](), backend=backend)


def group(t, rng):
    return rng.choice(t.optimizer.param_groups)


def replaced_group(t, rng):
    i = rng.randrange(len(t.optimizer.param_groups))
    t.optimizer.param_groups[i] = {**t.optimizer.param_groups[i], "lr": rng.uniform(0, 0.1)}


def reloaded(t, rng):
    state = t.optimizer.state_dict()
    state["param_groups"][0]["lr"] = rng.uniform(0, 0.1)
    t.optimizer.load_state_dict(state)


def option(t, rng):
    chosen = group(t, rng)
    if "betas" in chosen:
        chosen["betas"] = (rng.uniform(0.5, 0.9), 0.99)
    else:
        chosen["momentum"] = rng.choice([0.0, 0.5, 0.9])


def another_optimizer(t, rng):
    make = rng.choice([optim.SGD, optim.Adam, optim.RMSprop])
    t.optimizer = make(t.model.parameters(), lr=0.02)


def another_parameter(t, rng):
    t.model[3].bias = nn.Parameter([rng.uniform(-1, 1) for _ in range(2)])  # which the optimizer does not have


def frozen(t, rng):
    rng.choice([t.model[0].linear.weight, t.model[0].linear.bias]).requires_grad_(rng.random() < 0.5)


def half_frozen(t, rng):
    rng.choice(flatten(t.model[0].linear.weight)).requires_grad = rng.random() < 0.5


CHANGES = {
    "lr": lambda t, rng: group(t, rng).update(lr=rng.uniform(0, 0.1)),
    "weight_decay": lambda t, rng: group(t, rng).update(weight_decay=rng.choice([0.0, 0.1])),
    "an option": option,
    "a group": replaced_group,
    "the optimizer's state": reloaded,
    "the optimizer": another_optimizer,
    "dropout": lambda t, rng: setattr(rng.choice([t.model[0].drop, t.model[2]]), "p", rng.choice([0.0, 0.25, 0.5])),
    "a submodule's mode": lambda t, rng: t.model[2].train(rng.random() < 0.5),
    "an object's attribute": lambda t, rng: setattr(t.model[0].config, "scale", rng.uniform(0.5, 2)),
    "a list in an object": lambda t, rng: t.model[0].config.shifts.__setitem__(0, rng.uniform(-1, 1)),
    "a dict in a list": lambda t, rng: t.model[0].config.shifts[1].update(by=rng.uniform(-1, 1)),
    "an element of a list": lambda t, rng: t.model[0].slopes.__setitem__(0, rng.uniform(0, 1)),
    "a submodule": lambda t, rng: setattr(t.model, "1", rng.choice([nn.Tanh, nn.Sigmoid, nn.ReLU])()),
    "reduction": lambda t, rng: setattr(t.loss_fn, "reduction", rng.choice(["mean", "sum"])),
    "an option of the loss": lambda t, rng: setattr(t.loss_fn, "delta", rng.uniform(0.1, 2)),
    "the loss": lambda t, rng: setattr(t, "loss_fn", rng.choice([F.mse_loss, nn.HuberLoss(), nn.SmoothL1Loss("sum")])),
    "the norm": lambda t, rng: setattr(t, "clip_grad_norm", rng.choice([None, 0.01, 1.0])),
    "the value": lambda t, rng: setattr(t, "clip_grad_value", rng.choice([None, 0.003, 1.0])),
    "a metric": lambda t, rng: setattr(t, "metric", rng.choice([None, lambda p, y: ops.equal(y[0], 1.0)])),
    "frozen": frozen,
    "half frozen": half_frozen,
    "a Parameter": another_parameter,
    "numbers": lambda t, rng: setattr(t.model[3].weight[1][0], "data", rng.uniform(-1, 1)),
    "a Value": lambda t, rng: t.model[3].weight.copy_([[rng.uniform(-1, 1) for _ in range(2)] for _ in range(2)]),
}


class Program:
    """A run of random moves; `seen` is what the last one returned."""

    def __init__(self, backend, seed):
        self.rng = random.Random(seed)
        self.trainer = made(backend, self.rng.choice(["sgd", "adam"]))
        self.x = [[self.rng.gauss(0, 1) for _ in range(2)] for _ in range(7)]
        self.y = [[self.rng.gauss(0, 1) for _ in range(2)] for _ in range(7)]
        manual_seed(seed)

    def move(self):
        changed = self.change()
        how = self.rng.choice(["step", "fit", "fit", "evaluate", "predict", "a callback"])
        return changed, how, [*self.seen(how), *self.numbers()]

    def change(self):
        if self.rng.random() < 0.2:
            self.rng.choice(self.x)[0] = self.rng.gauss(0, 1)
            self.y[self.rng.randrange(7)] = [self.rng.gauss(0, 1), 1.0]
            return "data"
        name = self.rng.choice([*CHANGES])
        if name not in ("reduction", "an option of the loss") or isinstance(self.trainer.loss_fn, nn.HuberLoss):
            CHANGES[name](self.trainer, self.rng)
        return name

    def seen(self, how):
        t, options = self.trainer, {"batch_size": 3, "progress": False}
        if how == "step":
            return [t.step(self.x[:3], self.y[:3])]
        if how == "evaluate":
            return [t.evaluate(self.x, self.y, batch_size=3).loss]
        if how == "predict":
            return flatten(t.predict(self.x))
        metric, changes = t.metric, []
        if how == "a callback":
            changes = [lambda t, history: self.change() and setattr(t, "metric", metric)]
        history = t.fit(self.x, self.y, epochs=2, callbacks=changes, validation_data=(self.x, self.y), **options)
        return [*history.loss, *history.val_loss]

    def numbers(self):
        own = [v.data for p in self.trainer.model.parameters() for v in p.values()]
        optimized = [v.data for slots in self.trainer.optimizer.slots for slot in slots for v in slot.values]
        return [*own, *optimized, generator().random()]


@cache
def run(backend, seed, moves=8):
    program = Program(backend, seed)
    return [program.move() for _ in range(moves)]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("seed", range(PROGRAMS))
def test_changes_count_as_they_do_in_eager_code(backend, seed):
    for eager, compiled in zip(run("eager", seed), run(backend, seed)):
        assert compiled[:2] == eager[:2]
        assert compiled[2] == pytest.approx(eager[2], rel=1e-9, abs=1e-12), eager[:2]


@cache
def walk(backend, name):
    program = Program(backend, 3)
    numbers = []
    for change in (lambda *_: None, CHANGES[name], CHANGES[name]):
        change(program.trainer, program.rng)
        for how in ("step", "fit", "predict", "evaluate"):
            numbers.append([*program.seen(how), *program.numbers()])
    return numbers


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", CHANGES)
def test_each_change_counts(backend, name):
    """Between two steps, once code for a step, an epoch and a prediction is there."""
    for eager, compiled in zip(walk("eager", name), walk(backend, name), strict=True):
        assert compiled == pytest.approx(eager, rel=1e-9, abs=1e-12)
