"""A function of which the loops are known, to be written down as C: a file that needs nothing but libm, and its header.

A Lowered is what `compile(f).lower(*example)` returns. `in_order.py` writes the statements; here is what stands around
them: the names, the arrays of constants, and a comment that tells what is where, since in C all numbers lie in flat
arrays, in the order in which nested lists are read.
"""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

from milligrad import files, ops
from milligrad.compiler.c.in_order import HELPERS, Language, composed, helpers, statements, table
from milligrad.compiler.passes.compact import compact
from milligrad.compiler.passes.counts import Found
from milligrad.compiler.passes.overlay import overlay
from milligrad.compiler.passes.registers import in_registers
from milligrad.compiler.passes.roll import roll, roll_evenly
from milligrad.compiler.passes.simplify import REFUSING, Graph, simplify
from milligrad.compiler.structure import Structure, size
from milligrad.compiler.trace import Trace, captured, inputs_of, needed
from milligrad.engine import Op, Value
from milligrad.nested import shape

LINES = 40  # of a comment on one array, at most
WORDS = """
    auto break case char const continue default do double else enum extern float for goto if inline int long register
    restrict return short signed sizeof static struct switch typedef union unsigned void volatile while asm fortran
    alignas alignof and and_eq bitand bitor bool catch char16_t char32_t class compl constexpr const_cast decltype
    delete dynamic_cast explicit export false friend mutable namespace new noexcept not not_eq nullptr operator or or_eq
    private protected public reinterpret_cast static_assert static_cast template this thread_local throw true try
    typeid typename using virtual wchar_t xor xor_eq linux unix

    abort abs calloc div double_t exit float_t fprintf fputc fputs free fscanf fwrite imaxabs isalnum isalpha isblank
    iscntrl isdigit isgraph islower isprint ispunct isspace isupper isxdigit labs llabs main malloc memchr memcmp memcpy
    memmove memset printf putc putchar puts realloc scanf signgam snprintf sprintf sscanf strcat strchr strcmp strcpy
    strcspn strlen strncat strncmp strncpy strpbrk strrchr strspn strstr tolower toupper vfprintf vfscanf vprintf
    vscanf vsnprintf vsprintf vsscanf

    FP_INFINITE FP_NAN FP_NORMAL FP_SUBNORMAL FP_ZERO HUGE_VAL HUGE_VALF HUGE_VALL INFINITY MATH_ERREXCEPT MATH_ERRNO
    NAN fpclassify isfinite isgreater isgreaterequal isinf isless islessequal islessgreater isnan isnormal
    isunordered math_errhandling signbit

    arguments constants exact exact_constants exact_known exact_table known parameters plain results table work
"""
MATH = """
    acos acosh asin asinh atan atan2 atanh cbrt ceil copysign cos cosh erf erfc exp exp2 expm1 fabs fdim floor fma
    fmax fmin fmod frexp gamma hypot ilogb j0 j1 jn ldexp lgamma llrint llround log log10 log1p log2 logb lrint
    lround modf nan nearbyint nextafter nexttoward pow remainder remquo rint round scalbln scalbn sin sinh sqrt tan
    tanh tgamma trunc y0 y1 yn cabs cacos cacosh carg casin casinh catan catanh ccos ccosh cexp cimag clog conj cpow
    cproj creal csin csinh csqrt ctan ctanh
"""  # each for float, double and long double
TAKEN = frozenset([
    *WORDS.split(), *HELPERS, *composed(), *[f"{word}{of}" for word in MATH.split() for of in ("", "f", "l")],
])  # fmt: skip
"""By C, C++, their libraries and the file itself: no names for a function."""


class Files(NamedTuple):
    """The texts of a .c file and of the .h file that goes with it."""

    source: str
    header: str


