"""Recurrent layers, which read a sequence one step at a time: RNN, LSTM and GRU.

A layer defines one step on one vector; walking along the sequence, and doing so for each sample of a batch, is the
same for all three and stands once, in `Recurrent`. A layer is single: stack two by giving one's output to the other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from milligrad import functional as F
from milligrad import ops
from milligrad.expected import size
from milligrad.nested import Nested, Shape, full, is_list, shape, transpose
from milligrad.nn.layers import uniform
from milligrad.nn.module import Module, Parameter
from milligrad.typing import Any, TypeAlias

Vector: TypeAlias = Sequence[Any]
State: TypeAlias = tuple[Vector, ...]  # what one sample remembers from step to step: (h,), or (h, c) in an LSTM

ACTIVATIONS = {"tanh": ops.tanh, "relu": ops.relu}


class Recurrent(Module):
    """What the recurrent layers share. A subclass says how many `gates` it has and defines `step`.

    Its parameters, under PyTorch's names, start uniform in ±1/√hidden_size: weight_ih_l0 (gates · hidden_size,
    input_size), weight_hh_l0 (gates · hidden_size, hidden_size), and two biases (gates · hidden_size,). The rows of
    one gate stand together.
    """

    gates: int
    bias_ih_l0: Parameter | None
    bias_hh_l0: Parameter | None

    def __init__(self, input_size: int, hidden_size: int, bias: bool, batch_first: bool) -> None:
        super().__init__()
        self.input_size, self.hidden_size = size(input_size, "input_size"), size(hidden_size, "hidden_size")
        self.bias, self.batch_first = bias, batch_first
        rows, bound = self.gates * hidden_size, 1 / math.sqrt(hidden_size)
        self.weight_ih_l0 = uniform((rows, input_size), bound)
        self.weight_hh_l0 = uniform((rows, hidden_size), bound)
        self.register_parameter("bias_ih_l0", uniform((rows,), bound) if bias else None)
        self.register_parameter("bias_hh_l0", uniform((rows,), bound) if bias else None)

    def step(self, x: Vector, state: State) -> State:
        """The state after the vector x; its first part, h, is also the output. Each layer defines its own."""
        raise NotImplementedError(f"{type(self).__name__} does not define step")

    def from_input(self, x: Vector) -> list[Vector]:
        """W_ih x + b_ih, as one vector per gate."""
        return self._per_gate(F.linear(x, self.weight_ih_l0, self.bias_ih_l0))

    def from_hidden(self, h: Vector) -> list[Vector]:
        """W_hh h + b_hh, as one vector per gate."""
        return self._per_gate(F.linear(h, self.weight_hh_l0, self.bias_hh_l0))

    def _per_gate(self, x: Vector) -> list[Vector]:
        n = self.hidden_size
        return [x[i * n : (i + 1) * n] for i in range(self.gates)]

    def _read(self, xs: Sequence[Vector], state: State) -> tuple[list[Vector], State]:
        """The output of each step along one sequence, and the state after the last."""
        outputs = []
        for x in xs:
            state = self.step(x, state)
            outputs.append(state[0])
        return outputs, state

    def _run(self, input: Nested, states: Sequence[Nested]) -> tuple[Nested, list[Nested]]:
        """`_read` for one sequence, or for each of a batch. A state is (1, H) or (1, N, H), here and in the result."""
        if len(shape(input)) == 2:
            outputs, last = self._read(input, tuple(state[0] for state in states))
            return outputs, [[list(part)] for part in last]
        sequences = input if self.batch_first else transpose(input)
        starts = zip(*[state[0] for state in states], strict=True)
        results = [self._read(xs, start) for xs, start in zip(sequences, starts, strict=True)]
        batch = [outputs for outputs, _ in results]
        lasts = transpose([last for _, last in results])
        return batch if self.batch_first else transpose(batch), [[list(map(list, part))] for part in lasts]

    def _run_h(self, input: Nested, hx: Nested) -> tuple[Nested, Nested]:
        """`_run` where h is the whole state; None is zeros."""
        expected = self._state_shape(input)
        h_0 = full(expected, 0.0) if hx is None else _checked(hx, expected, "hx")
        output, (h_n,) = self._run(input, [h_0])
        return output, h_n

    def _state_shape(self, input: Nested) -> Shape:
        """What shape a state for this input has: (1, H) or (1, N, H). Raises ValueError if the input is none."""
        own = shape(input, "input")
        if len(own) not in (2, 3) or own[-1] != self.input_size:
            batch = "N, L" if self.batch_first else "L, N"
            expected = f"(L, {self.input_size}) or ({batch}, {self.input_size}), with L >= 1"
            raise ValueError(f"input: expected the shape {expected}, got {own}")
        samples = own[:1] if self.batch_first else own[1:2]
        return (1, *(samples if len(own) == 3 else ()), self.hidden_size)

    def extra_repr(self) -> str:
        return f"{self.input_size}, {self.hidden_size}, bias={self.bias}, batch_first={self.batch_first}"


def _checked(state: Nested, expected: Shape, name: str) -> Nested:
    if shape(state, name) != expected:
        raise ValueError(f"{name}: expected the shape {expected}, got {shape(state, name)}")
    return state


class RNN(Recurrent):
    """h ← tanh(W_ih x + b_ih + W_hh h + b_hh), or with relu. Elman 1990.

    Shapes: input (L, input_size), or a batch (L, N, input_size), with `batch_first` (N, L, input_size). Parameters
    and their initial values: see `Recurrent`.
    """

    gates = 1

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
    ) -> None:
        if nonlinearity not in ACTIVATIONS:
            raise ValueError(f"nonlinearity: expected 'tanh' or 'relu', got {nonlinearity!r}")
        super().__init__(input_size, hidden_size, bias, batch_first)
        self.nonlinearity = nonlinearity

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, nonlinearity={self.nonlinearity!r}"

    def step(self, x: Vector, state: State) -> State:
        (h,) = state
        (a,), (b,) = self.from_input(x), self.from_hidden(h)
        f = ACTIVATIONS[self.nonlinearity]
        return ([f(ai + bi) for ai, bi in zip(a, b)],)

    def forward(self, input: Nested, hx: Nested = None) -> tuple[Nested, Nested]:
        """(the h of every step, the last h), starting from the h `hx`, or from zeros.

        Shapes: output as the input with hidden_size numbers in place of input_size; hx and the last h (1, hidden_size)
        or (1, N, hidden_size). Raises ValueError for other shapes.
        """
        return self._run_h(input, hx)


class GRU(Recurrent):
    """A gate r for what to read of the past, and a gate z for how much of it to keep. Cho et al. 2014.

        r = σ(W_ir x + b_ir + W_hr h + b_hr)
        z = σ(W_iz x + b_iz + W_hz h + b_hz)
        n = tanh(W_in x + b_in + r · (W_hn h + b_hn))
        h ← (1 - z) · n + z · h

    As in PyTorch r stands outside of W_hn h + b_hn. Gates in the parameters: r, z, n. Shapes as in `RNN`.
    """

    gates = 3

    def __init__(self, input_size: int, hidden_size: int, *, bias: bool = True, batch_first: bool = False) -> None:
        super().__init__(input_size, hidden_size, bias, batch_first)

    def step(self, x: Vector, state: State) -> State:
        (h,) = state
        return ([_gru(*parts) for parts in zip(*self.from_input(x), *self.from_hidden(h), h)],)

    def forward(self, input: Nested, hx: Nested = None) -> tuple[Nested, Nested]:
        """As `RNN.forward`."""
        return self._run_h(input, hx)


def _gru(ir: Any, iz: Any, in_: Any, hr: Any, hz: Any, hn: Any, h: Any) -> Any:
    """One number of the next h, from what the input (i…) and the hidden state (h…) give to each gate."""
    r = ops.sigmoid(ir + hr)
    z = ops.sigmoid(iz + hz)
    n = ops.tanh(in_ + r * hn)
    return (1 - z) * n + z * h


class LSTM(Recurrent):
    """A memory c beside h, with gates for what enters it (i), what it keeps (f) and what it shows (o).

        i = σ(W_ii x + b_ii + W_hi h + b_hi)         f, o likewise
        g = tanh(W_ig x + b_ig + W_hg h + b_hg)
        c ← f · c + i · g
        h ← o · tanh(c)

    Hochreiter and Schmidhuber 1997, with the forget gate of Gers et al. 2000. Gates in the parameters: i, f, g, o.
    Shapes as in `RNN`.
    """

    gates = 4

    def __init__(self, input_size: int, hidden_size: int, *, bias: bool = True, batch_first: bool = False) -> None:
        super().__init__(input_size, hidden_size, bias, batch_first)

    def step(self, x: Vector, state: State) -> State:
        h, c = state
        pairs = [_lstm(*parts) for parts in zip(*self.from_input(x), *self.from_hidden(h), c)]
        return tuple(transpose(pairs))

    def forward(self, input: Nested, hx: Nested = None) -> tuple[Nested, tuple[Nested, Nested]]:
        """(the h of every step, (the last h, the last c)), starting from hx = (h, c), or from zeros.

        Shapes as in `RNN.forward`, with c as h. Raises ValueError for others.
        """
        expected = self._state_shape(input)
        if hx is None:
            hx = full((2, *expected), 0.0)
        if not is_list(hx) or len(hx) != 2:
            raise ValueError(f"hx: expected a pair (h_0, c_0), each of shape {expected}, got {hx!r:.60}")
        states = [_checked(state, expected, f"hx[{i}]") for i, state in enumerate(hx)]
        output, (h_n, c_n) = self._run(input, states)
        return output, (h_n, c_n)


def _lstm(ii: Any, if_: Any, ig: Any, io: Any, hi: Any, hf: Any, hg: Any, ho: Any, c: Any) -> tuple[Any, Any]:
    """One number of the next h and of the next c, from what input and hidden state give to each gate."""
    i, f, o = ops.sigmoid(ii + hi), ops.sigmoid(if_ + hf), ops.sigmoid(io + ho)
    g = ops.tanh(ig + hg)
    c = f * c + i * g
    return o * ops.tanh(c), c
