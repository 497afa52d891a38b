"""`fabstir explain`: what an error code means, and who gets what at each ending. Prints the same tables that the code
itself uses."""

from __future__ import annotations

from collections.abc import Collection
from difflib import get_close_matches
from typing import Any

from cyclopts import App

from fabstir.cli.frame import COMMON, Common
from fabstir.domain.errors import CATALOGUE, ErrorSpec, FabstirError, error

app = App(name="explain", help="What an error code or an ending of a session means.", group_commands="Commands")


@app.command(name="settlement")
def explain_settlement(case: str | None = None, /, *, common: Common = COMMON) -> None:
    """Who gets what when a session ends, and who may call what until when.

    Parameters
    ----------
    case
        How it ended, for example `host_vanished`. Without it: the whole matrix.
    """
    from fabstir.cli import settlement
    from fabstir.protocol.matrix import Ending

    if case is None:
        common.show(settlement.as_data(tuple(Ending)), settlement.as_table)
        return
    name = case.replace("-", "_")
    if name not in tuple(Ending):
        raise _unknown(case, "ending of a session", [ending.value for ending in Ending], "fabstir explain settlement")
    ending = Ending(name)
    common.show(settlement.as_data((ending,)), lambda: settlement.as_text(ending))


@app.command(name="error")
def explain_error(code: str | None = None, /, *, common: Common = COMMON) -> None:
    """What an error code means and what to do about it.

    Parameters
    ----------
    code
        The code, for example `deposit_exhausted`. Without it: every code.
    """
    if code is None:
        common.show({"errors": [_row(spec) for spec in CATALOGUE.values()]}, _all_codes)
        return
    if code not in CATALOGUE:
        raise _unknown(code, "error code", CATALOGUE, "fabstir explain error")
    spec = CATALOGUE[code]
    common.show(_row(spec), lambda: _one_code(spec))


def _unknown(given: str, kind: str, known: Collection[str], command: str) -> FabstirError:
    close = ", ".join(get_close_matches(given, known, cutoff=0.5)) or "none"
    return error("request_invalid", f"{given!r} is no {kind}; similar: {close}", f"Run `{command}` for all.")


def _row(spec: ErrorSpec) -> dict[str, Any]:
    return {
        "code": spec.code,
        "kind": spec.kind.__name__,
        "retryable": spec.retryable,
        "http_status": spec.http_status,
        "summary": spec.summary,
        "next_step": spec.next_step,
    }


def _one_code(spec: ErrorSpec) -> str:
    again = "trying again may help" if spec.retryable else "trying the same again will not help"
    return (
        f"{spec.code}: {spec.summary}.\n"
        f"  {spec.kind.__name__} ({(spec.kind.__doc__ or '').rstrip('.')}); HTTP {spec.http_status}; {again}."
        + (f"\n  Next: {spec.next_step}" if spec.next_step else "")
    )


def _all_codes() -> object:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for heading in ("code", "retryable", "what happened", "what to do"):
        table.add_column(heading, overflow="fold")
    for spec in CATALOGUE.values():
        table.add_row(spec.code, "yes" if spec.retryable else "no", spec.summary, spec.next_step)
    return table
