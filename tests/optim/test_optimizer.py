"""Parameters, groups, state, and what goes wrong: everything of an optimizer but its rule."""

import copy
import functools
import json
import math
import random

import pytest

from milligrad import Value
from milligrad.nested import elementwise, flatten
from milligrad.optim import SGD, Adagrad, Adam, AdamW, Optimizer, RMSprop

KINDS = [
    (SGD, {}),
    (SGD, {"lr": 0.1, "momentum": 0.9, "dampening": 0.5}),
    (Adam, {"lr": 0.1, "amsgrad": True}),
    (AdamW, {"lr": 0.1}),
    (RMSprop, {"lr": 0.1, "momentum": 0.9, "centered": True}),
    (Adagrad, {"lr": 0.1, "lr_decay": 0.1}),
]
NUMBERS = [[[1.0, -2.0], [3.0, 0.5]], [0.0, 0.1], 4.0]


def parameters():
    return [elementwise(Value, numbers) for numbers in NUMBERS]


def numbers(params):
    return [v.data for v in flatten_all(params)]


def flatten_all(params):
    return [v for p in params for v in flatten(p)]


def give_gradients(params, seed):
    rng = random.Random(seed)
    for v in flatten_all(params):
        v.grad = rng.gauss(0, 1)


def train(optimizer, params, steps, seed=0):
    for i in range(steps):
        give_gradients(params, seed + i)
        optimizer.step()


class Halve(Optimizer):
    """A rule of our own: half of p at each step, and 1/p is remembered."""

    options = {}  # noqa: RUF012

    @staticmethod
    def initial_state():
        return {"inverse": 0.0}

    @staticmethod
    def rule(t):
        return lambda p, g, inverse: (p / 2, 1 / p)


# ── Parameters and groups ────────────────────────────────────────────────────────────────────────────────────────


def test_parameters_are_values_and_nested_lists_of_any_depth_or_a_generator_of_them():
    params = [Value(1.0), [Value(2.0)], [[Value(3.0), Value(4.0)]], [[[Value(5.0)]]], (Value(6.0),)]
    for v in flatten_all(params):
        v.grad = 1.0
    SGD((p for p in params), lr=0.5).step()
    assert numbers(params) == [0.5, 1.5, 2.5, 3.5, 4.5, 5.5]


def test_a_subclass_of_list_is_a_parameter():
    class Parameter(list):
        shape = (2,)

    p = Parameter([Value(1.0), Value(2.0)])
    p[1].grad = 1.0
    optimizer = SGD([p], lr=1.0)
    optimizer.step()
    assert numbers([p]) == [1.0, 1.0] and optimizer.param_groups[0]["params"][0] is p


def test_a_group_has_the_defaults_unless_it_has_its_own_options_and_keeps_what_else_it_is_given():
    a, b = Value(1.0), Value(2.0)
    optimizer = SGD([{"params": [a], "lr": 0.5, "name": "first"}, {"params": b}], lr=0.1, momentum=0.9)
    first, second = optimizer.param_groups
    assert (first["lr"], first["momentum"], first["name"]) == (0.5, 0.9, "first")
    assert (second["lr"], second["momentum"], second["params"]) == (0.1, 0.9, [b])
    assert optimizer.defaults["lr"] == 0.1


def test_the_dict_of_a_group_is_copied_and_its_options_are_live():
    v = Value(1.0)
    given = {"params": [v]}
    optimizer = SGD([given], lr=0.1)
    assert given == {"params": [v]}
    optimizer.param_groups[0]["lr"] = 0.25
    v.grad = 1.0
    optimizer.step()
    assert v.data == 0.75


def test_options_enter_as_floats_and_flags():
    group = SGD([Value(1.0)], lr=1, momentum=True, dampening=0, nesterov=1).param_groups[0]
    assert [type(group[name]) for name in ("lr", "momentum", "dampening", "nesterov")] == [float, float, float, bool]
    assert Adam([Value(1.0)], betas=[0, 0.5]).param_groups[0]["betas"] == (0.0, 0.5)


