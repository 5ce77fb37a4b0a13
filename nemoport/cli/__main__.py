"""`python -m nemoport.cli` is `nemoport`."""

import sys

from nemoport.cli import main

if __name__ == "__main__":  # a process that validate starts imports this module again
    sys.exit(main())
