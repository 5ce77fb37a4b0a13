"""Progress lines of the command line."""

import sys


def print_progress(line: str) -> None:
    """Prints to stderr, at once. A function of a module, so that it can be handed to another process."""
    print(line, file=sys.stderr, flush=True)
