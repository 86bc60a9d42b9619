import subprocess
import sys
import threading

import pytest

import milligrad as mg
from milligrad import random as mg_random
from milligrad.random import generator, manual_seed, source, uniform


def draws(n=5):
    return [generator().random() for _ in range(n)]


def test_the_same_seed_draws_the_same_numbers():
    manual_seed(7)
    first = draws()
    again = draws()
    manual_seed(7)
    assert draws() == first and first != again


@pytest.mark.parametrize("other", [8, 0, -1, 2**80])
def test_another_seed_draws_others(other):
    manual_seed(7)
    first = draws()
    manual_seed(other)
    assert draws() != first


def test_everything_draws_from_one_generator():
    assert generator() is generator() and mg.manual_seed is manual_seed


def test_uniform_and_source_draw_the_numbers_of_the_generator():
    manual_seed(7)
    expected = draws()
    manual_seed(7)
    draw = source()
    assert [uniform(), draw(), draw(), uniform(), source()()] == expected
    assert all(0 <= uniform() < 1 for _ in range(100))


def test_a_thread_may_draw_something_else_instead():
    manual_seed(7)
    first = draws(1)
    manual_seed(7)
    elsewhere = []
    thread = threading.Thread(target=lambda: elsewhere.append(uniform()))
    with mg_random.drawn_by(iter("abcd").__next__):
        drawn = [uniform(), source()(), generator().random()]
        thread.start()
        thread.join()
    assert drawn == ["a", "b", "c"] and elsewhere == first and type(uniform()) is float


def test_the_generator_draws_what_pythons_does_from_the_same_seed():
    import random

    for draw in (
        lambda g: [g.random(), g.gauss(0.0, 1.0), g.gauss(2.0, 3.0), g.uniform(1, 5), g.expovariate(2.0)],
        lambda g: [
            g.randrange(1000),
            g.choice(range(99)),
            g.sample(range(50), 5),
            g.getrandbits(70),
            g.shuffle([1, 2]),
        ],
    ):
        generator().seed(5)
        assert draw(generator()) == draw(random.Random(5))


@pytest.mark.parametrize("bad", [1.5, "1", None, [1]])
def test_a_seed_that_is_no_whole_number_raises_and_changes_nothing(bad):
    manual_seed(3)
    state = generator().getstate()
    with pytest.raises(TypeError, match="seed: expected an int, got"):
        manual_seed(bad)
    assert generator().getstate() == state


def test_pythons_own_generator_is_left_alone():
    import random

    state = random.getstate()
    manual_seed(1)
    draws()
    assert random.getstate() == state


def test_a_run_is_repeatable_in_another_process():
    manual_seed(11)
    program = "from milligrad.random import generator, manual_seed; manual_seed(11); print(generator().random())"
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == repr(generator().random())
