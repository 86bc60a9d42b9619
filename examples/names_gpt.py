"""A GPT of single numbers: it reads names letter by letter, learns to guess the next letter, and makes up new names.

    python examples/names_gpt.py --backend auto

The network of a large language model at a size that you can follow: one layer, 4,192 parameters, no batches. A step of
training is one name. The plan is that of Radford et al. 2018, "Improving language understanding by generative
pre-training"; as in its descendants, vectors are normalized before they enter a layer, and nothing has a bias.

    token     a letter as a number, 0 to 25, or END, which stands before the first letter and after the last one
    place     where in a name a token stands, from 0 to CONTEXT - 1
    logits    a number for each token: the larger, the likelier that it comes next
    weights   how much of each value there is in a mixture; they sum to 1
"""

from argparse import ArgumentDefaultsHelpFormatter, ArgumentParser
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from random import Random

from milligrad import Trainer, dot, manual_seed, nn, no_grad
from milligrad import functional as F
from milligrad.data import load_names
from milligrad.optim import Adam
from milligrad.optim.lr_scheduler import LinearLR

LETTERS = "abcdefghijklmnopqrstuvwxyz"
END = len(LETTERS)
VOCABULARY, WIDTH, HEADS, CONTEXT = END + 1, 16, 4, 16
HEAD = WIDTH // HEADS
PARTS = 10  # of the training, each with a lower learning rate than the last

linear = partial(nn.Linear, bias=False)
norm = partial(F.rms_norm, normalized_shape=(WIDTH,), eps=1e-5)


def add(x, y):
    return [a + b for a, b in zip(x, y, strict=True)]


class GPT(nn.Module):
    """Tokens → logits for each place. What comes after a place has no part in its logits."""

    def __init__(self):
        super().__init__()
        self.token, self.place = nn.Embedding(VOCABULARY, WIDTH), nn.Embedding(CONTEXT, WIDTH)
        self.query, self.key, self.value, self.mix = (linear(WIDTH, WIDTH) for _ in range(4))
        self.widen, self.narrow = linear(WIDTH, 4 * WIDTH), linear(4 * WIDTH, WIDTH)
        self.logits = linear(WIDTH, VOCABULARY)

    def forward(self, tokens):
        xs = [add(x, place) for x, place in zip(self.token(tokens), self.place(range(len(tokens))))]
        xs = [add(x, change) for x, change in zip(xs, self.attention(norm(xs)))]
        xs = [add(x, self.narrow(F.relu(self.widen(norm(x))))) for x in xs]
        return self.logits(xs)

    def attention(self, xs):
        """What each place learns from those up to it."""
        queries, keys, values = self.query(xs), self.key(xs), self.value(xs)
        return [self.mix(self.look(q, keys[: t + 1], values[: t + 1])) for t, q in enumerate(queries)]

    def look(self, query, keys, values):
        """In each head, a mixture of the values: the better its key fits the query, the more of a value is in it."""
        mixture = []
        for head in [slice(i, i + HEAD) for i in range(0, WIDTH, HEAD)]:
            weights = F.softmax([dot(query[head], key[head]) / HEAD**0.5 for key in keys])
            mixture += [dot(weights, column) for column in zip(*[value[head] for value in values])]
        return mixture


def encode(name):
    """The tokens to read, and those to guess: at each place, the next one."""
    if not set(name) <= set(LETTERS) or not 0 < len(name) < CONTEXT:
        raise ValueError(f"name: expected 1 to {CONTEXT - 1} letters a to z, got {name!r}")
    tokens = [LETTERS.index(letter) for letter in name]
    return [END, *tokens], [*tokens, END]


@no_grad()
def generate(model, random, temperature=0.7):
    """A new name. The lower the temperature, the more often the likeliest letters are drawn."""
    tokens = [END]
    while len(tokens) < CONTEXT:
        chances = F.softmax([z / temperature for z in model(tokens)[-1]])
        (token,) = random.choices(range(VOCABULARY), map(float, chances))
        if token == END:
            break
        tokens.append(token)
    return "".join(LETTERS[token] for token in tokens[1:])


def main(arguments=None):
    parser = ArgumentParser(description="Make up names.", formatter_class=ArgumentDefaultsHelpFormatter)
    parser.add_argument("--names", type=Path, help="a file with a name on each line; None: those of milligrad.data")
    parser.add_argument("--steps", type=int, default=1000, help="how many names to learn from")
    parser.add_argument("--seed", type=int, default=0, help="of the first weights, the order, and the new names")
    parser.add_argument("--backend", default="eager", help="eager, python, llvm or auto")
    options = parser.parse_args(arguments)
    manual_seed(options.seed)
    random = Random(options.seed)
    names = options.names.read_text().lower().split() if options.names else load_names()
    random.shuffle(names)
    batches = [encode(name) for name in islice(cycle(names), options.steps)]

    model = GPT()
    optimizer = Adam(model.parameters(), lr=0.01)
    scheduler = LinearLR(optimizer, start_factor=1.0, end_factor=0.0, total_iters=PARTS)
    trainer = Trainer(model, nn.CrossEntropyLoss(), optimizer, options.backend)
    for part in range(min(PARTS, len(batches))):
        history = trainer.fit(batches[part::PARTS], shuffle=False, scheduler=scheduler)
        if history.interrupted:
            break
        print(f"part {part + 1:2} of {PARTS}   loss {history.loss[-1]:.3f}", flush=True)
    print("\n".join(generate(model, random) for _ in range(20)))


if __name__ == "__main__":
    main()
