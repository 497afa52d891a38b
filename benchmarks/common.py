"""What every benchmark shares: the two options, and the one JSON object that it prints.

`claim` (a sentence), `ours`, `peer`, `ratio`, `unit`, `n`; further figures by name with the unit in it.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from typing import Any


def main(measure: Callable[[bool], dict[str, Any]], description: str) -> None:
    """Parse `--json` and `--quick`, measure, print."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.add_argument("--quick", action="store_true", help="fewer rounds, under 50 s")
    options = parser.parse_args()
    result = measure(options.quick)
    if options.json:
        sys.stdout.write(json.dumps(result) + "\n")
        return
    for name, value in result.items():
        sys.stdout.write(f"{name:28} {value}\n")
