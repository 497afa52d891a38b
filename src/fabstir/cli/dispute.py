"""`fabstir dispute`: claims that are not decided, and what a renter, an arbiter or anyone does about one by hand."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, Parameter
from cyclopts.validators import Number

from fabstir.cli.currency import currency_of
from fabstir.cli.frame import CONFIGURED, Configured
from fabstir.domain.ids import to_hex
from fabstir.ops.config import Role

if TYPE_CHECKING:
    from fabstir.bootstrap.disputes import Done, Found
    from fabstir.domain.ids import Address, Hash32
    from fabstir.ops.config import Config
    from fabstir.protocol.dispute_view import Act, Row
    from fabstir.protocol.panel import Vote, Votes

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
    """Jobs with an undecided claim that name the role's account as renter, host or arbiter, or its panel. Sends nothing."""
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
    evidence: Annotated[
        Path | None, Parameter(help="With a vote: a file with what you found; its SHA-256 goes on the chain.")
    ] = None,
    role: Whose = "arbiter",
    since_block: Since = None,
    common: Configured = CONFIGURED,
) -> None:
    """Rule in an answered dispute, as the arbiter of the terms, or vote in it, as a member of `arbiter.panel`. It cannot be taken back.

    `host`: the claim is paid and the renter's bond goes to the host. `renter`: the claim is lost, the bond goes back and the host loses
    a slice of its stake.
    """
    from fabstir.bootstrap.disputes import act
    from fabstir.cli.running import run
    from fabstir.protocol.dispute_view import Act

    digest = _sha256(evidence) if evidence else None
    config, for_host = common.settings(quietly=True), winner == "host"
    done = run(act(config, role, since_block, job, Act.RULE, for_host=for_host, evidence=digest))
    told = f"Ruled for the {winner}." if done.vote is None else _voted(done.vote, winner)
    _show_done(common, done, told, _vote_data(done.vote, digest) if done.vote else {})


@app.command
def panel(
    *,
    member: Annotated[
        tuple[str, ...], Parameter(consume_multiple=True, negative="", help="Accounts that may vote, 1 to 64.")
    ],
    threshold: Annotated[int, Parameter(help="So many equal votes rule: more than half of the members.")],
    common: Configured = CONFIGURED,
) -> None:
    """Make an arbiter of several verifiers, with the arbiter's key. Where there is the same panel already, only its address is told."""
    from fabstir.bootstrap.panel import make_panel
    from fabstir.cli.frame import address_argument
    from fabstir.cli.running import run

    named = [address_argument("--member", text) for text in member]
    made = run(make_panel(common.settings(quietly=True), named, threshold))
    data = {
        "panel": to_hex(made.panel.address),
        "members": [to_hex(one) for one in made.panel.members],
        "threshold": made.panel.threshold,
        "transaction": to_hex(made.sent.hash) if made.sent else None,
        "gas_used": made.sent.gas_used if made.sent else 0,
    }
    told = f"Made in transaction {data['transaction']}." if made.sent else "It was there already."
    common.show(data, lambda: f"{data['panel']}\n{threshold} of {len(named)} members rule. {told}")


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


def _send(common: Configured, role: Role, since: int | None, job: str, what: Act, told: str) -> None:
    from fabstir.bootstrap.disputes import act
    from fabstir.cli.running import run

    _show_done(common, run(act(common.settings(quietly=True), role, since, job, what)), told, {})


def _show_done(common: Configured, done: Done, told: str, more: dict[str, Any]) -> None:
    data = {"job": to_hex(done.row.job), "transaction": to_hex(done.sent.hash), "gas_used": done.sent.gas_used, **more}
    common.show(data, lambda: f"{told} Transaction {data['transaction']}.")


def _vote_data(vote: Vote, evidence: Hash32 | None) -> dict[str, Any]:
    from fabstir.domain.ids import ZERO_HASH

    return {
        "votes": vote.votes,
        "threshold": vote.threshold,
        "missing": vote.missing,
        "decided": vote.missing == 0,
        "evidence": to_hex(evidence or ZERO_HASH),
    }


