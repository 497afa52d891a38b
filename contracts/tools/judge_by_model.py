"""One mutant of JobMarketplace, judged by hypothesis against the settlement model: creation code in hexadecimal on stdin.

Exit code 0: no difference found. 3: a difference, in one line on stdout. Anything else: the test itself broke. A process of its own,
because a mutant may send hypothesis into memory or time that nobody foresaw. Used by mutants.py.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from tests.contracts.test_market_model import MarketMachine, TestMarket


def main() -> None:
    """Run until the first difference; no shrinking, what counts is that there is one."""

    class Mutated(MarketMachine):
        market_code = bytes.fromhex(sys.stdin.read())

    profile = settings(
        TestMarket.settings,
        max_examples=int(sys.argv[1]),
        derandomize=True,
        database=None,
        phases=[Phase.generate],
    )
    try:
        run_state_machine_as_test(Mutated, settings=profile)
    except AssertionError as difference:
        print(str(difference).splitlines()[0] if str(difference) else "the money differs")
        sys.exit(3)


if __name__ == "__main__":
    main()
