"""Module and Parameter: how the numbers of a network are held, named, found, saved and restored.

A Module is a tree of modules with Parameters at its attributes. Names and behaviour are PyTorch's. No layer is
defined here, and nothing here computes.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from operator import attrgetter

from milligrad import expected
from milligrad.engine import Value, number, tracer
from milligrad.nested import Nested, Shape, flatten, is_list, shape, unflatten
from milligrad.places import warn
from milligrad.typing import Any, Self


def _refusing(name: str) -> Callable[..., Any]:
    """The method `name` of a list, as it is of one that stays as it is."""

    def method(self: _Fixed, *args: Any, **options: Any) -> Any:
        raise TypeError(self.refusal(name, *args))

    return method


class _Fixed(list[Any]):
    """A list that stays as it is.

    where:  how it is reached from the Parameter that it is a row of: "[0][2]"
    """

    __slots__ = ("where",)
    where: str

    append, clear, extend, insert = map(_refusing, ("append", "clear", "extend", "insert"))
    pop, remove, reverse, sort = map(_refusing, ("pop", "remove", "reverse", "sort"))
    __setitem__, __delitem__ = _refusing("="), _refusing("del")
    __iadd__, __imul__ = _refusing("+="), _refusing("*=")

    @classmethod
    def of(cls, f: Callable[[Any], Any], x: Nested, where: str = "") -> Self:
        """`f` of each number of the nested list `x`, nested alike."""
        nests = len(x) and is_list(x[0])
        fixed = cls([cls.of(f, row, f"{where}[{i}]") for i, row in enumerate(x)] if nests else map(f, x))
        fixed.where = where
        return fixed

    def refusal(self, name: str, *args: Any) -> str:
        """What to write instead."""
        raise NotImplementedError

    def __reduce__(self) -> tuple[Any, ...]:
        return list, (list(self),)  # a copy is a list as any other


class _Row(_Fixed):
    """Values of a Parameter: with another one in it, whoever knows them (an optimizer, compiled code) would not see."""

    __slots__ = ()

    def refusal(self, name: str, *args: Any) -> str:
        index, x = args if name == "=" and isinstance(args[0], int) else (0, "x")
        place, row = f"w{self.where}[{index}]", self[:1]
        while row and isinstance(row[0], list):
            place, row, x = f"{place}[0]", row[0], "x"
        x = number(x) if isinstance(x, Value) else x
        return (
            f"a Parameter keeps the Values it was made of, in their places ({name} would change that). To change a "
            f"number, assign to its data, {place}.data = {x!s:.20}; to change all of them, w.copy_(numbers)"
        )


class _Numbers(_Fixed):
    """The `data` or the `grad` of a Parameter: to change what is read would change a copy. It is no array, either."""

    __slots__ = ()

    __add__, __sub__, __mul__, __truediv__ = map(_refusing, "+-*/")
    __radd__, __rsub__, __rmul__, __rtruediv__ = map(_refusing, "+-*/")
    __isub__, __itruediv__, __neg__, __pow__ = map(_refusing, ("-=", "/=", "-", "**"))

    def refusal(self, name: str, *args: Any) -> str:
        return f"data and grad of a Parameter are copies, in lists, and {name} changes no Parameter: {_EACH}"


_EACH = "write `for v in model.values(): v.data -= lr * v.grad`, or parameter.copy_(numbers) to set all"


class Parameter(_Row):
    """Numbers that are learned: a nested list of Values, so that `weight[i]` is the i-th row of a matrix.

    Made from a nested list of numbers, each of which becomes a Value, or of Values, which are kept as they are, with
    their own `requires_grad`. Raises ValueError if it is ragged or holds a Value that was computed. To change a number,
    assign to the Value's data: `weight[0][1].data = 0.5`; the lists themselves stay as they are.
    """

    shape: Shape

    def __init__(self, data: Nested, requires_grad: bool = True) -> None:
        if not is_list(data):
            raise TypeError(f"data: expected a nested list of numbers or Values, such as [1.0], got {data!r:.60}")
        size = shape(data, "data")

        def leaf(x: Any) -> Value:
            if not isinstance(x, Value):
                return Value(x, requires_grad=requires_grad)
            if not x.is_leaf:
                raise ValueError(f"data: expected numbers or leaf Values, got {x!r}, which was computed from others")
            return x

        super().__init__(_Row.of(leaf, data))
        self.where, self.shape = "", size

    def values(self) -> list[Value]:
        """All its Values in one flat list, row by row."""
        return flatten(self)

    def numel(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)

    @property
    def data(self) -> Nested:
        """Its numbers: nested lists of floats, to be read."""
        return _Numbers.of(attrgetter("data"), self)

    @data.setter
    def data(self, numbers: Any) -> None:
        raise AttributeError(f"the data of a Parameter is that of its Values: {_EACH}")

    @property
    def grad(self) -> Nested:
        """The gradients of its numbers: nested lists of floats, to be read."""
        return _Numbers.of(attrgetter("grad"), self)

    @grad.setter
    def grad(self, numbers: Any) -> None:
        raise AttributeError(
            "the grad of a Parameter is that of its Values: write `parameter.zero_grad()`, or "
            "`for v in model.values(): v.grad = 0.0`"
        )

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for p in self.values():
            p.grad = 0.0

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Freeze it (False) or let it learn (True)."""
        for p in self.values():
            p.requires_grad = requires_grad
        return self

    def copy_(self, data: Nested) -> Self:
        """Take over the numbers (or the numbers of the Values) of `data`, which must have the same shape."""
        if shape(data, "data") != self.shape:
            raise ValueError(f"data: expected the shape {self.shape}, got {shape(data, 'data')}")
        numbers = [number(x, "data") for x in flatten(data)]
        for p, x in zip(self.values(), numbers):
            p.data = x
        return self

    def __hash__(self) -> int:  # type: ignore[override]  # like a Value: by identity
        return id(self)

    def __eq__(self, other: object) -> bool:
        return self is other

    def __ne__(self, other: object) -> bool:  # list has one of its own
        return self is not other

    def __reduce__(self) -> tuple[Any, ...]:
        return Parameter, (list(self),)

    def __repr__(self) -> str:
        data = repr(self.data) if self.numel() <= 100 else "\n" * (len(self.shape) > 1) + _abbreviated(self.data)
        return f"Parameter(shape={self.shape}, data={data})"


