"""Saved states of each kind in which one entry is wrong: a ValueError that names it, and nothing changes."""

import json
import math

import pytest

from milligrad import SGD, Adagrad, Adam, AdamW, CrossEntropyLoss, Linear, ReLU, RMSprop, Sequential, Value, manual_seed
from milligrad.optim.lr_scheduler import (
    CosineAnnealingLR,
    ExponentialLR,
    LambdaLR,
    LinearLR,
    MultiStepLR,
    OneCycleLR,
    ReduceLROnPlateau,
    StepLR,
)
from milligrad.random import generator
from milligrad.trainer import Checkpoint, EarlyStopping, Trainer


def nested(depth):
    x = []
    for _ in range(depth):
        x = [x]
    return x


def nested_dicts(depth):
    x = {}
    for _ in range(depth):
        x = {"a": x}
    return x


WRONG_IN_JSON = [None, "q", "1.0", [], [[1.0]], {}, {"a": 1.0}, math.nan, math.inf, -math.inf, 10**400, nested(99)]
WRONG = [*WRONG_IN_JSON, b"x", 1j, object(), nested(5000), nested_dicts(5000)]


def entries(state, path=()):
    """The path to each entry; of a long list to the first and the last."""
    if path:
        yield path
    if isinstance(state, dict):
        for key, x in state.items():
            yield from entries(x, (*path, key))
    elif isinstance(state, (list, tuple)):
        for i in sorted({0, len(state) - 1}) if state else ():
            yield from entries(state[i], (*path, i))


def at(state, path):
    for key in path:
        state = state[key]
    return state


def changed(state, path, change):
    """A copy of the state, in which `change` was made to what holds the entry; what is not changed is shared."""
    copy = dict(state) if isinstance(state, dict) else list(state)
    if len(path) == 1:
        change(copy, path[0])
    else:
        copy[path[0]] = changed(state[path[0]], path[1:], change)
    return copy


def broken(state, wrongs):
    """(path, what was done, the state) for each entry: each wrong thing in its place, and without it, and one more."""
    for path in entries(state):
        for wrong in [wrong for wrong in wrongs if wrong is not at(state, path)]:
            yield path, wrong, changed(state, path, lambda x, key, wrong=wrong: x.__setitem__(key, wrong))
        yield path, "missing", changed(state, path, lambda x, key: x.__delitem__(key))
        if isinstance(at(state, path), dict):
            yield path, "extra", changed(state, path, lambda x, key: x.__setitem__(key, {**x[key], "extra": 1.0}))
        if isinstance(at(state, path), list):
            yield path, "extra", changed(state, path, lambda x, key: x.__setitem__(key, [*x[key], 1.0]))


def check_all(state, load, now, also_right=lambda path, wrong: False, wrongs=WRONG):
    """Whatever is broken is a ValueError with the last name on its path, and `now()` as it was."""
    load(state)
    before, refused = now(), 0
    for path, wrong, bad in broken(state, wrongs):
        if also_right(path, wrong):
            continue
        with pytest.raises(ValueError) as error:
            load(bad)
            pytest.fail(f"accepted at {path}: {wrong!r:.60}")
        names = [key for key in path if isinstance(key, str)]
        assert not names or path in (("format",), ("run",)) or names[-1] in str(error.value), (
            path,
            f"{wrong!r:.60}",
            str(error.value),
        )
        assert now() == before, (path, f"{wrong!r:.60}")
        refused += 1
    assert refused > 10


def network():
    manual_seed(0)
    return Sequential(Linear(2, 2), ReLU(), Linear(2, 2, bias=False))


X, Y = [[0.1, 0.2], [0.3, -0.4], [-0.5, 0.6]], [0, 1, 0]


def test_a_module():
    model = network()
    check_all(model.state_dict(), model.load_state_dict, model.state_dict)


def is_optional(path, wrong):
    """A parameter may have no state yet."""
    return (path[-1] == "state" and wrong == {}) or (path[-2:-1] == ("state",) and wrong == "missing")


def is_scheduled(path, wrong):
    """An optimizer may have no scheduler."""
    return path[-1] == "initial_lr" and wrong == "missing"


def has_a_name(path, wrong):
    """A group may have entries of any other name: the user's, or an option of PyTorch's."""
    return path[-2:-1] == ("param_groups",) and wrong == "extra"


@pytest.mark.parametrize("through_json", [False, True])
@pytest.mark.parametrize(
    "kind, options",
    [
        (SGD, {}),
        (SGD, {"momentum": 0.9}),
        (Adam, {}),
        (AdamW, {"amsgrad": True}),
        (RMSprop, {"momentum": 0.5, "centered": True}),
        (Adagrad, {}),
    ],
)
def test_an_optimizer(kind, options, through_json):
    model = network()
    first, *others = model.parameters()
    optimizer = kind([{"params": [first], "name": "first"}, {"params": others, "lr": 0.3}], **options)
    ExponentialLR(optimizer, 0.5)
    for _ in range(2):
        CrossEntropyLoss()(model(X), Y).backward()
        optimizer.step()
    state = optimizer.state_dict()
    state = json.loads(json.dumps(state)) if through_json else state
    check_all(
        state,
        optimizer.load_state_dict,
        lambda: (model.state_dict(), optimizer.state_dict()),
        lambda path, wrong: (
            is_optional(path, wrong) or is_scheduled(path, wrong) or has_a_name(path, wrong) or path[-1] == "name"
        ),
    )


