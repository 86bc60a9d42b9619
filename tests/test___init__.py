"""The public names, pinned: a name is added or taken away on purpose, and the CHANGELOG says so."""

import builtins
import re
import subprocess
import sys
from pathlib import Path

import pytest

import milligrad

ROOT = Path(__file__).parent.parent

NAMES = """
LOG_EPSILON GradientWarning TraceError Value
Callback Checkpoint EarlyStopping History Trainer
acos asin atan clamp cos cosh dot erf erfc exp expm1 log log1mexp log1p log_normal_cdf log_sigmoid logaddexp
logsumexp maximum mean minimum normal_cdf prod relu sigmoid sin sinh softplus sqrt tan tanh where xlogy
grad gradcheck gradgradcheck hessian hvp jacobian jvp manual_seed no_grad enable_grad scan value_and_grad
data functional nn optim transforms
draw explain record_lines step_through
AvgPool2d BCELoss BCEWithLogitsLoss Conv2d CrossEntropyLoss Dropout ELU Embedding Flatten GELU GRU HuberLoss KLDivLoss
L1Loss LSTM LayerNorm LeakyReLU Linear LogSoftmax MSELoss MaxPool2d Module ModuleDict ModuleList MultiheadAttention
NLLLoss Parameter RMSNorm RNN ReLU Sequential SiLU Sigmoid SmoothL1Loss Softmax Softplus Tanh
SGD Adagrad Adam AdamW Optimizer RMSprop lr_scheduler
"""
NAMES_OF_PYTHONS_TOO = "abs compile max min sum"  # public, but not for `import *`


def test_the_public_names_are_these_and_all_of_them_exist():
    assert sorted(milligrad.__all__) == sorted(NAMES.split())
    for name in milligrad.__all__:
        assert getattr(milligrad, name) is not None


def test_a_star_imports_the_public_names_and_leaves_those_of_python():
    pythons = set(NAMES_OF_PYTHONS_TOO.split())
    assert {name for name in dir(milligrad) if name[0] != "_"} & set(dir(builtins)) == pythons
    namespace = {}
    exec("from milligrad import *", namespace)
    assert namespace.keys() - {"__builtins__"} == set(milligrad.__all__)
    for name in pythons:
        assert eval(name, namespace) is getattr(builtins, name) is not getattr(milligrad, name)


def test_nn_and_optim_have_the_names_that_users_of_pytorch_look_for():
    from milligrad import nn, optim

    assert nn.functional.relu is milligrad.functional.relu
    assert nn.init.kaiming_uniform_ and nn.utils.clip_grad_norm_
    assert optim.lr_scheduler.StepLR and milligrad.Linear is nn.Linear and milligrad.SGD is optim.SGD


def test_the_core_imports_nothing_but_the_standard_library():
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); import milligrad, milligrad.__main__;"
        "print([m for m in sys.modules if m.split('.')[0] not in {*sys.stdlib_module_names, 'milligrad', '__main__'}])"
    )
    command = [sys.executable, "-I", "-S", "-c", code]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip() == "[]"


@pytest.mark.parametrize("module", ["random", "csv", "gzip", "json", "argparse", "inspect", "typing", "re"])
def test_import_milligrad_stays_light(module):
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import milligrad; print({module!r} in sys.modules)"
    command = [sys.executable, "-I", "-S", "-c", code]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip() == "False"


def test_a_file_imports_only_what_stands_below_it():
    below = {
        "nested": [],
        "places": [],
        "engine": ["nested", "places"],
        "ops": ["engine", "nested"],
        "random": [],
        "functional": ["ops", "engine", "nested", "random"],
        "transforms": ["ops", "engine", "nested"],
        "gradcheck": ["transforms", "engine", "nested"],
    }
    for name, allowed in below.items():
        source = (ROOT / "milligrad" / f"{name}.py").read_text(encoding="utf-8")
        found = re.findall(r"^from milligrad(?:\.(\w+)[\w.]*)? import (\w+)", source, re.MULTILINE)
        imported = {module or name for module, name in found}
        assert imported <= {*allowed, "typing"}, name
