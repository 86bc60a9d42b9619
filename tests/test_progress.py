"""The plain line a second, and the bar where tqdm is installed."""

import io
import sys
import types

from milligrad import progress as module
from milligrad.progress import progress


def without_tqdm(monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm", None)


def clock(monkeypatch, times):
    ticks = iter(times)
    monkeypatch.setattr(module.time, "monotonic", lambda: next(ticks))


def test_without_tqdm_it_prints_a_plain_line_whenever_a_second_has_passed(monkeypatch):
    without_tqdm(monkeypatch)
    clock(monkeypatch, [0.0, 0.4, 0.9, 1.1, 1.1, 1.5, 2.3, 2.3])
    shown = io.StringIO()
    assert list(progress("abcde", "epoch 1", shown)) == list("abcde")
    assert shown.getvalue() == "epoch 1: 2 of 5\nepoch 1: 4 of 5\n"


def test_items_that_have_no_length_are_counted_without_a_total(monkeypatch):
    without_tqdm(monkeypatch)
    shown = io.StringIO()
    assert list(progress(iter([7, 8]), "step", shown, every=0.0)) == [7, 8]
    assert shown.getvalue() == "step: 0\nstep: 1\n"


def test_a_short_loop_prints_nothing(monkeypatch):
    without_tqdm(monkeypatch)
    shown = io.StringIO()
    assert list(progress(range(3), "epoch", shown)) == [0, 1, 2]
    assert shown.getvalue() == ""


def test_with_tqdm_the_bar_is_its(monkeypatch):
    calls = []

    def tqdm(items, **options):
        calls.append(options)
        return items

    monkeypatch.setitem(sys.modules, "tqdm", types.SimpleNamespace(tqdm=tqdm))
    shown = io.StringIO()
    assert list(progress([1, 2], "epoch 3", shown)) == [1, 2]
    assert calls == [{"desc": "epoch 3", "total": 2, "file": shown, "leave": False}]
