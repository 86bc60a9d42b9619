"""Optimizer: one scalar update rule, applied to every number of every parameter.

This file knows parameters, groups, state and how to save them; it knows no rule. The rules are in `rules.py`.

    p      a number of a parameter
    g      its gradient
    state  what the rule remembers of it from step to step: a momentum, an average of g·g, …
    t      how many steps it will have made after this one: 1 in the first
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache, partial
from operator import is_

from milligrad import expected
from milligrad.engine import Value, enable_grad, number
from milligrad.nested import Nested, Shape, flatten, is_list, leaves, shape, unflatten
from milligrad.typing import Any, ClassVar, TypeAlias

Rule: TypeAlias = Callable[..., tuple[Any, ...]]  # (p, g, *state) → (p, *state)
Group: TypeAlias = dict[str, Any]
Check: TypeAlias = Callable[[Any, str], Any]  # (option, its name) → the option, or an error that says what it must be

FRESH = object()  # the state of a parameter whose rule has remembered nothing yet
SCHEDULED = ("initial_lr", "max_lr", "min_lr", "base_momentum", "max_momentum")  # what schedulers add to a group


# Checks of single options. NaN is no number here. Each raises ValueError, or TypeError for what is of another kind.


def real(x: object, name: str) -> float:
    """`x` as a float that is not NaN."""
    return _within(-math.inf, math.inf, "a number that is not NaN", x, name)


def at_least_0(x: object, name: str) -> float:
    """`x` as a float that is 0 or more."""
    return _within(0.0, math.inf, "a number that is at least 0", x, name)


def below_1(x: object, name: str) -> float:
    """`x` as a float in [0, 1)."""
    return _within(0.0, math.nextafter(1.0, 0.0), "a number that is at least 0 and below 1", x, name)


def _within(low: float, high: float, expected: str, x: object, name: str) -> float:
    z = number(x, name)
    if not low <= z <= high:
        raise ValueError(f"{name}: expected {expected}, got {z}")
    return z


def two_below_1(xs: Any, name: str) -> tuple[float, float]:
    """`xs` as two floats in [0, 1)."""
    if not is_list(xs) or len(xs) != 2:
        raise ValueError(f"{name}: expected two numbers that are at least 0 and below 1, got {xs!r:.60}")
    return below_1(xs[0], f"{name}[0]"), below_1(xs[1], f"{name}[1]")


def flag(x: object, name: str) -> bool:
    """`x` as True or False."""
    if is_list(x) or x not in (True, False):
        raise TypeError(f"{name}: expected True or False, got {type(x).__name__} {x!r:.60}")
    return bool(x)


def _check_finite(x: Any, name: str) -> None:
    for path, z in leaves(x, name):
        expected.finite(z, path)


def _check_indices(start: int, n: int, xs: Any, name: str) -> None:
    if not is_list(xs) or list(xs) != list(range(start, start + n)):
        raise ValueError(f"{name}: expected a list of {n} indices, got {xs!r:.60}: they count on from {start}")


class Slot:
    """A parameter as the optimizer sees it: its Values in one flat list, and what is remembered of them.

    The Values are found once, when the parameter is handed over. Changing `value.data` later is seen, putting
    another Value into the parameter's list is not.
    """

    __slots__ = ("shape", "state", "step", "values")

    def __init__(self, parameter: Nested, name: str) -> None:
        for path, v in leaves(parameter, name):
            if not isinstance(v, Value):
                raise TypeError(f"{path}: expected a Value or a list of Values, got {type(v).__name__} {v!r:.60}")
            if not v.is_leaf:
                raise ValueError(f"{path}: expected a Value that was not computed from others, got {v!r}")
        self.values: list[Value] = flatten(parameter)
        self.shape: Shape = shape(parameter, name)
        self.step = 0
        self.state: dict[str, list[float]] = {}

    def columns(self, initial: Mapping[str, float]) -> list[list[float]]:
        """The numbers, and a list of each state of `initial`; what has no state yet starts from there."""
        n = len(self.values)
        return [[v.data for v in self.values], *[self.state.get(name) or [x] * n for name, x in initial.items()]]

    def updated(self, rule: Rule, initial: Mapping[str, float]) -> list[list[float]]:
        """The columns after a step by `rule`; frozen Values have the numbers they had. Changes nothing."""
        old = self.columns(initial)
        columns = [old[0], [v.grad for v in self.values], *old[1:]]
        if all([v.requires_grad for v in self.values]):
            return _transposed(map(rule, *columns), len(old))
        rows = zip(self.values, *columns)
        return _transposed((rule(p, g, *s) if v.requires_grad else (p, *s) for v, p, g, *s in rows), len(old))

    def write(self, numbers: list[float], state: dict[str, list[float]]) -> None:
        """Take the numbers and the state after a step."""
        for v, x in zip(self.values, numbers):
            v.data = x
        if state:  # without one nothing counts steps: a momentum turned on later starts afresh
            self.step += 1
            self.state.update(state)

    def saved(self) -> dict[str, Any]:
        """The state as plain numbers, nested as the parameter is."""
        return {"step": self.step, **{name: unflatten(xs, self.shape) for name, xs in self.state.items()}}

    def checked(self, saved: Any, initial: Mapping[str, float], name: str) -> tuple[int, dict[str, list[float]]]:
        """`saved` as (step, state), after a check that it fits this parameter. Changes nothing."""
        if saved is FRESH:
            return 0, {}
        if not isinstance(saved, dict) or not {"step", *initial} <= saved.keys():
            raise ValueError(f"{name}: expected a dict of {', '.join(['step', *initial])}, got {_keys(saved)}")
        step = expected.saved(at_least_0, saved["step"], f"{name}['step']")
        if step % 1 != 0:
            raise ValueError(f"{name}['step']: expected a whole number, got {step}")
        columns = {key: (xs, f"{name}[{key!r:.60}]") for key, xs in saved.items() if key != "step"}
        return int(step), {key: expected.saved(self._column, *column) for key, column in columns.items()}

    def _column(self, xs: Nested, name: str) -> list[float]:
        return expected.array(xs, self.shape, name)


class Optimizer:
    """Changes parameters, a step at a time, so that a loss becomes smaller.

    params:    an iterable of parameters, each a Value or a nested list of Values; or an iterable of dicts, one for
               each group: `{"params": [...], "lr": 0.1}`, where options that are left out are those of `defaults`.
    defaults:  the options of the rule, by name.

    A subclass is an update rule: `options`, how each option is checked; `initial_state`, what the rule remembers of
    a number and from what it starts; and `rule` itself. `rule` is plain arithmetic, so that it can be traced once
    and looped over all parameters, with `t` and `lr` as inputs.

    Many single Values take less time as one parameter, a list of them: `SGD([values])`.

    A Value with requires_grad=False is left alone: neither its number nor its state changes. Every other Value is
    updated in every step: a gradient is 0.0 before any backward, never None, and a rule with momentum or weight
    decay moves a parameter of gradient 0, too.

    Raises ValueError for no parameters, a Value that occurs twice or that was computed from others, and an option
    out of its range; TypeError for what is neither a Value nor a nested list of them.
    """

    options: ClassVar[dict[str, Check]]
    squares: ClassVar[frozenset[str]] = frozenset()  # names in the state of what adds squares up: none is below 0
    resumed: list[Group] | None = None  # [] when loaded, then the groups as they were before a scheduler was made

    @staticmethod
    def initial_state(*args: Any, **options: Any) -> dict[str, float]:
        """The names of the state, in the rule's order, and what each starts from."""
        raise NotImplementedError

    @staticmethod
    def rule(*args: Any, **options: Any) -> Rule:
        """`rule(t, **options)` is the function (p, g, *state) → (p, *state) of step t."""
        raise NotImplementedError

    @staticmethod
    def check_together(options: Group, where: str) -> None:
        """Raise ValueError for options that are right one by one, but not together."""

    def __init__(self, params: Iterable[Any], defaults: Mapping[str, Any]) -> None:
        if isinstance(params, (Value, dict)):
            raise TypeError(f"params: expected an iterable of parameters or of dicts, got {type(params).__name__}")
        given = _as_list(params)
        if not given:
            raise ValueError("params: expected at least one parameter, got an empty list")
        self.defaults = self._checked(defaults)
        self.param_groups: list[Group] = []
        self.slots: list[list[Slot]] = []  # a list for each group, a Slot for each of its parameters
        self._given: list[list[Any]] = []  # the parameters that the slots were made of
        if isinstance(given[0], dict):
            for group in given:
                self.add_param_group(group)
        else:
            self._add({"params": given}, "")

    def add_param_group(self, param_group: Mapping[str, Any]) -> None:
        """Optimize the parameters `param_group["params"]` too, with its options, or else the defaults."""
        if not isinstance(param_group, dict):
            raise TypeError(f"param_group: expected a dict, got {type(param_group).__name__} {param_group!r:.60}")
        if "params" not in param_group:
            raise ValueError(f"param_group: expected a dict with 'params', got {_keys(param_group)}")
        self._add(param_group, f"param_groups[{len(self.param_groups)}]")

    def _add(self, group: Group, where: str) -> None:
        """Add a group, which errors call `where`; "" if the user made none."""
        params = _as_list(group["params"])
        slots = [Slot(p, f"{where}.params[{j}]".lstrip(".")) for j, p in enumerate(params)]
        self._check_that_each_occurs_once([*self.slots, slots])
        checked = self._checked({**self.defaults, **group}, where)
        self.param_groups.append({**group, **checked, "params": params})
        self.slots.append(slots)
        self._given.append(params[:])

    def _checked(self, options: Mapping[str, Any], where: str = "") -> Group:
        """The options of the rule, each as the type it should have."""
        named = {name: f"{where}[{name!r}]" if where else name for name in self.options}
        checked = {name: check(options[name], named[name]) for name, check in self.options.items()}
        self.check_together(checked, f"{where}: " if where else "")
        return checked

    @staticmethod
    def _check_that_each_occurs_once(groups: list[list[Slot]]) -> None:
        seen: set[Value] = set()
        for slot in [slot for slots in groups for slot in slots]:
            if not seen.isdisjoint(slot.values) or len(set(slot.values)) < len(slot.values):
                raise ValueError("params: expected each Value once, but some occur in more than one place")
            seen.update(slot.values)

    def zero_grad(self) -> None:
        """Set the gradient of every Value to 0.0."""
        for slots in self.slots:
            for slot in slots:
                for v in slot.values:
                    v.grad = 0.0

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Apply the rule to every parameter, once. Returns what `closure` returns, or None without one.

        `closure` is called first: it clears the gradients, computes the loss and calls its backward. All new
        numbers are computed before any is written, so a failure leaves everything as it was. Raises what Python's
        arithmetic raises where a number stops making sense.
        """
        loss = None
        if closure is not None:
            with enable_grad():
                loss = closure()
        updates = [update for group, slots in self._pairs() for update in self._updates(group, slots)]
        for slot, numbers, state in updates:
            slot.write(numbers, state)
        return loss

    def _pairs(self) -> Iterable[tuple[Group, list[Slot]]]:
        """Each group, which may be another dict than it was, with its slots. Other parameters in it are refused."""
        if len(self.param_groups) != len(self.slots):
            raise ValueError(
                f"param_groups: expected the {len(self.slots)} groups that add_param_group made, "
                f"got {len(self.param_groups)}"
            )
        for i, (group, given) in enumerate(zip(self.param_groups, self._given)):
            if not {"params", *self.options} <= group.keys():
                wanted = ", ".join(["params", *self.options])
                raise ValueError(f"param_groups[{i}]: expected a dict of {wanted}, got {_keys(group)}")
            params = group["params"]
            if not is_list(params) or len(params) != len(given) or not all(map(is_, params, given)):
                raise ValueError(
                    f"param_groups[{i}]['params']: expected the parameters that the group was made with; "
                    "for others, use add_param_group or make a new optimizer"
                )
        return zip(self.param_groups, self.slots)

    def _updates(self, group: Group, slots: list[Slot]) -> Iterator[tuple[Slot, list[float], dict[str, list[float]]]]:
        """The next numbers and state of each parameter of a group, but for those that are frozen altogether."""
        options = self._options(group)
        initial = self.initial_state(**options)
        rule = cache(lambda t: self.rule(t, **options))  # most often, all parameters have made equally many steps
        for slot in slots:
            if any(v.requires_grad for v in slot.values):
                try:
                    numbers, *states = slot.updated(rule(slot.step + 1), initial)
                except (ValueError, ArithmeticError) as error:
                    error.add_note(f"in step {slot.step + 1} of {self!r}, which changed nothing")
                    raise
                yield slot, numbers, dict(zip(initial, states))

    def _options(self, group: Group) -> Group:
        """What of a group the rule is told: not its parameters, nor a name that the user gave it."""
        return {name: group[name] for name in self.options}

    def state_dict(self) -> dict[str, Any]:
        """All that is needed to go on later, to the bit: plain dicts, lists and numbers, fit for JSON.

        `param_groups` has the options of each group, with indices in the place of the parameters; `state` has, for
        each index, the number of steps and the state under PyTorch's names, nested as the parameter is. A parameter
        whose rule has remembered nothing yet is left out.
        """
        state, groups, start = {}, [], 0
        for group, slots in self._pairs():
            state.update({i: slot.saved() for i, slot in enumerate(slots, start) if slot.state})
            groups.append({**group, "params": list(range(start, start + len(slots)))})
            start += len(slots)
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned, here or in another process (through JSON, if you like).

        The optimizer has the same parameters in the same groups. Raises ValueError if number, size or names do not
        fit, and then changes nothing.
        """
        if not isinstance(state_dict, dict) or state_dict.keys() != {"state", "param_groups"}:
            raise ValueError(f"state_dict: expected a dict of state and param_groups, got {_keys(state_dict)}")
        saved_groups, saved_state = state_dict["param_groups"], state_dict["state"]
        groups = self._checked_groups(saved_groups)
        states = self._checked_states(saved_groups, groups, saved_state)
        self.param_groups[:] = groups
        self.resumed = []
        for slot, (step, state) in states:
            slot.step, slot.state = step, state

    def _checked_groups(self, saved: Any) -> list[Group]:
        if not is_list(saved) or len(saved) != len(self.param_groups):
            got = f"{len(saved)} groups" if is_list(saved) else f"{type(saved).__name__}"
            raise ValueError(f"param_groups: expected a list of {len(self.param_groups)} groups, got {got}")
        groups: list[Group] = []
        start = 0
        for i, (new, group) in enumerate(zip(saved, self.param_groups)):
            groups.append(self._checked_group(new, group, start, f"param_groups[{i}]"))
            start += len(group["params"])
        return groups

    def _checked_group(self, saved: Any, group: Group, start: int, name: str) -> Group:
        if not isinstance(saved, dict) or not {"params", *self.options} <= saved.keys():
            wanted = ", ".join(["params", *self.options])
            raise ValueError(f"{name}: expected a dict of {wanted}, got {_keys(saved)}")
        expected.saved(partial(_check_indices, start, len(group["params"])), saved["params"], f"{name}['params']")
        lr = expected.saved(real, saved["lr"], f"{name}['lr']")  # schedules may lead it below 0, where none starts
        for key, x in saved.items():
            if key in self.options or key in SCHEDULED:
                check = _check_finite if key in self.options else expected.finite
                expected.saved(check, x, f"{name}[{key!r}]")
        checked = expected.saved(self._checked, {**saved, "lr": max(lr, 0.0)}, name)
        return {**saved, **checked, "lr": lr, "params": group["params"]}

    def _checked_states(
        self, saved_groups: Any, groups: list[Group], saved: Any
    ) -> list[tuple[Slot, tuple[int, dict[str, list[float]]]]]:
        """Each Slot with its next step and state. JSON makes strings of the indices: both are welcome."""
        if not isinstance(saved, dict):
            raise ValueError(f"state: expected a dict by parameter index, got {type(saved).__name__}")
        remaining = {str(i): state for i, state in saved.items()}
        states = []
        for saved_group, group, slots in zip(saved_groups, groups, self.slots):
            initial = self.initial_state(**self._options(group))
            for i, slot in zip(saved_group["params"], slots):
                state = remaining.pop(str(i), FRESH)
                step, columns = slot.checked(state, initial, f"state[{i}]")
                for name in self.squares & columns.keys():
                    for x in columns[name]:
                        expected.saved(at_least_0, x, f"state[{i}][{name!r}]")
                states.append((slot, (step, columns)))
        if remaining:
            raise ValueError(f"state: expected indices that param_groups lists, got also {', '.join(remaining)}")
        return states

    def __repr__(self) -> str:
        lines = [
            f"  group {i}: {len(slots)} parameters, {sum(len(slot.values) for slot in slots)} Values, "
            + ", ".join(f"{name}={x!r}" for name, x in group.items() if name != "params")
            for i, (group, slots) in enumerate(self._pairs())
        ]
        return "\n".join([f"{type(self).__name__}(", *lines, ")"])


def _transposed(rows: Iterable[tuple[Any, ...]], width: int) -> list[list[Any]]:
    """The columns of `rows`. A single one is unpacked row by row: plain SGD takes a quarter more without."""
    if width == 1:
        return [[x for (x,) in rows]]
    columns = list(map(list, zip(*rows, strict=True)))
    if len(columns) != width:
        raise ValueError(f"rule: expected {width} numbers in return, p and its state, got {len(columns)}")
    return columns


def _as_list(params: Any) -> list[Any]:
    """The parameters of one group in a list; a single Value is one, too."""
    if isinstance(params, Value):
        return [params]
    if isinstance(params, (set, frozenset, str)) or not isinstance(params, Iterable):
        raise TypeError(f"params: expected an iterable of parameters in a fixed order, got {type(params).__name__}")
    return list(params)


def _keys(x: object) -> str:
    return f"a dict of {', '.join(map(str, x)) or 'nothing'}" if isinstance(x, dict) else type(x).__name__
