"""A network that learns on a small device: one step of training, as C.

    python examples/on_device.py build     # writes learn.c, learn.h, predict.c, predict.h and device.c to the folder
    cd build && cc -std=c99 -O2 -o device device.c learn.c predict.c -lm && ./device

The step is a function as any other: from parameters and a sample to the loss and new parameters. What milligrad traces
of it, the network, its gradient and the update, is a C file, which allocates nothing: 17 parameters and 47 numbers of
scratch memory are all that it takes. The device starts from parameters that this program writes into device.c.
"""

import sys
from pathlib import Path
from random import Random

from milligrad import compile, dot, softplus, tanh, value_and_grad
from milligrad.nested import flatten

HIDDEN = 4
SAMPLES = [([0.0, 0.0], 0.0), ([0.0, 1.0], 1.0), ([1.0, 0.0], 1.0), ([1.0, 1.0], 0.0)]


def initial(seed):
    """Parameters to begin with: weights and biases of the hidden layer, then of the output."""
    random = Random(seed)
    layer = [[random.uniform(-1, 1) for _ in range(2)] for _ in range(HIDDEN)]
    return [layer, [0.0] * HIDDEN, [random.uniform(-1, 1) for _ in range(HIDDEN)], [0.0]]


def predict(parameters, x):
    """The logit of the answer yes."""
    weights, biases, out, (bias,) = parameters
    return dot(out, [tanh(dot(row, x) + b) for row, b in zip(weights, biases)]) + bias


def loss(parameters, x, y):
    """Binary cross entropy: y is 1 for yes, 0 for no."""
    z = predict(parameters, x)
    return softplus(z) - y * z


def learn(parameters, x, y, rate):
    """One step of stochastic gradient descent: the loss before it, and the parameters after it."""
    value, gradient = value_and_grad(loss)(parameters, x, y)

    def step(p, g):
        return [step(a, b) for a, b in zip(p, g)] if isinstance(p, list) else p - rate * g

    return value, step(parameters, gradient)


DEVICE = """/* A device that learns as it goes: here from the four samples of the exclusive or, again and again. */

#include <stdio.h>
#include <string.h>

#include "learn.h"
#include "predict.h"

static const float samples[4][3] = {{0, 0, 0}, {0, 1, 1}, {1, 0, 1}, {1, 1, 0}}; /* x, y */
static float arguments[LEARN_ARGUMENTS] = { /* parameters; then x, y and the rate */
    %s
};
static float results[LEARN_RESULTS], work[LEARN_WORK > PREDICT_WORK ? LEARN_WORK : PREDICT_WORK];

int main(void)
{
    float *sample = arguments + LEARN_RESULTS - 1;
    sample[3] = 0.3f;
    for (int step = 0; step < 4000; step++) {
        memcpy(sample, samples[step %% 4], sizeof samples[0]);
        learn(arguments, results, work);
        memcpy(arguments, results + 1, sizeof results - sizeof results[0]);
        if (step %% 400 < 4)
            printf("step %%4d   loss %%.4f\\n", step, results[0]);
    }
    for (int i = 0; i < 4; i++) {
        float logit;
        memcpy(sample, samples[i], sizeof samples[0]);
        predict(arguments, &logit, work);
        printf("%%g xor %%g: %%s\\n", samples[i][0], samples[i][1], logit > 0 ? "yes" : "no");
    }
    return 0;
}
"""


def main(folder, seed=0):
    """Write all files of the device to the folder."""
    parameters, (x, y) = initial(seed), SAMPLES[0]
    folder.mkdir(parents=True, exist_ok=True)
    backend = "python"  # what is lowered to C is the same for each
    compile(learn, backend=backend).lower(parameters, x, y, 0.3).save_c(folder / "learn.c", dtype="float32")
    compile(predict, backend=backend).lower(parameters, x).save_c(folder / "predict.c", dtype="float32")
    (folder / "device.c").write_text(DEVICE % ", ".join([f"{p:.9g}" for p in flatten(parameters)]), encoding="utf-8")
    print(f"cd {folder} && cc -std=c99 -O2 -o device device.c learn.c predict.c -lm && ./device")


if __name__ == "__main__":
    main(Path(*sys.argv[1:2]) if sys.argv[1:] else Path("build"))
