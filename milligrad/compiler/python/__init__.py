"""Printers of Python."""
