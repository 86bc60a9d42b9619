"""Module and Parameter: registration, names, state, copies, and what they must refuse."""

import copy
import json
import linecache
import math
import pickle
import re
from collections import deque

import pytest

import milligrad
from milligrad import Value, nn
from milligrad.nested import elementwise, flatten, full, is_list, shape, unflatten


@pytest.fixture(autouse=True)
def seed():
    milligrad.manual_seed(0)


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(2, 3)
        self.scale = nn.Parameter([1.0])
        self.second = nn.Sequential(nn.ReLU(), nn.Linear(3, 1, bias=False))

    def forward(self, x):
        return [y * self.scale[0] for y in self.second(self.first(x))]


PATHS = ["scale", "first.weight", "first.bias", "second.1.weight"]


def names(pairs):
    return [name for name, _ in pairs]


def through_pickle(x):
    return pickle.loads(pickle.dumps(x))


# ── Parameter ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_numbers_become_values_that_learn():
    p = nn.Parameter([[1, 2.5], [True, -3]])
    assert p.shape == (2, 2) and p.numel() == 4 and p.data == [[1.0, 2.5], [1.0, -3.0]]
    assert [v.data for v in p.values()] == [1.0, 2.5, 1.0, -3.0]
    assert all(isinstance(v, Value) and v.requires_grad and v.is_leaf for v in p.values())
    assert p[1] == p.values()[2:] and p[0][1].data == 2.5
    assert nn.Parameter((1, 2)).data == [1.0, 2.0] and nn.Parameter(range(3)).shape == (3,)
    assert not any(v.requires_grad for v in nn.Parameter([1, 2], requires_grad=False).values())


def test_values_keep_their_identity():
    v, frozen = Value(2.0, name="v"), Value(3.0, requires_grad=False)
    p = nn.Parameter([[v, 1.0], [v, frozen]])
    assert p[0][0] is p[1][0] is v and p[1][1] is frozen and not frozen.requires_grad
    v.data = 5.0
    assert p.data == [[5.0, 1.0], [5.0, 3.0]]


def test_gradients_are_read_and_forgotten():
    p = nn.Parameter([[1.0, 2.0], [3.0, 4.0]])
    milligrad.sum([v * v for v in p.values()]).backward()
    assert p.grad == [[2.0, 4.0], [6.0, 8.0]]
    p.zero_grad()
    assert p.grad == [[0.0, 0.0], [0.0, 0.0]]


def test_a_frozen_parameter_gets_no_gradient():
    p = nn.Parameter([1.0, 2.0])
    assert p.requires_grad_(False) is p and not milligrad.sum(p).requires_grad
    p.requires_grad_()
    milligrad.sum(p).backward()
    assert p.grad == [1.0, 1.0]


def test_copy_takes_numbers_and_leaves_the_values_where_they_are():
    p = nn.Parameter([[1.0], [2.0]])
    values = p.values()
    assert p.copy_([[5], [Value(6.0)]]) is p
    assert p.data == [[5.0], [6.0]] and all(a is b for a, b in zip(p.values(), values))


@pytest.mark.parametrize("data", [1.0, [], [1.0, 2.0], [[1.0]], [[1.0], [2.0], [3.0]]], ids=str)
def test_copy_refuses_another_shape_and_changes_nothing(data):
    p = nn.Parameter([[1.0], [2.0]])
    with pytest.raises(ValueError, match=r"^data: expected the shape \(2, 1\), got"):
        p.copy_(data)
    assert p.data == [[1.0], [2.0]]


def test_copy_refuses_what_is_no_number_and_changes_nothing():
    p = nn.Parameter([1.0, 2.0])
    for wrong in ("a", None, 1j):
        with pytest.raises(TypeError, match=r"^data: expected a real number or a Value, got"):
            p.copy_([5.0, wrong])
    with pytest.raises(ValueError, match=r"^data is ragged"):
        p.copy_([[1.0], 2.0])
    assert p.data == [1.0, 2.0]


@pytest.mark.parametrize("data", [1.0, "abc", None, Value(1.0), {"a": 1.0}], ids=str)
def test_a_parameter_is_made_of_a_list(data):
    with pytest.raises(TypeError, match=r"^data: expected a nested list of numbers or Values, such as \[1.0\], got"):
        nn.Parameter(data)