def _abbreviated(x: Nested, indent: str = "") -> str:
    """As PyTorch shows what is large: three of a kind from either end, with four digits, a line for each row."""
    if not is_list(x):
        return f"{x:.4g}"
    shown = [_abbreviated(row, f"{indent} ") for row in (x if len(x) <= 6 else [*x[:3], *x[-3:]])]
    if len(x) > 6:
        shown.insert(3, "…")
    return "[" + (f",\n{indent} " if is_list(x[0]) else ", ").join(shown) + "]"


class Module:
    """A part of a network: subclass it, make its parameters and submodules attributes, and define `forward`.

    Calling a module calls its `forward`. A subclass with an `__init__` begins it with `super().__init__()`.

    training:  whether it is in training mode: see `train`. What was compiled is compiled anew for the other mode.
    """

    training: bool

    def __init__(self) -> None:
        object.__setattr__(self, "_parameters", {})
        object.__setattr__(self, "_modules", {})
        object.__setattr__(self, "training", True)

    def forward(self, *inputs: Any, **options: Any) -> Any:
        """What the module computes; each subclass defines its own."""
        raise NotImplementedError(f"{type(self).__name__} does not define forward")

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        if trace := tracer():
            trace.modules[self] = None
        try:
            return self.forward(*inputs, **options)
        except (IndexError, TypeError, ValueError) as error:
            self._tell_layer(error)
            raise

    def _tell_layer(self, error: Exception) -> None:
        """Add to an error of a module below in which layer it was, by its path from here: "…, in layer 2 (Linear)"."""
        layer, told = vars(error).setdefault("layer", (self, error.args))
        for path, module in self.named_modules():
            if module is layer and path and len(told) == 1:
                error.args = (f"{told[0]}, in layer {path} ({type(layer).__name__})",)

    # Attributes: a Parameter or a Module is registered under its name, anything else is an ordinary attribute.

    def __setattr__(self, name: str, value: Any) -> None:
        self._set_attribute(name, value)
        _assignments[0] += 1  # afterwards: who asked in between, asks again

    def _set_attribute(self, name: str, value: Any) -> None:
        kind: type[Parameter] | type[Module]
        if isinstance(value, Parameter) or name in self.__dict__.get("_parameters", ()):
            kind, table = Parameter, self._parameters
        elif isinstance(value, Module) or name in self.__dict__.get("_modules", ()):
            kind, table = Module, self._modules
        else:
            if isinstance(value, _CONTAINERS):
                self._warn_of_hidden(name, value)
            return object.__setattr__(self, name, value)
        if not isinstance(value, kind | None):  # None: registered, and absent
            raise TypeError(f"{name}: expected a {kind.__name__} or None, got {type(value).__name__} {value!r:.60}")
        if kind is Parameter:
            self._modules.pop(name, None)
        self.__dict__.pop(name, None)
        table[name] = value
        if hasattr(type(self), name):  # `self.values = Linear(…)`, as attention is often written: not the method
            self.__dict__[name] = value
        return None

    def _warn_of_hidden(self, name: str, container: Any) -> None:
        """What stands in a plain list or dict is not found, unless it is an attribute, too: nothing would train it."""
        known: set[int] = set()
        if "_modules" in self.__dict__:
            known = {*map(id, self.modules()), *[id(parameter) for _, parameter in self.named_parameters()]}
        hidden = [x for x in _registrable(container) if id(x) not in known]
        if hidden:
            listed = "a ModuleDict" if isinstance(container, dict) else "a ModuleList"
            warn(
                f"{type(self).__name__}.{name}: {type(hidden[0]).__name__} in a plain {type(container).__name__} is "
                "not registered: parameters() and state_dict() leave it out, so it is neither trained nor saved. "
                f"Use {listed if isinstance(hidden[0], Module) else 'register_parameter for each Parameter'}",
                UserWarning,
            )

    def __getattr__(self, name: str) -> Any:
        for table in ("_parameters", "_modules"):
            if name in self.__dict__.get(table, ()):
                return self.__dict__[table][name]
        if "_modules" not in self.__dict__ and name in ("_parameters", "_modules", "training"):
            raise AttributeError(f"{type(self).__name__}.__init__ must call super().__init__() before anything else")
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __delattr__(self, name: str) -> None:
        registered = [table for table in (self._parameters, self._modules) if name in table]
        for table in registered:
            del table[name]
            self.__dict__.pop(name, None)
        if not registered:
            object.__delattr__(self, name)
        _assignments[0] += 1

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self._parameters, *self._modules})

    def register_parameter(self, name: str, parameter: Parameter | None) -> None:
        """Make `parameter` an attribute; None reserves the name for a parameter that is absent."""
        if parameter is not None and not isinstance(parameter, Parameter):
            raise TypeError(f"{name}: expected a Parameter or None, got {type(parameter).__name__}")
        self._check_name(name, self._parameters)
        self._parameters[name] = parameter
        _assignments[0] += 1

    def add_module(self, name: str, module: Module | None) -> None:
        """Make `module` an attribute, under a name that need not be an identifier."""
        if module is not None and not isinstance(module, Module):
            raise TypeError(f"{name}: expected a Module, got {type(module).__name__} {module!r:.60}")
        self._check_name(name, self._modules)
        self._modules[name] = module
        _assignments[0] += 1

    def _check_name(self, name: str, table: dict[str, Any]) -> None:
        if not isinstance(name, str) or "." in name or not name:
            raise KeyError(f"name: expected a non-empty string without dots, got {name!r}")
        if name not in table and hasattr(self, name):
            raise KeyError(f"name: {name!r} is already an attribute of {type(self).__name__}")

    # Finding. Names are paths through the attributes: "encoder.0.weight". What is shared is listed once.

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """The modules directly below this one, with their names."""
        seen: set[int] = set()
        for name, module in self._modules.items():
            if module is not None and id(module) not in seen:
                seen.add(id(module))
                yield name, module

    def children(self) -> Iterator[Module]:
        """The modules directly below this one."""
        return (module for _, module in self.named_children())

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """This module and all below it, each once, with their paths; this one's is `prefix`."""
        return self._walk(prefix, set())

    def _walk(self, prefix: str, seen: set[int]) -> Iterator[tuple[str, Module]]:
        if id(self) in seen:
            return
        seen.add(id(self))
        yield prefix, self
        for name, module in self._modules.items():
            if module is not None:
                yield from module._walk(f"{prefix}.{name}" if prefix else name, seen)

    def modules(self) -> Iterator[Module]:
        """This module and all below it, each once."""
        return (module for _, module in self.named_modules())

    def named_parameters(self, prefix: str = "", recurse: bool = True) -> Iterator[tuple[str, Parameter]]:
        """Every Parameter of this module and (`recurse`) of those below, each once, with its path."""
        seen: set[int] = set()
        for path, module in self.named_modules(prefix) if recurse else [(prefix, self)]:
            for name, parameter in module._parameters.items():
                if parameter is not None and id(parameter) not in seen:
                    seen.add(id(parameter))
                    yield f"{path}.{name}" if path else name, parameter

    def _all_names(self, prefix: str = "") -> Iterator[tuple[str, Parameter]]:
        """The same, but a shared Parameter under each of its paths: what a state_dict holds."""
        for name, parameter in self._parameters.items():
            if parameter is not None:
                yield f"{prefix}.{name}" if prefix else name, parameter
        for name, module in self._modules.items():
            if module is not None:
                yield from module._all_names(f"{prefix}.{name}" if prefix else name)

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        """Every Parameter of this module and (`recurse`) of those below, each once."""
        for module in self.modules():
            for name, x in list(vars(module).items()):
                if name not in ("_modules", "_parameters") and isinstance(x, _CONTAINERS) and _holds_modules(x):
                    module._warn_of_hidden(name, x)  # it was put there after the list had become an attribute
        return (parameter for _, parameter in self.named_parameters(recurse=recurse))

    def values(self) -> Iterator[Value]:
        """Every single number that learns or could, each once: the Values of all parameters."""
        return iter(dict.fromkeys(v for parameter in self.parameters() for v in parameter.values()))

    # Changing all of it.

    def apply(self, f: Callable[[Module], Any]) -> Self:
        """Call `f` with every module, those below first, and return this one."""
        for module in self.children():
            module.apply(f)
        f(self)
        return self

    def train(self, mode: bool = True) -> Self:
        """Set training mode (`mode`) or evaluation mode here and below: Dropout behaves differently in them."""
        if not isinstance(mode, bool):
            raise TypeError(f"mode: expected a bool, got {mode!r:.60}")
        for module in self.modules():
            if module.training is not mode:
                module.training = mode
        return self

    def eval(self) -> Self:
        """Set evaluation mode here and below."""
        return self.train(False)

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Freeze all parameters (False) or let them learn (True)."""
        for parameter in self.parameters():
            parameter.requires_grad_(requires_grad)
        return self

    def zero_grad(self) -> None:
        """Forget the gradients of all parameters."""
        for parameter in self.parameters():
            parameter.zero_grad()

    # Saving and restoring.

    def state_dict(self) -> dict[str, Nested]:
        """The numbers of every parameter under its path, as nested lists of floats (JSON can hold it)."""
        return {
            path: unflatten([p.data for p in parameter.values()], parameter.shape)
            for path, parameter in self._all_names()
        }

    def load_state_dict(self, state_dict: Mapping[str, Nested], strict: bool = True) -> None:
        """Take over the numbers of `state_dict`.

        All is checked before anything changes: missing and unexpected keys (if `strict`), wrong shapes, entries
        that are no numbers, or not finite. Raises ValueError with the whole list.
        """
        if not isinstance(state_dict, Mapping):
            raise TypeError(f"state_dict: expected a dict of nested lists, got {type(state_dict).__name__}")
        own = dict(self._all_names())
        faults = [f"missing key: {path}" for path in own if strict and path not in state_dict]
        faults += [f"unexpected key: {path}" for path in state_dict if strict and path not in own]
        common = {path: parameter for path, parameter in own.items() if path in state_dict}
        faults += [fault for path in common for fault in _misfit(path, common[path], state_dict[path])]
        if faults:
            raise ValueError(f"state_dict does not fit {type(self).__name__}:\n  " + "\n  ".join(faults))
        for path, parameter in common.items():
            parameter.copy_(state_dict[path])

    # Showing.

    def extra_repr(self) -> str:
        """What stands between the parentheses of the module's repr; a subclass may define its own."""
        return ""

    def __repr__(self) -> str:
        options = self.extra_repr()
        if not self._modules:
            return f"{type(self).__name__}({options})"
        lines = [options] * bool(options) + [f"({name}): {module!r}" for name, module in self._modules.items()]
        return f"{type(self).__name__}(" + "\n".join(["", *lines]).replace("\n", "\n  ") + "\n)"


