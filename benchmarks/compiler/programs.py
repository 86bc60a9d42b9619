"""Programs of the fields that differentiate loops, each as its textbook writes it: integrators, filters, recurrences.

A program is a function of a list of numbers to one number, and a point; its data are random, and always the same.
`made` makes it, so that none depends on which others were made before.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

from milligrad import cos, exp, log, logsumexp, maximum, relu, sigmoid, sin, sqrt, tanh

Program = tuple[Callable[..., Any], list[float]]
_random = random.Random()


def made(program: Callable[[], Program]) -> Program:
    """The program, with its data."""
    _random.seed(0)
    return program()


def numbers(n: int, low: float = -1.0, high: float = 1.0) -> list[float]:
    return [_random.uniform(low, high) for _ in range(n)]


def matrix(p: Sequence[Any], n: int, m: int) -> list[Any]:
    """The first n · m numbers as n rows."""
    return [p[i * m : (i + 1) * m] for i in range(n)]


def products(rows: Sequence[Any], x: Sequence[Any]) -> list[Any]:
    """Of each row its product with x."""
    return [sum([a * b for a, b in zip(row, x)]) for row in rows]


# Integrators.


def pendulum() -> Program:
    """1,000 steps of Euler's method; how far it ends from where it should."""

    def f(p: Any) -> Any:
        x, v = 1.0, 0.0
        for _ in range(1_000):
            v = v - 0.001 * (p[0] * sin(x) + p[1] * v)
            x = x + 0.001 * v
        return (x - 0.3) ** 2

    return f, [9.81, 0.1]


def runge_kutta(rates: Callable[..., list[Any]], state: list[Any], h: float) -> list[Any]:
    """One step of the classical method."""

    def moved(by: list[Any], h: float) -> list[Any]:
        return [x + h * k for x, k in zip(state, by)]

    k1 = rates(state)
    k2 = rates(moved(k1, h / 2))
    k3 = rates(moved(k2, h / 2))
    k4 = rates(moved(k3, h))
    return [x + h / 6 * (a + 2 * b + 2 * c + d) for x, a, b, c, d in zip(state, k1, k2, k3, k4)]


def predator_and_prey() -> Program:
    """300 steps of Lotka and Volterra's equations, fitted to counts."""
    counts = [(1 + _random.random(), 1 + _random.random()) for _ in range(300)]

    def f(p: Any) -> Any:
        state, loss = [1.0, 1.0], 0.0
        for seen in counts:
            state = runge_kutta(
                lambda s: [p[0] * s[0] - p[1] * s[0] * s[1], p[2] * s[0] * s[1] - p[3] * s[1]], state, 0.01
            )
            loss = loss + sum((x - y) ** 2 for x, y in zip(state, seen))
        return loss

    return f, [1.1, 0.4, 0.1, 0.4]


def double_pendulum() -> Program:
    """100 steps of two coupled pendulums."""

    def rates(s: list[Any], p: Any) -> list[Any]:
        a, b, u, v = s
        d = a - b
        below = 2 - cos(d) * cos(d)
        du = (p[0] * (sin(b) * cos(d) - 2 * sin(a)) - (u * u * cos(d) + v * v * p[1]) * sin(d)) / below
        dv = (2 * p[0] * (sin(a) * cos(d) - sin(b)) + (2 * u * u + v * v * cos(d)) * sin(d)) / below
        return [u, v, du, dv]

    def f(p: Any) -> Any:
        state = [1.0, 0.5, 0.0, 0.0]
        for _ in range(100):
            state = runge_kutta(lambda s: rates(s, p), state, 0.01)
        return state[0] * state[0] + state[1]

    return f, [9.81, 1.0]


def n_body() -> Program:
    """100 steps of five bodies that attract each other, in the plane; how far they end from each other."""
    n, mass = 5, numbers(5, 0.5, 1.5)

    def accelerations(x: list[Any], y: list[Any], gravity: Any) -> tuple[list[Any], list[Any]]:
        ax: list[Any] = [0.0] * n
        ay: list[Any] = [0.0] * n
        for i in range(n):
            for j in range(n):
                if i != j:
                    dx, dy = x[j] - x[i], y[j] - y[i]
                    squared = dx * dx + dy * dy + 0.01
                    pull = gravity * mass[j] / (squared * sqrt(squared))
                    ax[i] = ax[i] + pull * dx
                    ay[i] = ay[i] + pull * dy
        return ax, ay

    def f(p: Any) -> Any:
        x, y = list(p[:n]), list(p[n : 2 * n])
        u: list[Any] = [0.0] * n
        v: list[Any] = [0.0] * n
        for _ in range(100):
            ax, ay = accelerations(x, y, p[2 * n])
            for i in range(n):
                u[i] = u[i] + 0.01 * ax[i]
                v[i] = v[i] + 0.01 * ay[i]
                x[i] = x[i] + 0.01 * u[i]
                y[i] = y[i] + 0.01 * v[i]
        return sum([a * a + b * b for a, b in zip(x, y)])

    return f, [*numbers(2 * n), 1.0]