def _voted(vote: Vote, winner: str) -> str:
    """What a vote did, for a person."""
    if vote.missing == 0:
        return f"Voted for the {winner}, and with that the panel has ruled for the {winner}."
    noun = "vote is" if vote.missing == 1 else "votes are"
    return f"Voted for the {winner}; {vote.missing} more {noun} missing for the {winner} to be right."


def _sha256(file: Path) -> Hash32:
    """Of what a member found. Raises PeerFault (`request_invalid`) where it cannot be read."""
    import hashlib

    from fabstir.cli.files import read_file
    from fabstir.domain.ids import Hash32

    return Hash32(hashlib.sha256(read_file(file)).digest())


def _usdc(config: Config) -> Address:
    from fabstir.bootstrap.parts import chain_info

    return chain_info(config).usdc


def _as_data(found: Found) -> dict[str, Any]:
    return {
        "account": to_hex(found.account),
        "now": found.now,
        "since_block": found.since_block,
        "opened_before": found.without_terms,
        "panel": _panel_data(found),
        "claims": [_row_data(found, row) for row in found.rows],
    }


def _panel_data(found: Found) -> dict[str, Any] | None:
    if found.panel is None:
        return None
    return {
        "address": to_hex(found.panel.address),
        "members": [to_hex(member) for member in found.panel.members],
        "threshold": found.panel.threshold,
        "member": found.account in found.panel.members,
    }


def _row_data(found: Found, row: Row) -> dict[str, Any]:
    from fabstir.protocol.dispute_view import parties

    terms = row.terms
    return {
        "job": to_hex(row.job),
        "you_are": list(parties(terms, found.account, found.panel)),
        "stage": row.stage.name.lower(),
        "amount": str(row.amount),
        "tokens": row.tokens,
        "until": row.until,
        "over": row.over(found.now),
        "awaits": row.awaits(found.now),
        "bond": str(terms.bond),
        "votes": _votes_data(row.votes),
        "terms": {
            **{name: to_hex(getattr(terms, name)) for name in ("renter", "signer", "host", "token", "arbiter", "model_id", "salt")},
            "price": terms.price,
            "expires_at": terms.expires_at,
            "challenge": terms.challenge,
            "exposure": terms.exposure,
            "policy": terms.policy.name.lower(),
        },
    }  # fmt: skip


def _votes_data(votes: Votes | None) -> dict[str, Any] | None:
    return {"host": votes.for_host, "renter": votes.for_renter, "voted": votes.voted} if votes else None


def _votes_text(found: Found, votes: Votes | None) -> str:
    if votes is None or found.panel is None:
        return ""
    mine = ", you voted" if votes.voted else ""
    return f"host {votes.for_host}, renter {votes.for_renter} of {found.panel.threshold}{mine}"


def _as_table(found: Found, usdc: Address) -> object:
    from rich.console import Group
    from rich.table import Table

    from fabstir.protocol.dispute_view import parties

    table = Table(box=None, pad_edge=False)
    voting = ("votes",) if found.panel else ()
    for heading in ("job", "you are", "stage", "amount", "bond", "until", "to act", *voting):
        table.add_column(heading, overflow="fold")
    for row in found.rows:
        money = currency_of(row.terms.token, usdc)
        mine = " and ".join(parties(row.terms, found.account, found.panel))
        amounts = money.text(row.amount), money.text(row.terms.bond)
        stage, until = row.stage.name.lower(), _when(row.until)
        votes = (_votes_text(found, row.votes),) if found.panel else ()
        table.add_row(to_hex(row.job)[:18], mine, stage, *amounts, until, row.awaits(found.now), *votes)
    shown: list[object] = [table] if found.rows else [f"No undecided claim names {to_hex(found.account)}."]
    if found.panel and found.account not in found.panel.members:
        shown.append(
            f"{to_hex(found.account)} is not a member of the panel {to_hex(found.panel.address)}: it has no vote."
        )
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
        **({"votes": _votes_text(found, row.votes)} if row.votes else {}),
        **data["terms"],
    }
    return [f"{name:11} {value}" for name, value in facts.items()]


def _when(at: int) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
