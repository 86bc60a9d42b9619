"""What a computation read of modules: every kind of attribute, changed in every way that changes its result."""

import math
from array import array
from collections import deque
from functools import partial
from types import MappingProxyType, SimpleNamespace

import pytest

from milligrad import Value, nn
from milligrad.nn.reads import Reads, recorded


class Slotted:
    __slots__ = ("p",)

    def __init__(self, p):
        self.p = p


class Model(nn.Module):
    """Computes a number from one attribute, by `use`."""

    def __init__(self, x, use):
        super().__init__()
        self.x, self.use, self.other, self.calls = x, use, 1.0, 0

    def forward(self):
        self.calls += 1
        return self.use(self.x)


def read(model):
    reads = Reads()
    with recorded(reads):
        model()
    return reads


def put(name, x):
    return lambda model: setattr(model.x, name, x)


class Config:
    p = 1.0


class Listed:
    """As a tensor of another library: its numbers are told by `tolist` alone."""

    __slots__ = ("_p",)

    def __init__(self, *p):
        self._p = [*p]

    p = property(lambda self: self._p)

    def tolist(self):
        return self._p


def scaled(x):
    return scaled.p * x


scaled.p = 1.0
SHARED = {"p": 1.0}


CHANGES = {
    "a number": (1.0, lambda x: x, lambda m: setattr(m, "x", 2.0)),
    "its sign at 0": (0.0, lambda x: math.copysign(1.0, x), lambda m: setattr(m, "x", -0.0)),
    "its type": (1, lambda x: x / 2 if type(x) is int else x, lambda m: setattr(m, "x", 1.0)),
    "a string": ("mean", len, lambda m: setattr(m, "x", "none!")),
    "an element of a list": ([1.0, 2.0], sum, lambda m: m.x.append(3.0)),
    "deep in a list": ([[1.0], [2]], lambda x: x[1][0], lambda m: m.x[1].__setitem__(0, 5)),
    "a value of a dict": ({"p": [1.0]}, lambda x: x["p"][0], lambda m: m.x["p"].__setitem__(0, 3.0)),
    "a member of a set": ({1}, len, lambda m: m.x.add(2)),
    "an object's attribute": (SimpleNamespace(p=1.0), lambda x: x.p, put("p", 2.0)),
    "an attribute in a slot": (Slotted(1.0), lambda x: x.p, put("p", 2.0)),
    "an object in an object": (
        SimpleNamespace(q=[SimpleNamespace(p=1.0)]), lambda x: x.q[0].p, lambda m: setattr(m.x.q[0], "p", 2.0)
    ),
    "numbers in a buffer": (array("d", [1.0, 2.0]), sum, lambda m: m.x.__setitem__(0, 7.0)),
    "another function": (abs, lambda x: x(-1.0), lambda m: setattr(m, "x", float)),
    "an argument of a partial": (partial(max, 1.0), lambda x: x(0.0), lambda m: setattr(m, "x", partial(max, 3.0))),
    "another Value": (Value(1.0), lambda x: x.data, lambda m: setattr(m, "x", Value(2.0))),
    "another Parameter": (nn.Parameter([1.0]), lambda x: x[0].data, lambda m: setattr(m, "x", nn.Parameter([2.0]))),
    "a Value in a Parameter": (
        nn.Parameter([[1.0]]), lambda x: x[0][0].data, lambda m: list.__setitem__(m.x[0], 0, Value(2.0))
    ),
    "another module": (nn.ReLU(), lambda x: x([-1.0])[0], lambda m: setattr(m, "x", nn.LeakyReLU(1.0))),
    "a module's attribute": (nn.LeakyReLU(0.5), lambda x: x([-1.0])[0], put("negative_slope", 0.25)),
    "a module in a list": (
        [nn.LeakyReLU(0.5)], lambda x: x[0]([-1.0])[0], lambda m: setattr(m.x[0], "negative_slope", 2.0)
    ),
    "an element of a deque": (deque([1.0]), sum, lambda m: m.x.append(2.0)),
    "a submodule that was added": (
        nn.Sequential(nn.LeakyReLU(1.0)), lambda x: x([-1.0])[0], lambda m: m.x.add_module("1", nn.ReLU())
    ),
    "an attribute of a class": (Config, lambda x: x.p, lambda m: setattr(Config, "p", Config.p + 1.0)),
    "an attribute of an object's class": (Config(), lambda x: x.p, lambda m: setattr(Config, "p", Config.p + 1.0)),
    "an attribute of a function": (scaled, lambda x: x.p, lambda m: setattr(scaled, "p", scaled.p + 1.0)),
    "a mapping": (
        MappingProxyType(SHARED), lambda x: x["p"], lambda m: SHARED.__setitem__("p", SHARED["p"] + 1.0)
    ),
    "what can be made a list": (Listed(1.0), lambda x: x.p[0], lambda m: m.x.p.__setitem__(0, 2.0)),
    "the mode": (nn.Dropout(1.0), lambda x: x([-1.0])[0], lambda m: m.x.eval()),
    "forward": (1.0, lambda x: x, lambda m: setattr(m, "forward", lambda: 5.0)),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*is not registered")
@pytest.mark.parametrize("name", CHANGES)
def test_what_changes_the_result_is_noticed(name):
    x, use, change = CHANGES[name]
    model = Model(x, use)
    reads, before = read(model), model()
    assert reads.hold()
    change(model)
    assert model() != before or name == "its type"
    assert not reads.hold()


def test_what_was_not_read_or_what_the_computation_itself_changes_does_not_count():
    model = Model(1.0, lambda x: x)
    reads = read(model)
    model.other = 7.0
    model.calls = 100
    assert reads.hold()
    reads.add(model, "other", 7.0)
    model.other = 8.0
    assert not reads.hold()
    reads.forget("other", [model])
    assert reads.hold()


def test_numbers_of_values_may_change_and_what_changes_back_holds():
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5))
    reads = Reads()
    with recorded(reads):
        model([[1.0, 2.0]])
    model[0].weight[0][0].data = 9.0
    assert reads.hold()
    model[1].p = 0.25
    assert not reads.hold()
    model[1].p = 0.5
    assert reads.hold()
    reads.clear()
    model[1].p = 0.1
    assert reads.hold()


def test_an_object_that_holds_itself_is_no_trouble_and_only_the_inner_of_two_records():
    model = Model([1.0], lambda x: x[0])
    model.x.append(model.x)
    assert read(model).hold()
    outer, inner = Reads(), Reads()
    with recorded(outer):
        with recorded(inner):
            model()
        assert "__getattribute__" in vars(nn.Module)
    assert "__getattribute__" not in vars(nn.Module)
    model.x[0] = 2.0
    assert outer.hold() and not inner.hold()
