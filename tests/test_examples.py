"""The examples run, and compute what they say. names_gpt: against the same network in plain floats.

on_device: the C program learns what the same network learns here, step by step.

decision_boundaries: the pictures are read back, and compared with the network and the points.
"""

import importlib.util
import math
import re
import shutil
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path
from random import Random

import pytest

from milligrad import Trainer, manual_seed, nn, no_grad
from milligrad.data import load_names
from milligrad.optim import Adam
from tests.charts.reading import dots, frame_of, ground, inverse, parsed, ticks, words

EXAMPLES = Path(__file__).parent.parent / "examples"


def load(name):
    spec = importlib.util.spec_from_file_location(f"examples_{name}", EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


G = load("names_gpt")


@pytest.fixture
def model():
    manual_seed(1)
    return G.GPT()


def test_the_gpt_has_4192_parameters_and_fits_on_two_pages(model):
    assert sum(p.numel() for p in model.parameters()) == 4192
    assert len((EXAMPLES / "names_gpt.py").read_text(encoding="utf-8").splitlines()) < 120


def expected_logits(weights, tokens):
    """The network written down once more: on floats, with a matrix of scores and a mask, no slices of the past."""

    def times(name, x):
        return [math.fsum(w * v for w, v in zip(row, x, strict=True)) for row in weights[f"{name}.weight"]]

    def norm(x):
        return [v / math.sqrt(math.fsum(w * w for w in x) / len(x) + 1e-5) for v in x]

    places = range(len(tokens))
    xs = [[a + b for a, b in zip(weights["token.weight"][t], weights["place.weight"][i])] for i, t in enumerate(tokens)]
    q, k, v = ([times(name, norm(x)) for x in xs] for name in ("query", "key", "value"))
    mixed = [[0.0] * 16 for _ in places]
    for head in range(4):
        own = range(4 * head, 4 * head + 4)
        for i in places:
            scores = [sum(q[i][c] * k[j][c] for c in own) / 2 if j <= i else -math.inf for j in places]
            chances = [math.exp(s - max(scores)) for s in scores]
            for c in own:
                mixed[i][c] = math.fsum(p * v[j][c] for j, p in enumerate(chances)) / math.fsum(chances)
    xs = [[a + b for a, b in zip(x, times("mix", m))] for x, m in zip(xs, mixed)]
    hidden = [[max(h, 0.0) for h in times("widen", norm(x))] for x in xs]
    return [times("logits", [a + b for a, b in zip(x, times("narrow", h))]) for x, h in zip(xs, hidden)]


@pytest.mark.parametrize("tokens", [[26], [26, 0], [26, 4, 12, 12, 0], [26, *range(15)]])
def test_the_logits_are_those_of_the_network_in_plain_floats(model, tokens):
    expected = expected_logits(model.state_dict(), tokens)
    found = [[z.data for z in row] for row in model(tokens)]
    assert len(found) == len(tokens)
    for row, other in zip(found, expected, strict=True):
        assert row == pytest.approx(other, rel=1e-12, abs=1e-12)


def test_what_comes_later_has_no_part_in_a_guess(model):
    short, long = model([26, 3, 14]), model([26, 3, 14, 25, 25])
    assert [[z.data for z in row] for row in short] == [[z.data for z in row] for row in long[:3]]


def test_encode_shifts_a_name_by_one():
    assert G.encode("cab") == ([26, 2, 0, 1], [2, 0, 1, 26])
    assert [len(tokens) for tokens in G.encode("a" * 15)] == [16, 16]


@pytest.mark.parametrize("name", ["", "a" * 16, "Ann", "ann-marie", "zoë"])
def test_encode_refuses_what_is_no_name(name):
    with pytest.raises(ValueError, match="name: expected 1 to 15 letters a to z, got"):
        G.encode(name)


def test_all_names_that_come_along_can_be_encoded():
    assert all(len(tokens) <= G.CONTEXT for name in load_names() for tokens in G.encode(name))


def always(token):
    """A model that is sure of `token`."""
    return lambda tokens: [[50.0 * (i == token) for i in range(27)] for _ in tokens]


def test_generate_stops_at_the_end_or_at_15_letters():
    assert G.generate(always(26), Random(0)) == ""
    assert G.generate(always(1), Random(0)) == "b" * 15


def test_generate_draws_letters_as_likely_as_the_model_says():
    half = [-50.0] * 27
    half[0], half[26] = math.log(3), 0.0  # an "a" with 3/4, the end with 1/4: a name of 15 with (3/4)¹⁵ = 1.3 %
    names = [G.generate(lambda tokens: [half], random, temperature=1.0) for random in [Random(0)] for _ in range(2000)]
    assert {*"".join(names)} == {"a"}
    assert names.count("") / 2000 == pytest.approx(1 / 4, abs=0.04)
    assert sum(map(len, names)) / 2000 == pytest.approx(3 * (1 - 0.75**15), abs=0.3)
    cold = [G.generate(lambda tokens: [half], Random(i), temperature=0.01) for i in range(20)]
    assert cold == ["a" * 15] * 20


def test_generate_goes_on_from_what_it_drew(model):
    name, tokens = G.generate(model, Random(3), temperature=1e-3), [26]
    while len(tokens) < 16:
        row = [z.data for z in model(tokens)[-1]]
        if row.index(max(row)) == 26:
            break
        tokens.append(row.index(max(row)))
    assert name == "".join(G.LETTERS[token] for token in tokens[1:])


def test_main_learns_the_one_name_it_is_given(tmp_path, capsys):
    file = tmp_path / "names.txt"
    file.write_text("Otto\n")
    G.main(["--names", str(file), "--steps", "60", "--seed", "2"])
    lines = capsys.readouterr().out.splitlines()
    assert [line[:13] for line in lines[:10]] == [f"part {i:2} of 10" for i in range(1, 11)]
    losses = [float(line.split()[-1]) for line in lines[:10]]
    assert losses[0] > 2 and losses[-1] < 0.05
    assert lines[10:] == ["otto"] * 20


def test_main_lowers_the_learning_rate_from_part_to_part_and_takes_each_name_once(monkeypatch, tmp_path):
    rates, seen = [], []

    class Watched(Trainer):
        def fit(self, batches, **options):
            history = super().fit(batches, **options)
            rates.append(history.lr[0])
            seen.extend(tokens[1] for tokens, _ in batches)
            return history

    monkeypatch.setattr(G, "Trainer", Watched)
    file = tmp_path / "names.txt"
    file.write_text("a b c d e f g h i j k l")
    G.main(["--names", str(file), "--steps", "12"])
    assert rates == pytest.approx([0.01 * (1 - part / 10) for part in range(10)])
    assert sorted(seen) == list(range(12))


def test_main_repeats_itself_with_the_names_that_come_along(capsys):
    printed = []
    for seed in ("3", "3", "4"):
        G.main(["--steps", "3", "--seed", seed])
        printed.append(capsys.readouterr().out.splitlines())
    assert printed[0] == printed[1] != printed[2]
    assert len(printed[0]) == 3 + 20 and all(set(name) <= set(G.LETTERS) for name in printed[0][3:])


@pytest.mark.parametrize("backend", ["python", "llvm"])
def test_the_losses_are_the_same_on_every_backend(backend):
    if backend == "llvm":
        pytest.importorskip("llvmlite")
    names = ["al", "bo", "ada", "jo", "eve", "ty"]

    def losses(backend):
        manual_seed(5)
        model = G.GPT()
        trainer = Trainer(model, nn.CrossEntropyLoss(), Adam(model.parameters(), lr=0.01), backend)
        batches = [G.encode(name) for name in names]
        return trainer.fit(batches, epochs=2, shuffle=False, progress=False).batch_losses

    eager = losses("eager")
    assert len(eager) == 12 and losses(backend) == pytest.approx(eager, rel=1e-9)


D = load("decision_boundaries")


def test_the_boundaries_are_drawn_in_two_pages_of_code():
    assert len((EXAMPLES / "decision_boundaries.py").read_text(encoding="utf-8").splitlines()) < 120
    assert [*D.PROBLEMS] == ["moons", "circles", "spiral"]


@pytest.mark.parametrize("name", D.PROBLEMS)
def test_a_boundary_is_what_the_network_says_and_most_points_lie_on_their_side_of_it(name):
    data = D.PROBLEMS[name]
    trainer = D.learn(data, epochs=40)
    assert trainer.evaluate(data).accuracy > 0.9
    root = parsed(D.boundary(trainer, data, name))
    assert words(root, "heading") == [name]
    x_of, y_of = (inverse(ticks(root, axis)) for axis in "xy")
    left, top, across, down = frame_of(root)
    points, labels = data.tensors
    seen = sorted((kind, x_of(x), y_of(y)) for kind, (x, y), _ in dots(root))
    for (kind, *point), (label, x, y) in zip(seen, sorted((k, *p) for k, p in zip(labels, points)), strict=True):
        assert kind == label and point == pytest.approx([x, y], abs=0.1)
    cells, right = ground(root), 0
    for (i, j), (kind, _) in [*cells.items()][::37]:
        with no_grad():
            scores = trainer.model([x_of(left + (j + 0.5) * across), y_of(top + (i + 0.5) * down)])
        assert max(scores) - scores[kind] < 1.0  # the middle of a cell is known to a thousandth; the rest is its slope
        right += scores[kind] == max(scores)
    assert right > 0.97 * len([*cells][::37])
    own = [cells[int((y - top) / down), int((x - left) / across)][0] == kind for kind, (x, y), _ in dots(root)]
    assert sum(own) > 0.9 * len(points)


def test_the_example_writes_three_pictures_and_says_how_well_it_reads(tmp_path, capsys):
    folder = tmp_path / "new" / "pictures"
    D.main([str(folder), "--epochs", "2", "--backend", "eager"])
    assert sorted(path.name for path in folder.iterdir()) == ["circles.svg", "moons.svg", "spiral.svg"]
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines] == [[name, "accuracy"] for name in D.PROBLEMS]
    for line in lines:
        path = Path(line.split()[-1])
        assert words(ET.fromstring(path.read_text(encoding="utf-8")), "heading") == [path.stem]