def test_a_parameter_refuses_ragged_lists_other_types_and_computed_values():
    for ragged in ([[1.0], [1.0, 2.0]], [[1.0], 2.0], [1.0, [2.0]]):
        with pytest.raises(ValueError, match=r"^data is ragged"):
            nn.Parameter(ragged)
    for wrong in ("a", None, 1j):
        with pytest.raises(TypeError, match=r"^data: expected a real number or a Value, got"):
            nn.Parameter([1.0, wrong])
    with pytest.raises(ValueError, match=r"^data: expected numbers or leaf Values, got .*, which was computed"):
        nn.Parameter([Value(1.0) * 2])


def test_parameters_are_compared_and_hashed_by_identity():
    v = Value(1.0)
    p, q = nn.Parameter([v]), nn.Parameter([v])
    assert (p == p, p == q, p != q, p != p) == (True, False, True, False)
    assert len({p, q, p}) == 2


def assign(x, *path):
    def change(p):
        *where, last = path
        for i in where:
            p = p[i]
        p[last] = x

    return change


def remove(p):
    del p[0][0]


def add(p):
    p[0][0] += 1


def rows(change):
    """The same to the Parameter and to one of its rows."""
    return [change, lambda p: change(p[0])]


@pytest.mark.parametrize(
    "change, instead",
    [
        (assign(5, 0, 0), r"w\[0\]\[0\]\.data = 5;"),
        (assign(-0.5, 1, 0), r"w\[1\]\[0\]\.data = -0\.5;"),
        (assign(5, -1, -1), r"w\[1\]\[-1\]\.data = 5;"),
        (assign(Value(2.0), 0, 1), r"w\[0\]\[1\]\.data = 2\.0;"),
        (assign([1.0, 2.0], 1), r"w\[1\]\[0\]\.data = x;"),
        (assign([1.0, 2.0], 1, slice(0, 2)), r"w\[1\]\[0\]\.data = x;"),
        (assign([], slice(None)), r"w\[0\]\[0\]\.data = x;"),
        (add, r"w\[0\]\[0\]\.data = 2\.0;"),
        (remove, r"w\[0\]\[0\]\.data = x;"),
        *[
            (change, r"w\[0\]\[0\]\.data = x;")
            for one in [
                lambda row: row.append(Value(1.0)),
                lambda row: row.extend([Value(1.0)]),
                lambda row: row.insert(0, Value(1.0)),
                lambda row: row.pop(),
                lambda row: row.remove(row[0]),
                lambda row: row.clear(),
                lambda row: row.reverse(),
                lambda row: row.sort(key=id),
                lambda row: row.__iadd__([Value(1.0)]),
                lambda row: row.__imul__(2),
            ]
            for change in rows(one)
        ],
    ],
)
def test_a_parameter_and_its_rows_refuse_to_be_changed_and_say_what_to_write(change, instead):
    p = nn.Parameter([[1.0, 2.0], [3.0, 4.0]])
    values = p.values()
    with pytest.raises(TypeError, match=rf"^a Parameter keeps the Values .*{instead} to change all of them, w\.copy_"):
        change(p)
    assert all(a is b for a, b in zip(p.values(), values, strict=True)) and p.data == [[1.0, 2.0], [3.0, 4.0]]


def test_what_the_refusal_says_works_at_any_depth():
    for depth in range(1, 6):
        w = x = nn.Parameter(nested := unflatten(range(2**depth), (2,) * depth))
        for _ in range(depth - 1):
            x = x[1]
        with pytest.raises(TypeError) as error:
            x[1] = 50.0
        exec(re.search(r"data, (w\S+ = \S+);", str(error.value))[1])
        numbers = flatten(nested)
        assert flatten(w.data) == [*numbers[:-1], 50.0]


def test_a_row_is_read_as_any_list():
    p = nn.Parameter([[1.0, 2.0], [3.0, 4.0]])
    assert isinstance(p[0], list) and is_list(p[0]) and shape(p) == (2, 2)
    assert [v.data for v in p[0][::-1]] == [2.0, 1.0] and type(p[0][:]) is type(list(p[0])) is type(p[0] + p[1]) is list
    for duplicate in (copy.copy, copy.deepcopy, through_pickle):
        row = duplicate(p[0])
        row[0] = "anything"
        assert type(row) is list and p.data == [[1.0, 2.0], [3.0, 4.0]]
    f = milligrad.compile(lambda row: milligrad.sum(row), backend="python")
    assert f.value(p[0]).data == f([1.0, 2.0]) == 3.0