class Lowered:
    """The loops of a function, for one shape of its arguments; see `Compiled.lower`.

    c_source, header:  the texts of the C file and its header, with the function's own name and dtype, and the numbers
                       of captured Values in the file. `c` gives them in another form, and `save_c` writes them.
    """

    def __init__(
        self, name: str, dtype: str, f: Callable[..., Any], trace: Trace, outputs: Sequence[Any],
        arguments: Structure, returned: Structure, counted: tuple[Found, Found | None] | None = None,
    ) -> None:  # fmt: skip
        self.name, self.dtype = name, dtype
        self._about = (inspect.getdoc(f) or "") if inspect.isroutine(f) else ""
        self._arguments = [part for argument in _named_arguments(f, arguments) for part in layout(*argument)]
        self._returned, self._width = [*layout("result", returned)], size(returned)
        need = needed(trace.tape, [*outputs])
        if any([need[x.number] for x in trace.random]):
            raise ValueError(
                f"{name}: draws random numbers, which C code has no generator for: hand them in as arguments, or call "
                "eval() of a module with Dropout before"
            )
        values = captured(trace.tape, need, [*outputs])
        self._parameters = [(x.name or "", [x]) for x in values] if counted else [*_parameters(trace, values)]
        leaves: dict[Any, tuple[int, int]] = {x: (0, i) for i, x in enumerate(trace.inputs["arguments"])}
        leaves.update((x, (1, i)) for i, x in enumerate([x for _, xs in self._parameters for x in xs]))
        self._plain: Graph | Found
        self._exact: Graph | Found | None
        if counted:
            self._plain, self._exact = counted
        else:
            graph = simplify(trace.tape, outputs)
            doubtful = is_doubtful(trace, need, graph.op)
            self._plain = _placed(graph, leaves)
            self._exact = _placed(simplify(trace.tape, outputs, exact="chain"), leaves) if doubtful else None

    @property
    def c_source(self) -> str:
        """The C file."""
        return self.c().source

    @property
    def header(self) -> str:
        """The header of the C file."""
        return self.c().header

    def c(
        self,
        name: str | None = None,
        *,
        dtype: str | None = None,
        parameters: Literal["constants", "argument"] = "constants",
    ) -> Files:
        """The function as a C99 file and its header, which C++ can include, too.

            void f(const double *arguments, double *results, double *work)

        All numbers of the arguments lie in one array, in the order of the nested lists, and so do those of the results;
        a comment tells which is where. `work` is scratch memory for F_WORK numbers, which the header defines, as it
        does F_ARGUMENTS and F_RESULTS. Nothing is allocated, and nothing kept from call to call, so that calls with
        different arrays may run at once. Outside of the domain of an operation a number is NaN or infinite.

        name:        of the function, made an identifier of C where it is none; by default that of the function lowered.
        dtype:       "float64" for double, "float32" for float; by default as it was compiled.
        parameters:  the numbers of Values that f uses besides its arguments: "constants" in the file, as they are now,
                     or an "argument", an array `const double *parameters` after the arguments, in an order that the
                     comment tells.

        Raises NotImplementedError for an operation of your own.
        """
        dtype = self.dtype if dtype is None else dtype
        if dtype not in ("float64", "float32"):
            raise ValueError(f"dtype: expected 'float64' or 'float32', got {dtype!r}")
        if parameters not in ("constants", "argument"):
            raise ValueError(f"parameters: expected 'constants' or 'argument', got {parameters!r}")
        if name is not None and not isinstance(name, str):
            raise TypeError(f"name: expected a string, got {type(name).__name__} {name!r:.60}")
        writer = _Writer(self, identifier(self.name if name is None else name), dtype, parameters == "argument")
        return Files(writer.source(), writer.header())

    def save_c(
        self,
        path: str | os.PathLike[str],
        *,
        dtype: str | None = None,
        parameters: Literal["constants", "argument"] = "constants",
    ) -> None:
        """Write the C file and, beside it, its header; for the function in it, which has the file's name, see `c`.

        Raises ValueError for a name that does not end in .c.
        """
        target = os.fspath(path) if isinstance(path, os.PathLike) else path
        made: list[Files] = []

        def source() -> str:
            stem = os.path.splitext(os.path.basename(os.fsdecode(target)))[0]
            made.append(self.c(stem, dtype=dtype, parameters=parameters))
            return made[0].source

        files.save(target, {".c": source})
        files.save(f"{os.path.splitext(os.fsdecode(target))[0]}.h", {".h": lambda: made[0].header})

    @property
    def _parameter_names(self) -> list[tuple[str, int]]:
        """What the array of parameters holds: numbers without a name together."""
        told: list[tuple[str, int]] = []
        for name, xs in self._parameters:
            if not name and told and not told[-1][0]:
                told[-1] = "", told[-1][1] + 1
            else:
                told.append((name, len(xs)))
        return told

    def __repr__(self) -> str:
        nodes = len(self._plain) if isinstance(self._plain, Graph) else self._plain.program.nodes[1]
        return f"<lowered {self.name}: {nodes:,} nodes>"


