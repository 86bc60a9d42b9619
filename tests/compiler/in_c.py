"""Compiled functions as C code, compiled by the system's cc with every warning an error. Not a test itself.

loaded(f.lower(x), folder)     a C function, from flat lists to a flat list
compiled_by("c", f)(x)         as compile(f, backend="python")(x), with the results in a flat list
"""

from __future__ import annotations

import _ctypes
import ctypes
import math
import re
import shutil
import subprocess
import weakref
from pathlib import Path
from tempfile import TemporaryDirectory

from milligrad import compile
from milligrad.compiler.c.lowered import identifier
from milligrad.compiler.structure import flat, structure

CC = ["cc", "-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", "-O1"]
TYPES = {"float64": ctypes.c_double, "float32": ctypes.c_float}
HAS_CC = shutil.which("cc") is not None


def sizes(header):
    return {what: int(n) for what, n in re.findall(r"^#define \w+_([A-Z]+) (\d+)$", header, re.MULTILINE)}


def loaded(lowered, folder, name="f", dtype="float64", parameters="constants"):
    """The compiled C function, from lists of numbers to the list of results."""
    source, header = lowered.c(name, dtype=dtype, parameters=parameters)
    (folder / f"{name}.c").write_text(source)
    path = folder / f"{name}_{dtype}_{parameters}.so"
    subprocess.run([*CC, "-shared", "-fPIC", "-o", path, folder / f"{name}.c", "-lm"], check=True)
    library = ctypes.CDLL(str(path))
    function = getattr(library, identifier(name))
    size, of = sizes(header), TYPES[dtype]
    work, results = (of * size["WORK"])(), (of * max(size["RESULTS"], 1))()

    def call(*inputs):
        assert len(inputs[0]) == size["ARGUMENTS"] and (len(inputs) == 1 or len(inputs[1]) == size["PARAMETERS"])
        work[:] = [math.nan] * len(work)  # what it holds does not matter
        function(*[(of * max(len(x), 1))(*x) for x in inputs], results, work)
        return list(results)[: size["RESULTS"]]

    if hasattr(_ctypes, "dlclose"):
        weakref.finalize(call, _ctypes.dlclose, library._handle)
    return call


def compiled_by(backend, f, nonfinite="raise"):
    """f compiled by a backend or, by "c", as the C file that it is lowered to, for each shape of the arguments anew.

    As the others do, it raises FloatingPointError for a result that is not finite, unless `nonfinite` allows it.
    """
    compiled = compile(f, backend="python" if backend == "c" else backend, nonfinite=nonfinite)
    if backend != "c":
        return compiled
    known = {}

    def call(*args):
        shape = structure((args, {}), []).key
        if shape not in known:
            with TemporaryDirectory() as folder:
                known[shape] = loaded(compiled.lower(*args), Path(folder))
        results = known[shape](flat(args))
        if nonfinite == "raise" and not all(map(math.isfinite, results)):
            raise FloatingPointError(f"the result is not finite: {results}")
        return results

    return call