@pytest.mark.parametrize(
    "change",
    [
        lambda p: exec("p.data += 1.0", {"p": p}),
        lambda p: exec("p.data -= 0.1 * p.grad", {"p": p}),
        lambda p: exec("p.data = p.data - 0.1 * p.grad", {"p": p}),
        lambda p: exec("p.data *= 0.9", {"p": p}),
        lambda p: exec("p.data /= 2", {"p": p}),
        lambda p: exec("p.data += p.data", {"p": p}),
        lambda p: exec("p.data[0] += [1.0]", {"p": p}),
        lambda p: exec("p.data[0][0] = 5.0", {"p": p}),
        lambda p: exec("p.grad[0][0] = 0.0", {"p": p}),
        lambda p: exec("p.grad *= 0", {"p": p}),
        lambda p: exec("p.data = 1.0", {"p": p}),
        lambda p: exec("p.grad = 0", {"p": p}),
        lambda p: exec("p.grad = None", {"p": p}),
        lambda p: p.data + p.data,
        lambda p: p.data - 0.1 * p.grad,
        lambda p: 2 * p.data,
        lambda p: p.data**2,
        lambda p: -p.grad,
    ],
)
def test_data_and_grad_are_read_only_and_no_arrays_and_name_what_is(change):
    model = nn.Linear(2, 2)
    before = model.state_dict()
    with pytest.raises((TypeError, AttributeError), match=r"for v in model\.values\(\): v\.(data|grad)"):
        change(model.weight)
    assert model.state_dict() == before


def test_what_these_errors_say_is_plain_gradient_descent():
    model = Block()
    milligrad.sum(model([1.0, 2.0])).backward()
    expected = [v.data - 0.1 * v.grad for p in model.parameters() for v in p.values()]
    for v in model.values():
        v.data -= 0.1 * v.grad
        v.grad = 0.0
    assert [v.data for v in model.values()] == flatten([p.data for p in model.parameters()]) == expected
    assert not any(flatten([p.grad for p in model.parameters()]))


def test_the_values_of_a_module_are_each_once():
    module = shared()
    assert all(a is b for a, b in zip(module.values(), module.a.weight.values(), strict=True))
    v = Value(1.0)
    module.w, module.u = nn.Parameter([v, 2.0]), nn.Parameter([v])
    assert len(list(module.values())) == 6


def test_a_module_may_be_called_like_a_method():
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.keys, self.values = nn.Linear(1, 1), nn.Linear(1, 2)

    model = Attention()
    assert len(model.values([1.0])) == 2 and names(model.named_children()) == ["keys", "values"]
    assert len(list(nn.Sequential(model).values())) == 6
    copied = copy.deepcopy(model)
    assert copied.values is copied._modules["values"] is not model.values
    model.values = nn.Linear(1, 3)
    assert len(model.values([1.0])) == 3
    del model.values
    assert names(model.named_children()) == ["keys"] and len(list(model.values())) == 2


def test_a_large_parameter_is_abbreviated_as_pytorch_does():
    assert repr(nn.Parameter([float(i) for i in range(100)])).count(",") == 101
    p = nn.Parameter([[1000 * i + j / 8 for j in range(64)] for i in range(32)])
    lines = repr(p).splitlines()
    assert lines[0] == "Parameter(shape=(32, 64), data=" and len(lines) == 8 and lines[4] == " …,"
    assert lines[1] == "[[0, 0.125, 0.25, …, 7.625, 7.75, 7.875]," and lines[-1].endswith("3.101e+04]])")
    assert repr(nn.Parameter(range(1000))) == "Parameter(shape=(1000,), data=[0, 1, 2, …, 997, 998, 999])"
    deep = repr(nn.Parameter(full((9, 2, 7, 3), 1.0)))
    assert deep.count("1") == 6 * 2 * 6 * 3 and deep.count("…") == 1 + 6 * 2 and deep.count("[") == deep.count("]")


def test_the_repr_of_a_parameter_shows_shape_and_numbers():
    assert repr(nn.Parameter([[1, 2]])) == "Parameter(shape=(1, 2), data=[[1.0, 2.0]])"