_assignments = [0]


def assignments() -> int:
    """How many assignments to attributes of Modules there have been."""
    return _assignments[0]


_CONTAINERS = (list, tuple, dict, set, frozenset, deque)


def _registrable(container: Any) -> list[Module | Parameter]:
    """The Modules and Parameters in a plain container, at any depth."""
    found: list[Module | Parameter] = []
    seen: set[int] = set()
    waiting = [container]
    while waiting:
        x = waiting.pop()
        if id(x) not in seen:
            seen.add(id(x))
            inside = list(x.values() if isinstance(x, dict) else x)
            if any(issubclass(kind, (Module, *_CONTAINERS)) for kind in {*map(type, inside)}):  # most hold numbers
                found += [y for y in inside if isinstance(y, (Module, Parameter))]
                waiting += [y for y in inside if isinstance(y, _CONTAINERS) and not isinstance(y, Parameter)]
    return found


def _holds_modules(x: Any) -> bool:
    """Whether the first thing in a container, or in the first container in it, is registrable: told in no time."""
    for _ in range(9):
        if not x or not isinstance(x, _CONTAINERS) or isinstance(x, Parameter):
            break
        x = next(iter(x.values() if isinstance(x, dict) else x))
    return isinstance(x, Module | Parameter)


def _misfit(path: str, parameter: Parameter, data: Nested) -> Iterable[str]:
    """What keeps `data` from being the numbers of `parameter`."""
    try:
        if shape(data, path) != parameter.shape:
            yield f"wrong shape: {path} is {parameter.shape}, not {shape(data, path)}"
        else:
            expected.saved(lambda data, path: expected.array(data, parameter.shape, path), data, path)
    except (ValueError, RecursionError) as error:
        yield f"unusable: {path}: {error}"
