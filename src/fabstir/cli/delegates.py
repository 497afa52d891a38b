"""`fabstir wallet delegate|delegates`: let other accounts spend the renter's USDC on jobs, within a budget, and see what is left of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from fabstir.cli.currency import currency_of
from fabstir.cli.frame import CONFIGURED, Configured, address_argument, usdc_amount
from fabstir.domain.errors import error
from fabstir.domain.ids import Address, to_hex
from fabstir.domain.money import BaseUnits, format_units

if TYPE_CHECKING:
    from fabstir.ops.config import Config
    from fabstir.ports.chain import TxResult

DAY_SECONDS = 86_400


def add_to(app: App) -> None:
    """The commands, under their names."""
    app.command(delegate, name="delegate")
    app.command(delegates, name="delegates")


def delegate(
    account: Annotated[str, Parameter(help="The account that may spend: 0x and 40 digits.")],
    /,
    *,
    budget: Annotated[str | None, Parameter(help="USDC that it may spend from now on, like 5 or 2.50.")] = None,
    days: Annotated[int, Parameter(help="For so many days.")] = 30,
    revoke: Annotated[bool, Parameter(negative="", help="Take the permission back.")] = False,
    common: Configured = CONFIGURED,
) -> None:
    """Let ACCOUNT open and top up jobs that are paid from this wallet, within a budget that replaces an earlier one.

    Nothing is deposited: the money stays here until a job takes it, and refunds come back here. ACCOUNT names this wallet as
    `renter.principal`. It needs ETH for gas. Sets the allowance of the Delegation contract to what all budgets leave.
    """
    from fabstir.cli.running import run

    wanted = _wanted(budget, days, revoke)
    who = address_argument("ACCOUNT", account)
    config = common.settings(quietly=True)
    until, sent = run(_set(config, who, wanted, days))
    data = {
        "delegate": to_hex(who),
        "budget": str(wanted),
        "until": until,
        "transaction": to_hex(sent.hash),
    }
    common.show(data, lambda: _told(data, days))


def _wanted(budget: str | None, days: int, revoke: bool) -> BaseUnits:
    if revoke == (budget is not None) or days < 1:
        raise error("request_invalid", "give --budget, with --days above 0, or --revoke")
    amount = BaseUnits(0) if budget is None else usdc_amount(budget)
    if not (revoke or amount):
        raise error("request_invalid", "a budget of 0 is none", "Take a permission back with --revoke.")
    return amount


async def _set(config: Config, who: Address, budget: BaseUnits, days: int) -> tuple[int, TxResult]:
    """Until when, and the transaction."""
    from fabstir.bootstrap.delegates import delegating
    from fabstir.bootstrap.parts import chain_info

    token = chain_info(config).usdc
    async with delegating(config) as held:
        if budget:
            return await held.name(who, token, budget, days * DAY_SECONDS)
        return 0, await held.revoke(who, token)


def _told(data: dict[str, Any], days: int) -> str:
    if not data["until"]:
        return f"{data['delegate']} may spend nothing any more. Jobs that it opened go on."
    return f"{data['delegate']} may spend {format_units(BaseUnits(int(data['budget'])))} in the next {days} days."


def delegates(*, common: Configured = CONFIGURED) -> None:
    """The accounts that were named on this machine, what each may still spend, and until when; works while the gateway runs."""
    from fabstir.cli.running import run

    rows = run(_look(common.settings(quietly=True)))
    common.show({"delegates": rows}, lambda: "\n".join(map(_row, rows)) or "No account was named on this machine.")


async def _look(config: Config) -> list[dict[str, Any]]:
    from fabstir.bootstrap.delegates import look_at_delegates
    from fabstir.bootstrap.parts import chain_info
    from fabstir.cli.wallet import NothingToSend

    usdc = chain_info(config).usdc
    return [
        {
            "delegate": to_hex(one.account),
            "token": to_hex(one.token),
            "left": str(one.left),
            "left_text": currency_of(one.token, usdc).text(one.left),
            "until": one.until,
            "live": one.live,
        }
        for one in await look_at_delegates(config, NothingToSend())
    ]


def _row(row: dict[str, Any]) -> str:
    from fabstir.host.staking import utc

    if not row["until"]:
        return f"{row['delegate']}  revoked"
    state = "until" if row["live"] else "nothing more: its time or its budget is over," if row["until"] else ""
    return f"{row['delegate']}  {row['left_text']} left, {state} {utc(row['until'])}"
