"""Everything compiles: each row, function, layer, loss, optimizer, scheduler; both backends against the eager engine.

A table of cases stands beside each of them, and a test that the table names all that is public: what is new and has no
case fails here. The cases of functions and modules are those by which tests/compiler/test_trace.py tests their traces.
"""

import functools
import inspect
import itertools
import math
import random
from functools import cache

import pytest
from hypothesis import HealthCheck, given, settings

from milligrad import Value, manual_seed, nn, ops, optim
from milligrad import functional as F
from milligrad.compiler.backends import has_llvmlite
from milligrad.compiler.compiled import compile
from milligrad.engine import number
from milligrad.nested import flatten
from milligrad.nn import Module
from milligrad.optim import lr_scheduler
from milligrad.trainer import Checkpoint, EarlyStopping, Trainer
from milligrad.transforms import jacobian
from tests.compiler.graphs import assert_close, functions
from tests.compiler.test_trace import FUNCTIONS, MODULES, call, combined, mapped, numbers_of, points

needs_llvm = pytest.mark.skipif(not has_llvmlite(), reason="needs llvmlite")
BACKENDS = ["python", pytest.param("llvm", marks=needs_llvm)]
each_backend = pytest.mark.parametrize("backend", BACKENDS)


def about(xs, rel=1e-12):
    return pytest.approx(xs, rel=rel, abs=rel / 10)


# ── The table ────────────────────────────────────────────────────────────────────────────────────────────────────

EDGES = [0.0, -0.0, 1.0, -1.0, 0.3, -2.5, 40.0, 700.0, -800.0, 1e-300, 1e300]


def edges(row, n):
    if n == 1:
        return [[x] for x in EDGES]
    return [random.Random(i).choices(EDGES, k=n) for i in range(30)]


def value_and_derivatives(f, order):
    """z, and if `order` says so its first and its second derivatives, of f(*xs) as a function of the list xs."""

    def g(xs):
        return f(*xs)

    made = [g, jacobian(g), jacobian(jacobian(g))]
    return lambda xs: [h(xs) for h in made[: order + 1]]


def outcome(f, xs):
    """The numbers of f(xs), or None where it raises, or where some of them are not finite."""
    try:
        found = [float(x) for x in flatten(f(xs))]
    except (ValueError, ArithmeticError):
        return None
    return found if all(map(math.isfinite, found)) else None


@each_backend
@pytest.mark.parametrize("name", ops.TABLE)
def test_each_row_with_derivatives_of_both_orders_inside_and_at_the_edges(backend, name):
    row = ops.TABLE[name]
    inside = points(row)
    outside = edges(row, len(inside[0]))
    if name in ("power", "exponential"):  # one of the inputs is a constant: a program for each
        inside, outside = inside[:4], outside[:6]
    defined = 0
    for order in range(3):
        made = {}
        for xs in [*inside, *outside]:
            constant = {"power": xs[-1], "exponential": xs[0]}.get(name)
            if constant not in made:
                f = value_and_derivatives(call(row, xs), order)
                made[constant] = f, compile(f, backend=backend)
            f, g = made[constant]
            expected, found = outcome(f, xs), outcome(g, xs)
            assert (found is None) is (expected is None), (order, xs, found, expected)
            assert found is None or found == about(expected), (order, xs)
            defined += found is not None
    assert defined >= 2 * len(inside)


# ── Functions, layers, losses ────────────────────────────────────────────────────────────────────────────────────


def test_every_public_function_and_every_module_has_a_case():
    public = [getattr(nn, name) for name in nn.__all__]
    assert set(FUNCTIONS) == set(F.__all__)
    assert set(MODULES) == {x.__name__ for x in public if inspect.isclass(x) and issubclass(x, Module)}
    assert all([*FUNCTIONS.values(), *MODULES.values()])


