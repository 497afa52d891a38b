"""`fabstir wallet`: make a key, see what it holds, and on the devnet give it play money. Never prints a key."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final

from cyclopts import App, Parameter

from fabstir.cli import delegates
from fabstir.cli.currency import IN_ETH, IN_USDC
from fabstir.cli.frame import CONFIGURED, Configured, usdc_amount
from fabstir.domain.ids import ZERO_ADDRESS, Address, to_hex
from fabstir.domain.money import BaseUnits
from fabstir.ops.config import Role

if TYPE_CHECKING:
    from fabstir.ops.config import Config
    from fabstir.ports.journal import OutboxEntry

app = App(name="wallet", help="Keys and balances of a host, a renter or an arbiter.", group_commands="Commands")

ROLE_HELP: Final = "Whose key: the renter's pays deposits, the host's is paid, the arbiter's rules."
delegates.add_to(app)


@app.command
def new(*, role: Annotated[Role, Parameter(help=ROLE_HELP)] = "renter", common: Configured = CONFIGURED) -> None:
    """Make a key, in the file that the settings name (mode 0600).

    On the devnet it is plain; on every other chain it is encrypted with a password, which is asked for, or taken from
    $FABSTIR_KEY_PASSWORD. A file that exists is never replaced. Back it up: whoever loses it loses the money.
    """
    from fabstir.bootstrap.keys import key_file, make_key

    config = common.settings()
    account = _address_of(make_key(config, role))
    path = key_file(config, role)
    common.show(
        {"role": role, "address": to_hex(account), "key_file": str(path)},
        lambda: f"The {role}'s new account is {to_hex(account)}; its key is in {path}.\n{_next_step(config, role)}",
    )


@app.command
async def show(
    *,
    role: Annotated[Role, Parameter(help=ROLE_HELP)] = "renter",
    offline: Annotated[bool, Parameter(negative="", help="Only the address; ask no chain.")] = False,
    common: Configured = CONFIGURED,
) -> None:
    """The account's address and what it holds: USDC, the coin that pays gas, and what the market owes it."""
    from fabstir.bootstrap.keys import key_file, read_key

    config = common.settings()
    key = read_key(config, role)
    data: dict[str, Any] = {"role": role, "address": to_hex(_address_of(key)), "key_file": str(key_file(config, role))}
    if not offline:
        data |= await _holdings(config, key)
    common.show(data, lambda: _as_text(data))


@app.command
async def fund(
    *,
    role: Annotated[Role, Parameter(help=ROLE_HELP)] = "renter",
    usdc: Annotated[str, Parameter(help="How much test USDC is added.")] = "100",
    common: Configured = CONFIGURED,
) -> None:
    """Give the account play money: test USDC, and the coin that pays gas. Only on the devnet."""
    from fabstir.bootstrap.devnet import fund_on_devnet
    from fabstir.bootstrap.keys import read_key

    config = common.settings()
    units = usdc_amount(usdc)
    key = read_key(config, role)
    account = _address_of(key)
    await fund_on_devnet(config, account, units)
    data = {"role": role, "address": to_hex(account), **await _holdings(config, key)}
    common.show(data, lambda: _as_text(data))


def _address_of(key: bytes) -> Address:
    from fabstir.protocol.signing import SigningKey

    return SigningKey(key).address


async def _holdings(config: Config, key: bytes) -> dict[str, str]:
    """Amounts as decimal texts of base units; wei exceed what JSON's numbers hold."""
    from fabstir.bootstrap.parts import chain_info
    from fabstir.chain.market import MarketClient
    from fabstir.ops.clock import SystemClock

    info = chain_info(config)
    client = await MarketClient.connect(config.chain.rpc_urls, key, info, NothingToSend(), SystemClock())
    try:
        return {
            "usdc": str(await client.balance(info.usdc, client.account)),
            "wei": str(await client.balance(ZERO_ADDRESS, client.account)),
            "withdrawable_usdc": str(await client.earnings(info.usdc, client.account)),
            "withdrawable_wei": str(await client.earnings(ZERO_ADDRESS, client.account)),
        }
    finally:
        await client.close()


class NothingToSend:
    """The outbox of a command that only reads: it is empty, and refuses to be filled."""

    async def put(self, entry: OutboxEntry) -> None:
        """Never called by a read."""
        raise AssertionError(f"a reading command wanted to send {entry.key}")

    async def get(self, key: str) -> OutboxEntry | None:
        """Nothing was ever sent."""
        return None

    async def unfinished(self) -> list[OutboxEntry]:
        """Nothing was ever sent."""
        return []


def _next_step(config: Config, role: Role) -> str:
    if config.chain.chain_id == 31337:
        return f"Next: `fabstir wallet fund --role {role}` gives it test USDC."
    return "Next: send it USDC and a little ETH for gas." if role == "renter" else "Next: send it a little ETH for gas."


def _as_text(data: dict[str, Any]) -> str:
    lines = [f"{data['role']}    {data['address']}"]
    if "usdc" in data:
        lines.append(f"holds     {_usdc(data['usdc'])}, {_eth(data['wei'])}")
        lines.append(f"is owed   {_usdc(data['withdrawable_usdc'])}, {_eth(data['withdrawable_wei'])}")
    return "\n".join(lines)


def _usdc(units: str) -> str:
    return IN_USDC.text(BaseUnits(int(units)))


def _eth(wei: str) -> str:
    return IN_ETH.text(BaseUnits(int(wei)))
