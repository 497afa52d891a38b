"""docs/reference/settlement.md, from the matrix in `fabstir.protocol.matrix`."""

from __future__ import annotations

from fabstir.cli.settlement import INTRODUCTION, KIND_TITLES, PAY_SHORT, PAY_WORDS, matrix_rows, rights_rows
from fabstir.domain.terms import ProofPolicy
from fabstir.protocol.matrix import Kind, Pay, claims
from reference.table import table

OPENING = """\
# Settlement

Every way in which a job can end, what each side gets, and who may call what, from when, until when, at what gas. The planner takes its
calls from this table, the scenario tests walk every cell on a real EVM, and `fabstir explain settlement CASE` prints one of them."""

GAS = """\
Gas is that of one call with its transaction in its usual case: in USDC, with ledgers that were written to before, rounded up. An answer
opens 64 records, the ruling is the dearer one (for the renter), a proof is a real one, whose gas varies
by its path. Measured by `benchmarks/settlement_gas.py` and held by `tests/chain/test_gas.py`."""


def render() -> str:
    """The page: pay, endings, rights."""
    pay = [
        (
            PAY_SHORT[pay],
            PAY_WORDS[pay],
            *(", ".join(f"`{call}`" for call in claims(policy, pay)) or "no call" for policy in ProofPolicy),
        )
        for pay in Pay
    ]
    heads = ("Ending", "When", "Host gets (required)", "Host gets (fallback)", "Bond and stake", "The job ends by")
    endings = {kind: [(f"`{ending}`", *rest) for ending, *rest in matrix_rows(kind)] for kind in Kind}
    rights = [(f"`{call}`", *rest) for call, *rest in rights_rows()]
    return "\n\n".join(
        [
            OPENING,
            INTRODUCTION,
            *(text for kind in Kind for text in (f"## {KIND_TITLES[kind]}", table(heads, endings[kind]))),
            "## How the host collects it",
            table(("Host gets", "That is", "Calls (required)", "Calls (fallback)"), pay),
            "## Who may call what",
            GAS,
            table(("Call", "Who", "From", "Until", "Gas"), rights),
        ]
    )