def agrees_with_backward(f, make, backend, parameters=()):
    """Results and gradients by floats among the arguments and by parameters: one number that depends on all of them."""

    def loss(*args):
        return combined(f(*args))

    compiled = compile(loss, backend=backend)
    for seed in (1, 2):
        r = random.Random(seed)
        args = make(r)
        for p in parameters:
            p.data = r.uniform(-1, 1)
        results = []
        for g in (compiled.value, loss):
            lifted = mapped(lambda x: Value(x) if type(x) is float else x, args)
            for p in parameters:
                p.grad = 0.0
            manual_seed(seed)
            z = g(*lifted)
            z.backward()
            leaves = [x for x in numbers_of_values(lifted) if isinstance(x, Value)]
            results.append([z.data, *[v.grad for v in leaves], *[p.grad for p in parameters]])
        assert results[0] == about(results[1])
        assert any(results[1][1:])
    assert repr(compiled).endswith("1 traced>")


def numbers_of_values(x):
    return [y for part in x for y in numbers_of_values(part)] if isinstance(x, (list, tuple)) else [x]


@each_backend
@pytest.mark.parametrize("name", FUNCTIONS)
def test_each_function(backend, name):
    for f, make in FUNCTIONS[name]:
        agrees_with_backward(f, make, backend)


@each_backend
@pytest.mark.parametrize("name", MODULES)
def test_each_module_in_training_and_in_evaluation(backend, name):
    for build, make in MODULES[name]:
        manual_seed(0)
        module = build()
        parameters = [v for p in module.parameters() for v in p.values()]
        modes = (
            (True, False)
            if any(isinstance(m, (nn.Dropout, nn.MultiheadAttention)) for m in module.modules())
            else (True,)
        )
        for training in modes:
            agrees_with_backward(module.train(training), make, backend, parameters)


# ── Random programs ──────────────────────────────────────────────────────────────────────────────────────────────


@each_backend
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(f=functions(most_steps=4))
def test_random_programs_with_derivatives_of_both_orders(backend, f):
    lists = [list(xs) for xs in f.point]
    values = [float(x) for x in f.values(*lists)]
    assert_close(compile(lambda *xs: f.values(*xs), backend=backend)(*lists), values, 1e-11)
    expected = [number(x) for x in f.derivatives(*[[Value(x) for x in xs] for xs in lists])]
    found = compile(derivatives_of(f), backend=backend)(*lists)
    # sums in another order: what cancels in a second derivative has lost digits in either engine
    assert_close(found, expected, 1e-9)


def derivatives_of(f):
    """`f.derivatives` as a function of lists of numbers."""
    return lambda *lists: f.derivatives(*[[lifted(x) for x in xs] for xs in lists])


def lifted(x):
    z = +x
    z.requires_grad = True
    return z


# ── Training: what is trained, in both engines ───────────────────────────────────────────────────────────────────

rng = random.Random(1)
X = [[rng.gauss(0, 1) for _ in range(4)] for _ in range(11)]
CLASSES = [rng.randrange(3) for _ in X]
IMAGES = [[[[rng.gauss(0, 1) for _ in range(6)] for _ in range(6)]] for _ in range(5)]
SEQUENCES = [[[rng.gauss(0, 1) for _ in range(2)] for _ in range(3)] for _ in range(7)]
WORDS = [[rng.randrange(5), rng.randrange(5)] for _ in range(9)]
NUMBERS = [[rng.gauss(0, 1), rng.gauss(0, 1)] for _ in X]
CHANCES = [[rng.uniform(0.1, 0.9), rng.uniform(0.1, 0.9)] for _ in X]
BITS = [[float(rng.random() > 0.5), float(rng.random() > 0.5)] for _ in X]
LENGTHS = (3, 1, 5, 3, 2)
BATCHES = [
    ([[rng.gauss(0, 1) for _ in range(4)] for _ in range(n)], [rng.randrange(3) for _ in range(n)]) for n in LENGTHS
]
TEXTS = [([rng.randrange(6) for _ in range(n)], [rng.randrange(3) for _ in range(n)]) for n in LENGTHS]


def classifier(*layers, out=3):
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), *layers, nn.Linear(5, out))


def sgd(model, **options):
    return optim.SGD(model.parameters(), **{"lr": 0.1, "momentum": 0.9, **options})


