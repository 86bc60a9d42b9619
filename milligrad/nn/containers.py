"""Modules that hold other modules: in a row, in a list, in a dictionary."""

from __future__ import annotations

from collections.abc import ItemsView, Iterable, Iterator, KeysView, Mapping, ValuesView

from milligrad.nn.module import Module
from milligrad.typing import Any, Self


class _Indexed(Module):
    """Modules under the names "0", "1", …, with the methods of a list."""

    def __init__(self, modules: Iterable[Module] = ()) -> None:
        super().__init__()
        self.extend(modules)

    def append(self, module: Module) -> Self:
        """Add a module at the end, and return this container."""
        return self.extend([module])

    def extend(self, modules: Iterable[Module]) -> Self:
        """Add several modules at the end, and return this container."""
        for i, module in enumerate(_modules(modules), len(self)):
            self.add_module(str(i), module)
        return self

    def insert(self, index: int, module: Module) -> None:
        """Put a module before the one at `index`."""
        modules = list(self)
        modules.insert(index, module)
        modules = _modules(modules)
        self._modules.clear()
        self.extend(modules)

    def pop(self, index: int = -1) -> Any:
        """Take the module at `index` out, and return it."""
        module = self[index]
        del self[index]
        return module

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._modules.values())

    def __getitem__(self, index: int | slice) -> Any:
        modules = list(self)
        return type(self)(modules[index]) if isinstance(index, slice) else modules[index]

    def __setitem__(self, index: int, module: Module) -> None:
        name = list(self._modules)[index]
        self.add_module(name, *_modules([module]))

    def __delitem__(self, index: int | slice) -> None:
        modules = list(self)
        del modules[index]
        self._modules.clear()
        self.extend(modules)


def _modules(candidates: Iterable[Any]) -> list[Module]:
    """The candidates, once it is sure that all are modules, so that a container is changed wholly or not at all."""
    if not isinstance(candidates, Iterable):
        raise TypeError(f"modules: expected a list of Modules, got {type(candidates).__name__} {candidates!r:.60}")
    modules = list(candidates)
    for module in modules:
        if not isinstance(module, Module):
            raise TypeError(f"modules: expected Modules, got {type(module).__name__} {module!r:.60}")
    return modules


def _update(container: Module, modules: Mapping[str, Module]) -> None:
    """Add or replace several modules, once it is sure that all are modules under names that can be."""
    if not isinstance(modules, Mapping):
        raise TypeError(f"modules: expected a dict of Modules, got {type(modules).__name__} {modules!r:.60}")
    _modules(modules.values())
    for name in modules:
        container._check_name(name, container._modules)
    for name, module in modules.items():
        container.add_module(name, module)


class Sequential(_Indexed):
    """Modules in a row: the output of each is the input of the next. Takes the modules, or one dict of them by name."""

    def __init__(self, *modules: Module | Mapping[str, Module]) -> None:
        if len(modules) == 1 and isinstance(modules[0], Mapping):
            super().__init__()
            _update(self, modules[0])
        else:
            super().__init__(modules)  # type: ignore[arg-type]  # extend says what is wrong with any other type

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return Sequential(dict(list(self._modules.items())[index]))  # under their names
        return list(self)[index]

    def forward(self, input: Any) -> Any:
        """Each module of the last one's output."""
        for module in self:
            input = module(input)
        return input


class ModuleList(_Indexed):
    """A list of modules whose parameters are found. It has no forward of its own."""


class ModuleDict(Module):
    """A dictionary of modules whose parameters are found. It has no forward of its own."""

    def __init__(self, modules: Mapping[str, Module] | None = None) -> None:
        super().__init__()
        self.update({} if modules is None else modules)

    def update(self, modules: Mapping[str, Module]) -> None:
        """Add or replace several modules."""
        _update(self, modules)

    def pop(self, name: str) -> Any:
        """Take the module `name` out, and return it."""
        return self._modules.pop(name)

    def clear(self) -> None:
        """Take all modules out."""
        self._modules.clear()

    def __getitem__(self, name: str) -> Any:
        return self._modules[name]

    def __setitem__(self, name: str, module: Module) -> None:
        self.update({name: module})

    def __delitem__(self, name: str) -> None:
        del self._modules[name]

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[str]:
        return iter(self._modules)

    def __contains__(self, name: object) -> bool:
        return name in self._modules

    def keys(self) -> KeysView[str]:
        """The names."""
        return self._modules.keys()  # type: ignore[no-any-return]

    def values(self) -> ValuesView[Module]:  # type: ignore[override]
        """The modules: here it is the dictionary's. The numbers are in `parameters()`."""
        return self._modules.values()  # type: ignore[no-any-return]

    def items(self) -> ItemsView[str, Module]:
        """Names with modules."""
        return self._modules.items()  # type: ignore[no-any-return]
