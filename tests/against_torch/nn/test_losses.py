import pytest
import torch

from milligrad import nn

A = [[0.2, 0.9, 0.5], [0.7, 0.1, 0.4]]
B = [[0.3, 1.0, 0.0], [0.75, 0.6, 0.2]]
PAIRS = [
    ("MSELoss", {}),
    ("L1Loss", {}),
    ("HuberLoss", {}),
    ("HuberLoss", {"delta": 0.2}),
    ("SmoothL1Loss", {}),
    ("SmoothL1Loss", {"beta": 0.2}),
    ("SmoothL1Loss", {"beta": 0.0}),
    ("BCELoss", {}),
    ("BCELoss", {"weight": [1.0, 0.5, 2.0]}),
    ("BCEWithLogitsLoss", {}),
    ("BCEWithLogitsLoss", {"weight": [1.0, 0.5, 2.0]}),
    ("BCEWithLogitsLoss", {"pos_weight": [1.0, 0.5, 2.0]}),
    ("KLDivLoss", {}),
    ("KLDivLoss", {"log_target": True}),
]
CLASSES = [
    ("NLLLoss", {}),
    ("NLLLoss", {"weight": [1.0, 0.5, 2.0]}),
    ("NLLLoss", {"ignore_index": 2}),
    ("CrossEntropyLoss", {}),
    ("CrossEntropyLoss", {"weight": [1.0, 0.5, 2.0]}),
    ("CrossEntropyLoss", {"ignore_index": 2}),
    ("CrossEntropyLoss", {"label_smoothing": 0.2}),
    ("CrossEntropyLoss", {"weight": [1.0, 0.5, 2.0], "ignore_index": 2, "label_smoothing": 0.2}),
]
reductions = pytest.mark.parametrize("reduction", ["mean", "sum", "none"])


def both(name, options):
    """The loss here, and in PyTorch."""
    theirs = {key: torch.tensor(x, dtype=torch.float64) if "weight" in key else x for key, x in options.items()}
    return getattr(nn, name)(**options), getattr(torch.nn, name)(**theirs)


def expected_y(name, options):
    """B as a target that PyTorch differentiates: ln 0 of a target of 0 has no derivative there."""
    return [[max(y, 0.1) for y in row] for row in B] if name == "KLDivLoss" else B


@pytest.mark.filterwarnings("ignore:reduction. 'mean' divides:UserWarning")
@pytest.mark.parametrize("name, options", PAIRS)
@reductions
def test_each_loss_of_pairs(name, options, reduction, agree):
    ours, theirs = both(name, {**options, "reduction": reduction})
    y = expected_y(name, options)
    agree(ours, theirs, A, y)  # a batch
    agree(ours, theirs, A[0], y[0])  # a sample
    agree(ours, theirs, [A, A[::-1]], [y, y])  # a batch of batches


@pytest.mark.parametrize("log_target", [False, True])
def test_the_batchmean_of_a_divergence(log_target, agree):
    agree(*both("KLDivLoss", {"reduction": "batchmean", "log_target": log_target}), A, expected_y("KLDivLoss", {}))


@pytest.mark.parametrize("name, options", CLASSES)
@reductions
def test_each_loss_of_classes(name, options, reduction, agree):
    ours, theirs = both(name, {**options, "reduction": reduction})
    agree(lambda x: ours(x, [2, 0]), lambda x: theirs(x, torch.tensor([2, 0])), A)
    agree(lambda x: ours(x, 1), lambda x: theirs(x, torch.tensor(1)), A[0])
    target = [[2, 0, 1], [1, 1, 2]]
    agree(lambda x: ours(x, target), lambda x: theirs(x, torch.tensor(target)), [list(zip(*A, A[0])), [*A, B[0]]])


@pytest.mark.parametrize("options", [{}, {"weight": [1.0, 0.5, 2.0]}, {"label_smoothing": 0.2}])
@reductions
def test_cross_entropy_with_probabilities(options, reduction, agree):
    ours, theirs = both("CrossEntropyLoss", {**options, "reduction": reduction})
    agree(ours, theirs, A, B)
    agree(ours, theirs, A[0], B[0])
    agree(ours, theirs, [[*A, B[0]]] * 2, [[*B, A[0]]] * 2)