def trained(backend, *, make=classifier, loss=lambda model: nn.CrossEntropyLoss(), optimizer=sgd, x=X, y=CLASSES,
            batch_size=4, epochs=3, scheduler=None, **options):  # fmt: skip
    """All that comes out of training: losses, parameters, the optimizer's state, evaluation and predictions."""
    manual_seed(1)
    model = make()
    opt = optimizer(model)
    trainer = Trainer(model, loss(model), opt, backend=backend, **options)
    data = (x,) if y is None else (x, y)
    history = trainer.fit(
        *data, epochs=epochs, batch_size=batch_size, seed=0, progress=False, scheduler=scheduler and scheduler(opt)
    )
    states = [numbers_of(list(s.values())) for s in opt.state_dict()["state"].values()]
    evaluation = trainer.evaluate(*data, batch_size=batch_size)
    predictions = [] if y is None else trainer.predict(x, batch_size=batch_size)
    numbers = [v.data for p in model.parameters() for v in p.values()]
    return {
        "losses": history.loss,
        "accuracies": [x for x in history.accuracy] if "accuracy" in history.columns else [],
        "parameters": numbers,
        "states": [x for state in states for x in state],
        "evaluation": [x for x in evaluation if x is not None],
        "predictions": flatten(predictions),
        "rates": numbers_of(history.lr),
    }


@cache
def expected_of(name, table):
    return trained("eager", **TABLES[table][name])


def agrees(name, table, backend, rel=1e-9, **options):
    """One case against the eager engine. Roundings grow over 100 steps, hence 1e-9."""
    found, expected = trained(backend, **{**TABLES[table][name], **options}), expected_of(name, table)
    assert found.keys() == expected.keys()
    for key, xs in expected.items():
        assert found[key] == about(xs, rel), key


# Optimizers: 102 steps, the last batch of an epoch smaller.


def of(make, **options):
    return dict(optimizer=lambda model: make(model.parameters(), **options), epochs=34)


def grouped(model):
    return optim.Adam(
        [
            {"params": model[0].parameters(), "lr": 0.03},
            {"params": [model[2].weight], "betas": (0.5, 0.9), "weight_decay": 0.1},
            {"params": [model[2].bias], "lr": 0.0},
        ],
        lr=0.01,
    )


OPTIMIZERS = {
    "SGD": of(optim.SGD, lr=0.05),
    "SGD momentum": of(optim.SGD, lr=0.05, momentum=0.9, weight_decay=0.01),
    "SGD dampening": of(optim.SGD, lr=0.05, momentum=0.9, dampening=0.3),
    "SGD nesterov": of(optim.SGD, lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.1),
    "SGD maximize": of(optim.SGD, lr=0.001, maximize=True, weight_decay=0.1),
    "Adam": of(optim.Adam, lr=0.01),
    "Adam options": of(optim.Adam, lr=0.01, betas=(0.7, 0.9), eps=1e-3, weight_decay=0.1),
    "Adam amsgrad": of(optim.Adam, lr=0.01, amsgrad=True, betas=(0.9, 0.9)),
    "Adam maximize": of(optim.Adam, lr=0.001, maximize=True, amsgrad=True),
    "AdamW": of(optim.AdamW, lr=0.01),
    "AdamW options": of(optim.AdamW, lr=0.01, betas=(0.7, 0.9), eps=1e-3, weight_decay=0.2, amsgrad=True),
    "AdamW maximize": of(optim.AdamW, lr=0.001, maximize=True, weight_decay=0.0),
    "RMSprop": of(optim.RMSprop, lr=0.02, eps=1e-6),
    "RMSprop options": of(optim.RMSprop, lr=0.01, alpha=0.9, eps=1e-3, weight_decay=0.1, momentum=0.5),
    "RMSprop centered": of(optim.RMSprop, lr=0.01, centered=True, eps=1e-2, momentum=0.9, maximize=True),
    "Adagrad": of(optim.Adagrad, lr=0.05),
    "Adagrad options": of(
        optim.Adagrad, lr=0.05, lr_decay=0.1, weight_decay=0.1, initial_accumulator_value=0.2, eps=1e-3
    ),
    "Adagrad maximize": of(optim.Adagrad, lr=0.001, maximize=True),
    "groups": dict(optimizer=grouped, epochs=34),
    "one by one": {**of(optim.Adam, lr=0.01), "batch_size": 1, "epochs": 10},
    "all at once": {**of(optim.SGD, lr=0.05, momentum=0.9), "batch_size": 32, "epochs": 100},
    "clipped by norm": {**of(optim.SGD, lr=0.3, momentum=0.9), "clip_grad_norm": 0.1},
    "clipped by value": {**of(optim.SGD, lr=0.3, momentum=0.9), "clip_grad_value": 0.02},
    "clipped by both": {**of(optim.Adam, lr=0.02), "clip_grad_norm": 0.1, "clip_grad_value": 0.02},
}