def test_the_picture_of_the_readme_shows_boundaries_that_were_learned():
    docs = EXAMPLES.parent / "docs" / "boundaries.svg"
    assert docs.stat().st_size < 150_000
    root = ET.fromstring(docs.read_text(encoding="utf-8"))
    panels = [g for g in root if (g.get("transform") or "").startswith("translate")]
    assert [words(g, "heading") for g in panels] == [[name] for name in D.PROBLEMS]
    for panel, data in zip(panels, D.PROBLEMS.values()):
        points, labels = data.tensors
        x_of, y_of = (inverse(ticks(panel, axis)) for axis in "xy")
        left, top, across, down = frame_of(panel)
        cells, found = ground(panel), dots(panel)
        seen = sorted((kind, x_of(x), y_of(y)) for kind, (x, y), _ in found)
        for (kind, *point), (label, x, y) in zip(seen, sorted((k, *p) for k, p in zip(labels, points)), strict=True):
            assert kind == label and point == pytest.approx([x, y], abs=0.1)
        own = [cells[int((y - top) / down), int((x - left) / across)][0] == kind for kind, (x, y), _ in found]
        assert sum(own) > 0.9 * len(points)


# ── on_device ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")
@pytest.mark.parametrize("seed", [0, 1])
def test_the_device_learns_what_is_learned_here(tmp_path, capsys, seed):
    device = load("on_device")
    device.main(tmp_path / "build", seed)
    command = capsys.readouterr().out.strip().replace("-O2", "-Wall -Wextra -Werror -pedantic")
    told = subprocess.run(command, shell=True, capture_output=True, text=True, check=True).stdout
    steps = re.findall(r"^step +(\d+)   loss (\d\.\d{4})$", told, re.MULTILINE)
    assert (
        len(steps) == 40 and "work[LEARN_WORK]         scratch memory, 37" in (tmp_path / "build/learn.h").read_text()
    )

    parameters, losses = device.initial(seed), []
    for step in range(804):
        loss, parameters = device.learn(parameters, *device.SAMPLES[step % 4], 0.3)
        losses.append(loss)
    for step, loss in steps[:12]:
        assert float(loss) == pytest.approx(losses[int(step)], abs=2e-3)
    if seed == 0:
        assert told.endswith("0 xor 0: no\n0 xor 1: yes\n1 xor 0: yes\n1 xor 1: no\n")
