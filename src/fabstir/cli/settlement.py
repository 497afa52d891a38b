"""The settlement matrix in words, as text, as a table and as data. All facts are `fabstir.protocol.matrix`; nothing is
decided here."""

from __future__ import annotations

from typing import Any, Final

from fabstir.domain.terms import ProofPolicy
from fabstir.protocol.matrix import MATRIX, RIGHTS, Call, Cell, Ending, Pay

PAY_WORDS: Final = {
    Pay.NOTHING: "nothing",
    Pay.SIGNED: "every token that the renter signed for",
    Pay.SIGNED_AND_TAIL: "every token that the renter signed for, and at most W proven ones beyond",
}
PAY_SHORT: Final = {Pay.NOTHING: "nothing", Pay.SIGNED: "signed", Pay.SIGNED_AND_TAIL: "signed + W proven"}
INTRODUCTION: Final = (
    "The renter gets the rest of the deposit, in each case. Of what the host gets, 5 % are the marketplace's fee. "
    "The proof policy stands in the terms: `required` pays nothing without a valid proof, `fallback` needs one only for what "
    "the renter did not sign."
)


def as_data(endings: tuple[Ending, ...]) -> dict[str, Any]:
    """Cases and rights, for JSON."""
    cases = [
        {
            "ending": cell.ending.value,
            "policy": cell.policy.name.lower(),
            "when": cell.when,
            "host_gets": cell.host_gets.value,
            "host_gets_words": PAY_WORDS[cell.host_gets],
            "host_calls": [call.value for call in cell.host_calls],
            "closed_by": [call.value for call in cell.closed_by],
        }
        for cell in MATRIX.values()
        if cell.ending in endings
    ]
    rights = [{"call": right.call.value, "who": right.who, "from": right.start, "until": right.end} for right in RIGHTS]
    return {"cases": cases, "rights": rights}


def as_text(ending: Ending) -> str:
    """One ending under both policies, and the rights to the calls that matter for it."""
    lines = [f"{ending.value}: {MATRIX[ending, ProofPolicy.REQUIRED].when}."]
    for policy in ProofPolicy:
        cell = MATRIX[ending, policy]
        lines += ["", f"Proof policy `{policy.name.lower()}`:", f"  The host gets    {PAY_WORDS[cell.host_gets]}."]
        lines.append("  The renter gets  the rest of the deposit.")
        if cell.host_calls:
            lines.append(f"  The host calls   {_joined(cell.host_calls, ', then ')}.")
        lines.append(f"  The job ends by  {_joined(cell.closed_by, ' or ')}.")
    calls = {call for policy in ProofPolicy for call in _calls(MATRIX[ending, policy])}
    lines += ["", "Who may call what:"]
    for right in RIGHTS:
        if right.call in calls:
            lines.append(f"  {right.call.value + ':':18} {right.who}, {right.start}, until {right.end}.")
    return "\n".join(lines)


def as_table() -> object:
    """The whole matrix, then the rights, for rich."""
    from rich.console import Group
    from rich.table import Table

    matrix = Table(title="Endings", box=None, pad_edge=False, title_justify="left")
    matrix.add_column("ending", no_wrap=True)
    for heading in ("when", "host gets (required)", "host gets (fallback)"):
        matrix.add_column(heading, overflow="fold")
    for row in matrix_rows():
        matrix.add_row(*row[:4])
    rights = Table(title="Who may call what", box=None, pad_edge=False, title_justify="left")
    rights.add_column("call", no_wrap=True)
    for heading in ("who", "from", "until"):
        rights.add_column(heading, overflow="fold")
    for row in rights_rows():
        rights.add_row(*row)
    return Group(INTRODUCTION.replace("`", ""), "", matrix, "", rights)


def matrix_rows() -> list[tuple[str, ...]]:
    """One row per ending, both policies side by side."""
    rows: list[tuple[str, ...]] = []
    for ending in Ending:
        required, fallback = MATRIX[ending, ProofPolicy.REQUIRED], MATRIX[ending, ProofPolicy.FALLBACK]
        gets = PAY_SHORT[required.host_gets], PAY_SHORT[fallback.host_gets]
        rows.append((ending.value, required.when, *gets, _joined(required.closed_by, " or ")))
    return rows


def rights_rows() -> list[tuple[str, ...]]:
    """One row per function of the contract."""
    return [(right.call.value, right.who, right.start, right.end) for right in RIGHTS]


def _calls(cell: Cell) -> tuple[Call, ...]:
    return (*cell.host_calls, *cell.closed_by, *((Call.REQUEST_CLOSE,) if Call.FINALIZE in cell.closed_by else ()))


def _joined(calls: tuple[Call, ...], word: str) -> str:
    return word.join(call.value for call in calls)
