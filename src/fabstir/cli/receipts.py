"""`fabstir receipt`: what this renter keeps of its sessions, to show to others or to have it checked."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from fabstir.cli.currency import IN_ETH, IN_USDC
from fabstir.cli.files import write_private
from fabstir.cli.frame import CONFIGURED, Configured
from fabstir.domain.ids import ZERO_ADDRESS, to_hex

app = App(name="receipt", help="What is kept of your sessions, to show or to have checked.", group_commands="Commands")


@app.command(name="list")
def list_(*, common: Configured = CONFIGURED) -> None:
    """Every session of which something is kept, oldest first; works while the gateway runs."""
    from fabstir.bootstrap.receipts import list_kept

    rows = [
        {
            "job": to_hex(kept.ledger.job),
            "host": to_hex(kept.ledger.terms.host),
            "answers": kept.answers,
            "tokens": kept.ledger.signed,
            "amount": str(kept.ledger.amount(kept.ledger.signed)),
            "token": to_hex(kept.ledger.terms.token),
            "words": kept.words,
            "fault": kept.fault,
        }
        for kept in list_kept(common.settings(quietly=True))
    ]

    def table() -> str:
        if not rows:
            return "Nothing is kept yet: receipts are written as answers end."
        return "\n".join(_line(row) for row in rows)

    common.show({"receipts": rows}, table)


def _line(row: dict[str, object]) -> str:
    currency = IN_ETH if row["token"] == to_hex(ZERO_ADDRESS) else IN_USDC
    amount = currency.text(int(str(row["amount"])))  # type: ignore[arg-type]
    what = "with words" if row["words"] else "hashes"
    return f"{row['job']}  {row['answers']} answers, {row['tokens']} tokens signed, {amount}, {what} {row['fault']}".rstrip()


@app.command
def export(
    job: Annotated[str, Parameter(help="The job's id, or its beginning.")],
    file: Annotated[Path, Parameter(help="Where to write it. Must not exist.")],
    /,
    *,
    words: Annotated[
        bool, Parameter(negative="", help="With what was said: needed to have the answers computed again.")
    ] = False,
    common: Configured = CONFIGURED,
) -> None:
    """Write one session's receipt: hashes, counts, both signatures. It tells nobody what was said, unless with --words."""
    from fabstir.bootstrap import receipts
    from fabstir.protocol.transcript_file import encode_file

    exported = receipts.export(common.settings(quietly=True), job, words=words)
    write_private(file, encode_file(exported))
    common.show(
        {"file": str(file), "format": exported.format, "answers": len(exported.turns)}, lambda: f"Written to {file}."
    )