def identifier(name: str) -> str:
    """The name as one of a function in C: letters, digits and _, no word of the language or of its library."""
    z = re.sub(r"\W", "_", name, flags=re.ASCII).strip("_") or "f"
    if z[0].isdigit():
        z = f"f_{z}"
    return f"{z}_" if z in TAKEN else z


# What the arrays hold.


def _named_arguments(f: Callable[..., Any], arguments: Structure) -> Iterator[tuple[str, Structure]]:
    """Each argument with its name."""
    given, by_name = arguments.parts
    try:
        parameters = [*inspect.signature(getattr(f, "forward", f)).parameters.values()]
    except (TypeError, ValueError):
        parameters = []
    names = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    more = next((p.name for p in parameters if p.kind is p.VAR_POSITIONAL), "argument")
    for i, part in enumerate(given.parts):
        yield names[i] if i < len(names) else f"{more}[{i - len(names)}]", part
    yield from zip(*by_name.parts, strict=True)


def _parameters(trace: Trace, values: list[Value]) -> Iterator[tuple[str, list[Value]]]:
    """The captured Values, by names: whole Parameters of the modules that were called, then all others."""
    left = dict.fromkeys(values)
    for module in trace.modules:
        for name, parameter in module.named_parameters():
            own = parameter.values()
            if any([x in left for x in own]) and len({*own}) == len(own):
                yield f"{name}{_brackets(shape(parameter))}", own
                for x in own:
                    left.pop(x, None)
    for x in left:
        yield x.name or "", [x]


def _brackets(dims: Sequence[int]) -> str:
    return "".join([f"[{n}]" for n in dims])


def _shape(s: Structure) -> tuple[int, ...] | None:
    """The lengths of nested lists; None if they are ragged, or hold something else than numbers."""
    if s.kind == "number":
        return ()
    if s.kind == "numbers":
        return (s.parts,)
    if s.kind not in ("list", "tuple"):
        return None
    inner = {_shape(part) for part in s.parts}
    one = inner.pop() if len(inner) == 1 else None
    return None if one is None else (len(s.parts), *one)


def layout(name: str, s: Structure) -> Iterator[tuple[str, int]]:
    """What follows what in a flat array: (name and shape, how many numbers)."""
    dims = None if s.kind == "tuple" else _shape(s)
    if dims is not None:
        yield f"{name}{_brackets(dims)}", size(s)
    elif s.kind == "fixed":
        yield f"{name} = {s.parts!r:.60}, which is fixed", 0
    elif s.kind == "record":
        fields = s.parts[0]
        named = zip(*fields.parts, strict=True) if fields.kind == "dict" else zip(s.key[-1]._fields, fields.parts)
        for field, part in named:
            yield from layout(f"{name}.{field}", part)
    else:
        keys, parts = s.parts if s.kind == "dict" else (range(len(s.parts)), s.parts)
        for key, part in zip(keys, parts, strict=True):
            yield from layout(f"{name}[{key!r}]", part)


