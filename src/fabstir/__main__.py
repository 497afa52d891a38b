"""`python -m fabstir`: the same as the `fabstir` command."""

from fabstir.cli import main

if __name__ == "__main__":
    main()
