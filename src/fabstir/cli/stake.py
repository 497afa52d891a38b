"""`fabstir host stake|unstake|withdraw-stake|stake-status`: the host's own commands for what it has to lose."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from fabstir.cli.frame import CONFIGURED, Configured, address_option, usdc_amount
from fabstir.domain.money import BaseUnits, format_units

if TYPE_CHECKING:
    from fabstir.domain.ids import Address
    from fabstir.host.staking import StakeReport
    from fabstir.ops.config import Config

AMOUNT_HELP = "USDC, like 100 or 100.5."


def add_to(app: App) -> None:
    """The commands, under their names."""
    app.command(stake, name="stake")
    app.command(unstake, name="unstake")
    app.command(withdraw_stake, name="withdraw-stake")
    app.command(stake_status, name="stake-status")


def stake(
    amount: Annotated[str | None, Parameter(help=f"What is to be staked altogether. {AMOUNT_HELP}")] = None,
    /,
    *,
    common: Configured = CONFIGURED,
) -> None:
    """Stake until AMOUNT is staked and not asked back; without AMOUNT, what the registry asks for.

    Given twice, it stakes once. The stake is what a host loses a slice of with each claim that it cannot defend. The host must not
    run: its account has one outbox.
    """
    from fabstir.cli.running import run

    wanted = None if amount is None else usdc_amount(amount)
    done = run(_raise(common.settings(quietly=True), wanted))
    common.show(done, lambda: _told(done, "Staked.", "So much is staked already."))


async def _raise(config: Config, wanted: BaseUnits | None) -> dict[str, Any]:
    from fabstir.bootstrap.staking import staking

    async with staking(config) as held:
        sent = await held.raise_to(wanted)
        return _facts(sent, await held.report())


def unstake(
    amount: Annotated[str, Parameter(help=f"What is asked back altogether; 0 takes the request back. {AMOUNT_HELP}")],
    /,
    *,
    common: Configured = CONFIGURED,
) -> None:
    """Ask for AMOUNT of the stake back. It can be withdrawn 14 days later, and until then it can be slashed.

    Replaces what was asked before, and the delay begins anew. With less than the minimum kept, the host is not active any more.
    """
    from fabstir.cli.running import run

    done = run(_ask_back(common.settings(quietly=True), usdc_amount(amount)))
    common.show(done, lambda: _told(done, "Asked.", "So much is asked back already; the delay goes on."))


async def _ask_back(config: Config, amount: BaseUnits) -> dict[str, Any]:
    from fabstir.bootstrap.staking import staking

    async with staking(config) as held:
        sent = await held.ask_back(amount)
        return _facts(sent, await held.report())


def withdraw_stake(
    *,
    to: Annotated[str | None, Parameter(help="Who gets it. Default: the host's account.")] = None,
    common: Configured = CONFIGURED,
) -> None:
    """Withdraw what was asked back, once the delay has passed and no claim can be disputed any more."""
    from fabstir.cli.running import run

    done = run(_withdraw(common.settings(quietly=True), address_option("--to", to)))
    common.show(done, lambda: _told(done, f"Withdrew {format_units(BaseUnits(done['withdrawn']))}.", ""))


async def _withdraw(config: Config, to: Address | None) -> dict[str, Any]:
    from fabstir.bootstrap.staking import staking

    async with staking(config) as held:
        amount, sent = await held.withdraw(to)
        return {"withdrawn": amount, **_facts(sent, await held.report())}


def stake_status(*, common: Configured = CONFIGURED) -> int:
    """What is staked, asked back, locked, and whether it is enough. Exit code 0 only where it is; works while the host runs."""
    from fabstir.cli.running import run

    found = run(_look(common.settings(quietly=True)))
    common.show(found, lambda: _as_text(found))
    return 0 if found.enough else 1


async def _look(config: Config) -> StakeReport:
    from fabstir.bootstrap.staking import stake_view
    from fabstir.cli.wallet import NothingToSend

    async with stake_view(config, NothingToSend()) as held:
        return await held.report()


def _facts(sent: Any, found: StakeReport) -> dict[str, Any]:
    return {"transaction": None if sent is None else f"0x{sent.hash.hex()}", "stake": found}


def _told(done: dict[str, Any], sent: str, nothing: str) -> str:
    return f"{sent if done['transaction'] else nothing}\n{_as_text(done['stake'])}"


def _as_text(found: StakeReport) -> str:
    from fabstir.host.staking import utc

    lines = [
        f"account      {found.account}, holds {format_units(found.holds)}",
        f"staked       {format_units(found.staked)}",
        f"kept         {format_units(found.kept)}, {'enough' if found.enough else 'too little'}: the registry asks for "
        f"{format_units(found.minimum)}",
    ]
    if found.asked_back:
        lines.append(
            f"asked back   {format_units(found.asked_back)}, to be withdrawn from {utc(found.withdrawable_from)} on"
        )
    if found.locked_until > found.chain_time:
        lines.append(f"locked       until {utc(found.locked_until)}: a claim can be disputed")
    return "\n".join(lines)