# ── Attributes ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_parameters_and_modules_are_registered_under_their_names():
    block = Block()
    assert names(block.named_parameters()) == PATHS
    assert names(block.named_parameters(prefix="net")) == [f"net.{path}" for path in PATHS]
    assert names(block.named_parameters(recurse=False)) == ["scale"]
    assert list(block.parameters(recurse=False)) == [block.scale]
    assert names(block.named_modules()) == ["", "first", "second", "second.0", "second.1"]
    assert names(block.named_modules(prefix="net")) == [
        "net",
        "net.first",
        "net.second",
        "net.second.0",
        "net.second.1",
    ]
    assert names(block.named_children()) == ["first", "second"] and list(block.children()) == [
        block.first,
        block.second,
    ]
    assert [type(m).__name__ for m in block.modules()] == ["Block", "Linear", "Sequential", "ReLU", "Linear"]
    assert {"first", "scale", "second", "forward"} <= set(dir(block))


class Named(list):
    """A list of one's own kind."""


def loop():
    """A list that holds itself, and a layer."""
    layers = [nn.Linear(1, 1)]
    layers.append(layers)
    return layers


HIDDEN = [
    ([nn.Linear(1, 1)], "Linear in a plain list", "ModuleList"),
    ((nn.ReLU(), nn.Linear(1, 1)), "ReLU in a plain tuple", "ModuleList"),
    ([1, "a", None, nn.Linear(1, 1)], "Linear in a plain list", "ModuleList"),
    ({"a": nn.Linear(1, 1)}, "Linear in a plain dict", "ModuleDict"),
    ({nn.Linear(1, 1)}, "Linear in a plain set", "ModuleList"),
    ([[1.0], [[nn.Linear(1, 1)]]], "Linear in a plain list", "ModuleList"),
    ({"a": [(nn.Linear(1, 1),)]}, "Linear in a plain dict", "ModuleDict"),
    ([{"a": nn.Linear(1, 1)}], "Linear in a plain list", "ModuleList"),
    (Named([nn.Linear(1, 1)]), "Linear in a plain Named", "ModuleList"),
    (deque([nn.Linear(1, 1)], maxlen=3), "Linear in a plain deque", "ModuleList"),
    ([deque([nn.Linear(1, 1)])], "Linear in a plain list", "ModuleList"),
    (loop(), "Linear in a plain list", "ModuleList"),
    ([nn.Parameter([1.0])], "Parameter in a plain list", "register_parameter"),
    ({"w": [nn.Parameter([1.0])]}, "Parameter in a plain dict", "register_parameter"),
]


@pytest.mark.parametrize("value, what, instead", HIDDEN, ids=lambda x: x if isinstance(x, str) else "")
def test_what_a_plain_list_or_dict_hides_is_warned_of_in_the_line_that_sets_it(value, what, instead):
    module = Block()
    with pytest.warns(UserWarning) as told:
        module.layers = value
    [warning] = told
    message, line = str(warning.message), linecache.getline(warning.filename, warning.lineno)
    assert message.startswith(f"Block.layers: {what} is not registered") and instead in message
    assert (warning.filename, line.strip()) == (__file__, "module.layers = value")
    assert module.layers is value and names(module.named_parameters()) == PATHS


@pytest.mark.parametrize("fill", [
    lambda m: m.layers.append(nn.Linear(1, 1)),
    lambda m: m.layers.append([(nn.Linear(1, 1), 3)]),
    lambda m: m.table.update(a=nn.Linear(1, 1)),
    lambda m: m.layers.append(nn.Parameter([1.0])),
])  # fmt: skip
def test_what_a_list_hides_that_was_filled_later_is_warned_of_when_the_parameters_are_asked_for(fill):
    module = nn.Sequential(Block())
    module[0].layers, module[0].table = [], {}
    fill(module[0])
    with pytest.warns(
        UserWarning, match=r"^Block\.(layers|table): (Linear|Parameter) in a plain (list|dict) is not"
    ) as told:
        parameters = module.parameters()
    assert [warning.filename for warning in told] == [__file__] and len(list(parameters)) == 4


def test_a_plain_list_of_anything_else_and_of_what_is_an_attribute_is_an_ordinary_attribute():
    module = Block()
    module.sizes, module.data, module.table = [1, 2], [[1.0], [Value(2.0)]], {"a": (1, [None])}
    module.order, module.by_name = [module.second, [module.first]], {"scale": module.scale, "deep": module.second[1]}
    module.list, module.dict = nn.ModuleList([nn.ReLU()]), nn.ModuleDict({"a": nn.ReLU()})
    assert module.sizes == [1, 2] and names(module.named_parameters()) == PATHS


