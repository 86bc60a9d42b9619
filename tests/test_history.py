"""What a History shows of what it recorded."""

from milligrad import History


def test_the_history_is_shown_as_a_table():
    history = History(["epoch", "loss", "accuracy", "lr", "seconds"])
    assert repr(history) == "epoch  loss  accuracy  lr  seconds"
    history.epochs = [
        {"epoch": i, "loss": 1 / i, "accuracy": 0.5, "lr": [0.1, 0.25], "seconds": 1.234} for i in range(1, 4)
    ]
    assert repr(history).splitlines() == [
        "epoch    loss  accuracy        lr  seconds",
        "    1       1    50.00%  0.1/0.25     1.23",
        "    2     0.5    50.00%  0.1/0.25     1.23",
        "    3  0.3333    50.00%  0.1/0.25     1.23",
    ]
    assert history.line() == "epoch 3   loss 0.3333   accuracy 50.00%   lr 0.1/0.25   seconds 1.23"
    history.epochs *= 100
    history.interrupted = True
    lines = repr(history).splitlines()
    assert len(lines) == 1 + 10 + 1 + 10 + 1
    assert lines[11].split() == ["…"] * 5 and lines[-1] == "interrupted"
