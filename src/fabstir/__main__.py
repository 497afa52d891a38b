"""`python -m fabstir`: the same as the `fabstir` command."""

import sys

from fabstir.cli import main

if __name__ == "__main__":
    sys.exit(main())