@pytest.mark.parametrize("params, error, message", [
    ([], ValueError, "params: expected at least one parameter, got an empty list"),
    (Value(1.0), TypeError, "params: expected an iterable of parameters or of dicts, got Value"),
    ({"params": []}, TypeError, "got dict"),
    (3, TypeError, "got int"),
    (None, TypeError, "got NoneType"),
    ("weights", TypeError, "got str"),
    ({Value(1.0)}, TypeError, "in a fixed order, got set"),
    ([{"params": {Value(1.0)}}], TypeError, "in a fixed order, got set"),
    ([1.0], TypeError, r"^params\[0\]: expected a Value or a list of Values, got float 1.0"),
    ([Value(1.0), [[Value(1.0), None]]], TypeError, r"params\[1\]\[0\]\[1\]: expected .*, got NoneType"),
    ([("weight", [Value(1.0)])], TypeError, r"params\[0\]\[0\]: expected .*, got str 'weight'"),
    ([Value(1.0) * 2], ValueError, r"params\[0\]: expected a Value that was not computed"),
    ([[Value(1.0), [Value(1.0)]]], ValueError, "ragged"),
    ([{"lr": 0.1}], ValueError, "expected a dict with 'params', got a dict of lr"),
    ([{"params": [Value(1.0)]}, Value(2.0)], TypeError, "param_group: expected a dict, got Value"),
    ([Value(1.0), {"params": [Value(2.0)]}], TypeError, r"params\[1\]: expected .*, got dict"),
    ([{"params": [3]}], TypeError, r"^param_groups\[0\].params\[0\]: expected"),
    ([{"params": [Value(1.0)], "lr": -1}], ValueError, r"^param_groups\[0\]\['lr'\]: expected"),
    ([{"params": [Value(1.0)]}, {"params": [3]}], TypeError, r"param_groups\[1\].params\[0\]: expected"),
    ([{"params": [Value(1.0)]}, {"params": [Value(1.0)], "lr": -1}], ValueError, r"param_groups\[1\]\['lr'\]: exp"),
])  # fmt: skip
def test_what_is_no_parameter_is_refused(params, error, message):
    with pytest.raises(error, match=message):
        SGD(params)


def test_a_value_that_occurs_twice_is_refused_wherever_it_is():
    v, w = Value(1.0), Value(2.0)
    for params in [v, v], [[v, w, v]], [[v, w], w], [{"params": [v]}, {"params": [[w, v]]}]:
        with pytest.raises(ValueError, match="each Value once"):
            SGD(params)
    optimizer = SGD([[v]])
    with pytest.raises(ValueError, match="each Value once"):
        optimizer.add_param_group({"params": [v]})
    assert len(optimizer.param_groups) == len(optimizer.slots) == 1


def test_a_group_that_is_refused_leaves_the_optimizer_as_it_was():
    optimizer = SGD([Value(1.0)])
    for wrong in {"params": [2.0]}, {"params": [Value(1.0)], "momentum": math.nan}, {}, [Value(1.0)]:
        before = repr(optimizer)
        with pytest.raises((TypeError, ValueError)):
            optimizer.add_param_group(wrong)
        assert repr(optimizer) == before and len(optimizer.slots) == 1


# ── Steps ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_zero_grad_forgets_every_gradient_also_of_frozen_values():
    params = parameters()
    give_gradients(params, 0)
    params[2].requires_grad = False
    SGD(params).zero_grad()
    assert {v.grad for v in flatten_all(params)} == {0.0}


def test_step_returns_what_the_closure_returns_and_calls_it_first_with_gradients_on():
    from milligrad import no_grad

    v = Value(3.0)
    optimizer = SGD([v], lr=0.5)
    assert optimizer.step() is None and v.data == 3.0

    def closure():
        optimizer.zero_grad()
        loss = v * v
        loss.backward()
        return loss

    with no_grad():
        assert optimizer.step(closure).data == 9.0
    assert v.data == 0.0


def test_a_rule_of_ones_own_is_an_optimizer():
    params = parameters()[:1]
    optimizer = Halve(params, {})
    train(optimizer, params, 2)
    assert numbers(params) == [0.25, -0.5, 0.75, 0.125]
    assert optimizer.state_dict()["state"] == {0: {"step": 2, "inverse": [[2.0, -1.0], [2 / 3, 4.0]]}}


def test_a_step_that_fails_says_where_and_changes_nothing_even_in_the_parameters_before():
    params = parameters()
    params[1][0].data = 1.0
    optimizer = Halve([{"params": params[:2]}, {"params": params[2:]}], {})
    train(optimizer, params, 1)
    params[2].data = 0.0
    before, state = numbers(params), optimizer.state_dict()
    with pytest.raises(ZeroDivisionError) as caught:
        optimizer.step()
    assert "in step 2 of Halve(" in caught.value.__notes__[0]
    assert numbers(params) == before and optimizer.state_dict() == state


