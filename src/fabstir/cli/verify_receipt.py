"""`fabstir verify receipt`: whether a receipt holds together. Needs no market, no model and no network."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from fabstir.cli.frame import COMMON, Common
from fabstir.domain.ids import to_hex


def receipt(
    file: Annotated[Path, Parameter(help="What `fabstir receipt export` wrote.")],
    /,
    *,
    common: Common = COMMON,
) -> None:
    """Check a receipt offline: that its hashes lead from the terms to what both sides signed, and that the price is the agreed one.

    It shows that the host of the terms says it served these tokens, and that the renter signed for them. Not that a given model
    made them: `fabstir verify session` computes that again.
    """
    from fabstir.cli.files import read_file
    from fabstir.protocol.transcript_file import check
    from fabstir.protocol.transcript_file import read_file as parse

    checked = check(parse(read_file(file)))
    terms = checked.terms
    facts = {
        "job": to_hex(checked.job),
        "host": to_hex(terms.host),
        "renter": to_hex(terms.renter),
        "model_id": to_hex(terms.model_id),
        "answers": checked.turns,
        "tokens": checked.tokens,
        "tokens_in": checked.tokens_in,
        "price_per_mtok": str(terms.price),
        "amount": str(checked.amount),
        "token": to_hex(terms.token),
        "transcript": to_hex(checked.transcript),
        "tokens_unsigned": checked.tokens_unsigned,
    }
    lines = ["The receipt holds together.", *(f"  {name:15} {value}" for name, value in facts.items())]
    common.show(facts, lambda: "\n".join(lines))
