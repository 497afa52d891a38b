"""`fabstir dispute`: claims that are not decided, and what a renter, an arbiter or anyone does about one by hand."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, Parameter
from cyclopts.validators import Number

from fabstir.cli.currency import currency_of
from fabstir.cli.frame import CONFIGURED, Configured
from fabstir.domain.ids import to_hex
from fabstir.ops.config import Role

if TYPE_CHECKING:
    from fabstir.bootstrap.disputes import Found
    from fabstir.domain.ids import Address
    from fabstir.ops.config import Config
    from fabstir.protocol.dispute_view import Act, Row

app = App(name="dispute", help="Claims that are not decided, and what to do about one.", group_commands="Commands")

Whose = Annotated[Role, Parameter(help="Whose key, journal and account.")]
Job = Annotated[str, Parameter(help="The job's id, or its beginning.")]
Since = Annotated[
    int | None,
    Parameter(
        validator=Number(gte=0),
        help="The first block that is read. Default: 302,400 before the newest, a week of Base.",
    ),
]


@app.command(name="list")
def list_(*, role: Whose = "renter", since_block: Since = None, common: Configured = CONFIGURED) -> None:
    """Jobs with an undecided claim that name the role's account as renter, host or arbiter. Sends nothing."""
    from fabstir.bootstrap.disputes import look
    from fabstir.cli.running import run
    from fabstir.cli.wallet import NothingToSend

    config = common.settings(quietly=True)
    found = run(look(config, role, since_block, NothingToSend()))
    usdc = _usdc(config)
    common.show(_as_data(found), lambda: _as_table(found, usdc))


@app.command
def show(job: Job, /, *, role: Whose = "renter", since_block: Since = None, common: Configured = CONFIGURED) -> None:
    """One job's claim with its terms: stage, amount, until when, bond. Sends nothing."""
    from fabstir.bootstrap.disputes import look_at
    from fabstir.cli.running import run
    from fabstir.cli.wallet import NothingToSend

    config = common.settings(quietly=True)
    found = run(look_at(config, role, since_block, job, NothingToSend()))
    usdc = _usdc(config)
    common.show(_as_data(found), lambda: "\n".join(_lines(found, usdc)))


@app.command
def rule(
    job: Job,
    winner: Annotated[Literal["host", "renter"], Parameter(help="Who is right.")],
    /,
    *,
    role: Whose = "arbiter",
    since_block: Since = None,
    common: Configured = CONFIGURED,
) -> None:
    """Rule in an answered dispute, as the arbiter of the terms. It cannot be taken back.

    `host`: the claim is paid and the renter's bond goes to the host. `renter`: the claim is lost, the bond goes back and the host loses
    a slice of its stake.
    """
    from fabstir.protocol.dispute_view import Act

    _send(common, role, since_block, job, Act.RULE, f"Ruled for the {winner}.", for_host=winner == "host")


@app.command
def settle(job: Job, /, *, role: Whose = "renter", since_block: Since = None, common: Configured = CONFIGURED) -> None:
    """Have the outcome of a stage that is over. Anyone may; a host that runs does it by itself.

    Not disputed, or not ruled on: the host is paid. Disputed and not answered: the claim is lost.
    """
    from fabstir.protocol.dispute_view import Act

    _send(common, role, since_block, job, Act.SETTLE, "Settled.")


@app.command(name="raise")
def raise_(job: Job, /, *, since_block: Since = None, common: Configured = CONFIGURED) -> None:
    """Dispute a claim, as the renter: the bond of the terms is put up. Whoever was wrong to raise it loses the bond."""
    from fabstir.protocol.dispute_view import Act

    _send(common, "renter", since_block, job, Act.RAISE, "Disputed; the host must open its records.")


def _send(
    common: Configured, role: Role, since: int | None, job: str, what: Act, done: str, *, for_host: bool = False
) -> None:
    from fabstir.bootstrap.disputes import act
    from fabstir.cli.running import run

    row, sent = run(act(common.settings(quietly=True), role, since, job, what, for_host=for_host))
    data = {"job": to_hex(row.job), "transaction": to_hex(sent.hash), "gas_used": sent.gas_used}
    common.show(data, lambda: f"{done} Transaction {data['transaction']}.")


def _usdc(config: Config) -> Address:
    from fabstir.bootstrap.parts import chain_info

    return chain_info(config).usdc


def _as_data(found: Found) -> dict[str, Any]:
    return {
        "account": to_hex(found.account),
        "now": found.now,
        "since_block": found.since_block,
        "opened_before": found.without_terms,
        "claims": [_row_data(found, row) for row in found.rows],
    }


def _row_data(found: Found, row: Row) -> dict[str, Any]:
    from fabstir.protocol.dispute_view import parties

    terms = row.terms
    return {
        "job": to_hex(row.job),
        "you_are": list(parties(terms, found.account)),
        "stage": row.stage.name.lower(),
        "amount": str(row.amount),
        "tokens": row.tokens,
        "until": row.until,
        "over": row.over(found.now),
        "awaits": row.awaits(found.now),
        "bond": str(terms.bond),
        "terms": {
            **{name: to_hex(getattr(terms, name)) for name in ("renter", "signer", "host", "token", "arbiter", "model_id", "salt")},
            "price": terms.price,
            "expires_at": terms.expires_at,
            "challenge": terms.challenge,
            "exposure": terms.exposure,
            "policy": terms.policy.name.lower(),
        },
    }  # fmt: skip


def _as_table(found: Found, usdc: Address) -> object:
    from rich.console import Group
    from rich.table import Table

    from fabstir.protocol.dispute_view import parties

    table = Table(box=None, pad_edge=False)
    for heading in ("job", "you are", "stage", "amount", "bond", "until", "to act"):
        table.add_column(heading, overflow="fold")
    for row in found.rows:
        money, mine = currency_of(row.terms.token, usdc), " and ".join(parties(row.terms, found.account))
        amounts = money.text(row.amount), money.text(row.terms.bond)
        stage, until = row.stage.name.lower(), _when(row.until)
        table.add_row(to_hex(row.job)[:18], mine, stage, *amounts, until, row.awaits(found.now))
    shown: list[object] = [table] if found.rows else [f"No undecided claim names {to_hex(found.account)}."]
    if found.without_terms:
        shown.append(
            f"{found.without_terms} jobs with a claim were opened before block {found.since_block}: use --since-block."
        )
    return Group(*shown)  # type: ignore[arg-type]


def _lines(found: Found, usdc: Address) -> list[str]:
    if not found.rows:
        return ["No claim of this job is undecided."]
    (row,) = found.rows
    data, money = _row_data(found, row), currency_of(row.terms.token, usdc)
    facts = {
        "job": data["job"],
        "you are": " and ".join(data["you_are"]) or "not a party",
        "stage": f"{data['stage']}{', over' if data['over'] else ''}",
        "until": _when(row.until),
        "to act": data["awaits"],
        "amount": f"{money.text(row.amount)}, up to token {row.tokens}",
        "bond": money.text(row.terms.bond),
        **data["terms"],
    }
    return [f"{name:11} {value}" for name, value in facts.items()]


def _when(at: int) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