@pytest.mark.parametrize("rule", [lambda p, g, inverse: (p,), lambda p, g, inverse: (p, p, p)])
def test_a_rule_returns_p_and_its_state(rule):
    class Wrong(Halve):
        pass

    Wrong.rule = staticmethod(lambda t: rule)
    params = parameters()
    with pytest.raises(ValueError, match=r"rule: expected 2 numbers in return, p and its state, got [13]"):
        Wrong(params, {}).step()
    assert numbers(params) == flatten_all(NUMBERS)


def test_a_closure_that_fails_changes_nothing():
    params = parameters()
    optimizer = SGD(params, momentum=0.9)
    give_gradients(params, 0)
    with pytest.raises(KeyError):
        optimizer.step(lambda: {}["loss"])
    assert numbers(params) == flatten_all(NUMBERS) and optimizer.state_dict()["state"] == {}


@pytest.mark.parametrize("kind, options", KINDS)
def test_frozen_values_are_left_alone_and_the_others_do_not_notice(kind, options):
    params, alone = parameters(), parameters()
    frozen = [params[0][0][1], params[1][0], params[1][1]]
    optimizer, reference = kind(params, **options), kind(alone, **options)
    train(optimizer, params, 3)
    train(reference, alone, 3)
    before, state = [v.data for v in frozen], optimizer.state_dict()["state"]
    for v in frozen:
        v.requires_grad = False
    train(optimizer, params, 3, seed=9)
    train(reference, alone, 3, seed=9)
    assert [v.data for v in frozen] == before
    moving = [(v, w) for v, w in zip(flatten_all(params), flatten_all(alone)) if v.requires_grad]
    assert [v.data for v, _ in moving] == [w.data for _, w in moving]
    for name, xs in optimizer.state_dict()["state"].get(0, {}).items():
        assert name == "step" or xs[0][1] == state[0][name][0][1]
    if state:
        assert optimizer.state_dict()["state"][1] == state[1]


def test_values_frozen_from_the_start_have_no_state_until_they_move():
    params = parameters()
    params[0][0][0].requires_grad = params[2].requires_grad = False
    optimizer = Adagrad(params, initial_accumulator_value=0.5)
    train(optimizer, params, 2)
    assert params[0][0][0].data == 1.0 and params[2].data == 4.0
    state = optimizer.state_dict()["state"]
    assert state.keys() == {0, 1} and state[0]["sum"][0][0] == 0.5
    params[2].requires_grad = True
    train(optimizer, params, 1)
    state = optimizer.state_dict()["state"]
    assert (state[0]["step"], state[2]["step"]) == (3, 1)


def test_values_frozen_altogether_make_a_step_that_does_nothing():
    params = parameters()
    for v in flatten_all(params):
        v.requires_grad = False
    optimizer = Adam(params)
    train(optimizer, params, 2)
    assert numbers(params) == flatten_all(NUMBERS) and optimizer.state_dict()["state"] == {}


def test_a_thousand_single_values_move_as_one_list_of_them():
    separate, together = [Value(float(i)) for i in range(1000)], [Value(float(i)) for i in range(1000)]
    first, second = Adam(separate), Adam([together])
    for optimizer, values in (first, separate), (second, together):
        train(optimizer, [values], 3)
    assert numbers(separate) == numbers(together)
    assert second.state_dict()["state"][0]["exp_avg"][7] == first.state_dict()["state"][7]["exp_avg"]


# ── Saving and loading ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("through_json", [False, True])
@pytest.mark.parametrize("kind, options", KINDS)
def test_a_saved_optimizer_goes_on_to_the_bit(kind, options, through_json):
    params = parameters()
    optimizer = kind([{"params": params[:1], "lr": 0.3}, {"params": params[1:]}], **options)
    train(optimizer, params, 5)
    optimizer.param_groups[1]["lr"] = 0.07
    saved = optimizer.state_dict()
    if through_json:
        saved = json.loads(json.dumps(saved))
    again = copy.deepcopy(params)
    resumed = kind([{"params": again[:1]}, {"params": again[1:]}])
    resumed.load_state_dict(saved)
    assert resumed.state_dict() == optimizer.state_dict()
    for o, p in (optimizer, params), (resumed, again):
        train(o, p, 5, seed=7)
    assert numbers(params) == numbers(again)
    assert resumed.state_dict() == optimizer.state_dict()


def test_a_state_dict_is_a_copy_and_so_is_what_is_loaded():
    params = parameters()
    optimizer = Adam(params)
    train(optimizer, params, 2)
    saved = optimizer.state_dict()
    kept = copy.deepcopy(saved)
    train(optimizer, params, 1)
    assert saved == kept
    optimizer.load_state_dict(saved)
    train(optimizer, params, 1)
    assert saved == kept and optimizer.param_groups[0]["params"] == params