@pytest.mark.parametrize(
    "make",
    [
        lambda o: LambdaLR(o, lambda e: 0.5),
        lambda o: StepLR(o, 3),
        lambda o: MultiStepLR(o, [2, 4]),
        lambda o: ExponentialLR(o, 0.5),
        LinearLR,
        lambda o: CosineAnnealingLR(o, 5),
        lambda o: OneCycleLR(o, 1.0, 10),
        ReduceLROnPlateau,
    ],
)
def test_a_scheduler(make):
    optimizer = SGD([{"params": [Value(1.0)]}, {"params": [Value(2.0)]}], lr=0.5, momentum=0.5)
    scheduler = make(optimizer)
    scheduler.step(*[1.0] * isinstance(scheduler, ReduceLROnPlateau))
    check_all(
        scheduler.state_dict(),
        scheduler.load_state_dict,
        lambda: (scheduler.state_dict(), optimizer.state_dict()),
        lambda path, wrong: path == ("best",) and wrong in (math.inf, -math.inf),
    )


class Run:
    """A run that was saved, and the Trainer that is to go on with it."""

    def __init__(self, path):
        self.path = path
        self.start()
        self.fit(epochs=2)
        self.state = json.loads(path.read_text())
        self.start()

    def start(self):
        model = network()
        self.trainer = Trainer(model, CrossEntropyLoss(), SGD(model.parameters(), lr=0.1, momentum=0.9), "eager")
        self.scheduler = StepLR(self.trainer.optimizer, 2)

    def fit(self, **options):
        callbacks = [EarlyStopping("loss"), Checkpoint(self.path, best=True, monitor="loss")]
        self.trainer.fit(X, Y, seed=1, scheduler=self.scheduler, callbacks=callbacks, progress=False, **options)

    def now(self):
        parts = self.trainer.model, self.trainer.optimizer, self.scheduler
        return [part.state_dict() for part in parts], generator().getstate(), len(self.trainer.history)


def is_beside_the_point(path, wrong):
    """What a run that goes on from here may have, too: fewer epochs, other callbacks, figures that are not finite."""
    figures = path[:2] == ("run", "epochs") and len(path) == 4 and path[-1] != "epoch"
    return (
        (figures and isinstance(wrong, float))
        or (path[:2] == ("run", "epochs") and len(path) == 3 and path[-1] > 0 and wrong == "missing")
        or (
            path[:2] in (("run", "epochs"), ("run", "batch_losses"), ("run", "callbacks"))
            and len(path) == 2
            and wrong == []
        )
        or (path == ("run", "batch_losses") and wrong == "extra")
        or (path == ("run", "order") and wrong is None)
        or (path[:2] == ("run", "callbacks") and len(path) == 3 and wrong == "missing")
        or (path[:2] == ("run", "callbacks") and len(path) == 4 and path[-1] == 0 and isinstance(wrong, str))
        or (path[-1] in ("best", "best_epoch", "_numbers") and wrong is None)
        or (path[-1] == "best" and isinstance(wrong, float) and math.isinf(wrong))
        or (path == ("loss_fn",) and wrong in (None, {}))
    )


@pytest.mark.parametrize("resumed", [False, True])
def test_a_checkpoint(tmp_path, resumed):
    run = Run(tmp_path / "run.json")
    file = tmp_path / "broken.json"

    def load(state):
        file.write_text(json.dumps(state))
        if resumed:
            run.fit(epochs=2, resume=file)
        else:
            run.trainer.load(file)

    def also_right(path, wrong):
        unread = not resumed and path[0] == "run"
        optional = is_optional, is_scheduled, has_a_name, is_beside_the_point
        return unread or any(is_right(path, wrong) for is_right in optional)

    check_all(run.state, load, run.now, also_right, WRONG_IN_JSON)


def test_a_file_that_is_nested_too_deeply_is_no_checkpoint(tmp_path):
    file = tmp_path / "deep.json"
    file.write_text("[" * 100_000 + "]" * 100_000)
    with pytest.raises(ValueError, match=r"deep\.json: expected a file written by Trainer.save or Checkpoint, found"):
        Run(tmp_path / "run.json").trainer.load(file)


@pytest.mark.parametrize("make", [lambda: EarlyStopping("loss"), lambda: Checkpoint("x", best=True, monitor="loss")])
def test_a_callback(make):
    callback = make()
    callback.improved({"loss": [0.5]})
    state = {**callback.state_dict(), **({"_numbers": [1.0, 2.0]} if "_numbers" in callback.state_dict() else {})}
    check_all(
        state,
        callback.load_state_dict,
        callback.state_dict,
        lambda path, wrong: (
            wrong is None
            or (path == ("best",) and wrong in (math.inf, -math.inf))
            or (path == ("_numbers",) and wrong in ([], "extra"))  # how many there are is known in a fit
            or (path[:-1] == ("_numbers",) and wrong == "missing")
        ),
    )


def test_a_callback_of_ones_own_that_fails_is_named(tmp_path):
    class Careless(EarlyStopping):
        def load_state_dict(self, state):
            self.count = state["count"] + 1

    run = Run(tmp_path / "run.json")
    run.state["run"]["callbacks"].append(["Careless", {}])
    run.path.write_text(json.dumps(run.state))
    with pytest.raises(ValueError, match=r"^run\['callbacks'\]\[2\]: 'count'"):
        run.trainer.fit(
            X, Y, epochs=2, scheduler=run.scheduler, callbacks=[Careless("loss")], resume=run.path, progress=False
        )