def test_every_optimizer_has_a_case_for_each_of_its_options():
    public = {name for name in optim.__all__ if inspect.isclass(getattr(optim, name))} - {"Optimizer"}
    assert public == {name.split()[0] for name in OPTIMIZERS} & set(optim.__all__)
    for name in public:
        usual = getattr(optim, name)(nn.Linear(1, 1).parameters()).param_groups[0]
        made = [OPTIMIZERS[case]["optimizer"](classifier()) for case in OPTIMIZERS if case.split()[0] == name]
        unusual = {key for o in made for key, x in o.param_groups[0].items() if key != "params" and x != usual[key]}
        assert unusual == set(getattr(optim, name).options), name


@each_backend
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_each_optimizer_walks_the_same_way(backend, name):
    agrees(name, "optimizers", backend)


# Schedulers.


def scheduled(make, **options):
    return dict(scheduler=make, epochs=6, **options)


SCHEDULERS = {
    "LambdaLR": scheduled(lambda o: lr_scheduler.LambdaLR(o, lambda epoch: 0.9**epoch)),
    "StepLR": scheduled(lambda o: lr_scheduler.StepLR(o, 2)),
    "MultiStepLR": scheduled(lambda o: lr_scheduler.MultiStepLR(o, [1, 3], 0.3)),
    "ExponentialLR": scheduled(lambda o: lr_scheduler.ExponentialLR(o, 0.7)),
    "LinearLR": scheduled(lambda o: lr_scheduler.LinearLR(o, total_iters=4)),
    "CosineAnnealingLR": scheduled(lambda o: lr_scheduler.CosineAnnealingLR(o, 5)),
    "OneCycleLR": scheduled(lambda o: lr_scheduler.OneCycleLR(o, 0.3, total_steps=8)),  # the momentum changes, too
    "ReduceLROnPlateau": scheduled(lambda o: lr_scheduler.ReduceLROnPlateau(o, patience=0, threshold=0.2)),
    "of groups": scheduled(lambda o: lr_scheduler.StepLR(o, 2), optimizer=grouped),
}


def test_every_scheduler_has_a_case():
    classes = [x for x in vars(lr_scheduler).values() if inspect.isclass(x) and issubclass(x, lr_scheduler.Scheduler)]
    abstract = {lr_scheduler.Scheduler, lr_scheduler.LRScheduler}
    assert {x.__name__ for x in classes if x not in abstract} == set(SCHEDULERS) - {"of groups"}


@each_backend
@pytest.mark.parametrize("name", SCHEDULERS)
def test_each_scheduler_sets_the_rates_of_compiled_steps(backend, name):
    agrees(name, "schedulers", backend)
    assert len(set(expected_of(name, "schedulers")["rates"])) > 1


# Losses, in batches.


def regression(loss, y, *layers, **options):
    return dict(
        make=lambda: classifier(*layers, out=2),
        loss=lambda model: loss,
        y=y,
        optimizer=lambda m: sgd(m, lr=0.01),
        **options,
    )


def classes(make, y=CLASSES, *layers):
    return dict(
        loss=lambda model: make, y=y, make=lambda: classifier_with_end(*layers), optimizer=lambda m: sgd(m, lr=0.02)
    )


def classifier_with_end(*layers):
    return nn.Sequential(*classifier(), *layers)