def test_a_state_dict_lists_indices_and_nested_numbers():
    params = parameters()
    optimizer = SGD([{"params": params[:1]}, {"params": params[1:]}], momentum=0.5)
    assert optimizer.state_dict()["state"] == {}
    for v in flatten_all(params):
        v.grad = v.data
    optimizer.step()
    saved = optimizer.state_dict()
    assert [group["params"] for group in saved["param_groups"]] == [[0], [1, 2]]
    assert saved["state"] == {i: {"step": 1, "momentum_buffer": NUMBERS[i]} for i in range(3)}


def test_loading_a_state_without_a_parameter_forgets_what_was_known_of_it():
    params = parameters()
    optimizer = Adam(params)
    fresh = optimizer.state_dict()
    train(optimizer, params, 2)
    optimizer.load_state_dict(fresh)
    assert optimizer.state_dict() == fresh


def remove(path):
    def change(saved):
        *where, last = path
        for key in where:
            saved = saved[key]
        del saved[last]

    return change


def put(path, x):
    def change(saved):
        *where, last = path
        for key in where:
            saved = saved[key]
        saved[last] = x

    return change


@pytest.mark.parametrize("change, message", [
    (remove(["state"]), "expected a dict of state and param_groups, got a dict of param_groups"),
    (remove(["param_groups"]), "expected a dict of state and param_groups, got a dict of state"),
    (put(["param_groups"], 3), "param_groups: expected a list of 2 groups, got int"),
    (remove(["param_groups", 1]), "param_groups: expected a list of 2 groups, got 1 groups"),
    (put(["param_groups", 1], []), r"param_groups\[1\]: expected a dict of params, lr, betas"),
    (remove(["param_groups", 1, "betas"]), r"param_groups\[1\]: expected a dict of params, lr, betas"),
    (put(["param_groups", 0, "lr"], math.nan), r"param_groups\[0\]\['lr'\]: expected a number that is not NaN"),
    (remove(["param_groups", 1, "params"]), r"param_groups\[1\]: expected a dict of params"),
    (remove(["param_groups", 1, "params", 0]), r"\['params'\]: expected a list of 2 indices, got \[2\]"),
    (put(["param_groups", 1, "params"], 5), r"\['params'\]: expected a list of 2 indices, got 5"),
    (put(["state"], []), "state: expected a dict by parameter index, got list"),
    (put(["state", 7], {}), "state: expected indices that param_groups lists, got also 7"),
    (put(["state", 0], [1.0]), r"state\[0\]: expected a dict of step, exp_avg, exp_avg_sq, got list"),
    (remove(["state", 0, "exp_avg_sq"]), r"state\[0\]: expected a dict of step, exp_avg, exp_avg_sq, got a dict"),
    (remove(["state", 0, "step"]), r"state\[0\]: expected a dict of step"),
    (put(["state", 1, "step"], -1), r"state\[1\]\['step'\]: expected a number that is at least 0, got -1"),
    (put(["state", 1, "step"], 1.5), r"state\[1\]\['step'\]: expected a whole number, got 1.5"),
    (put(["state", 1, "step"], math.inf), r"state\[1\]\['step'\]: expected a whole number, got inf"),
    (put(["state", 0, "exp_avg"], [1.0]), r"state\[0\]\['exp_avg'\]: expected numbers of shape \(2, 2\), got shape"),
    (put(["state", 2, "exp_avg"], [1.0]), r"state\[2\]\['exp_avg'\]: expected numbers of shape \(\), got shape \(1,"),
    (put(["state", 0, "exp_avg", 0], [1.0]), r"state\[0\]\['exp_avg'\] is ragged"),
])  # fmt: skip
def test_a_state_dict_that_does_not_fit_is_refused_and_changes_nothing(change, message):
    params = parameters()
    optimizer = Adam([{"params": params[:1]}, {"params": params[1:]}])
    train(optimizer, params, 3)
    wrong = optimizer.state_dict()
    train(optimizer, params, 1)
    change(wrong)
    before = optimizer.state_dict()
    with pytest.raises(ValueError, match=message):
        optimizer.load_state_dict(wrong)
    assert optimizer.state_dict() == before