def test_replacing_keeps_the_place_and_forgets_the_old_one():
    block = Block()
    block.first, block.scale = nn.Linear(2, 3, bias=False), nn.Parameter([2.0])
    assert names(block.named_parameters()) == ["scale", "first.weight", "second.1.weight"]
    block.first = nn.Parameter([1.0])  # a Parameter in the place of a module
    assert names(block.named_parameters()) == ["scale", "first", "second.1.weight"]
    assert names(block.named_children()) == ["second"]
    block.width = 3
    block.width = nn.Parameter([1.0])
    assert "width" not in vars(block) and "width" in names(block.named_parameters())


def test_none_stands_for_what_is_absent():
    block = Block()
    block.scale = block.second = None
    assert block.scale is None and block.second is None
    assert names(block.named_parameters()) == ["first.weight", "first.bias"]
    assert names(block.named_modules()) == ["", "first"]
    block.scale = nn.Parameter([4.0])
    assert names(block.named_parameters()) == PATHS[:3]
    module = nn.Module()
    module.register_parameter("bias", None)
    assert module.bias is None and not list(module.parameters())


@pytest.mark.parametrize("value", [1.0, [1.0], "a", nn.ReLU()], ids=str)
def test_a_parameter_is_replaced_by_a_parameter_only(value):
    block = Block()
    with pytest.raises(TypeError, match=r"^scale: expected a Parameter or None, got"):
        block.scale = value
    assert block.scale.data == [1.0]


@pytest.mark.parametrize("value", [1.0, len, "a"], ids=str)
def test_a_module_is_replaced_by_a_module_only(value):
    block = Block()
    first = block.first
    with pytest.raises(TypeError, match=r"^first: expected a Module or None, got"):
        block.first = value
    assert block.first is first


def test_deleting_an_attribute_unregisters_it():
    block = Block()
    block.width = 1
    del block.first, block.scale, block.width
    assert names(block.named_parameters()) == ["second.1.weight"]
    for name in ("first", "scale", "width"):
        assert not hasattr(block, name)
    with pytest.raises(AttributeError, match="first"):
        del block.first


def test_a_missing_attribute_is_named():
    with pytest.raises(AttributeError, match=r"^'Block' object has no attribute 'third'"):
        _ = Block().third


def test_forgetting_super_init_is_told():
    class Parametric(nn.Module):
        def __init__(self):
            self.p = nn.Parameter([1.0])

    class Nesting(nn.Module):
        def __init__(self):
            self.child = nn.Linear(1, 1)

    class Plain(nn.Module):
        def __init__(self):
            self.width = 3

    for cls in (Parametric, Nesting):
        with pytest.raises(AttributeError, match=rf"^{cls.__name__}.__init__ must call super\(\).__init__\(\) before"):
            cls()
    uses = (nn.Module.train, nn.Module.state_dict, repr, lambda plain: plain.training, lambda plain: plain.zero_grad())
    for use in (*uses, lambda plain: list(nn.Sequential(plain).modules())):
        with pytest.raises(
            AttributeError, match=r"^Plain.__init__ must call super\(\).__init__\(\) before anything else"
        ):
            use(Plain())


def test_a_module_without_forward_says_so():
    with pytest.raises(NotImplementedError, match=r"^Module does not define forward"):
        nn.Module()([1.0])