def _told(array: str, parts: Sequence[tuple[str, int]]) -> Iterator[str]:
    """Lines that tell what the array holds."""
    at = 0
    for text, n in parts[:LINES]:
        where = "" if not n else f"{array}[{at}]" if n == 1 else f"{array}[{at} .. {at + n - 1}]"
        yield f"{where:24} {text}"
        at += n
    if len(parts) > LINES:
        yield f"… and so on, {len(parts) - LINES} more"


def _in_comment(text: str) -> str:
    """The text as one that ends no comment, and that every compiler reads."""
    ascii = text.replace("…", "...").encode("ascii", "replace").decode()
    return ascii.replace("*/", "* /").replace("/*", "/ *").replace("\\", "/").replace("??", "? ?")


# The files.


def _placed(graph: Graph, leaves: dict[Any, tuple[int, int]]) -> Graph:
    """The graph with places in the stead of Symbols and Values: plain data, which can be pickled."""
    placed = Graph()
    placed.op, placed.inputs, placed.outputs = graph.op, graph.inputs, graph.outputs
    placed.exact, placed.again = graph.exact, graph.again
    placed.source = {i: x if type(x) is float else leaves[x] for i, x in graph.source.items()}
    return placed


def is_doubtful(trace: Trace, need: bytearray, used: Iterable[Op | None]) -> bool:
    """Whether a product of the chain rule may be 0 · inf, which is 0: see `simplify.Builder`.

    An angle that is infinite comes from another operation, so that sines make no doubt.
    """
    refusing = REFUSING - {ops.sin, ops.cos, ops.tan}
    differentiated = any([need[z.number] and z.op is ops.chain for z in trace.tape if inputs_of(z)])
    return differentiated and any([op in refusing for op in used])


