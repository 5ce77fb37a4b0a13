"""Mutation testing: `make mutants`, or `cd tests && python -m mutants --help`.

Each mutant is one small fault in one module. The tests nearest to the module must fail with it. mutmut makes the mutants (its
operators, over libcst). Its own runner does not serve here: it wants folders that are named as they are imported, and leaves out
decorated functions and what modules state outside of functions. `run.py` runs the tests instead, on a copy of the code in
build/mutants, so that no fault is ever in the repository's own files.
"""
