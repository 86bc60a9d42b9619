"""The compiler: from code on single numbers back to loops. See README.md in this folder."""

from milligrad.compiler.compiled import Compiled, compile

__all__ = ["Compiled", "compile"]
