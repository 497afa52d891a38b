"""`fabstir deploy`: the contracts onto a network, after a checklist that refuses what is unsafe."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from cyclopts import Parameter

from fabstir.cli.frame import CONFIGURED, Configured, address_option, checks_text
from fabstir.domain.errors import error

if TYPE_CHECKING:
    from fabstir.bootstrap.deploy import Order, Prepared
    from fabstir.chain.deployment_record import Record

NetworkName = Literal["devnet", "base-sepolia", "base"]
STANDARD_JSON: Final = "python contracts/tools/build.py --standard-json DIR"


@Parameter(name="*")
@dataclass(frozen=True)
class Place:
    """Where the market goes and who gets what."""

    network: Annotated[NetworkName, Parameter(help="Where to.")] = "devnet"
    owner: Annotated[str | None, Parameter(help="Gets the registries; off the devnet a timelock of 48 hours.")] = None
    treasury: Annotated[str | None, Parameter(help="Gets the market's fees; off the devnet not the deployer.")] = None
    stake_token: Annotated[str | None, Parameter(help="Unset: Circle's USDC; on the devnet a test token.")] = None
    without_circuit: Annotated[
        bool, Parameter(negative="", help="Without ezkl's circuit: hosts prove with `merkle`.")
    ] = False
    key_file: Annotated[
        Path | None, Parameter(help="The deployer's key. Unset: deployer.key in the configuration directory.")
    ] = None

    def order(self) -> Order:
        """Raises PeerFault (`request_invalid`) on an address that is none."""
        from fabstir.bootstrap.deploy import Order
        from fabstir.chain.networks import network

        return Order(
            network=network(self.network),
            owner=address_option("--owner", self.owner),
            treasury=address_option("--treasury", self.treasury),
            token=address_option("--stake-token", self.stake_token),
            without_circuit=self.without_circuit,
            key_file=self.key_file,
        )


DEVNET: Final = Place()


def deploy(
    *,
    place: Place = DEVNET,
    check: Annotated[bool, Parameter(negative="", help="Only the checklist; send nothing.")] = False,
    yes: Annotated[bool, Parameter(negative="", help="Do not ask before sending.")] = False,
    common: Configured = CONFIGURED,
) -> int:
    """Deploy the market's contracts and write their addresses into the address book.

    Everything is checked before anything is sent; where one item fails, nothing is. A deployment that was interrupted goes on where
    it stopped: run the same command again.
    """
    from fabstir.bootstrap.deploy import deployer_key, prepare
    from fabstir.cli.running import run

    config, order = common.settings(quietly=True), place.order()
    key = deployer_key(order)
    prepared = run(prepare(config, order, key))
    if check or prepared.refused:
        facts = {
            "network": place.network,
            "refused": bool(prepared.refused),
            "checks": prepared.checks,
            "left": prepared.left,
        }
        common.show(facts, lambda: checks_text(prepared.checks))
        return 1 if prepared.refused else 0
    _agree(prepared, order, asked=yes)
    record = run(_carry_out(config, prepared, key))
    common.show(_facts(prepared, record), lambda: _for_people(prepared, record))
    return 0


async def _carry_out(config: Any, prepared: Prepared, key: bytes) -> Record:
    from fabstir.bootstrap.deploy import deploy as carry_out

    return await carry_out(config, prepared, key, lambda line: print(line, file=sys.stderr))


def _agree(prepared: Prepared, order: Order, *, asked: bool) -> None:
    """Money is about to be spent, for good: ask, unless it is play money or the answer was given."""
    if asked or order.network.play_money:
        return
    if not sys.stdin.isatty():
        raise error("request_invalid", "there is no terminal to ask on", "Look with --check, then give --yes.")
    print(checks_text(prepared.checks), file=sys.stderr)
    print(
        f"Send {len(prepared.left)} transactions on {order.network.name}? Type its name to go on: ",
        end="",
        file=sys.stderr,
    )
    if input().strip() != order.network.name:
        raise error("request_invalid", "not confirmed; nothing was sent", "Run it again when you are sure.")


def _facts(prepared: Prepared, record: Record) -> dict[str, Any]:
    from fabstir.bootstrap.parts import address_book
    from fabstir.chain.deployment_record import file_of
    from fabstir.ports.chain import contract_addresses

    book = address_book()
    return {
        "network": record.network,
        "chain_id": record.chain_id,
        "addresses": contract_addresses(prepared.plan.info),
        "owner": record.owner,
        "must_accept_ownership": [] if record.owner == record.deployer else _owned(record),
        "address_book": str(book),
        "record": str(file_of(book, record.network)),
        "verification": {"standard_json": STANDARD_JSON, "contracts": record.contracts},
    }


def _owned(record: Record) -> list[str]:
    from fabstir.chain.deployment import OWNED

    return [record.contracts[name].address for name in OWNED]


def _for_people(prepared: Prepared, record: Record) -> str:
    facts = _facts(prepared, record)
    lines = [f"Deployed on {record.network} (chain {record.chain_id})."]
    lines += [f"  {name:12} {value}" for name, value in facts["addresses"].items()]
    lines += [f"Address book: {facts['address_book']}", f"Record with constructor arguments: {facts['record']}"]
    lines.append(f"For explorers: {STANDARD_JSON}")
    if facts["must_accept_ownership"]:
        lines.append(f"Next: {record.owner} calls acceptOwnership() on {', '.join(facts['must_accept_ownership'])}")
    return "\n".join(lines)
