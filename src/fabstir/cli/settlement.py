"""The settlement matrix in words, as text, as a table and as data. All facts are `fabstir.protocol.matrix`; nothing is
decided here."""

from __future__ import annotations

from typing import Any, Final

from fabstir.domain.terms import ProofPolicy
from fabstir.protocol.matrix import MATRIX, RIGHTS, Bond, Call, Cell, Ending, Kind, Pay

PAY_WORDS: Final = {
    Pay.NOTHING: "nothing",
    Pay.SIGNED: "every token that the renter signed for",
    Pay.SIGNED_AND_TAIL: "every token that the renter signed for, and at most W proven ones beyond",
}
PAY_SHORT: Final = {Pay.NOTHING: "nothing", Pay.SIGNED: "signed", Pay.SIGNED_AND_TAIL: "signed + W proven"}
BOND_WORDS: Final = {
    Bond.NONE: "",
    Bond.TO_RENTER: "The renter gets its bond back.",
    Bond.TO_HOST: "The renter's bond goes to the host.",
}
KIND_TITLES: Final = {Kind.SESSION: "Sessions", Kind.PROMPT: "Prompts"}
INTRODUCTION: Final = (
    "The renter gets the rest of the deposit, in each case. Of what the host gets, 5 % are the marketplace's fee. "
    "The proof policy stands in the terms: `required` pays nothing without a valid proof, `fallback` needs one only for what "
    "the renter did not sign. What is claimed without a signature is held for `challenge` seconds, in which the renter can dispute it."
)


def as_data(endings: tuple[Ending, ...]) -> dict[str, Any]:
    """Cases and rights, for JSON."""
    cases = [
        {
            "kind": cell.kind.value,
            "ending": cell.ending.value,
            "policy": cell.policy.name.lower(),
            "when": cell.when,
            "host_gets": cell.host_gets.value,
            "host_gets_words": PAY_WORDS[cell.host_gets],
            "host_calls": [call.value for call in cell.host_calls],
            "other_calls": [call.value for call in cell.other_calls],
            "closed_by": [call.value for call in cell.closed_by],
            "bond": cell.bond.value,
            "host_slashed": cell.slashed,
        }
        for cell in MATRIX.values()
        if cell.ending in endings
    ]
    rights = [
        {"call": right.call.value, "who": right.who, "from": right.start, "until": right.end, "gas": right.gas}
        for right in RIGHTS
    ]
    return {"cases": cases, "rights": rights}


def as_text(ending: Ending) -> str:
    """One ending, of each kind of job that has it, under both policies; and the rights to the calls that matter for it."""
    lines = []
    for kind in Kind:
        if (kind, ending, ProofPolicy.REQUIRED) in MATRIX:
            lines += [*_kind_lines(kind, ending), ""]
    calls = {call for cell in MATRIX.values() if cell.ending is ending for call in _calls(cell)}
    lines.append("Who may call what:")
    for right in RIGHTS:
        if right.call in calls:
            lines.append(
                f"  {right.call.value + ':':18} {right.who}; {right.start}; until {right.end}; {right.gas:,} gas."
            )
    return "\n".join(lines)


def _kind_lines(kind: Kind, ending: Ending) -> list[str]:
    lines = [f"{kind.value}, {ending.value}: {MATRIX[kind, ending, ProofPolicy.REQUIRED].when}."]
    for policy in ProofPolicy:
        cell = MATRIX[kind, ending, policy]
        lines += ["", f"Proof policy `{policy.name.lower()}`:", f"  The host gets    {PAY_WORDS[cell.host_gets]}."]
        lines.append("  The renter gets  the rest of the deposit.")
        if cell.host_calls:
            lines.append(f"  The host calls   {_joined(cell.host_calls, ', then ')}.")
        if cell.other_calls:
            lines.append(f"  Others call      {_joined(cell.other_calls, ', then ')}.")
        if cell.bond is not Bond.NONE:
            lines.append(f"  The bond         {BOND_WORDS[cell.bond]}")
        if cell.slashed:
            lines.append("  The stake        The host loses a slice of it; the renter is compensated first.")
        lines.append(f"  The job ends by  {_joined(cell.closed_by, ' or ')}.")
    return lines


def as_table() -> object:
    """The whole matrix, then the rights, for rich."""
    from rich.console import Group
    from rich.table import Table

    tables: list[object] = [INTRODUCTION.replace("`", "")]
    for kind in Kind:
        matrix = Table(title=KIND_TITLES[kind], box=None, pad_edge=False, title_justify="left")
        matrix.add_column("ending", no_wrap=True)
        for heading in ("when", "host gets (required)", "host gets (fallback)", "dispute"):
            matrix.add_column(heading, overflow="fold")
        for row in matrix_rows(kind):
            matrix.add_row(*row[:5])
        tables += ["", matrix]
    rights = Table(title="Who may call what", box=None, pad_edge=False, title_justify="left")
    rights.add_column("call", no_wrap=True)
    for heading in ("who", "from", "until"):
        rights.add_column(heading, overflow="fold")
    rights.add_column("gas", justify="right", no_wrap=True)
    for row in rights_rows():
        rights.add_row(*row)
    return Group(*tables, "", rights)  # type: ignore[arg-type]


def matrix_rows(kind: Kind) -> list[tuple[str, ...]]:
    """One row per ending, both policies side by side: ending, when, host gets twice, dispute, how the job ends."""
    rows: list[tuple[str, ...]] = []
    for ending in Ending:
        if (kind, ending, ProofPolicy.REQUIRED) not in MATRIX:
            continue
        required, fallback = MATRIX[kind, ending, ProofPolicy.REQUIRED], MATRIX[kind, ending, ProofPolicy.FALLBACK]
        gets = PAY_SHORT[required.host_gets], PAY_SHORT[fallback.host_gets]
        dispute = " ".join(
            filter(None, (BOND_WORDS[required.bond], "The host is slashed." if required.slashed else ""))
        )
        rows.append((ending.value, required.when, *gets, dispute, _joined(required.closed_by, " or ")))
    return rows


def rights_rows() -> list[tuple[str, ...]]:
    """One row per function of the contracts."""
    return [(right.call.value, right.who, right.start, right.end, f"{right.gas:,}") for right in RIGHTS]


def _calls(cell: Cell) -> tuple[Call, ...]:
    window = (Call.REQUEST_CLOSE,) if Call.FINALIZE in cell.closed_by else ()
    return (*cell.host_calls, *cell.other_calls, *cell.closed_by, *window)


def _joined(calls: tuple[Call, ...], word: str) -> str:
    return word.join(call.value for call in calls)