class Own(nn.Module):
    """Layers at attributes, in a list and in a dict, which it calls in its own way."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(2, 3)
        self.blocks = nn.ModuleList([nn.Sequential(nn.ReLU(), nn.Linear(3, 3)), nn.Sequential(nn.Linear(4, 1))])
        self.heads = nn.ModuleDict({"a": nn.LayerNorm(5)})

    def forward(self, x, way="list"):
        x = self.first(x)
        if way == "dict":
            return self.heads["a"](x)
        for block in self.blocks:
            x = block(x)
        return x


LAYERS = [
    (lambda: nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(4, 1)), {}, "2 (Linear)"),
    (lambda: nn.Sequential({"in": nn.Linear(2, 3), "out": nn.Linear(4, 1)}), {}, "out (Linear)"),
    (
        lambda: nn.Sequential(nn.Sequential(nn.Linear(2, 3), nn.Sequential(nn.Tanh(), nn.Linear(4, 1)))),
        {},
        "0.1.1 (Linear)",
    ),
    (lambda: nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(4)), {}, "1 (LayerNorm)"),
    (lambda: nn.Sequential(nn.Linear(2, 3), nn.Conv2d(1, 1, 2)), {}, "1 (Conv2d)"),
    (lambda: nn.Sequential(nn.Linear(2, 3), nn.Embedding(4, 2)), {}, "1 (Embedding)"),
    (lambda: nn.Sequential(nn.Linear(2, 3), nn.GRU(4, 2)), {}, "1 (GRU)"),
    (lambda: nn.Sequential(nn.Linear(3, 3)), {}, "0 (Linear)"),
    (Own, {}, "blocks.1.0 (Linear)"),
    (Own, {"way": "dict"}, "heads.a (LayerNorm)"),
    (Own, {"wrong": 1}, None),
    (lambda: nn.Sequential(Own()), {}, "0.blocks.1.0 (Linear)"),
]


@pytest.mark.parametrize("make, options, layer", LAYERS)
def test_an_error_names_the_layer_it_was_in_by_its_path(make, options, layer):
    for x in ([1.0, 2.0], [[1.0, 2.0]] * 3):
        with pytest.raises((TypeError, ValueError)) as error:
            make()(x, **options)
        assert str(error.value).endswith(f", in layer {layer}") == (layer is not None)
        assert str(error.value).count("in layer") == (layer is not None)


def test_an_error_of_a_layer_alone_is_as_it_is_and_each_error_is_told_once():
    layer = nn.Linear(2, 1)
    with pytest.raises(ValueError, match=r"^input: expected 2 numbers \(in_features\), got 1$"):
        layer([1.0])
    model = nn.Sequential(layer)
    for _ in range(2):
        with pytest.raises(
            ValueError, match=r"^input: expected 2 numbers \(in_features\), got 1, in layer 0 \(Linear\)$"
        ):
            model([1.0])


def test_calling_passes_everything_on_to_forward():
    class Adder(nn.Module):
        def forward(self, x, y, *, scale=1):
            return (x + y) * scale

    assert Adder()(1, y=2, scale=10) == 30


@pytest.mark.parametrize("name", ["a.b", "", 3, None], ids=str)
def test_names_are_strings_without_dots(name):
    for register, what in ((nn.Module().add_module, nn.ReLU()), (nn.Module().register_parameter, nn.Parameter([1.0]))):
        with pytest.raises(KeyError, match=r"name: expected a non-empty string without dots, got"):
            register(name, what)


def test_registering_refuses_taken_names_and_other_types():
    module = Block()
    for register, what in ((module.add_module, nn.ReLU()), (module.register_parameter, nn.Parameter([1.0]))):
        for taken in ("forward", "training"):
            with pytest.raises(KeyError, match=f"name: '{taken}' is already an attribute of Block"):
                register(taken, what)
    with pytest.raises(KeyError, match="name: 'scale' is already an attribute"):
        module.add_module("scale", nn.ReLU())
    with pytest.raises(TypeError, match=r"^x: expected a Module, got int 3"):
        module.add_module("x", 3)
    with pytest.raises(TypeError, match=r"^x: expected a Parameter or None, got list"):
        module.register_parameter("x", [1.0])
    assert names(module.named_parameters()) == PATHS and len(list(module.modules())) == 5


# ── What is shared ───────────────────────────────────────────────────────────────────────────────────────────────────


def shared():
    module = nn.Module()
    module.a = nn.Linear(2, 2, bias=False)
    module.b = module.a
    module.c = nn.Linear(2, 2, bias=False)
    module.c.weight = module.a.weight
    return module


def test_what_is_shared_is_listed_once_but_saved_under_each_path():
    module = shared()
    assert names(module.named_parameters()) == ["a.weight"] and list(module.parameters()) == [module.a.weight]
    assert names(module.named_modules()) == ["", "a", "c"] and names(module.named_children()) == ["a", "c"]
    assert list(module.state_dict()) == ["a.weight", "b.weight", "c.weight"]
    module.load_state_dict(module.state_dict())
    seen = []
    module.apply(lambda m: seen.append(type(m).__name__))
    assert seen == ["Linear", "Linear", "Module"]


def test_a_cycle_of_modules_is_walked_once():
    module = nn.Module()
    module.child = nn.Module()
    module.child.again = module.child
    assert names(module.named_modules()) == ["", "child"]


# ── Changing all of it ───────────────────────────────────────────────────────────────────────────────────────────────


def test_apply_visits_those_below_first_and_returns_the_module():
    block, seen = Block(), []
    assert block.apply(lambda m: seen.append(type(m).__name__)) is block
    assert seen == ["Linear", "ReLU", "Linear", "Sequential", "Block"]


def test_train_and_eval_reach_every_module():
    block = Block()
    assert all(m.training for m in block.modules())
    assert block.eval() is block and not any(m.training for m in block.modules())
    block.second.train()
    assert [m.training for m in block.modules()] == [False, False, True, True, True]
    assert block.train() is block and all(m.training for m in block.modules())
    for wrong in (1, "eval", None):
        with pytest.raises(TypeError, match=r"^mode: expected a bool, got"):
            block.train(wrong)


def test_zero_grad_and_requires_grad_reach_every_parameter():
    block = Block()
    block.first.weight.copy_([[1.0, 1.0]] * 3)
    block.first.bias.copy_([1.0] * 3)
    block([1.0, 2.0])[0].backward()
    assert all(any(flatten(p.grad)) for p in block.parameters())
    block.zero_grad()
    assert not any(any(flatten(p.grad)) for p in block.parameters())
    assert block.requires_grad_(False) is block and not block([1.0, 2.0])[0].requires_grad
    block.first.requires_grad_()
    assert block([1.0, 2.0])[0].requires_grad and not block.scale[0].requires_grad


# ── Saving and restoring ─────────────────────────────────────────────────────────────────────────────────────────────


def test_a_state_goes_through_json_and_back():
    block, other = Block(), Block()
    assert block.state_dict() != other.state_dict() and list(block.state_dict()) == PATHS
    weight = other.first.weight
    other.load_state_dict(json.loads(json.dumps(block.state_dict())))
    assert other.state_dict() == block.state_dict() and other.first.weight is weight
    assert [y.data for y in other([1, 2])] == [y.data for y in block([1, 2])]


def test_a_state_is_a_copy():
    block = Block()
    state = block.state_dict()
    block.scale[0].data = 7.0
    state["first.bias"][0] = 100.0
    assert state["scale"] == [1.0] and block.first.bias.data[0] != 100.0


@pytest.mark.parametrize(
    "change, fault",
    [
        (lambda s: s.pop("first.bias"), r"missing key: first\.bias"),
        (lambda s: s.update(extra=[1.0]), r"unexpected key: extra"),
        (lambda s: s.update({3: [1.0]}), r"unexpected key: 3"),
        (lambda s: s.update({"first.bias": [1.0]}), r"wrong shape: first\.bias is \(3,\), not \(1,\)"),
        (lambda s: s.update({"first.bias": 1.0}), r"wrong shape: first\.bias is \(3,\), not \(\)"),
        (lambda s: s.update({"first.bias": []}), r"wrong shape: first\.bias is \(3,\), not \(0,\)"),
        (lambda s: s.update({"first.bias": None}), r"wrong shape: first\.bias is \(3,\), not \(\)"),
        (
            lambda s: s.update({"first.bias": [1.0, 2.0, "a"]}),
            r"unusable: first\.bias: .*a real number.* str 'a'",
        ),
        (lambda s: s.update({"first.bias": [1.0, 2.0, None]}), r"unusable: first\.bias: .*expected a real number"),
        (lambda s: s.update({"first.bias": [[1.0], 2.0, 3.0]}), r"unusable: first\.bias: first\.bias is ragged"),
    ],
)
def test_a_state_that_does_not_fit_changes_nothing(change, fault):
    block = Block()
    before = block.state_dict()
    state = {path: elementwise(lambda x: x + 1, x) for path, x in before.items()}
    change(state)
    with pytest.raises(ValueError, match=rf"^state_dict does not fit Block:\n  {fault}"):
        block.load_state_dict(state)
    assert block.state_dict() == before


def test_all_faults_of_a_state_are_listed_at_once():
    with pytest.raises(ValueError) as error:
        Block().load_state_dict({"scale": [1.0, 2.0], "first.weight": [["a"] * 2] * 3, "x": 1})
    assert str(error.value).splitlines()[:5] == [
        "state_dict does not fit Block:",
        "  missing key: first.bias",
        "  missing key: second.1.weight",
        "  unexpected key: x",
        "  wrong shape: scale is (1,), not (2,)",
    ]
    assert "  unusable: first.weight: " in str(error.value)


def test_without_strict_keys_may_be_missing_or_more_but_shapes_must_fit():
    block = Block()
    bias = block.first.bias.data
    block.load_state_dict({"scale": [5.0], "extra": "anything"}, strict=False)
    assert block.scale.data == [5.0] and block.first.bias.data == bias
    with pytest.raises(ValueError, match=r"wrong shape: first\.bias is \(3,\), not \(1,\)"):
        block.load_state_dict({"scale": [6.0], "first.bias": [1.0]}, strict=False)
    assert block.scale.data == [5.0]


@pytest.mark.parametrize("state", [None, [], "state", 3], ids=str)
def test_a_state_is_a_dict(state):
    with pytest.raises(TypeError, match=r"^state_dict: expected a dict of nested lists, got"):
        Block().load_state_dict(state)


# ── Copies ───────────────────────────────────────────────────────────────────────────────────────────────────────────


copies = pytest.mark.parametrize("duplicate", [copy.deepcopy, through_pickle])


@copies
def test_a_copy_of_a_module_is_independent(duplicate):
    block = nn.Sequential(nn.Linear(2, 3), nn.Dropout(0.3), nn.LayerNorm(3)).eval()
    other = duplicate(block)
    before = block.state_dict()
    assert other.state_dict() == before and repr(other) == repr(block)
    assert not any(m.training for m in other.modules())
    assert [p.shape for p in other.parameters()] == [p.shape for p in block.parameters()]
    milligrad.sum(other([1.0, 2.0])).backward()
    other[0].weight[0][0].data = 100.0
    assert block.state_dict() == before and not any(flatten([p.grad for p in block.parameters()]))
    other[0].weight = nn.Parameter([[1.0, 1.0]] * 3)
    assert block.state_dict() == before


@copies
def test_what_was_tied_stays_tied_in_a_copy(duplicate):
    other = duplicate(shared())
    assert other.a is other.b is not other.c and other.a.weight is other.c.weight
    v = Value(1.0, name="tied", requires_grad=False)
    pair = duplicate([nn.Parameter([[v, 2.0]]), nn.Parameter([v])])
    assert pair[0][0][0] is pair[1][0] is not v
    assert pair[1][0].name == "tied" and not pair[1][0].requires_grad and pair[0].shape == (1, 2)
    assert isinstance(pair[0], nn.Parameter)


# ── Showing ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_repr_is_a_tree():
    block = Block()
    assert repr(block) == (
        "Block(\n"
        "  (first): Linear(in_features=2, out_features=3, bias=True)\n"
        "  (second): Sequential(\n"
        "    (0): ReLU()\n"
        "    (1): Linear(in_features=3, out_features=1, bias=False)\n"
        "  )\n"
        ")"
    )
    block.second = None
    block.extra_repr = lambda: "width=3"
    assert repr(block).splitlines()[:4] == [
        "Block(",
        "  width=3",
        "  (first): Linear(in_features=2, out_features=3, bias=True)",
        "  (second): None",
    ]
    assert repr(nn.Module()) == "Module()"


@pytest.mark.parametrize("x", [math.inf, -math.inf, math.nan])
def test_numbers_that_are_not_finite_are_saved_as_they_are_and_not_loaded(x):
    p = nn.Module()
    p.w = nn.Parameter([[0.0, 1.0]])
    p.w[0][1].data = x
    state = p.state_dict()
    assert repr(state) == f"{{'w': [[0.0, {x}]]}}"
    p.w[0][1].data = 1.0
    with pytest.raises(ValueError, match=rf"unusable: w: w\[0\]\[1\]: expected a finite number, got {x}"):
        p.load_state_dict(state)
    assert p.w.data == [[0.0, 1.0]]


def test_modules_that_know_each_other_are_walked_once():
    parent, child = nn.Module(), nn.Linear(2, 1)
    parent.child = child
    child.parent = parent
    assert [name for name, _ in parent.named_parameters()] == ["child.weight", "child.bias"]