REDUCTIONS = ("mean", "sum")
LOSSES = {
    **{f"MSELoss {r}": regression(nn.MSELoss(r), NUMBERS) for r in REDUCTIONS},
    **{f"L1Loss {r}": regression(nn.L1Loss(r), NUMBERS) for r in REDUCTIONS},
    **{f"HuberLoss {r}": regression(nn.HuberLoss(r, 0.5), NUMBERS) for r in REDUCTIONS},
    **{f"SmoothL1Loss {r}": regression(nn.SmoothL1Loss(r, 0.5), NUMBERS) for r in REDUCTIONS},
    **{f"BCEWithLogitsLoss {r}": regression(nn.BCEWithLogitsLoss(reduction=r), BITS) for r in REDUCTIONS},
    "BCEWithLogitsLoss weighted": regression(nn.BCEWithLogitsLoss([0.5, 2.0], pos_weight=[3.0, 0.1]), CHANCES),
    **{f"CrossEntropyLoss {r}": classes(nn.CrossEntropyLoss(reduction=r)) for r in REDUCTIONS},
    "CrossEntropyLoss weighted": classes(nn.CrossEntropyLoss([1.0, 2.0, 0.5])),
    "CrossEntropyLoss ignoring": classes(nn.CrossEntropyLoss(ignore_index=1)),
    "CrossEntropyLoss smoothed": classes(nn.CrossEntropyLoss(label_smoothing=0.1)),
    "CrossEntropyLoss with all": classes(nn.CrossEntropyLoss([1.0, 2.0, 0.5], 1, "mean", 0.1)),
    "CrossEntropyLoss of chances": classes(nn.CrossEntropyLoss(), [[x, 0.1, y] for x, y in CHANCES]),
    **{f"NLLLoss {r}": classes(nn.NLLLoss(reduction=r), CLASSES, nn.LogSoftmax()) for r in REDUCTIONS},
    "NLLLoss with all": classes(nn.NLLLoss([1.0, 2.0, 0.5], 1), CLASSES, nn.LogSoftmax()),
    **{
        f"BCELoss {r}": classes(nn.BCELoss(reduction=r), [[x, y, 1.0] for x, y in CHANCES], nn.Sigmoid())
        for r in REDUCTIONS
    },
    "BCELoss weighted": classes(nn.BCELoss([0.5, 2.0, 1.0]), [[x, y, 1.0] for x, y in BITS], nn.Sigmoid()),
    **{
        f"KLDivLoss {r}": classes(nn.KLDivLoss(r), [[x, y, 0.3] for x, y in CHANCES], nn.LogSoftmax())
        for r in (*REDUCTIONS, "batchmean")
    },
    "a function": dict(loss=lambda model: F.cross_entropy),
    "with a regulariser": dict(
        loss=lambda model: lambda p, y: F.cross_entropy(p, y) + 0.1 * sum(abs(v) ** 3 for v in model[0].weight.values())
    ),
    "of one's own": dict(
        loss=lambda model: lambda p, y: ops.logsumexp([ops.dot(row, row) - 0.1 * t for row, t in zip(p, y)])
    ),
}


def test_every_loss_has_a_case():
    losses = {name for name in nn.__all__ if name.endswith("Loss")}
    assert losses == {name.split()[0] for name in LOSSES} & set(nn.__all__)


@each_backend
@pytest.mark.parametrize("name", LOSSES)
def test_each_loss_trains_in_batches(backend, name):
    agrees(name, "losses", backend)


# Models.


class Normalized(nn.Module):
    """A batch normalization written by hand: what is computed for a sample depends on the others."""

    def __init__(self):
        super().__init__()
        self.enter, self.leave = nn.Linear(4, 3), nn.Linear(3, 3)
        self.scale, self.running = nn.Parameter([1.0, 2.0, 3.0]), nn.Parameter([0.0] * 3, requires_grad=False)

    def forward(self, x):
        columns = []
        for scale, running, column in zip(self.scale, self.running, zip(*self.enter(x))):
            centre = ops.mean(column) if self.training else running
            spread = ops.sqrt(ops.mean([(x - centre) ** 2 for x in column]) + 0.1)
            columns.append([scale * (x - centre) / spread for x in column])
        return self.leave([list(row) for row in zip(*columns)])


