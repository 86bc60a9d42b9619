"""The printer of C, and what is told of a program that is exported."""