@pytest.mark.parametrize("make", [
    functools.partial(Adam, amsgrad=True), functools.partial(AdamW, amsgrad=True), RMSprop, Adagrad,
])  # fmt: skip
def test_sums_of_squares_below_0_are_refused(make):
    params = parameters()
    optimizer = make(params, lr=0.1)
    train(optimizer, params, 2)
    saved = optimizer.state_dict()
    squares = [name for name, xs in saved["state"][1].items() if name not in ("step", "exp_avg")]
    assert {*squares} == optimizer.squares
    for name in squares:
        wrong = copy.deepcopy(saved)
        wrong["state"][1][name][0] = -1e-9
        with pytest.raises(ValueError, match=rf"^state\[1\]\['{name}'\]: expected a number that is at least 0"):
            optimizer.load_state_dict(wrong)
        assert optimizer.state_dict() == saved


def test_what_is_no_number_in_a_state_is_a_value_error_with_its_place():
    params = parameters()
    optimizer = Adam(params)
    train(optimizer, params, 1)
    wrong = optimizer.state_dict()
    wrong["state"][1]["exp_avg"][0] = "a"
    with pytest.raises(ValueError, match=r"state\[1\]\['exp_avg'\]\[0\]: expected a real number"):
        optimizer.load_state_dict(wrong)
    with pytest.raises(ValueError, match="state_dict: expected a dict of state and param_groups, got NoneType"):
        optimizer.load_state_dict(None)


def test_the_state_of_another_optimizer_is_refused_by_its_options():
    with pytest.raises(ValueError, match=r"expected a dict of params, lr, betas, .*, got a dict of .*momentum"):
        Adam(parameters()).load_state_dict(SGD(parameters()).state_dict())


# ── Looks ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_repr_shows_the_options_of_each_group_and_its_size():
    optimizer = Adagrad([{"params": parameters()}, {"params": [Value(1.0)], "lr": 0.5}])
    assert repr(optimizer) == (
        "Adagrad(\n"
        "  group 0: 3 parameters, 7 Values, lr=0.01, lr_decay=0.0, weight_decay=0.0, "
        "initial_accumulator_value=0.0, eps=1e-10, maximize=False\n"
        "  group 1: 1 parameters, 1 Values, lr=0.5, lr_decay=0.0, weight_decay=0.0, "
        "initial_accumulator_value=0.0, eps=1e-10, maximize=False\n"
        ")"
    )


def test_optim_does_not_know_nn():
    from pathlib import Path

    import milligrad.optim

    files = sorted(Path(milligrad.optim.__file__).parent.glob("*.py"))
    imports = [line for file in files for line in file.read_text().splitlines() if line.startswith(("from", "import"))]
    assert len(files) == 4 and len(imports) > 10
    assert not [line for line in imports if ".nn" in line or " nn" in line]


def test_a_rate_that_a_schedule_led_below_0_can_be_loaded():
    x = Value(1.0)
    optimizer = SGD([x], lr=0.1)
    optimizer.param_groups[0]["lr"] = -5.5e-19
    optimizer.load_state_dict(optimizer.state_dict())
    assert optimizer.param_groups[0]["lr"] == -5.5e-19


def test_a_frozen_value_can_not_make_a_step_fail():
    moving, frozen = Value(1.0), Value(2.0, requires_grad=False)
    moving.grad = 1.0
    optimizer = Adam([[moving, frozen]], lr=0.1, eps=0.0)  # 0 / 0 for the frozen one, whose gradient is 0
    optimizer.step()
    assert moving.data == pytest.approx(0.9) and frozen.data == 2.0


# ── Groups that the user changes ─────────────────────────────────────────────────────────────────────────────────


def test_a_group_may_be_another_dict_but_not_of_other_parameters():
    p, q = Value(1.0), Value(1.0)
    optimizer = SGD([p, q], lr=0.5)
    p.grad = q.grad = 1.0
    whole = optimizer.param_groups[0]
    optimizer.param_groups[0] = {**whole, "lr": 0.25, "params": [p, q]}
    optimizer.step()
    assert (p.data, q.data) == (0.75, 0.75)
    for group in ({**whole, "params": [p]}, {**whole, "params": [q, p]}, {**whole, "params": p}, {"params": [p, q]}):
        optimizer.param_groups[0] = group
        with pytest.raises(ValueError, match=r"^param_groups\[0\].*: expected "):
            optimizer.step()
    optimizer.param_groups[:] = [whole, {**whole, "params": [Value(2.0)]}]
    with pytest.raises(ValueError, match=r"^param_groups: expected the 1 groups that add_param_group made, got 2"):
        optimizer.step()
    optimizer.param_groups[:] = [whole]
    whole["params"].append(Value(2.0))
    with pytest.raises(ValueError, match="use add_param_group"):
        optimizer.state_dict()
    assert (p.data, q.data) == (0.75, 0.75)
