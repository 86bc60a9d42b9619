"""Sequential, ModuleList and ModuleDict: what they do as containers, and what they must refuse."""

import copy

import pytest

import milligrad
from milligrad import Value, nn


def layers(n):
    return [nn.Linear(1, 1) for _ in range(n)]


def paths(module):
    return list(module.state_dict())


def same(container, modules):
    return len(container) == len(modules) and all(a is b for a, b in zip(container, modules))


class Plus(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.n = n

    def forward(self, x):
        return x * 10 + self.n


def sequential(modules):
    return nn.Sequential(*modules)


indexed = pytest.mark.parametrize("make", [sequential, nn.ModuleList])


def test_sequential_passes_on_what_each_returns():
    assert nn.Sequential(Plus(1), Plus(2), Plus(3))(0) == 123
    assert nn.Sequential()([1, 2]) == [1, 2]
    net = nn.Sequential(nn.Linear(1, 1), nn.ReLU())
    net.load_state_dict({"0.weight": [[2.0]], "0.bias": [-1.0]})
    x = Value(3.0)
    y = net([x])[0]
    y.backward()
    assert y.data == 5.0 and x.grad == 2.0 and net[0].weight.grad == [[3.0]]


def test_sequential_takes_a_dict_of_names():
    a, b = layers(2)
    net = nn.Sequential({"hidden": a, "out": b})
    assert paths(net) == ["hidden.weight", "hidden.bias", "out.weight", "out.bias"]
    assert net.hidden is net[0] is a and net[-1] is b and list(net) == [a, b]


def test_a_slice_of_a_sequential_keeps_the_names_and_shares_the_modules():
    a, b, c = layers(3)
    part = nn.Sequential({"a": a, "b": b, "c": c})[1:]
    assert type(part) is nn.Sequential and same(part, [b, c]) and paths(part)[0] == "b.weight"
    assert paths(nn.Sequential(a, b, c)[::2])[::2] == ["0.weight", "2.weight"]

    class Named(nn.Sequential):
        def __init__(self, width):
            super().__init__(*layers(width))

    assert type(Named(3)[:2]) is nn.Sequential and len(Named(3)[:2]) == 2


def test_a_slice_of_a_module_list_counts_anew():
    modules = layers(4)
    part = nn.ModuleList(modules)[1::2]
    assert type(part) is nn.ModuleList and same(part, modules[1::2])
    assert paths(part)[::2] == ["0.weight", "1.weight"]


@indexed
def test_indexing_counts_from_either_end(make):
    modules = layers(3)
    container = make(modules)
    assert same(container, modules) and list(container.children()) == modules
    for i in range(-3, 3):
        assert container[i] is modules[i]
    for i in (3, -4):
        with pytest.raises(IndexError, match="range"):
            container[i]


@indexed
def test_append_and_extend_number_on(make):
    a, b, c, d = layers(4)
    container = make([a])
    assert container.append(b) is container and container.extend([c, d]) is container
    assert same(container, [a, b, c, d]) and paths(container)[::2] == [f"{i}.weight" for i in range(4)]
    container.extend(iter(layers(2)))
    assert len(container) == 6
    container.extend(container)
    assert len(container) == 12


@indexed
def test_setting_replaces_in_place(make):
    a, b, c, d = layers(4)
    container = make([a, b, c])
    container[1], container[-1] = d, b
    assert same(container, [a, d, b]) and paths(container)[::2] == ["0.weight", "1.weight", "2.weight"]
    with pytest.raises(IndexError, match="range"):
        container[3] = a
    assert same(container, [a, d, b])


def test_setting_keeps_the_name():
    a, b, c = layers(3)
    net = nn.Sequential({"a": a, "b": b})
    net[1] = c
    assert net.b is c and list(dict(net.named_children())) == ["a", "b"]


@indexed
def test_deleting_numbers_anew(make):
    modules = layers(5)
    container = make(modules)
    del container[1]
    assert same(container, [modules[i] for i in (0, 2, 3, 4)])
    assert paths(container)[::2] == [f"{i}.weight" for i in range(4)]
    del container[-1], container[:2]
    assert same(container, [modules[3]]) and paths(container)[0] == "0.weight"
    with pytest.raises(IndexError, match="range"):
        del container[1]
    assert same(container, [modules[3]])


def test_insert_moves_the_rest_on():
    a, b, c, d = layers(4)
    container = nn.ModuleList([a, b])
    container.insert(0, c)
    container.insert(-1, d)
    assert same(container, [c, a, d, b]) and paths(container)[::2] == [f"{i}.weight" for i in range(4)]
    container.insert(100, a)
    assert container[-1] is a


@indexed
@pytest.mark.parametrize("wrong", [3, None, "a", [nn.ReLU()], nn.ReLU], ids=str)
def test_what_is_no_module_is_refused_and_nothing_changes(make, wrong):
    modules = layers(2)
    container = make(modules)
    changes = [
        lambda: make([nn.ReLU(), wrong]),
        lambda: container.append(wrong),
        lambda: container.extend([nn.ReLU(), wrong]),
        lambda: container.__setitem__(0, wrong),
    ]
    if isinstance(container, nn.ModuleList):
        changes.append(lambda: container.insert(0, wrong))
    for change in changes:
        with pytest.raises(TypeError, match=r"^modules: expected Modules, got"):
            change()
    assert same(container, modules)


@pytest.mark.parametrize("wrong", [3, nn.ReLU(), None], ids=str)
def test_a_module_list_is_made_of_a_list(wrong):
    for change in (nn.ModuleList, nn.ModuleList().extend):
        with pytest.raises(TypeError, match=r"^modules: expected a list of Modules, got"):
            change(wrong)


@pytest.mark.parametrize("name", ["a.b", "", "append", "training", 3], ids=str)
def test_names_that_cannot_be_are_refused_and_nothing_changes(name):
    a, b = layers(2)
    with pytest.raises(KeyError, match="name: "):
        nn.Sequential({"first": a, name: b})
    container = nn.ModuleDict({"first": a})
    name = "keys" if name == "append" else name
    for change in (
        lambda: nn.ModuleDict({"second": a, name: b}),
        lambda: container.update({"second": b, name: b}),
        lambda: container.__setitem__(name, b),
    ):
        with pytest.raises(KeyError, match="name: "):
            change()
    assert dict(container.items()) == {"first": a}


def test_a_module_list_has_no_forward():
    for container in (nn.ModuleList(layers(1)), nn.ModuleDict({"a": nn.ReLU()})):
        with pytest.raises(NotImplementedError, match="does not define forward"):
            container([1.0])


def test_a_module_dict_is_a_dict_of_modules():
    a, b, c, d = layers(4)
    modules = nn.ModuleDict({"a": a, "b": b})
    assert len(modules) == 2 and "a" in modules and "c" not in modules and list(modules) == ["a", "b"]
    assert list(modules.keys()) == ["a", "b"] and list(modules.values()) == [a, b]
    assert list(modules.items()) == [("a", a), ("b", b)]
    assert modules["a"] is modules.a is a
    modules["c"] = c
    modules.update({"a": d})
    assert list(modules.items()) == [("a", d), ("b", b), ("c", c)]
    assert paths(modules)[::2] == ["a.weight", "b.weight", "c.weight"]
    del modules["b"]
    assert list(modules) == ["a", "c"] and not hasattr(modules, "b")
    for use in (lambda: modules["b"], lambda: modules.__delitem__("b")):
        with pytest.raises(KeyError, match="'b'"):
            use()
    assert len(nn.ModuleDict()) == 0 and list(nn.ModuleDict({})) == []


def test_a_module_dict_refuses_what_is_no_module_or_no_dict():
    a, b = layers(2)
    modules = nn.ModuleDict({"a": a})
    for wrong in (3, None, "x"):
        for change in (
            lambda wrong=wrong: nn.ModuleDict({"a": a, "b": wrong}),
            lambda wrong=wrong: modules.update({"a": b, "b": wrong}),
            lambda wrong=wrong: modules.__setitem__("a", wrong),
        ):
            with pytest.raises(TypeError, match=r"^modules: expected Modules, got"):
                change()
    for wrong in ([("b", b)], 3, "ab"):
        for change in (nn.ModuleDict, modules.update):
            with pytest.raises(TypeError, match=r"^modules: expected a dict of Modules, got"):
                change(wrong)
    assert dict(modules.items()) == {"a": a}


def test_containers_nest_and_are_copied():
    net = nn.ModuleDict({"body": nn.ModuleList([nn.Sequential(*layers(1))]), "head": nn.Sequential(*layers(1))})
    assert paths(net)[::2] == ["body.0.0.weight", "head.0.weight"]
    other = copy.deepcopy(net)
    other["body"].append(nn.ReLU())
    other["head"][0].weight[0][0].data = 100.0
    assert len(net["body"]) == 1 and net["head"][0].weight.data != [[100.0]]


def test_the_same_module_twice_is_used_twice_and_listed_once():
    layer = nn.Linear(1, 1)
    net = nn.Sequential(layer, layer)
    net.load_state_dict({"0.weight": [[2.0]], "0.bias": [1.0], "1.weight": [[2.0]], "1.bias": [1.0]})
    y = net([3.0])[0]
    y.backward()
    assert y.data == 15.0 and len(list(net.parameters())) == 2 and len(net) == 2
    assert layer.weight.grad == [[7.0 + 2 * 3.0]] and layer.bias.grad == [1 + 2.0]


def test_the_repr_of_containers():
    assert repr(nn.Sequential()) == "Sequential()"
    assert repr(nn.ModuleList([nn.ReLU(), nn.Tanh()])) == "ModuleList(\n  (0): ReLU()\n  (1): Tanh()\n)"
    nested = nn.ModuleDict({"a": nn.Sequential(nn.ReLU())})
    assert repr(nested) == "ModuleDict(\n  (a): Sequential(\n    (0): ReLU()\n  )\n)"


def test_an_empty_container_is_still_a_module():
    milligrad.manual_seed(0)
    module = nn.Module()
    module.empty = nn.ModuleList()
    module.next = nn.Linear(1, 1)
    assert [name for name, _ in module.named_modules()] == ["", "empty", "next"] and paths(module)[0] == "next.weight"


@pytest.mark.parametrize("kind", [nn.ModuleList, lambda modules: nn.Sequential(*modules)])
def test_insert_and_pop_renumber_the_rest(kind):
    a, b, c = nn.ReLU(), nn.Tanh(), nn.Sigmoid()
    modules = kind([a, b])
    modules.insert(0, c)
    assert [*modules.named_children()] == [("0", c), ("1", a), ("2", b)]
    assert modules.pop(1) is a and modules.pop() is b
    assert [*modules.named_children()] == [("0", c)]
    with pytest.raises(TypeError, match="expected Modules, got int 3"):
        modules.insert(0, 3)
    with pytest.raises(IndexError):
        modules.pop(1)
    assert list(modules) == [c]


def test_a_module_dict_gives_back_what_it_pops_and_can_be_cleared():
    a = nn.ReLU()
    modules = nn.ModuleDict({"a": a, "b": nn.Tanh()})
    assert modules.pop("a") is a and list(modules) == ["b"]
    modules.clear()
    assert len(modules) == 0