# Equations on a grid.


def burgers() -> Program:
    """40 steps of Burgers' equation on a ring of 32 cells; its energy at the end."""
    n = 32

    def f(u: Any) -> Any:
        u = list(u)
        for _ in range(40):
            u = [
                u[i]
                - 0.1 * u[i] * (u[(i + 1) % n] - u[i - 1])
                + 0.05 * (u[(i + 1) % n] - 2 * u[i] + u[i - 1])
                for i in range(n)
            ]  # fmt: skip
        return sum([a * a for a in u])

    return f, [math.sin(2 * math.pi * i / n) for i in range(n)]


def heat() -> Program:
    """20 steps of the heat equation on a plate of 12 × 12, whose edge is cold; how hot it is in the middle."""
    n = 12

    def f(p: Any) -> Any:
        t = matrix(p, n, n)
        for _ in range(20):
            new = [list(row) for row in t]
            for i in range(1, n - 1):
                for j in range(1, n - 1):
                    new[i][j] = t[i][j] + p[n * n] * (
                        t[i - 1][j] + t[i + 1][j] + t[i][j - 1] + t[i][j + 1] - 4 * t[i][j]
                    )
            t = new
        return t[n // 2][n // 2] ** 2

    return f, [*numbers(n * n), 0.2]


def convolution() -> Program:
    """Four filters of 3 × 3 over an image of 16 × 16, and ten scores of what they find."""
    n, channels, k = 16, 4, 3
    image, m = [numbers(n) for _ in range(n)], n - k + 1

    def f(p: Any) -> Any:
        filters = [matrix(row, k, k) for row in matrix(p, channels, k * k)]
        scores = matrix(p[channels * k * k :], 10, channels * m * m)
        found = []
        for c in range(channels):
            for i in range(m):
                for j in range(m):
                    total = 0.0
                    for a in range(k):
                        for b in range(k):
                            total = total + filters[c][a][b] * image[i + a][j + b]
                    found.append(relu(total))
        z = products(scores, found)
        return logsumexp(z) - z[3]

    return f, [*numbers(channels * k * k), *numbers(10 * channels * m * m, -0.1, 0.1)]


# Series, and filters of them.


def kalman_filter() -> Program:
    """The likelihood of 300 observations of a random walk."""
    observations = [_random.gauss(0, 1) for _ in range(300)]

    def f(p: Any) -> Any:
        drift, noise = exp(p[0]), exp(p[1])
        mean, variance, loss = 0.0, 1.0, 0.0
        for y in observations:
            variance = variance * p[2] * p[2] + drift
            mean = mean * p[2]
            total = variance + noise
            gain, error = variance / total, y - mean
            mean = mean + gain * error
            variance = (1 - gain) * variance
            loss = loss + 0.5 * (log(total) + error * error / total)
        return loss

    return f, [-1.0, -1.0, 0.9]


def garch() -> Program:
    """The likelihood of 500 returns whose variance depends on the last return and the last variance."""
    returns = [_random.gauss(0, 1) for _ in range(500)]

    def f(p: Any) -> Any:
        variance, loss = 1.0, 0.0
        for before, now in pairwise(returns):
            variance = p[0] + p[1] * before * before + p[2] * variance
            loss = loss + 0.5 * (log(variance) + now * now / variance)
        return loss

    return f, [0.1, 0.1, 0.8]


def asian_option() -> Program:
    """The price of an option on the mean of a price, over 50 paths of 40 steps."""
    paths, steps, strike = 50, 40, 100.0
    noise = [[_random.gauss(0, 1) for _ in range(steps)] for _ in range(paths)]

    def f(p: Any) -> Any:
        total = 0.0
        for path in noise:
            price, mean = p[0], 0.0
            for e in path:
                price = price * exp((p[1] - p[2] * p[2] / 2) / steps + p[2] * e * math.sqrt(1 / steps))
                mean = mean + price
            total = total + maximum(mean / steps - strike, 0.0)
        return total / paths * exp(-p[1])

    return f, [100.0, 0.02, 0.3]


def lstm() -> Program:
    """50 steps of an LSTM of eight cells, its gates written out."""
    steps, n = 50, 8
    xs = [numbers(3) for _ in range(steps)]

    def f(p: Any) -> Any:
        weights = matrix(p, 4 * n, 3 + n + 1)
        h: list[Any] = [0.0] * n
        c: list[Any] = [0.0] * n
        for x in xs:
            gates = products(weights, [*x, *h, 1.0])
            c = [sigmoid(gates[n + k]) * c[k] + sigmoid(gates[k]) * tanh(gates[2 * n + k]) for k in range(n)]
            h = [sigmoid(gates[3 * n + k]) * tanh(c[k]) for k in range(n)]
        return sum([a * a for a in h])

    return f, numbers(4 * n * (3 + n + 1), -0.5, 0.5)


def attention() -> Program:
    """Causal attention over 16 vectors of eight numbers."""
    steps, n = 16, 8
    xs = [numbers(n) for _ in range(steps)]

    def f(p: Any) -> Any:
        queries, keys, values = ([products(matrix(own, n, n), x) for x in xs] for own in matrix(p, 3, n * n))
        loss = 0.0
        for t in range(steps):
            scores = [sum([a * b for a, b in zip(queries[t], keys[u])]) / math.sqrt(n) for u in range(t + 1)]
            total = logsumexp(scores)
            weights = [exp(s - total) for s in scores]
            for d in range(n):
                loss = loss + sum([weights[u] * values[u][d] for u in range(t + 1)]) ** 2
        return loss

    return f, numbers(3 * n * n)


# Dynamic programming.


def hidden_markov() -> Program:
    """The likelihood of 60 symbols, by the forward algorithm with four states; symbols are looked up in a table."""
    states, symbols = 4, 5
    seen = [_random.randrange(symbols) for _ in range(60)]

    def f(p: Any) -> Any:
        moves = matrix(p, states, states)
        shows = matrix(p[states * states :], states, symbols)
        forward = [row[seen[0]] for row in shows]
        for symbol in seen[1:]:
            forward = [
                logsumexp([forward[i] + moves[i][j] for i in range(states)]) + shows[j][symbol] for j in range(states)
            ]
        return logsumexp(forward)

    return f, [_random.random() for _ in range(states * (states + symbols))]


def random_field() -> Program:
    """The likelihood of the labels of a chain of 40, each of five, whose scores are linear in four features."""
    length, labels, features = 40, 5, 4
    xs = [numbers(features) for _ in range(length)]
    true = [_random.randrange(labels) for _ in range(length)]

    def f(p: Any) -> Any:
        weights = matrix(p, labels, features)
        moves = matrix(p[labels * features :], labels, labels)
        scores = [products(weights, x) for x in xs]
        score, forward = scores[0][true[0]], scores[0]
        for t in range(1, length):
            score = score + moves[true[t - 1]][true[t]] + scores[t][true[t]]
            forward = [
                logsumexp([forward[i] + moves[i][j] for i in range(labels)]) + scores[t][j] for j in range(labels)
            ]
        return logsumexp(forward) - score

    return f, numbers(labels * (features + labels))


def time_warping() -> Program:
    """Soft dynamic time warping of a series of 24 to one of 20 (Cuturi and Blondel 2017)."""
    n, m, sharpness = 24, 20, 5.0
    target = numbers(m)

    def f(p: Any) -> Any:
        above: list[Any] = [0.0, *[1e3] * m]
        for i in range(n):
            row: list[Any] = [1e3]
            for j in range(m):
                nearest = -logsumexp([-sharpness * x for x in (above[j], above[j + 1], row[j])]) / sharpness
                row.append((p[i] - target[j]) ** 2 + nearest)
            above = row
        return above[m]

    return f, numbers(n)


# Factorizations.


def observations(n: int) -> tuple[list[float], list[float]]:
    """Where something was observed, and what."""
    xs = [i / 4 + 0.1 * math.sin(i * i) for i in range(n)]
    return xs, [math.sin(x) for x in xs]


def gaussian_process(n: int = 20) -> Program:
    """The likelihood of n observations, by Cholesky's factorization of their covariances."""
    xs, ys = observations(n)

    def f(p: Any) -> Any:
        length, scale, noise = exp(p[0]), exp(p[1]), exp(p[2])
        k = [
            [scale * exp(-((a - b) ** 2) / (2 * length * length)) + noise * (i == j) for j, b in enumerate(xs)]
            for i, a in enumerate(xs)
        ]
        lower: list[list[Any]] = [[0.0] * n for _ in range(n)]
        for i in range(n):
            for j in range(i + 1):
                total = k[i][j]
                for m in range(j):
                    total = total - lower[i][m] * lower[j][m]
                lower[i][j] = sqrt(total) if i == j else total / lower[j][j]
        z: list[Any] = []
        for i in range(n):
            total = ys[i]
            for m in range(i):
                total = total - lower[i][m] * z[m]
            z.append(total / lower[i][i])
        return sum([a * a for a in z]) / 2 + sum([log(lower[i][i]) for i in range(n)])

    return f, [0.1, 0.2, -2.0]


PROGRAMS = [
    pendulum, predator_and_prey, double_pendulum, n_body, burgers, heat, convolution, kalman_filter, garch,
    asian_option, lstm, attention, hidden_markov, random_field, time_warping, gaussian_process,
]  # fmt: skip
