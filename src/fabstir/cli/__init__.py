"""The command `fabstir`: one file per command; prints, never decides. Specification: docs/reference/cli.md, generated from
here."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NoReturn


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and leave with its exit code: 0 done, 1 an error with a code, 2 wrong usage, 130 interrupted."""
    from fabstir.cli.app import run  # late: `import fabstir.cli` costs nothing

    sys.exit(run(sys.argv[1:] if arguments is None else arguments))
