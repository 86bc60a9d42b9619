from collections import OrderedDict

import pytest
import torch

from milligrad import nn


def mlp(lib):
    return lib.Sequential(lib.Linear(2, 4), lib.ReLU(), lib.Linear(4, 1), lib.Sigmoid())


def named(lib):
    layers = {"hidden": lib.Linear(2, 4), "act": lib.Tanh(), "out": lib.Linear(4, 1, bias=False)}
    return lib.Sequential(OrderedDict(layers))  # PyTorch does not take a plain dict


def shared(lib):
    layer = lib.Linear(3, 3)
    return lib.Sequential(layer, lib.ReLU(), layer)


def nested(lib):
    return lib.ModuleDict(
        {
            "encoder": lib.ModuleList([mlp(lib), lib.LayerNorm(3)]),
            "table": lib.Embedding(5, 2, padding_idx=0),
            "head": lib.Sequential(lib.Flatten(), lib.Linear(3, 2), lib.LogSoftmax(-1)),
        }
    )


def convolutional(lib):
    return lib.Sequential(lib.Conv2d(1, 4, 3, padding=1), lib.ReLU(), lib.MaxPool2d(2), lib.AvgPool2d(2, stride=1))


def subclass(lib):
    class Block(lib.Module):
        def __init__(self):
            super().__init__()
            self.first = lib.Linear(3, 3)
            self.scale = lib.Parameter([1.0]) if lib is nn else lib.Parameter(torch.ones(1))
            self.second = mlp(lib)
            self.register_parameter("shift", None)
            self.tied = self.first

        def extra_repr(self):
            return "width=3"

    return Block()


networks = pytest.mark.parametrize("make", [mlp, named, shared, nested, convolutional, subclass])


def listed(pairs):
    """Names and types, in order."""
    return [(name, type(x).__name__) for name, x in pairs]


def edited(make, edit):
    """What `edit` makes of the network, here and in PyTorch: paths, and what is printed."""
    results = []
    for lib in (nn, torch.nn):
        network = make(lib)
        edit(network, lib)
        results.append(([path for path, _ in network.named_parameters()], list(network.state_dict()), repr(network)))
    return results


@networks
def test_names_of_modules_children_and_parameters_are_the_same(make):
    ours, theirs = make(nn), make(torch.nn)
    assert listed(ours.named_modules()) == listed(theirs.named_modules())
    assert listed(ours.named_modules(prefix="net")) == listed(theirs.named_modules(prefix="net"))
    assert listed(ours.named_children()) == listed(theirs.named_children())
    assert [type(m).__name__ for m in ours.modules()] == [type(m).__name__ for m in theirs.modules()]
    for options in ({}, {"prefix": "net"}, {"recurse": False}):
        expected = [(path, tuple(p.shape)) for path, p in theirs.named_parameters(**options)]
        assert [(path, p.shape) for path, p in ours.named_parameters(**options)] == expected
    assert len(list(ours.parameters())) == len(list(theirs.parameters()))


@networks
def test_keys_of_the_state_are_the_same(make):
    assert list(make(nn).state_dict()) == list(make(torch.nn).state_dict())


@networks
def test_the_repr_is_the_same(make):
    assert repr(make(nn)) == repr(make(torch.nn))


@networks
def test_apply_visits_in_the_same_order(make):
    orders = [], []
    for lib, order in zip((nn, torch.nn), orders):
        make(lib).apply(lambda module, order=order: order.append(type(module).__name__))
    assert orders[0] == orders[1]


def replaced_parameter(network, lib):
    network.scale = lib.Parameter([2.0, 3.0]) if lib is nn else lib.Parameter(torch.zeros(2))
    network.first.weight = network.first.weight


def replaced_module(network, lib):
    network.first = lib.Linear(3, 7, bias=False)


def parameter_for_a_module(network, lib):
    network.second = lib.Parameter([1.0]) if lib is nn else lib.Parameter(torch.ones(1))


def removed(network, lib):
    del network.scale
    del network.tied


def set_to_none(network, lib):
    network.scale = None
    network.second = None


def named_again(network, lib):
    network.shift = network.scale


def first_an_ordinary_attribute(network, lib):
    network.extra = 3
    network.extra = lib.Linear(1, 1)


@pytest.mark.parametrize(
    "edit",
    [
        replaced_parameter,
        replaced_module,
        parameter_for_a_module,
        removed,
        set_to_none,
        named_again,
        first_an_ordinary_attribute,
    ],
)
def test_attributes_that_change_leave_the_same_network(edit):
    ours, theirs = edited(subclass, edit)
    assert ours == theirs


@pytest.mark.parametrize(
    "edit",
    [
        lambda s, lib: s.append(lib.Tanh()).append(lib.Linear(1, 2)),
        lambda s, lib: s.extend([lib.Tanh(), lib.Linear(1, 2)]),
        lambda s, lib: s.__setitem__(1, lib.Linear(7, 7)),
        lambda s, lib: s.__setitem__(-1, lib.Linear(7, 7)),
        lambda s, lib: s.__delitem__(1),
        lambda s, lib: s.__delitem__(slice(0, 2)),
        lambda s, lib: s.append(s[0:2]),
        lambda s, lib: s.append(s[1:]),
    ],
)
@pytest.mark.parametrize(
    "make", [mlp, named, lambda lib: lib.ModuleList([lib.Linear(2, 4), lib.Tanh(), lib.Linear(4, 1)])]
)
def test_edited_containers_are_the_same(make, edit):
    ours, theirs = edited(make, edit)
    assert ours == theirs


@pytest.mark.parametrize("index", [0, 1, 3])
def test_insert_puts_the_module_at_the_same_place(index):
    ours, theirs = edited(
        lambda lib: lib.ModuleList([lib.Linear(2, 4), lib.Tanh(), lib.Linear(4, 1)]),
        lambda modules, lib: modules.insert(index, lib.Linear(7, 7)),
    )
    assert ours == theirs


@pytest.mark.parametrize("name, value", [("weight", [[1.0]]), ("weight", 3), ("bias", "none")])
def test_a_parameter_is_not_replaced_by_something_else_in_either(name, value):
    for lib in (nn, torch.nn):
        layer = lib.Linear(1, 1)
        for each in (value, lib.Tanh()):
            with pytest.raises(TypeError, match=name):
                setattr(layer, name, each)
        assert len(list(layer.parameters())) == 2


def test_a_module_is_not_replaced_by_something_else_in_either():
    for lib in (nn, torch.nn):
        with pytest.raises(TypeError, match="first"):
            subclass(lib).first = 3


@pytest.mark.parametrize("name", ["", "a.b", "forward", "training"])
def test_names_refused_by_one_are_refused_by_both(name):
    for lib in (nn, torch.nn):
        with pytest.raises(KeyError):
            lib.Module().add_module(name, lib.Tanh())
        with pytest.raises(KeyError):
            lib.Module().register_parameter(name, None)


@pytest.mark.parametrize("strict", [True, False])
def test_a_state_from_pytorch_is_loaded(strict):
    theirs = mlp(torch.nn).double()
    ours = mlp(nn)
    ours.load_state_dict({path: p.tolist() for path, p in theirs.state_dict().items()}, strict)
    assert ours.state_dict() == {path: p.tolist() for path, p in theirs.state_dict().items()}
    expected = theirs(torch.tensor([0.5, -2.0], dtype=torch.float64))
    assert ours([0.5, -2.0])[0].data == pytest.approx(expected.item(), rel=1e-12)