class Reader(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer, self.leave = layer(2, 3, batch_first=True), nn.Linear(3, 3)

    def forward(self, x):
        return self.leave([steps[-1] for steps in self.layer(x)[0]])


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.MultiheadAttention(2, 2, dropout=0.2, batch_first=True)
        self.norms = nn.ModuleList([nn.LayerNorm(2), nn.RMSNorm(2)])
        self.leave = nn.Linear(2, 3)

    def forward(self, x):
        for norm in self.norms:
            x = norm(self.layer(x, x, x)[0])
        return self.leave([steps[0] for steps in x])


class Tagger(nn.Module):
    """A class for each word of a text of any length: the batch is the text."""

    def __init__(self):
        super().__init__()
        self.embedding, self.leave = nn.Embedding(6, 3), nn.Linear(3, 3)

    def forward(self, words):
        return self.leave(self.embedding(words))


class Texts(nn.Module):
    """The same with attention among the words: nothing is a sum over samples."""

    def __init__(self):
        super().__init__()
        self.embedding, self.layer, self.leave = nn.Embedding(6, 2), nn.MultiheadAttention(2, 1), nn.Linear(2, 3)

    def forward(self, words):
        x = self.embedding(words)
        return self.leave(self.layer(x, x, x)[0])


def frozen(*parts):
    """A classifier of which some numbers don't learn."""
    model = classifier()
    for part in parts:
        part(model)
    return model


def some_numbers(model):
    model[0].weight[1][2].requires_grad = model[2].bias[0].requires_grad = False


MODELS = {
    "one by one": dict(batch_size=1),
    "dropout": dict(make=lambda: nn.Sequential(nn.Dropout(0.2), *classifier(nn.Dropout(0.5)))),
    "dropout one by one": dict(make=lambda: classifier(nn.Dropout(0.5)), batch_size=1),
    "frozen": dict(make=lambda: frozen(lambda m: m[0].requires_grad_(False))),
    "partly frozen": dict(make=lambda: frozen(some_numbers), optimizer=lambda m: optim.Adam(m.parameters(), lr=0.1)),
    "in part optimized": dict(optimizer=lambda m: optim.Adam([m[0].bias, m[2].weight], lr=0.1)),
    "values": dict(optimizer=lambda m: optim.SGD([[v for p in m.parameters() for v in p.values()][3:9]], lr=0.1)),
    "shared": dict(make=lambda: (lambda layer: nn.Sequential(layer, nn.Tanh(), layer))(nn.Linear(4, 4))),
    "normalized": dict(make=Normalized),
    "normalized, with dropout": dict(make=lambda: nn.Sequential(Normalized(), nn.Dropout(0.2))),
    **{
        layer.__name__: dict(make=lambda layer=layer: Reader(layer), x=SEQUENCES, y=CLASSES[:7])
        for layer in (nn.RNN, nn.GRU, nn.LSTM)
    },
    "attention": dict(make=Attention, x=SEQUENCES, y=CLASSES[:7]),
    "images": dict(
        make=lambda: nn.Sequential(
            nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.GELU(), nn.Linear(8, 3)
        ),
        x=IMAGES, y=CLASSES[:5], batch_size=2,
    ),
    "means of images": dict(
        make=lambda: nn.Sequential(nn.Conv2d(1, 2, 3, 2, 1), nn.SiLU(), nn.AvgPool2d(3), nn.Flatten(), nn.Linear(2, 3)),
        x=IMAGES, y=CLASSES[:5], batch_size=2,
    ),
    "words": dict(
        make=lambda: nn.Sequential(nn.Embedding(5, 3, padding_idx=1), nn.Flatten(), nn.Linear(6, 3)),
        x=WORDS, y=CLASSES[:9],
    ),
    "batches": dict(x=BATCHES, y=None),
    "texts": dict(make=Tagger, x=TEXTS, y=None),
    "texts with attention": dict(make=Texts, x=TEXTS, y=None),
}  # fmt: skip

TABLES = {"optimizers": OPTIMIZERS, "schedulers": SCHEDULERS, "losses": LOSSES, "models": MODELS}


@each_backend
@pytest.mark.parametrize("name", MODELS)
def test_models_of_every_kind_train(backend, name):
    agrees(name, "models", backend)


@needs_llvm
@pytest.mark.parametrize(
    ("table", "name"),
    [("models", "dropout"), ("models", "partly frozen"), ("models", "normalized"), ("models", "batches"),
     ("losses", "with a regulariser"), ("losses", "CrossEntropyLoss with all"), ("optimizers", "clipped by both")],
)  # fmt: skip
def test_threads_change_nothing(table, name):
    found, expected = (trained("llvm", threads=n, **TABLES[table][name]) for n in (2, 1))
    for key, xs in expected.items():
        assert found[key] == about(xs, 1e-12 if table != "optimizers" else 1e-10), key  # over 100 steps


@needs_llvm
@pytest.mark.parametrize(
    ("table", "name"), [("models", "dropout"), ("models", "normalized"), ("models", "LSTM"), ("losses", "MSELoss mean")]
)
def test_float32_is_within_its_rounding(table, name):
    agrees(name, table, "llvm", rel=1e-4, dtype="float32")


# ── Going on to the bit ──────────────────────────────────────────────────────────────────────────────────────────


def run(backend, path, epochs, dtype="float64", resume=None):
    manual_seed(7)
    model = classifier(nn.Dropout(0.3))
    optimizer = optim.Adam(model.parameters(), lr=0.05)
    trainer = Trainer(model, nn.CrossEntropyLoss(), optimizer, backend=backend, dtype=dtype)
    history = trainer.fit(
        X, CLASSES, epochs=epochs, batch_size=4, seed=3, progress=False, resume=resume, validation_data=(X, CLASSES),
        scheduler=lr_scheduler.StepLR(optimizer, 2), callbacks=[Checkpoint(path), EarlyStopping("loss", patience=9)],
    )  # fmt: skip
    return history.loss, history.val_loss, model.state_dict(), optimizer.state_dict()["state"]


@pytest.mark.parametrize(
    ("backend", "dtype"),
    [("python", "float64"), *[pytest.param("llvm", d, marks=needs_llvm) for d in ("float64", "float32")]],
)
@pytest.mark.parametrize("at", [1, 3])
def test_a_run_goes_on_to_the_bit(backend, dtype, at, tmp_path):
    path = tmp_path / "run.json"
    whole = run(backend, path, 5, dtype)
    run(backend, path, at, dtype)
    assert run(backend, path, 5, dtype, resume=path) == whole


def test_cases_differ():
    """A table whose cases all did the same would test nothing."""
    for table, cases in TABLES.items():
        found = {name: expected_of(name, table)["parameters"] for name in cases}
        alike = {(a, b) for a, b in itertools.combinations(found, 2) if found[a] == found[b]}
        by_definition = {(f"CrossEntropyLoss {r}", f"NLLLoss {r}") for r in REDUCTIONS}
        assert alike == (by_definition if table == "losses" else set())


# Sums

CANCELLING = [1e16, -1e16, 1.0, 3.0, -1.0, 1e8, -1e8, 0.1]
SUMS = {
    "sum": ops.sum,
    "a chain of additions": lambda x: functools.reduce(lambda a, b: a + b, x),
    "a chain the other way round": lambda x: functools.reduce(lambda a, b: b + a, x),
    "dot": lambda x: ops.dot(x, [2.0 ** (i % 3) for i in range(len(x))]),
    "forwards and backwards": lambda x: [ops.sum(x), ops.sum(x[::-1])],
    "rows": lambda x: [ops.dot(x, [2.0 ** (i + k) for i in range(len(x))]) for k in range(9)],
}


@each_backend
@pytest.mark.parametrize("name", SUMS)
@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 6, 7, 8])
def test_short_sums_are_added_from_left_to_right(name, n, backend):
    f, generator = SUMS[name], random.Random(n)
    compiled = compile(f, backend=backend)
    for _ in range(20):
        x = generator.choices(CANCELLING, k=n)
        assert compiled(x) == f(x)  # to the bit: a product with a power of two is exact


@pytest.mark.parametrize("name", ["sum", "a chain of additions"])
@pytest.mark.parametrize("n", [9, 13, 40])
def test_python_adds_a_long_sum_from_left_to_right_too(name, n):
    f, generator = SUMS[name], random.Random(n)
    compiled = compile(f, backend="python")
    for _ in range(20):
        x = generator.choices(CANCELLING, k=n)
        assert compiled(x) == f(x)
