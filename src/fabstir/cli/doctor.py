"""`fabstir doctor`: what is wrong between this machine and the market or the network of peers, and what to do about it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from fabstir.cli.frame import CONFIGURED, Configured, address_option
from fabstir.ops.config import Role

if TYPE_CHECKING:
    from fabstir.bootstrap.doctor import Report

app = App(name="doctor", help="What is wrong, and what to do about it.", group_commands="Commands")


@app.command
def chain(
    *,
    role: Annotated[Role, Parameter(help="Whose account is looked at; a host's stake and registration too.")] = "host",
    account: Annotated[str | None, Parameter(help="Look at this address instead; needs no key.")] = None,
    common: Configured = CONFIGURED,
) -> int:
    """Endpoints, contracts and account: each check with what was measured. Sends nothing. Exit code 1 where one fails."""
    from fabstir.bootstrap.doctor import examine_chain
    from fabstir.chain.checks import failed
    from fabstir.cli.running import run

    config = common.settings(quietly=True)
    report = run(examine_chain(config, role, address_option("--account", account)))
    bad = failed(check for checks in report.values() for check in checks)
    common.show({"ok": not bad, **report}, lambda: _as_text(report))
    return 1 if bad else 0


@app.command
def p2p(
    *,
    account: Annotated[str | None, Parameter(help="Look for this host instead; needs no key.")] = None,
    common: Configured = CONFIGURED,
) -> int:
    """Join the network of peers as a stranger and look for this host. Announces nothing. Exit code 1 where a check fails."""
    from fabstir.bootstrap.doctor_p2p import examine_p2p
    from fabstir.chain.checks import failed
    from fabstir.cli.running import run

    report = {"p2p": run(examine_p2p(common.settings(quietly=True), address_option("--account", account)))}
    bad = failed(report["p2p"])
    common.show({"ok": not bad, **report}, lambda: _as_text(report))
    return 1 if bad else 0


def _as_text(report: Report) -> str:
    from fabstir.cli.frame import checks_text

    parts = [f"{part.capitalize()}\n{checks_text(checks)}" for part, checks in report.items()]
    return "\n\n".join(parts)