class _Writer:
    """The texts for one name, one dtype and one place of the parameters."""

    def __init__(self, lowered: Lowered, name: str, dtype: str, parameters: bool) -> None:
        self.lowered, self.name, self.takes_parameters = lowered, name, parameters
        self.code = Language(dtype)
        self.work = 1
        self.arrays: list[str] = []
        self.functions: list[str] = []
        self._write()

    def _write(self) -> None:
        """Write the functions, and the arrays that they use."""
        lowered = self.lowered
        if lowered._exact is None:
            body = self._body(lowered._plain, "")
            self.functions += [self._head(), "{", *self._unused(body), *body, "}"]
        else:
            for name, graph, prefix in (("plain", lowered._plain, ""), ("exact", lowered._exact, "exact_")):
                body = self._body(graph, prefix)
                self.functions += [self._head(f"static {name}"), "{", *self._unused(body), *body, "}", ""]
            given = ", ".join([word for word, _ in self._signature()])
            self.functions += [
                self._head(), "{",
                f"    plain({given});",
                f"    for (long i = 0; i < {lowered._width}; i++) {{",
                f"        if (results[i] - results[i] != {self.code.literal(0.0)}) {{ /* NaN or infinite */",
                f"            exact({given});",
                "            return;",
                "        }",
                "    }",
                "}",
            ]  # fmt: skip
        numbers = [x.data for _, xs in lowered._parameters for x in xs]
        if not self.takes_parameters and any(["parameters[" in line for line in self.functions]):
            self.arrays = [*self._parameters_told(), *self.code.array("parameters", numbers), "", *self.arrays]

    def _parameters_told(self) -> list[str]:
        told = [*_told("parameters", self.lowered._parameter_names)]
        return ["/*", *[_in_comment(f"   {line}") for line in told], "*/"] if any(told) else []

    def _body(self, program: Graph | Found, prefix: str) -> list[str]:
        leaves: Sequence[str] = ("arguments", "parameters")
        known: list[float] = []
        if isinstance(program, Graph):
            rolled = (roll_evenly if program.again else roll)(
                program, {x: x for x in program.source.values() if type(x) is tuple}
            )
            steps = in_registers(rolled)
            if program.again:
                overlay(steps, rolled)
            steps = compact(steps, rolled)
        else:
            steps, rolled, arrays = program.of_length()
            leaves = [{"captured": "parameters", "known": f"{prefix}known"}.get(name, name) for name in arrays]
            known = program.known() if "known" in arrays else known
        lines = statements(rolled, steps, leaves, self.code, prefix)
        self.work = max(self.work, rolled.values)
        used = {name for name in ("known", "constants", "table") if any([f"{prefix}{name}[" in x for x in lines])}
        if "known" in used:
            self.arrays += [*self.code.array(f"{prefix}known", known), ""]
        if "constants" in used:
            self.arrays += [*self.code.array(f"{prefix}constants", rolled.constants), ""]
        if "table" in used:
            self.arrays += [*table(f"{prefix}table", rolled.table), ""]
        return lines

    def _signature(self) -> list[tuple[str, str]]:
        of = self.code.type
        inputs = ["arguments", *["parameters"] * self.takes_parameters]
        return [*[(x, f"const {of} *") for x in inputs], ("results", f"{of} *"), ("work", f"{of} *")]

    def _head(self, function: str = "", restrict: str = "restrict ") -> str:
        static, name = function.split() if function else ("", self.name)
        parameters = ", ".join([f"{of}{restrict}{x}" for x, of in self._signature()])
        return f"{static} void {name}({parameters})".strip()

    def _unused(self, body: list[str]) -> list[str]:
        text = "\n".join(body)
        return [f"    (void){x};" for x, _ in self._signature() if f"{x}[" not in text]

    def _comment(self, file: str) -> list[str]:
        from milligrad import __version__

        lowered, name = self.lowered, self.name.upper()
        about = [f"{line}" for line in lowered._about.split("\n")[:LINES]] if lowered._about else []
        lines = [
            f"{file}: {lowered.name}, written by milligrad {__version__}", *[""] * bool(about), *about, "",
            f"{self._head(restrict='')};", "",
            *_told("arguments", lowered._arguments),
            *(_told("parameters", lowered._parameter_names) if self.takes_parameters else ()),
            *_told("results", lowered._returned),
            f"{f'work[{name}_WORK]':24} scratch memory, {self.work} numbers; what it holds does not matter", "",
            "The arrays must not overlap. Nothing is allocated or kept: calls with other arrays may run at once.",
            "Outside of the domain of an operation, as for log(-1), a number is NaN or infinite.",
        ]  # fmt: skip
        return ["/*", *[f"   {_in_comment(line)}".rstrip() for line in lines], "*/"]

    def source(self) -> str:
        types = ["#include <stdint.h>"] if any(["uint" in line for line in self.arrays]) else []
        called = helpers(self.functions, self.code)
        lines = [*self._comment(f"{self.name}.c"), "", "#include <math.h>", *types, "", *self.arrays, *called]
        return "\n".join([*lines, f"{self._head(restrict='')};", "", *self.functions, ""])

    def header(self) -> str:
        name, lowered = self.name.upper(), self.lowered
        sizes = {"ARGUMENTS": sum([n for _, n in lowered._arguments])}
        if self.takes_parameters:
            sizes["PARAMETERS"] = sum([len(xs) for _, xs in lowered._parameters])
        sizes |= {"RESULTS": lowered._width, "WORK": self.work}
        return "\n".join([
            *self._comment(f"{self.name}.h"), "",
            f"#ifndef {name}_H", f"#define {name}_H", "",
            *[f"#define {name}_{what} {n}" for what, n in sizes.items()], "",
            "#ifdef __cplusplus", 'extern "C" {', "#endif", "",
            f"{self._head(restrict='')};", "",
            "#ifdef __cplusplus", "}", "#endif", "",
            "#endif", "",
        ])  # fmt: skip
