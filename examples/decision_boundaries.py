"""Where does a network draw the line? Three problems that no straight line solves, and what is learned of each.

    python examples/decision_boundaries.py pictures

A network of two hidden layers learns from 150 points each of moons, circles and spiral. Then it is asked all over the
plane, and moons.svg, circles.svg and spiral.svg in the folder show its answers behind the points.
"""

from argparse import ArgumentDefaultsHelpFormatter, ArgumentParser
from pathlib import Path

from milligrad import Adam, CrossEntropyLoss, Linear, Sequential, Tanh, Trainer, manual_seed
from milligrad import functional as F
from milligrad.charts import decision_regions, grid
from milligrad.data import make_circles, make_moons, make_spiral

PROBLEMS = {
    "moons": make_moons(150, noise=0.12, seed=0),
    "circles": make_circles(150, noise=0.08, factor=0.5, seed=0),
    "spiral": make_spiral(150, noise=0.02, seed=0),
}


def network(classes):
    """From the two numbers of a point to a score for each class."""
    return Sequential(Linear(2, 16), Tanh(), Linear(16, 16), Tanh(), Linear(16, classes))


def learn(data, epochs, backend="python"):
    """A Trainer with a network that has learned the points and their classes."""
    manual_seed(0)
    model = network(classes=max(data.tensors[1]) + 1)
    trainer = Trainer(model, CrossEntropyLoss(), Adam(model.parameters(), lr=0.02), backend)
    trainer.fit(data, epochs=epochs, batch_size=10, seed=0, progress=False)
    return trainer


def boundary(trainer, data, title):
    """The points, and behind them what the network says all over the plane."""
    points, labels = data.tensors
    probabilities = [F.softmax(scores) for scores in trainer.predict(grid(points))]
    return decision_regions(points, labels, probabilities, title=title)


def main(arguments=None):
    parser = ArgumentParser(description="Decision boundaries.", formatter_class=ArgumentDefaultsHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("."), help="where the pictures are written")
    parser.add_argument("--epochs", type=int, default=60, help="how often all points are gone through")
    parser.add_argument("--backend", default="python", help="eager, python, llvm or auto")
    options = parser.parse_args(arguments)
    options.folder.mkdir(parents=True, exist_ok=True)
    for name, data in PROBLEMS.items():
        trainer = learn(data, options.epochs, options.backend)
        boundary(trainer, data, name).save(options.folder / f"{name}.svg")
        print(f"{name:7}   accuracy {trainer.evaluate(data).accuracy:.1%}   {options.folder / name}.svg", flush=True)


if __name__ == "__main__":
    main()
