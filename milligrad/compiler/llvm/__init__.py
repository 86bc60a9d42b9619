"""Printers of LLVM's intermediate representation, and what makes machine code of it."""
